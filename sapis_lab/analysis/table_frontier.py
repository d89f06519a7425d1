"""The lowest loss that a cost N D buys by a fitted law, and the N and D that buy it, of any form of law.

At each cost the loss is looked at along N with D = cost / N on a grid, and the lowest value refined by a
parabola through its neighbours: no form needs a formula of its own. Training FLOPs are proportional to N D
for models of one kind that are trained one epoch (Hoffmann et al. 2022, arXiv:2203.15556, section 3.3), which
is why it is called a cost here; a law of compute has its cost in the place of N, and is its own frontier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.forecast import Forecast, forecast
from sapis_lab.analysis.laws import COMPUTE_LAWS, Array
from sapis_lab.analysis.table_fit import TableFit

REACH = 100.0
"""A frontier goes this far beyond the largest cost of the points, or to the farthest target."""
AROUND = 30.0
"""N and D are looked for within this factor of those of the points; farther out where the cost is."""
N_GRID = 801
N_COSTS = 81
N_BAND = 12


@dataclass(frozen=True)
class Frontier:
    """The best split of M costs, ascending, (M,) each."""

    cost: Array
    """N D, or C for a law of compute."""
    n_params: Array
    n_frames: Array
    loss: Array
    largest: float
    """The largest cost of the points: beyond it the law is continued."""


@dataclass(frozen=True)
class Band:
    """Forecasts of runs along a frontier, averaged over the laws, (m,) each, with 95 % intervals."""

    cost: Array
    value: Array
    low: Array
    high: Array


def costs_of(fits: TableFit) -> Array:
    """N D of the points, or C, (n,)."""
    points = fits.table.points
    return points.n_params if fits.selected in COMPUTE_LAWS else points.n_params * points.n_frames


def table_frontier(fits: TableFit, *, reach: float = REACH) -> Frontier | str:
    """The frontier of the chosen law, from the smallest cost of the points to `reach` times their largest, or
    to the farthest target; where no split inside of what is looked at is best, a clause that says so."""
    costs = costs_of(fits)
    asked = [f.n_params * f.n_frames for f in (*fits.forecasts, *(h.forecast for h in fits.held))]
    largest = float(costs.max())
    at = np.geomspace(float(costs.min()), max([reach * largest, *asked]), N_COSTS)
    fit = fits.fits[fits.selected]
    if fits.selected in COMPUTE_LAWS:
        return Frontier(at, at, np.ones(N_COSTS), fit.predict(at, np.ones(N_COSTS)), largest)
    n_params, loss, inside = best_split(fit, at)
    if not inside.any():
        return (
            f"by law {fit.law.name} no split of a cost N D is best: the loss falls to the largest or to the "
            f"smallest N that is looked at"
        )
    at, n_params, loss = at[inside], n_params[inside], loss[inside]
    return Frontier(at, n_params, at / n_params, loss, largest)


def best_split(fit: LawFit, costs: Array) -> tuple[Array, Array, np.ndarray]:
    """N of the lowest loss at each cost N D, that loss, and whether N lies inside of what was looked at, (M,)
    each."""
    points = fit.points
    around = AROUND * np.maximum(costs / float((points.n_params * points.n_frames).max()), 1.0)
    low = np.maximum(points.n_params.min() / around, costs / (points.n_frames.max() * around))
    high = np.minimum(points.n_params.max() * around, costs / (points.n_frames.min() / around))
    log_n = np.log(low)[:, None] + np.log(high / low)[:, None] * np.linspace(0.0, 1.0, N_GRID)
    y = np.log(fit.predict(np.exp(log_n), costs[:, None] / np.exp(log_n)))
    k = y.argmin(axis=1)
    inside = (k > 0) & (k < N_GRID - 1)
    j, rows = np.clip(k, 1, N_GRID - 2), np.arange(len(costs))
    left, middle, right = y[rows, j - 1], y[rows, j], y[rows, j + 1]
    bend = np.maximum(left - 2.0 * middle + right, 1e-300)
    shift = np.where(inside, np.clip(0.5 * (left - right) / bend, -1.0, 1.0), 0.0)
    best = np.exp(log_n[rows, k] + shift * (log_n[:, 1] - log_n[:, 0]))
    return best, fit.predict(best, costs / best), inside


def frontier_band(fits: TableFit, frontier: Frontier, *, n_costs: int = N_BAND) -> Band | None:
    """Forecasts at about `n_costs` costs along a frontier; None where nothing is known of the noise."""
    if not fits.averaged:
        return None
    rows = np.unique(np.linspace(0, len(frontier.cost) - 1, n_costs).round().astype(int))
    found: Sequence[Forecast] = [
        forecast(fits.fits, fits.averaged, frontier.n_params[i], frontier.n_frames[i]) for i in rows
    ]
    value, low, high = (np.array([getattr(f, name) for f in found]) for name in ("value", "low", "high"))
    return Band(frontier.cost[rows], value, low, high)
