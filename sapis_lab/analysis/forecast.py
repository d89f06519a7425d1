"""What a run at another N and D will give: a forecast of its loss by one law, and averaged over laws.

The interval is the profile predictive one. A run at the target is added to the points with ln L = v, and the
law fitted again; the rise of the objective over that of the points alone,

    T(v) = 2 (F_with(v) - F) / lambda,

is judged as an F of 1 and n - p. For a law linear in its parameters this is exactly Student's interval of a
new observation, T = (v - forecast)^2 / (sigma^2 (1 + h)); here it follows the law however it bends, and knows
that amplitudes and exponents cannot be negative. The new run is never taken for an outlier. Signed roots of T
against Student's distribution make a distribution of v for each law, so that laws are averaged by their
weights as distributions: what the laws disagree about is part of the interval.

Forecasts are of a run, with its noise: the interval of the loss of many such runs is narrower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sapis_lab.analysis.fit import LawFit, Points
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.profile import degrees_of_freedom, own_refit
from sapis_lab.analysis.refit import FEW_STEPS, Refits, Setting
from sapis_lab.analysis.solve import solve
from sapis_lab.analysis.table_numbers import LARGEST, SMALLEST

LEVEL = 0.95
STEPS = np.array([0.6, 1.2, 1.8, 2.4, 3.5, 8.0])
"""Where T is looked at on either side of the forecast, in its standard errors."""
MOST_MODES = 2
FARTHEST = 12.0
"""No loss is looked for more than this many e-folds from the forecast."""
NEAR = 1.0
"""Leverage of a target below which noise is most of its forecast's error."""
NEVER = 1e9
"""The Huber threshold of the run that is forecast, in those of the others."""


@dataclass(frozen=True)
class Predictive:
    """The distribution of ln L at one target for B data sets: value (B, V) ascending, root (B, V) ascending,
    the signed root of T, which follows Student's distribution with `dof` degrees of freedom."""

    value: Array
    root: Array
    dof: int
    best: Array
    """(B,) the forecast."""

    def cdf(self, value: Array) -> Array:
        """Probability of ln L below `value`, (B, W), at values (B, W)."""
        root = np.stack(
            [_line(x, v, r) for x, v, r in zip(np.atleast_2d(value), self.value, self.root, strict=True)]
        )
        return np.asarray(stats.t.cdf(root, self.dof))

    def interval(self, level: float = LEVEL) -> tuple[Array, Array]:
        """Its central interval, (B,) each."""
        end = float(stats.t.ppf(0.5 + level / 2, self.dof))
        low, high = (
            np.array(
                [float(_line(np.array([x]), r, v)[0]) for v, r in zip(self.value, self.root, strict=True)]
            )
            for x in (-end, end)
        )
        # T that no longer rises has no end
        return np.maximum(low, self.best - FARTHEST), np.minimum(high, self.best + FARTHEST)


def _line(x: Array, known: Array, value: Array) -> Array:
    """Linear interpolation, and beyond the ends on along the last piece."""
    found = np.interp(x, known, value)
    for k, (a, b) in ((0, (0, 1)), (1, (-1, -2))):
        out = x < known[0] if k == 0 else x > known[-1]
        if out.any():
            slope = (value[a] - value[b]) / (known[a] - known[b])
            found[out] = value[a] + slope * (x[out] - known[a])
    return found


