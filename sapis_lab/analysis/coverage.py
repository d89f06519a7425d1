"""How often 95 % intervals hold the truth, by simulation.

Data sets are simulated from known laws on known lattices and fitted as `fit` does; an interval holds the true
exponent exactly when the statistic T of the fit that is held at the truth does not exceed its critical value.
So one constrained fit a data set tells what an interval would, and thousands of them go through the solver
together. The simulated critical value is computed for each data set from its own constrained optimum, as
`profiles` does at the ends of an interval: nothing of the truth enters.

A cell counts as identifiable when its design would show it nine times in ten: the Cramer-Rao interval of
every exponent at the truth is narrower than the verdict's limit and stays clear of 0 by 1.28 further standard
errors. Elsewhere the tool reports a smaller law.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sapis_lab.analysis.fit import LawFit, Points, Robust, fit_points
from sapis_lab.analysis.identify import MAX_WIDTH, MIN_EXPONENT
from sapis_lab.analysis.laws import LAWS, Array, Law
from sapis_lab.analysis.profile import profiles, simulated_cuts
from sapis_lab.analysis.refit import (
    Refits,
    Setting,
    constrained,
    needed_starts,
    noise_scales,
    refit,
    statistic,
)
from sapis_lab.analysis.search import profile_starts

LEVEL = 0.95
WANTED = (0.93, 0.97)
POWER = 1.2816
"""Standard errors between an exponent's lower limit and 0 that make it visible nine times in ten."""
CENTRE = (1e5, 1e3)
"""N and D in the middle of the lattices."""
AT_ONCE = 4000
"""Simulated data sets that go through the solver together."""


@dataclass(frozen=True)
class Truth:
    """A law by its shares of the loss in the middle of the lattice."""

    name: str
    law: str
    shares: dict[str, float]
    exponents: dict[str, float]

    @property
    def params(self) -> dict[str, float]:
        """Natural parameters of a loss of 1 in the middle of the lattice."""
        scale = {"A": CENTRE[0], "B": CENTRE[1], "C": CENTRE[0] * CENTRE[1], "E": 1.0}
        power = {"A": "alpha", "B": "beta", "C": "gamma", "E": ""}
        amplitudes = {
            k: share * scale[k] ** self.exponents.get(power[k], 0.0) for k, share in self.shares.items()
        }
        return amplitudes | self.exponents


TRUTHS = (
    Truth(
        "three terms, .5 .5 .2",
        "n+d+nd",
        {"A": 0.4, "B": 0.4, "C": 0.2},
        {"alpha": 0.5, "beta": 0.5, "gamma": 0.2},
    ),
    Truth(
        "three terms, .8 .75 .6",
        "n+d+nd",
        {"A": 0.4, "B": 0.4, "C": 0.2},
        {"alpha": 0.8, "beta": 0.75, "gamma": 0.6},
    ),
    Truth("floor, .5 .4", "n+d+e", {"A": 0.45, "B": 0.4, "E": 0.15}, {"alpha": 0.5, "beta": 0.4}),
)


@dataclass(frozen=True)
class Cell:
    """One design of the simulation."""

    truth: Truth
    side: int
    """Points along each axis."""
    decades: float
    noise: float
    """Standard deviation of ln L."""
    robust: Robust

    @property
    def points(self) -> tuple[Array, Array]:
        """N and D, (side^2,) each."""
        along = np.linspace(-0.5, 0.5, self.side) * self.decades
        x, y = np.meshgrid(along, along, indexing="ij")
        return CENTRE[0] * 10 ** x.ravel(), CENTRE[1] * 10 ** y.ravel()


@dataclass(frozen=True)
class Coverage:
    """What the intervals of one cell covered."""

    cell: Cell
    n_sets: int
    n_simulations: int
    errors: dict[str, float]
    """Cramer-Rao standard errors of the exponents at the truth."""
    identifiable: bool
    by_f: dict[str, float]
    """Share of intervals that hold the truth, with the critical value of F(1, n - p)."""
    by_simulation: dict[str, float] | None
    """The same with simulated critical values."""
    by_chi_square: dict[str, float]
    """The same with the likelihood ratio n ln(F_0 / F_1) against chi-square, the usual choice; least squares
    only, else empty."""
    n_checked: int
    """Data sets that went through `fit` and `profiles` as well."""
    n_agreed: int
    """Of those, how many had the same optimum and the same answer for alpha and beta."""
    seconds: float
    """CPU time."""

    @property
    def used(self) -> dict[str, float]:
        """The coverage of the intervals that the tool gives."""
        return self.by_simulation or self.by_f

    def deviates(self, *, standard_errors: float = 2.0) -> bool:
        """alpha or beta is covered outside 93-97 % by more than the simulation's own error."""
        slack = standard_errors * np.sqrt(LEVEL * (1 - LEVEL) / self.n_sets)
        return any(not WANTED[0] - slack <= self.used[k] <= WANTED[1] + slack for k in ("alpha", "beta"))


def cells(*, robust: Sequence[Robust] = ("none", "auto")) -> Iterator[Cell]:
    """Every design of the issue: three laws, 5 x 5 and 7 x 7, two and three decades, 2 % and 5 % noise, each
    estimator."""
    for estimator in robust:
        for truth in TRUTHS:
            for side in (5, 7):
                for decades in (2.0, 3.0):
                    for noise in (0.02, 0.05):
                        yield Cell(truth, side, decades, noise, estimator)


