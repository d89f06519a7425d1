"""What a training costs as a function of N and D, from the costs that a study measured:

    cost(N, D) = (kappa N + fixed) D^q.

kappa N is the work that grows with the model, `fixed` the work that does not (geometry, radial functions, the
overhead of a step). Over the sizes of one study this affine form fits counted FLOPs to 2-8 %; they are no
power of N, since the secondary widths of a model do not shrink as its size does. q is 1 at a fixed number of
epochs and 0 at a fixed number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.optimum import Cost

NEAR = 0.1
"""How near to 0 or 1 a measured q must be to be taken as that."""


@dataclass(frozen=True)
class CostModel:
    """cost(N, D) = (kappa N + fixed) D^q of one model, in the unit of its column."""

    column: str
    kappa: float
    fixed: float
    power_d: float
    """q."""
    residual_sd: float
    """Standard deviation of measured / fitted - 1."""
    draws: Array
    """(R, 2) resampled kappa and fixed."""

    def of(self, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """cost(N, D), N and D broadcast against each other."""
        return (self.kappa * np.asarray(n_params, float) + self.fixed) * np.asarray(
            n_frames, float
        ) ** self.power_d

    def per_budget(self, *, label: float = 0.0) -> Cost:
        """The cost whose split `optimum` finds, with `label` for making each frame.

        Raises:
            ValueError: it is not proportional to D, or does not grow with N, so that a budget has no best
            split.
        """
        if self.power_d != 1:
            rule = "as at a fixed number of steps" if self.power_d == 0 else f"but as D^{self.power_d:.2f}"
            raise ValueError(
                f"training cost does not grow in proportion to D, {rule}: a budget has no best split between "
                f"N and D"
            )
        if self.kappa <= 0:
            raise ValueError("training cost does not grow with N: a budget has no best split between N and D")
        return Cost(self.kappa, self.fixed + label)


def cost_model(
    runs: pd.DataFrame, column: str, *, n_draws: int = 0, generator: np.random.Generator | None = None
) -> CostModel:
    """The cost of one model's points.

    Args:
        runs: rows of one model, with n_params, n_frames and the column of a cost, positive.
        n_draws: resamples of the residuals; they need a generator.
    """
    N, D, c = (runs[k].to_numpy(dtype=float) for k in ("n_params", "n_frames", column))
    q = power_of_data(N, D, c)
    unit = D**q
    kappa, fixed = _affine(N, (c / unit)[None])[0]
    fitted = kappa * N + fixed
    noise = c / unit / fitted - 1.0
    draws = np.empty((0, 2))
    if n_draws and generator is not None:
        wide = noise * np.sqrt(len(c) / max(len(c) - 2, 1))
        draws = _affine(N, fitted * (1.0 + generator.choice(wide - wide.mean(), size=(n_draws, len(c)))))
    return CostModel(column, float(kappa), float(fixed), q, float(noise.std()), draws)


def power_of_data(n_params: Array, n_frames: Array, cost: Array) -> float:
    """q, the slope of ln cost along ln D beside a parabola in ln N; 0 or 1 where it is near that, 0 where D
    does not vary."""
    x, y = (np.log(v) - np.log(v).mean() for v in (n_params, n_frames))
    q = float(
        np.linalg.lstsq(np.stack([np.ones_like(x), x, x**2, y], axis=1), np.log(cost), rcond=1e-9)[0][3]
    )
    return next((near for near in (0.0, 1.0) if abs(q - near) < NEAR), q)


def _affine(n_params: Array, cost: Array) -> Array:
    """kappa and fixed, (R, 2), neither negative, that minimise the squared relative error of kappa N + fixed
    against each row (R, n)."""
    u, v = n_params / cost, 1.0 / cost
    uu, uv, vv, us, vs = ((a * b).sum(axis=1) for a, b in ((u, u), (u, v), (v, v), (u, 1.0), (v, 1.0)))
    det = uu * vv - uv**2
    both = (
        np.stack([vv * us - uv * vs, uu * vs - uv * us], axis=1)
        / np.where(det > 1e-9 * uu * vv, det, np.inf)[:, None]
    )
    alone_n, alone_1 = (
        np.stack([us / uu, np.zeros_like(us)], axis=1),
        np.stack([np.zeros_like(vs), vs / vv], axis=1),
    )
    # the gain of u alone is us^2 / uu, of v alone vs^2 / vv
    better = np.asarray(us**2 / uu >= vs**2 / vv)
    inside = np.asarray((both > 0).all(axis=1))
    return np.where(inside[:, None], both, np.where(better[:, None], alone_n, alone_1))