def predictive(setting: Setting, fits: Refits, *, target: Array, dof: int, weight: float = 1.0) -> Predictive:
    """The predictive distributions of B fits at one target.

    Args:
        target: (K,) coordinates of the target, as the columns of `Setting.z`.   dof: degrees of freedom of
        the
            noise.   weight: precision of the new ln L, on the scale of the points' weights.
    """
    law, z = setting.law, setting.z
    B, n = fits.log_loss.shape
    p, modes = law.n_parameters, fits.modes[:, :MOST_MODES]
    best = law.log_loss(fits.theta, target[None])[0][:, 0]
    error, leverage = _errors(setting, fits, target, weight)
    steps = np.r_[-STEPS[::-1], STEPS]
    value = best[:, None] + np.clip(error, 1e-9, FARTHEST / STEPS[-1])[:, None] * steps
    if (leverage < NEAR).all():
        # so near the points the law is as good as linear, and this is Student's interval
        value = np.insert(value, len(STEPS), best, axis=1)
        return Predictive(value, (value - best[:, None]) / error[:, None], dof, best)
    V = len(steps)
    z_with = np.vstack([z, target])
    spread = np.r_[np.ones(n) if setting.spread is None else setting.spread, NEVER]
    W = np.ones((1, n)) if fits.weight is None else np.atleast_2d(fits.weight)
    W_with = np.concatenate([np.broadcast_to(W, (B, n)), np.full((B, 1), weight)], axis=1)
    y = np.concatenate(
        [np.broadcast_to(fits.log_loss[:, None], (B, V, n)), value[..., None]], axis=2
    ).reshape(B * V, n + 1)
    limits = law.bounds(fits.log_loss.mean(axis=0), z)

    def best_of(starts: Array) -> tuple[Array, Array]:
        """Optima (B, V, p) and objectives (B, V) from starts (B, V, S, p)."""
        S = starts.shape[2]
        found = solve(
            law,
            starts.reshape(-1, p),
            z=z_with,
            log_loss=np.repeat(y, S, axis=0),
            weight=np.repeat(np.repeat(W_with, V, axis=0), S, axis=0),
            delta=np.repeat(fits.delta, V * S),
            spread=spread,
            limits=limits,
            continuation=False,
            max_steps=FEW_STEPS,
        )
        F = np.where(np.isfinite(found.objective), found.objective, np.inf).reshape(B, V, S)
        pick = F.argmin(axis=2)[..., None]
        theta = np.take_along_axis(found.theta.reshape(B, V, S, p), pick[..., None], axis=2)[:, :, 0]
        return theta, np.take_along_axis(F, pick, axis=2)[..., 0]

    theta, F = best_of(np.broadcast_to(modes[:, None], (B, V, modes.shape[1], p)))
    # a valley is followed from value to value
    inner = np.r_[np.arange(1, V // 2 + 1), np.arange(V // 2 - 1, V - 1)]
    inner[V // 2 - 1], inner[V // 2] = V // 2, V // 2 - 1
    F = np.minimum(F, best_of(theta[:, inner, None])[1])
    T = np.maximum(2.0 * (F - fits.objective[:, None]) / fits.dispersion[:, None], 0.0)
    size = np.sqrt(T)
    half = V // 2
    size[:, half:] = np.maximum.accumulate(size[:, half:], axis=1)
    size[:, :half] = np.maximum.accumulate(size[:, :half][:, ::-1], axis=1)[:, ::-1]
    middle = best[:, None]
    value = np.concatenate([value[:, :half], middle, value[:, half:]], axis=1)
    root = np.concatenate([-size[:, :half], np.zeros((B, 1)), size[:, half:]], axis=1)
    # roots that do not rise would leave the inverse undefined
    root = root + 1e-9 * np.arange(root.shape[1])
    return Predictive(value, root, dof, best)


def _errors(setting: Setting, fits: Refits, target: Array, weight: float) -> tuple[Array, Array]:
    """Standard errors of a new ln L about the forecasts by the usual expansion, and leverages h of the
    target, both (B,)."""
    law = setting.law
    W = np.ones(fits.log_loss.shape[1]) if fits.weight is None else fits.weight
    J = law.jacobian(fits.theta, setting.z) * np.sqrt(W)[..., None]
    j = law.jacobian(fits.theta, target[None])[:, 0]
    scale = np.maximum(np.linalg.norm(J, axis=1), 1e-12)
    inverse = np.linalg.pinv(np.einsum("bni,bnj->bij", J / scale[:, None], J / scale[:, None]), rcond=1e-10)
    h = np.einsum("bi,bij,bj->b", j / scale, inverse, j / scale)
    h = np.maximum(h, 0.0)
    return np.sqrt(fits.dispersion * (h + 1.0 / weight)), h * weight


@dataclass(frozen=True)
class LawForecast:
    """One law's forecast of a run."""

    law: str
    value: float
    low: float
    high: float
    predictive: Predictive


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run at one N and D."""

    n_params: float
    n_frames: float
    steps: float | None
    """Number of training steps, of a table of them."""
    value: float
    """Median of the average over the laws."""
    low: float
    high: float
    """Its central 95 % interval."""
    laws: dict[str, LawForecast]
    weights: dict[str, float]
    distance: dict[str, float]
    """How far beyond the points the target lies, as factors: of N, of D, of N D, and of S; 1 inside."""


def forecast_law(fit: LawFit, n_params: float, n_frames: float, steps: float | None = None) -> LawForecast:
    """One law's forecast.

    Raises:
        ValueError: the fit has no degree of freedom, so nothing is known of the noise.
    """
    dof = degrees_of_freedom(fit)
    if dof < 1:
        raise ValueError(
            f"{len(fit.points)} points leave no degree of freedom to law {fit.law.name}; an interval of a "
            f"forecast needs more of them"
        )
    setting = Setting(fit.law, fit.z, fit.points.weight, fit.robust, np.empty((0, fit.law.n_parameters)))
    target = fit.law.coordinates(
        np.array([n_params]),
        np.array([n_frames]),
        centre=fit.centre,
        steps=None if steps is None else np.array([steps]),
    )[0]
    found = predictive(setting, own_refit(fit), target=target, dof=dof, weight=_precision(fit))
    low, high = found.interval()
    return LawForecast(
        fit.law.name,
        float(np.exp(found.best[0])),
        float(np.exp(low[0])),
        float(np.exp(high[0])),
        found,
    )


def _precision(fit: LawFit) -> float:
    """Of a new run: the median of the points' weights."""
    return 1.0 if fit.points.weight is None else float(np.median(fit.points.weight))


def average(
    forecasts: Mapping[str, Predictive],
    weights: Mapping[str, float] | Mapping[str, Array],
    *,
    level: float = LEVEL,
) -> tuple[Array, Array, Array]:
    """Median and central interval of the average of laws, (B,) each, of ln L.

    Args:
        weights: of each law, one or (B,) each; they need not sum to 1.
    """
    laws = list(forecasts)
    B = len(forecasts[laws[0]].best)
    w = np.stack([np.broadcast_to(np.asarray(weights[law], dtype=float), (B,)) for law in laws])
    w = w / w.sum(axis=0)
    ends = [forecasts[law].interval(1 - (1 - level) / 20) for law in laws]
    # every law that counts must find its tails on the common axis
    low = np.min([np.where(w[k] > 1e-4, e[0], np.inf) for k, e in enumerate(ends)], axis=0)
    high = np.max([np.where(w[k] > 1e-4, e[1], -np.inf) for k, e in enumerate(ends)], axis=0)
    axis = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, 801)
    cdf = sum(w[k][:, None] * forecasts[law].cdf(axis) for k, law in enumerate(laws))
    found = [
        np.array([np.interp(q, c, a) for c, a in zip(np.asarray(cdf), axis, strict=True)])
        for q in (0.5, (1 - level) / 2, (1 + level) / 2)
    ]
    return found[0], found[1], found[2]


def forecast(
    fits: Mapping[str, LawFit],
    weights: Mapping[str, float],
    n_params: float,
    n_frames: float,
    steps: float | None = None,
) -> Forecast:
    """The forecast of a run by each law that has a weight, and averaged."""
    total = sum(weights.values())
    kept = {name: w / total for name, w in weights.items() if name in fits}
    laws = {name: forecast_law(fits[name], n_params, n_frames, steps) for name in kept}
    found = average({name: f.predictive for name, f in laws.items()}, kept)
    value, low, high = (float(np.exp(v[0])) for v in found)
    points = next(iter(fits.values())).points
    far = distance(points, n_params, n_frames, steps)
    return Forecast(float(n_params), float(n_frames), steps, value, low, high, laws, kept, far)


def distance(
    points: Points, n_params: float, n_frames: float, steps: float | None = None
) -> dict[str, float]:
    """Factors by which a target lies beyond the points; 1 where it does not."""
    sizes = {
        "n": (points.n_params, n_params),
        "d": (points.n_frames, n_frames),
        "nd": (points.n_params * points.n_frames, n_params * n_frames),
    }
    if points.steps is not None and steps is not None:
        sizes["steps"] = (points.steps, steps)
    return {name: float(max(at / known.max(), known.min() / at, 1.0)) for name, (known, at) in sizes.items()}


def farthest(distance: Mapping[str, float], *, compute: bool) -> tuple[str, float]:
    """The size in which a target lies farthest beyond the points, and the factor; N D comes before N and D
    alone."""
    words = {"n": "C"} if compute else {"nd": "N D", "n": "N", "d": "D", "steps": "S"}
    name = max((k for k in words if k in distance), key=lambda k: distance[k])
    return words[name], distance[name]


def target(
    text: str, *, compute: bool = False, steps: bool = False, option: str = "--predict"
) -> tuple[float, ...]:
    """N and D of `n=7e9,d=4e12`, with S of `n=7e9,d=4e12,steps=1e6`, or C and 1 of `c=1e22`.

    Raises:
        ValueError: the text is no such point.
    """
    keys = ("c",) if compute else ("n", "d", "steps") if steps else ("n", "d")
    example = {"c": "c=1e22", "n": "n=7e9", "d": "d=4e12", "steps": "steps=1e6"}
    wanted = f"wanted such as {','.join(example[key] for key in keys)}"
    found: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{option} {text!r}: got {part.strip()!r}, {wanted}") from None
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{option} {text!r}: {key.strip()} is {value.strip()}, wanted a positive number")
        if not SMALLEST <= number <= LARGEST:
            raise ValueError(
                f"{option} {text!r}: {key.strip()} is {value.strip()}, wanted a number between {SMALLEST:g} "
                f"and {LARGEST:g}"
            )
        if key.strip().lower() in found:
            raise ValueError(f"{option} {text!r}: {key.strip()} stands twice, {wanted}")
        found[key.strip().lower()] = number
    if set(found) != set(keys):
        raise ValueError(f"{option} {text!r}: got {', '.join(sorted(found))}, {wanted}")
    return (found["c"], 1.0) if compute else tuple(found[key] for key in keys)