def quick_cells() -> Iterator[Cell]:
    """Two cells that differ in all but the lattice."""
    yield Cell(TRUTHS[0], 5, 3.0, 0.02, "none")
    yield Cell(TRUTHS[2], 5, 2.0, 0.05, "auto")


def measure(
    cell: Cell, *, n_sets: int, n_simulations: int = 0, n_checked: int = 10, seed: int = 0
) -> Coverage:
    """Simulate, fit and count.

    Args:
        n_sets: data sets.   n_simulations: behind each simulated critical value; 0 leaves these out.
            n_checked: also taken the long way.
    """
    begin = time.process_time()
    law, (N, D) = LAWS[cell.truth.law], cell.points
    generator = np.random.default_rng([seed, cell.side, int(10 * cell.decades), int(1000 * cell.noise)])
    exact = fit_points(law, Points(N, D, law.predict(cell.truth.params, N, D)), robust="none")
    truth, n, p = law.centred(cell.truth.params, centre=exact.centre), len(N), law.n_parameters
    predicted = law.log_loss(truth, exact.z)[0]
    log_loss = predicted + cell.noise * generator.standard_normal((n_sets, n))
    setting = _setting(cell, exact, truth, predicted + cell.noise * generator.standard_normal((48, n)))
    free = refit(setting, log_loss, starts=np.broadcast_to(truth, (n_sets, 1, p)))
    error = _standard_errors(law, truth, exact.z, cell.noise)
    cut = float(stats.f.ppf(LEVEL, 1, n - p))
    residuals = law.log_loss(free.theta, exact.z)[0] - log_loss
    sigma = noise_scales(residuals, free.delta, n_parameters=p)
    by_f, by_simulation, by_chi_square, inside = {}, {}, {}, {}
    for name in ("alpha", "beta"):
        position, value = law.param_names.index(name), cell.truth.exponents[name]
        held = constrained(
            setting, free, position=position, value=value, starts=np.broadcast_to(truth, (n_sets, 1, p))
        )
        T = statistic(free, held.objective)
        inside[name] = cut >= T
        by_f[name] = float(inside[name].mean())
        if cell.robust == "none":
            by_chi_square[name] = float(
                (n * np.log(held.objective / free.objective) <= stats.chi2.ppf(LEVEL, 1)).mean()
            )
        if n_simulations:
            cuts = _cuts(setting, held.theta, position, sigma, n_simulations, generator)
            by_simulation[name] = float((cuts >= T).mean())
    agreed = _agreements(cell, log_loss[:n_checked], free, inside)
    return Coverage(
        cell,
        n_sets,
        n_simulations,
        error,
        _identifiable(cell, error, n - p),
        by_f,
        by_simulation or None,
        by_chi_square,
        min(n_checked, n_sets),
        agreed,
        time.process_time() - begin,
    )


def _setting(cell: Cell, exact: LawFit, truth: Array, pilot: Array) -> Setting:
    """Starts that find the optima of data of this cell, chosen on some of them."""
    law = exact.law
    setting = Setting(law, exact.z, None, cell.robust, np.empty((0, law.n_parameters)))
    paths = np.vstack(
        [profile_starts(law, z=exact.z, log_loss=y) for y in (law.log_loss(truth, exact.z)[0], *pilot[:2])]
    )
    chosen = needed_starts(setting, paths, pilot, truth=truth)
    return Setting(law, exact.z, None, cell.robust, paths[chosen])


def _cuts(
    setting: Setting, theta: Array, position: int, sigma: Array, n_sets: int, generator: np.random.Generator
) -> Array:
    """Critical values at each constrained optimum, (M,), a few data sets at a time."""
    step = max(1, AT_ONCE // n_sets)
    parts = []
    for first in range(0, len(theta), step):
        part = slice(first, first + step)
        parts.append(
            simulated_cuts(
                setting,
                theta[part],
                position=position,
                sigma=sigma[part],
                level=LEVEL,
                n_sets=n_sets,
                generator=generator,
            )
        )
    return np.concatenate(parts)


def _standard_errors(law: Law, theta: Array, z: Array, noise: float) -> dict[str, float]:
    J = law.jacobian(theta, z)
    error = noise * np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
    return {name: float(error[law.param_names.index(name)]) for name in law.exponent_names}


def _identifiable(cell: Cell, error: dict[str, float], dof: int) -> bool:
    t = float(stats.t.ppf(0.5 + LEVEL / 2, dof))
    return all(
        2 * t * error[name] <= MAX_WIDTH and value - (t + POWER) * error[name] >= MIN_EXPONENT
        for name, value in cell.truth.exponents.items()
    )


def _agreements(cell: Cell, log_loss: Array, free: Refits, inside: dict[str, np.ndarray]) -> int:
    """How many of these data sets have the same optimum and the same answers when taken through `fit` and
    `profiles`."""
    agreed, (N, D) = 0, cell.points
    for i, y in enumerate(log_loss):
        found = fit_points(LAWS[cell.truth.law], Points(N, D, np.exp(y)), robust=cell.robust)
        ends = profiles(found, ("alpha", "beta"))
        same = abs(found.objective - free.objective[i]) <= 1e-4 * free.objective[i]
        for name, profile in ends.items():
            holds = profile.low <= cell.truth.exponents[name] <= profile.high
            same &= holds == bool(inside[name][i])
        agreed += bool(same)
    return agreed
