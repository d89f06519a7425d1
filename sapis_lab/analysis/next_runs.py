"""Which runs to make next, when the aim is to forecast the loss of runs larger than any that can be paid for.

Every law m that the runs so far can carry is fitted. Of what the laws say of ln L at two places, the pool of
possible runs and the targets, the covariance is

    K(x, y) = sum_m w_m [ j_m(x)' S_m j_m(y) + (f_m(x) - f(x)) (f_m(y) - f(y)) ],    f = sum_m w_m f_m,

with j_m the gradient of ln L by the parameters and S_m their covariance: what each law does not know, and
what the laws disagree about. A run at x takes K(t, x)^2 / (K(x, x) + v(x)) from the variance at a target t
(V-optimal design; Atkinson, Donev & Tobias 2007, chapter 10), so that a run which would decide between laws
is worth what the decision means at the target. The next run is the one that takes most from all targets for
its price to the power `PRICE_POWER`. K is then K after it, without its loss, and so on: a plan of several
runs.

No law is exact. One that is right to first order about the target is wrong as the square of the distance, so
what is left of a run about the law has the variance

    v(x) = sigma^2 [1 + (r / REACH)^4],    r^2 = min_t ln(N / N_t)^2 + ln(D / D_t)^2,

in the fits as in the design: otherwise a hundred cheap runs, far below the target, decide where the law goes
there. Few runs carry a law of six parameters only with a prior, normal and wide (`_prior`): exponents like
those of published laws, not far from each other. A law has the weight

    w_m = exp(-AIC_m / 2) / sum,    AIC_m = n_s ln sigma_m^2 + 2 p_m,    n_s = (sum 1/v)^2 / sum 1/v^2,

by the number n_s of runs that have a say, not by all of them: Akaike's own weights go by how a law describes
the small runs, and are nearly always one and nought. Of `LAW_NAMES` the last bends the other way than the
two before; the first, whose two exponents are one number, is carried by a dozen runs.

`sapis selftest design` replays tables whose losses are known. The constants were chosen on the 404 smaller
runs of farseer's table (arXiv:2506.10972), the larger of which were left as targets in six ways, on losses
simulated for all of them from six laws, on the truths of `forecast_check` and on two other tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import stats

from sapis_lab.analysis.fit import Points, TooFewPoints, check_sizes
from sapis_lab.analysis.laws import Array, Centre, Law, law_named

LAW_NAMES = ("pnorm+e:tied", "pnorm+e", "n+d:cross")
MORE = {"n+d:cross": 8}
"""Runs that a law needs beyond its parameters: 1, but for laws that go far astray with fewer."""
PRICE_POWER = 0.3
"""Below 1: runs near the target teach what no number of cheap ones does."""
REACH = 1.3
"""e-folds of distance at which the misfit of a law is as large as the noise."""
N_START, START_SHARE = 9, 0.5
"""Runs before any law can be fitted, and the part of the budget that they may cost together. Cheap ones only
(a share of 3 %) say little of the targets, and what is then bought on a poor law missed most."""
GROWTH = 0.25
"""Part of the runs so far that are bought before the laws are fitted again."""
NOISE, NOISE_WEIGHT = 0.003, 4
"""Of ln L: what is known of sigma before the runs, worth so many degrees of freedom."""
LEVEL = 0.95
N_STEPS, SETTLED = 60, 1e-8
N_ROUNDS = 3
"""Of a fit with the noise that the last one left."""
MANY_CANDIDATES = 2500
GRID_SIDE = 12
"""Values of N, and of D, of a grid whose runs have too many different ones."""


@dataclass(frozen=True)
class Pool:
    """Runs that can be made, (n,) each."""

    n_params: Array
    n_frames: Array
    price: Array
    """In any unit."""

    def __len__(self) -> int:
        return len(self.price)


class Purchase(NamedTuple):
    """One run of a plan."""

    place: int
    """In the pool."""
    spent: float
    """Price of this run and of those before it in the plan."""
    sd: Array
    """Expected standard deviation of ln L of a run at each target, (T,), once this one is made."""


# ---------------------------------------------------------------------------------------------- what is known


@dataclass(frozen=True)
class ShrunkFit:
    """A law fitted under the prior."""

    law: Law
    centre: Centre
    theta: Array
    root: Array
    """(p, p), R with R R' the covariance of theta."""
    noise: float
    """sigma^2, of ln L of a run at the target."""
    n_near: float
    """(sum w)^2 / sum w^2 of the weights w = sigma^2 / v: how many runs have a say."""
    dof: float
    """What sigma^2 is known with."""

    def log_loss(self, n_params: Array, n_frames: Array) -> tuple[Array, Array]:
        """ln L, (n,), and its standard errors as the rows of (n, p), before noise."""
        z = self.law.coordinates(n_params, n_frames, centre=self.centre)
        return self.law.log_loss(self.theta, z)[0], self.law.jacobian(self.theta, z) @ self.root


