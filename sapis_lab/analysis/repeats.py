"""Laws of repeated data: what the second and the hundredth pass over the same frames are worth.

A frame that is seen again teaches less than a new one. With U distinct frames and R = epochs - 1 repeats the
law holds for

    D_eff = U (1 + R* (1 - exp(-R / R*)))

instead of D (Muennighoff et al. 2023, arXiv:2305.16264, eq. 5): each repeat is worth exp(-1/R*) of the one
before, and all together no more than R* U new frames. R* is one more parameter, fitted along its profile: for
each value of it the law is fitted as usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sapis_lab.analysis.fit import LawFit, Points, Robust, fit_points
from sapis_lab.analysis.laws import Array, Law, law_named
from sapis_lab.analysis.profile import profiles
from sapis_lab.analysis.refit import dispersion

RANGE = (0.05, 1000.0)
"""Where R* is looked for: below, repeats are worth nothing; above, as much as new frames up to thousands of
epochs."""
N_GRID = 25
N_REFINED = 40


def effective_frames(unique: ArrayLike, epochs: ArrayLike, r_star: float) -> Array:
    """D_eff of U distinct frames seen for `epochs` passes, broadcast against each other."""
    repeats = np.asarray(epochs, dtype=float) - 1.0
    return np.asarray(unique, dtype=float) * (1.0 - r_star * np.expm1(-repeats / r_star))


@dataclass(frozen=True)
class RepeatedFit:
    """A law of D_eff."""

    fit: LawFit
    """At the best R*; its `n_frames` are effective ones."""
    r_star: float
    r_star_interval: tuple[float, float]
    r_star_open: tuple[bool, bool]
    """An end on the edge of `RANGE` is no measured limit."""
    intervals: dict[str, tuple[float, float]]
    """Of the law's exponents, with R* free."""


def fit_repeated(
    law: Law | str,
    n_params: ArrayLike,
    unique: ArrayLike,
    epochs: ArrayLike,
    loss: ArrayLike,
    *,
    robust: Robust = "auto",
    level: float = 0.95,
) -> RepeatedFit:
    """Fit a law with R* beside its own parameters.

    Args:
        n_params, unique, epochs, loss: (n,) each; `unique` distinct frames seen for `epochs` passes.

    Raises:
        ValueError: no point repeats its data, so that R* is not seen, or no degree of freedom is left.
    """
    law = law_named(law) if isinstance(law, str) else law
    N, U, passes, L = (np.asarray(a, dtype=float) for a in (n_params, unique, epochs, loss))
    if not (passes > 1).any():
        raise ValueError("no point has more than one epoch; without repeats R* cannot be seen")
    dof = len(L) - law.n_parameters - 1
    if dof < 1:
        raise ValueError(
            f"{len(L)} points leave no degree of freedom to law {law.name} with R*, {law.n_parameters + 1} "
            f"parameters"
        )

    def at(r_star: float, how: Robust) -> LawFit:
        return fit_points(law, Points(N, effective_frames(U, passes, r_star), L), robust=how)

    grid = np.geomspace(*RANGE, N_GRID)
    how: Robust = robust
    if robust == "auto":
        # one threshold for all values of R*, that of the best least-squares fit
        first = [at(r, "none") for r in grid]
        best = grid[int(np.argmin([f.objective for f in first]))]
        how = at(best, "auto").delta
    fits = [at(r, how) for r in grid]
    k = int(np.argmin([f.objective for f in fits]))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    fine = np.geomspace(low, high, N_REFINED)
    near = [at(r, how) for r in fine]
    values = np.r_[grid, fine]
    order = np.argsort(values)
    values, fits = values[order], [(fits + near)[i] for i in order]
    objective = np.array([f.objective for f in fits])
    k = int(objective.argmin())
    found, r_star = fits[k], float(values[k])
    lam = float(
        dispersion(-found.residuals[None], np.array([found.delta]), n_parameters=law.n_parameters + 1)[0]
    )
    T = 2.0 * (objective - objective[k]) / lam
    cut = float(stats.f.ppf(level, 1, dof))
    interval, is_open = _hull(np.log(values), T, cut)
    inside = np.flatnonzero(cut >= T)
    looked = inside[np.unique(np.linspace(0, len(inside) - 1, 9).astype(int))]
    limits = {name: [np.inf, -np.inf] for name in law.exponent_names}
    for i in {k, *looked.tolist()}:
        # {v: min over R* of T(v, R*) <= cut} is the union over R* of {v: T at that R* <= what it leaves of
        # the cut}
        for name, profile in profiles(fits[i], law.exponent_names, cut=max(cut - T[i], 1e-6)).items():
            limits[name] = [min(limits[name][0], profile.low), max(limits[name][1], profile.high)]
    ends = (float(np.exp(interval[0])), float(np.exp(interval[1])))
    return RepeatedFit(found, r_star, ends, is_open, {k: (v[0], v[1]) for k, v in limits.items()})


def _hull(x: Array, T: Array, cut: float) -> tuple[tuple[float, float], tuple[bool, bool]]:
    """Where T first falls to the cut and where it last leaves it, between values by a straight line in
    sqrt(T)."""
    inside, root = np.flatnonzero(cut >= T), np.sqrt(np.maximum(T, 0.0))
    first, last = inside[0], inside[-1]

    def crossing(i: int, j: int) -> float:
        return float(x[i] + (np.sqrt(cut) - root[i]) / (root[j] - root[i]) * (x[j] - x[i]))

    low = float(x[0]) if first == 0 else crossing(first, first - 1)
    high = float(x[-1]) if last == len(x) - 1 else crossing(last, last + 1)
    return (low, high), (bool(first == 0), bool(last == len(x) - 1))
