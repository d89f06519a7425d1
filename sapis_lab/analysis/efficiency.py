"""How much more one model must spend than another to reach the same error: the fair form of accuracy per
FLOP.

(1 / MAE_E) / FLOPs compares models only at equal budget. Here the cheapest (N, D) that reaches an error is
found for each model from its law and its costs, and the ratio of the two costs is the answer, at every error
that both reach within their lattices:

    ratio(error) = min { cost_model(N, D) : L_model(N, D) <= error } / min { cost_reference(N, D) :
    L_reference(N, D) <= error }.

Costs are training FLOPs, training CPU seconds, inference FLOPs and labels (the cost D). Bands come from draws
of both laws and both costs. A draw in which a model does not reach the error within its lattice counts as an
infinite cost, so that an end may be open.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sapis_lab.analysis.costs import CostModel, cost_model
from sapis_lab.analysis.fit import LawFit, Points, Robust, fit_points
from sapis_lab.analysis.laws import Array, law_named
from sapis_lab.analysis.selection import select
from sapis_lab.analysis.uncertainty import Bootstrap, bootstrap

COSTS = ("flops_train", "cpu_seconds_train", "flops_inference_per_frame", "n_frames")
N_LEVELS = 9
N_DRAWS = 400
N_SIZES = 17
"""Sizes among which the cheapest is sought: steps of 20 % in N over a decade and a half, which costs at most
0.5 % (`optimum.waste`)."""
HALVINGS = 24


@dataclass(frozen=True)
class Reach:
    """One model as its law and its lattice describe it."""

    model: str
    fit: LawFit
    draws: Array
    """(R, p) natural parameters."""
    costs: dict[str, CostModel]

    @property
    def n_range(self) -> tuple[float, float]:
        return float(self.fit.points.n_params.min()), float(self.fit.points.n_params.max())

    @property
    def d_range(self) -> tuple[float, float]:
        return float(self.fit.points.n_frames.min()), float(self.fit.points.n_frames.max())

    @property
    def errors(self) -> tuple[float, float]:
        """The lowest and the highest error of its law on its lattice."""
        (n0, n1), (d0, d1) = self.n_range, self.d_range
        return float(self.fit.predict(n1, d1)), float(self.fit.predict(n0, d0))


@dataclass(frozen=True)
class EqualError:
    """Cost of a model over that of the reference at equal error, arrays (m,), errors descending."""

    model: str
    reference: str
    quantity: str
    """The error: a key of `quantities`."""
    cost: str
    """The cost: a column of the runs table."""
    error: Array
    ratio: Array
    low: Array
    high: Array
    """95 % band; inf (or 0 for low) where a draw of either law does not reach the error."""
    at_edge: np.ndarray
    """(m,) bool: the cheapest point of one of them is the smallest size (or data) of the lattice, and a
    smaller one might be cheaper."""
    why_not: str | None = None
    """Why there is no ratio; the arrays are then empty."""

    def middle(self) -> tuple[float, float, float, float] | None:
        """Error, ratio and its interval in the middle of the range that the lattice's edge does not decide;
        None where it decides all."""
        inner = np.flatnonzero(~self.at_edge)
        if not inner.size:
            return None
        k = int(inner[len(inner) // 2])
        return float(self.error[k]), float(self.ratio[k]), float(self.low[k]), float(self.high[k])


def reach(
    runs: pd.DataFrame,
    *,
    quantity: str,
    laws: Sequence[str],
    robust: Robust,
    seed: int,
    fitted: tuple[LawFit, Bootstrap] | None = None,
) -> Reach | None:
    """The law of one model's points with draws, and its costs; None where no law can be fitted with a band.

    Args:
        runs: usable rows of one model.   fitted: the law and draws where they are known already.
    """
    name = str(runs["model"].iloc[0])
    stream = np.random.default_rng([seed, zlib.crc32(f"{name}/{quantity}/efficiency".encode())])
    if fitted is None:
        fitted = _fit(runs, quantity, laws, robust, stream)
    if fitted is None or len(fitted[1].params) < 2:
        return None
    fit, boot = fitted
    columns = [c for c in COSTS if c in runs and (runs[c] > 0).all()]
    costs = {c: cost_model(runs, c, n_draws=N_DRAWS, generator=stream) for c in columns if c != "n_frames"}
    costs["n_frames"] = CostModel("n_frames", 0.0, 1.0, 1.0, 0.0, np.tile([0.0, 1.0], (N_DRAWS, 1)))
    return Reach(name, fit, boot.params[np.arange(N_DRAWS) % len(boot.params)], costs)


def _fit(
    runs: pd.DataFrame, quantity: str, laws: Sequence[str], robust: Robust, stream: np.random.Generator
) -> tuple[LawFit, Bootstrap] | None:
    rows = runs[np.isfinite(runs[quantity]) & (runs[quantity] > 0)]
    points = Points(*(rows[c].to_numpy(dtype=float) for c in ("n_params", "n_frames", quantity)))
    found = {}
    for law in laws:
        try:
            found[law] = fit_points(law_named(law), points, robust=robust)
        except ValueError:
            continue  # too few points for this law
    chosen = select(found)[0]
    if chosen is None or found[chosen].degrees_of_freedom < 1:
        return None
    return found[chosen], bootstrap(found[chosen], n_resamples=N_DRAWS, generator=stream)


def equal_error(model: Reach, reference: Reach, *, quantity: str) -> tuple[EqualError, ...]:
    """The ratio of each cost that both have, at `N_LEVELS` errors that both laws reach on their lattices, the
    largest first."""
    ours, theirs = model.errors, reference.errors
    low, high = max(ours[0], theirs[0]), min(ours[1], theirs[1])
    costs = [c for c in COSTS if c in model.costs and c in reference.costs]
    if not low < high:
        reason, nothing = "the errors that the two reach on this lattice do not overlap", np.empty(0)
        empty = (nothing, nothing, nothing, nothing, nothing.astype(bool))
        return tuple(
            EqualError(model.model, reference.model, quantity, cost, *empty, reason) for cost in costs
        )
    error = np.geomspace(high, low, N_LEVELS + 2)[1:-1]
    fits = [
        Level.of(r, np.array([[r.fit.params[k] for k in r.fit.law.param_names]]), error)
        for r in (model, reference)
    ]
    many = [Level.of(r, r.draws, error) for r in (model, reference)]
    found = []
    for cost in costs:
        known = model.costs[cost], reference.costs[cost]
        (mine, edge), (other, other_edge) = (
            level.cheapest(k, draws=False) for level, k in zip(fits, known, strict=True)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = [level.cheapest(k, draws=True)[0] for level, k in zip(many, known, strict=True)]
            ratio = drawn[0] / drawn[1]
        best, ends = (
            (mine / other)[0],
            np.array([_percentiles(column[~np.isnan(column)]) for column in ratio.T]),
        )
        # a band of the ratio holds the ratio
        low, high = (
            np.minimum(ends[:, 0], best),
            np.maximum(ends[:, 1], best),
        )
        found.append(
            EqualError(
                model.model, reference.model, quantity, cost, error, best, low, high, (edge | other_edge)[0]
            )
        )
    return tuple(found)


def _percentiles(values: Array) -> tuple[float, float]:
    # an order statistic, since an interpolation between infinite values is no number
    low, high = np.percentile(values, [2.5, 97.5], method="nearest") if len(values) else (0.0, np.inf)
    return float(low), float(high)


@dataclass(frozen=True)
class Level:
    """The lines L(N, D) = error on a lattice, for R draws of a law, m errors and s sizes from the smallest
    that can reach it."""

    log_n: Array
    """(R, m, s)."""
    log_d: Array
    reached: np.ndarray
    """(R, m) bool."""
    corner: tuple[float, float]
    """ln of the smallest N and D of the lattice."""

    @classmethod
    def of(cls, model: Reach, params: Array, error: Array) -> Level:
        """params: (R, p) natural parameters of the law.   error: (m,)."""
        law, (n0, n1), (d0, d1) = model.fit.law, np.log(model.n_range), np.log(model.d_range)
        amplitude = np.log(np.maximum(params[:, : law.n_terms], 1e-300))
        decay = law.exponents(params)
        shape = (len(params), len(error))
        target = np.broadcast_to(error, shape)

        def loss(x: Array, y: Array) -> Array:
            """L at ln N and ln D, (R, m, ...)."""
            total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
            for k, t in enumerate(law.terms):
                a, s = (v[:, k].reshape(-1, *(1,) * (total.ndim - 1)) for v in (amplitude, decay))
                total += np.exp(a - s * (t.power_n * x + t.power_d * y))
            return total

        everywhere = np.ones(shape)
        smallest = _falling(lambda x: loss(x, d1 * everywhere), n0 * everywhere, n1 * everywhere, target)
        largest = _falling(lambda x: loss(x, d0 * everywhere), n0 * everywhere, n1 * everywhere, target)
        x = smallest[..., None] + (largest - smallest)[..., None] * np.linspace(0.0, 1.0, N_SIZES)
        whole = np.ones(x.shape)
        y = _falling(lambda v: loss(x, v), d0 * whole, d1 * whole, target[..., None] * whole)
        return cls(
            x, y, loss(n1 * everywhere, d1 * everywhere) <= target * (1 + 1e-9), (float(n0), float(d0))
        )

    def cheapest(self, cost: CostModel, *, draws: bool) -> tuple[Array, np.ndarray]:
        """The lowest cost of reaching each error, (R, m), inf where it is not reached, and whether the
        lattice's small edge decides it."""
        kappa, fixed = (cost.draws.T if draws else np.array([[cost.kappa], [cost.fixed]]))[..., None, None]
        spent = (kappa * np.exp(self.log_n) + fixed) * np.exp(cost.power_d * self.log_d)
        best = spent.argmin(axis=-1)[..., None]
        at = [np.take_along_axis(v, best, axis=-1)[..., 0] for v in (spent, self.log_n, self.log_d)]
        edge = (cost.kappa > 0) & (at[1] < self.corner[0] + 1e-4) | (cost.power_d > 0) & (
            at[2] < self.corner[1] + 1e-4
        )
        return np.where(self.reached, at[0], np.inf), edge


def _falling(loss: Callable[[Array], Array], low: Array, high: Array, target: Array) -> Array:
    """Where a falling function meets its target, by bisection; the nearest end of the range where it does
    not."""
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = loss(middle) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high