def variances(n_params: Array, n_frames: Array, targets: Array) -> Array:
    """v(x) / sigma^2 of runs, (n,); targets (T, 2) of N and D."""
    x = np.log(np.stack([n_params, n_frames], axis=1))
    r = np.sqrt(((x[:, None] - np.log(targets)) ** 2).sum(axis=2).min(axis=1))
    return np.asarray(1.0 + (r / REACH) ** 4)


def shrunk(law: Law, points: Points, targets: Array) -> ShrunkFit:
    """The law under the prior, weighted towards the targets (T, 2).

    sigma^2 is that of the residuals, of n - tr[H^-1 J'J] + `NOISE_WEIGHT` degrees of freedom with H of the
    posterior and J'J of the runs: a parameter that only the prior pins down costs none (MacKay 1992).

    Raises:
        TooFewPoints: the points are too few, or all of one N or one D.
    """
    _check(law, points)
    centre = Centre.of(points.n_params, points.n_frames)
    z, y = points.coordinates(law, centre), points.log_loss
    weight = points.weights / variances(points.n_params, points.n_frames, targets)
    A, b = _prior(law, float(y.mean()))
    limits = law.bounds(y, z)
    expected = np.asarray(np.linalg.lstsq(A, b, rcond=None)[0], dtype=np.float64)
    starts = [np.clip(t, *limits) for t in _starts(law, expected)]
    noise = NOISE**2
    for _ in range(N_ROUNDS):
        scale = np.sqrt(weight / noise)
        found = [_descend(law, t, z=z, y=y, scale=scale, A=A, b=b, limits=limits) for t in starts]
        theta = min(found, key=lambda s: s[0])[1]
        J = law.jacobian(theta, z) * scale[:, None]
        known = float(np.trace(np.linalg.solve(J.T @ J + A.T @ A, J.T @ J)))
        dof = len(y) - known + NOISE_WEIGHT
        residuals = law.log_loss(theta, z)[0] - y
        noise = float((weight * residuals**2).sum() + NOISE_WEIGHT * NOISE**2) / dof
        starts = [theta]
    scale = np.sqrt(weight / noise)
    theta = _descend(law, theta, z=z, y=y, scale=scale, A=A, b=b, limits=limits)[1]
    J = law.jacobian(theta, z) * scale[:, None]
    values, directions = np.linalg.eigh(J.T @ J + A.T @ A)
    n_near = float(weight.sum() ** 2 / (weight**2).sum())
    return ShrunkFit(law, centre, theta, directions / np.sqrt(values), noise, n_near, dof)


def _check(law: Law, points: Points) -> None:
    """Enough runs for the law, of more than one N and D."""
    check_sizes(law, points)
    needed = law.n_parameters + MORE.get(law.name, 1)
    if points.n_cells < needed:
        reason = f"needs {needed} distinct (N, D) to plan with, got {points.n_cells}"
        raise TooFewPoints(law.name, reason, lacking=("n_params", "n_frames"))


def _starts(law: Law, expected: Array) -> list[Array]:
    """The parameters that the prior expects, with its exponents and with smaller and larger ones."""
    exponents = [n in law.exponent_names or n in ("alpha_0", "beta_0") for n in law.param_names]
    return [np.where(exponents, factor, 1.0) * expected for factor in (1.0, 0.4, 2.0)]


def _prior(law: Law, log_loss: float) -> tuple[Array, Array]:
    """A (k, p) and b (k,): the prior is exp(-|A theta - b|^2 / 2), for points of that mean ln L."""
    one, rows, values = np.eye(law.n_parameters), [], []

    def expect(direction: Array, mean: float, sd: float) -> None:
        rows.append(direction / sd)
        values.append(mean / sd)

    for i, name in enumerate(law.param_names):
        if name in law.exponent_names or name in ("alpha_0", "beta_0"):
            expect(one[i], 0.3, 0.3)
        elif name == "q":
            expect(one[i], 0.75, 0.7)
        elif name in ("p", "kappa"):
            expect(one[i], 0.0, 0.1)
        elif name in ("N_b", "D_b"):
            expect(one[i], 0.0, 3.0)
        elif name == "S":
            expect(one[i], log_loss + 1.0, 1.0)
        else:  # ln of a term in the middle of the points
            expect(one[i], log_loss - 1.0, 1.0 if name == "E" else 2.0)
    if {"alpha", "beta"} <= set(law.param_names):
        expect(one[law.param_names.index("alpha")] - one[law.param_names.index("beta")], 0.0, 0.2)
    return np.array(rows), np.array(values)


def _descend(
    law: Law,
    theta: Array,
    *,
    z: Array,
    y: Array,
    scale: Array,
    A: Array,
    b: Array,
    limits: tuple[Array, Array],
) -> tuple[float, Array]:
    """The lowest |scale (ln L - y)|^2 / 2 + |A theta - b|^2 / 2 from a start, and where (Levenberg and
    Marquardt)."""

    def objective(theta: Array) -> tuple[float, Array]:
        r = (law.log_loss(theta, z)[0] - y) * scale
        return float(r @ r + ((A @ theta - b) ** 2).sum()) / 2, r

    (F, r), damping = objective(theta), 1e-2
    for _ in range(N_STEPS):
        J = law.jacobian(theta, z) * scale[:, None]
        H, g = J.T @ J + A.T @ A, J.T @ r + A.T @ (A @ theta - b)
        other = np.clip(theta - np.linalg.solve(H + damping * np.diag(np.diag(H)), g), *limits)
        lower, r_other = objective(other)
        if lower < F:
            done = F - lower < SETTLED * (1.0 + F)
            theta, F, r, damping = other, lower, r_other, damping / 5
            if done:
                break
        elif (damping := 4 * damping) > 1e8:
            break
    return F, theta


@dataclass(frozen=True)
class Belief:
    """What the laws say of ln L together."""

    fits: dict[str, ShrunkFit]
    left_out: dict[str, str]
    """Laws that were asked for, and why they have no part."""

    @cached_property
    def weights(self) -> dict[str, float]:
        """w_m, which add up to 1."""
        fits = self.fits.values()
        score = np.array([f.n_near * np.log(f.noise) + 2 * f.law.n_parameters for f in fits])
        raw = np.exp(-0.5 * (score - score.min()))
        return dict(zip(self.fits, (raw / raw.sum()).tolist(), strict=True))

    @property
    def noise(self) -> float:
        """sigma^2."""
        return sum(w * self.fits[name].noise for name, w in self.weights.items())

    @property
    def half_width(self) -> float:
        """Half the 95 % interval in standard deviations, of Student's distribution."""
        dof = sum(w * self.fits[name].dof for name, w in self.weights.items())
        return float(stats.t.ppf(0.5 + LEVEL / 2, dof))

    def log_loss(self, n_params: Array, n_frames: Array) -> tuple[Array, Array]:
        """f, (n,), and rows F (n, k) with K = F F'."""
        w = np.array(list(self.weights.values()))
        said = [f.log_loss(n_params, n_frames) for f in self.fits.values()]
        mean = np.asarray(w @ np.stack([f for f, _ in said]))
        apart = [np.sqrt(w_m) * (f - mean)[:, None] for w_m, (f, _) in zip(w, said, strict=True)]
        within = [np.sqrt(w_m) * rows for w_m, (_, rows) in zip(w, said, strict=True)]
        return mean, np.hstack([*within, *apart])

    def forecast(self, targets: Array) -> tuple[Array, Array]:
        """L at targets (T, 2), (T,), and the standard deviation of ln L of a run there, (T,)."""
        mean, rows = self.log_loss(targets[:, 0], targets[:, 1])
        return np.exp(mean), np.sqrt((rows**2).sum(axis=1) + self.noise)


def believe(points: Points, targets: Array, laws: Sequence[str] = LAW_NAMES) -> Belief:
    """What the laws say after these runs; without fits where the runs are too few for any.

    Args:
        targets: (T, 2), N and D of the runs that are to be forecast.
    """
    fits, left_out = {}, {}
    for name in laws:
        try:
            fits[name] = shrunk(law_named(name), points, targets)
        except TooFewPoints as error:
            left_out[name] = error.reason
    return Belief(fits, left_out)


# ----------------------------------------------------------------------------------------------------- buying


def plan(
    belief: Belief,
    pool: Pool,
    targets: Array,
    *,
    budget: float = np.inf,
    most: int,
    free: np.ndarray | None = None,
) -> list[Purchase]:
    """The runs to make next, in order, within a budget.

    Args:
        targets: (T, 2).   free: (n,) bool, runs of the pool that are not made yet; all by default.
    """
    free = np.ones(len(pool), dtype=bool) if free is None else free.copy()
    F = belief.log_loss(pool.n_params, pool.n_frames)[1]
    G = belief.log_loss(targets[:, 0], targets[:, 1])[1]
    v = belief.noise * variances(pool.n_params, pool.n_frames, targets)
    known, spent = np.eye(F.shape[1]), 0.0
    purchases: list[Purchase] = []
    while len(purchases) < most:
        possible = free & _affordable(pool.price, budget - spent, budget)
        if not possible.any():
            break
        moved = F @ known
        gain = ((moved @ G.T) ** 2).sum(axis=1) / ((moved * F).sum(axis=1) + v)
        x = int(np.where(possible, gain / pool.price**PRICE_POWER, -1.0).argmax())
        known = known - np.outer(moved[x], moved[x]) / (moved[x] @ F[x] + v[x])
        free[x], spent = False, spent + float(pool.price[x])
        sd = np.sqrt(np.maximum(((G @ known) * G).sum(axis=1), 0.0) + belief.noise)
        purchases.append(Purchase(x, spent, sd))
    return purchases


def first_runs(
    pool: Pool,
    *,
    budget: float = np.inf,
    most: int = N_START,
    generator: np.random.Generator,
    made: tuple[Array, Array] = (np.empty(0), np.empty(0)),
) -> list[int]:
    """Runs to begin with, spread over N and D: each the farthest from those before it, among the runs of
    which so many may be had for `START_SHARE` of the budget (the cheaper quarter of the pool where there is
    none). The first one is the farthest from the runs that are `made`, N and D; drawn where there are none.
    """
    x, before = (np.log(np.stack(sizes, axis=1)) for sizes in ((pool.n_params, pool.n_frames), made))
    cheap = np.argsort(pool.price, kind="stable")
    limit = START_SHARE * budget / most if np.isfinite(budget) else pool.price[cheap[(len(pool) - 1) // 4]]
    possible = np.flatnonzero(pool.price <= limit)
    if len(possible) < most:
        within = np.cumsum(pool.price[cheap]) <= budget * (1 + 1e-12)
        possible = cheap[within][:most]
    if not len(possible):
        return []
    chosen = [] if len(before) else [int(generator.choice(possible))]
    while len(chosen) < min(most, len(possible)):
        known = np.concatenate([before, x[chosen]])
        apart = ((x[possible][:, None] - known) ** 2).sum(axis=2).min(axis=1)
        apart[np.isin(possible, chosen)] = -1.0
        chosen.append(int(possible[apart.argmax()]))
    return chosen


def _affordable(price: Array, left: float, budget: float) -> np.ndarray:
    return np.asarray(price <= left + 1e-12 * (budget if np.isfinite(budget) else 0.0))


def campaign(
    pool: Pool,
    loss: Array,
    targets: Array,
    *,
    budgets: Sequence[float],
    generator: np.random.Generator,
    laws: Sequence[str] = LAW_NAMES,
) -> list[list[int]]:
    """What is bought out of a pool whose losses, (n,), are seen once they are paid: the runs, in order, that
    have been made when each of the ascending budgets is spent."""
    bought = first_runs(pool, budget=budgets[0], generator=generator)
    free, found = np.ones(len(pool), dtype=bool), []
    for budget in budgets:
        while True:
            free[bought] = False
            left = budget - float(pool.price[bought].sum())
            points = Points(pool.n_params[bought], pool.n_frames[bought], loss[bought])
            belief, most = believe(points, targets, laws), max(1, int(GROWTH * len(bought)))
            if belief.fits:
                more = [p.place for p in plan(belief, pool, targets, budget=left, most=most, free=free)]
            else:  # the cheapest runs, until a law can be fitted
                cheap = np.flatnonzero(free & _affordable(pool.price, left, budget))
                more = [int(cheap[pool.price[cheap].argmin()])] if len(cheap) else []
            if not more:
                break
            bought = bought + more
        found.append(bought)
    return found


# ----------------------------------------------------------------------------------------------------- a pool


def grid_around(n_params: Array, n_frames: Array) -> tuple[Array, Array]:
    """N and D of all combinations within the runs and one step beyond them, (n,) each.

    The values are those of the runs, or, where these make too many combinations, evenly spaced in ln.
    """
    sides = [_with_a_step(np.unique(v)) for v in (n_params, n_frames)]
    if len(sides[0]) * len(sides[1]) > MANY_CANDIDATES:
        sides = [
            _with_a_step(np.geomspace(v.min(), v.max(), GRID_SIDE) if len(np.unique(v)) > 1 else np.unique(v))
            for v in (n_params, n_frames)
        ]
    n, d = (a.ravel() for a in np.meshgrid(*sides, indexing="ij"))
    return n, d


def _with_a_step(values: Array) -> Array:
    """Ascending values, and one before and behind them as far away as their typical neighbours; 2 where
    there is one value."""
    step = float(np.exp(np.median(np.diff(np.log(values))))) if len(values) > 1 else 2.0
    return np.r_[values[0] / step, values, values[-1] * step]
