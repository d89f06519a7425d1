"""The best settings of every cell (one model, N and D) of a sweep of learning rates, and of batch sizes where
these were swept, too: the minima of skewed bowls that are fitted to the trials of all cells together.

In x = (ln rate, ln batch), with u = x - x*_i and z = (u_1 + rho u_2, u_2), the error L of cell i is

    ln L = c_i + e^{s_i} / 2 psi[phi(z_1; a_1 + e_i) + e^k phi(z_2; a_2)],
    phi(z; a) = 2 (e^{az} - az - 1) / a^2,   psi(p; t) = ((1 + p)^t - 1) / t.

phi is z^2 where a = 0, and steeper to one side otherwise (the LINEX loss of Varian, 1975): gentle towards
low rates, steep towards those at which training breaks down; t = 1 leaves it as it is, and t < 1 lets the
walls lean outwards. The minimum is at x*_i whatever the shape. Height c_i, optimum x*_i and curvature e^{s_i}
belong to the cell, and ln curvature keeps near a power law in N and D; the shape (a, t, rho, k) is common, up
to a small e_i. So a cell whose trials do not reach round its minimum borrows from the others how steep a bowl
is.

No bowl describes trials far from its minimum. Those whose fitted depth, ln L above the minimum, exceeds a
limit T are left out, and so are those far above the bowl (beyond a cliff). T is not chosen: fits with many T
and with three freedoms of the shape (a = 0, t = 1; t = 1; none) are averaged with the weights of Jay & Neil,
Phys. Rev. D 103, 114502 (2021), arXiv:2008.01069,

    w = exp[-(chi^2 + 2 n_shape + 2 n_left_out) / 2],

chi^2 in units of the trials' noise: a neighbourhood grows as long as the bowl describes it within the noise.
The covariance of the optima has the spread between the fits in it. A floor of L only makes bowls shallower,
and depths count in units of the noise, so that no threshold refers to L itself. The noise is estimated from
repeats, or else from the residuals of the fits.

Trials that diverged are no part of a bowl: where those at the highest rates did, the optimum lies below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from sapis_lab.analysis.weighted import extra_scatter

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEPTHS = tuple(float(t) for t in 2.0 * 0.6 ** np.arange(14))
"""Limits T."""
LEAST = {1: 3, 2: 7}
"""Trials of every cell that are part of its bowl however deep they are, by the number of settings."""
CURVATURE_SPREAD = 0.4
"""Standard deviation of ln curvature about its power law in N and D."""
CURVATURE = (float(np.log(0.3)), 3.0)
"""Mean and standard deviation of the mean ln curvature, a prior so weak that only flat cells feel it."""
SKEW_SPREAD = 1.0
"""Standard deviation of a: by a, ln curvature grows where a setting grows by a factor e."""
SKEW_DIFFERS = 0.2
"""Standard deviation of e_i: with 0, intervals of exponents hold the truth too rarely (`sapis selftest
rules`)."""
WALL_SPREAD = 0.5
"""Standard deviation of t about 1."""
TILT_SPREAD, RATIO_SPREAD = 1.0, 2.0
"""Standard deviations of rho and k."""
CLIFF = 4.0
"""Standard deviations of the noise above the limit, from which a trial is no part of the bowl."""
REPEATS = 8
"""Degrees of freedom from which repeats alone say what the noise is."""
DOF_PER_CELL = 1.0
"""Degrees of freedom per cell that a fit must have left; with fewer, residuals tell little of the noise."""
NOISE_CAUTION = 6.0
"""Standard errors of ln variance added where the fit with the smallest one is chosen: with fewer the choice
falls to fits that are good by chance, and the noise comes out too small."""
LEAST_NOISE = 1e-7
RULE_SCATTER = 0.02
"""Least scatter about a power law with which optima are held near it."""


@dataclass(frozen=True)
class Sweep:
    """The trials of one cell."""

    n_params: float
    n_frames: float
    x: Array
    """ln of the settings of the trials that ended with an error, (n, d)."""
    loss: Array
    """Their errors, (n,), positive."""
    failed: Array
    """ln of the settings of the trials that diverged, (m, d)."""


@dataclass(frozen=True)
class Bowl:
    """What the fits say about one cell. The shape is that of the fit with the largest weight."""

    optimum: Array
    """x*, (d,)."""
    hessian: Array
    """Second derivatives of ln L at x*, (d, d)."""
    bottom: float
    """Fitted ln L at x*."""
    used: Mask
    """The trials in that fit, (n,)."""
    shape: Array
    """(a_1 + e_i, t) or (a_1 + e_i, a_2, t, rho, k)."""
    log_curvature: float
    """s_i."""
    clipped: bool
    """The fits have put it as far out of what was tried as they may."""

    def log_loss(self, x: Array) -> Array:
        """ln L of the bowl about the optimum at settings x (n, d), (n,)."""
        u = x - self.optimum
        return (
            self.bottom
            + np.exp(self.log_curvature)
            / 2
            * _psi(_inner(u, self.shape)[0], float(self.shape[x.shape[1]]))[0]
        )


@dataclass(frozen=True)
class Bowls:
    """The bowls of all cells."""

    bowls: tuple[Bowl, ...]
    covariance: Array
    """Of all optima, cell after cell, (n_cells d, n_cells d)."""
    working: Array
    """Optima linearised about a power law, (n_cells, d): what a power law is to be fitted to, see
    `_linearised`."""
    working_covariance: Array
    """(n_cells d, n_cells d)."""
    noise: float
    """Standard deviation of ln L of one trial."""
    noise_dof: float
    from_repeats: bool
    """The noise is that of trials with the same settings."""
    weights: dict[tuple[float, int], float]
    """Of the fits by T and freedom of the shape (0, 1, 2); those above 0.001."""

    def sd(self, k: int) -> Array:
        """Standard deviations of the optima of setting k, (n_cells,)."""
        d = self.working.shape[1]
        return np.sqrt(np.diag(self.covariance)[k::d])


@dataclass(frozen=True)
class _Data:
    """The trials of all cells."""

    cell: NDArray[np.intp]
    """Of every trial, ascending."""
    x: Array
    y: Array
    """ln L."""
    low: Array
    high: Array
    """How far optima may be put, (n_cells, d) each."""
    sizes: Array
    """Orthonormal columns that span 1, ln N and ln D of the cells, (n_cells, at most 3)."""

    @property
    def n_cells(self) -> int:
        return len(self.low)

    @property
    def d(self) -> int:
        return self.x.shape[1]

    @property
    def apart(self) -> Array:
        """Projects numbers of cells onto what no power law in N and D describes, (n_cells, n_cells)."""
        return np.eye(self.n_cells) - self.sizes @ self.sizes.T


@dataclass(frozen=True)
class _Theta:
    """Parameters: of cells c (n,), m (n, d), s (n,), e (n,), and the shape (a_1 .. a_d, t, rho, k)."""

    c: Array
    m: Array
    s: Array
    e: Array
    shape: Array

    @property
    def vector(self) -> Array:
        return np.concatenate([self.c, self.m.ravel(), self.s, self.e, self.shape])


@dataclass(frozen=True)
class _Fitted:
    theta: _Theta
    used: Mask
    rss: float
    cost: float
    """Of the prior, in units of chi^2."""
    covariance: Array
    """Of m where the noise is 1, (n_cells d, n_cells d)."""
    dof: float
    freedom: int
    depth: float


def fit_bowls(sweeps: Sequence[Sweep]) -> Bowls | str:
    """The bowls of all cells, or why there are none.

    Args:
        sweeps: at least one, all with the same number of settings, 1 or 2.
    """
    data = _together(sweeps)
    most = int(np.bincount(data.cell, minlength=data.n_cells).max())
    if most <= LEAST[data.d]:
        return f"{most} trials in a cell, a bowl wants {LEAST[data.d] + 1}"
    repeats = _repeats(data)
    noise, dof = (np.sqrt(repeats[0]), repeats[1]) if repeats[1] >= REPEATS else (_roughness(data), 0.0)
    fits: list[_Fitted] = []
    for _ in range(4):  # which trials are on a cliff, and the priors' share, depend on the noise
        fits = _fits(data, noise)
        if not fits:
            return "too few trials near the minimum to tell noise from shape"
        before = noise
        noise, dof = _noise(fits, repeats)
        if abs(np.log(noise / before)) < 0.2:
            break
    return _averaged(data, fits, noise, dof, from_repeats=repeats[1] >= REPEATS)


def _roughness(data: _Data) -> float:
    """A first guess of the noise, too large by the curvature of the bowls: the median distance of the lower
    trials from a plane through their neighbours."""
    off = []
    for k in range(data.n_cells):
        mine = data.cell == k
        x, y = data.x[mine], data.y[mine]
        x = x / np.maximum(np.ptp(x, axis=0), 1e-12)
        for i in np.flatnonzero(y <= np.quantile(y, 0.6)):
            near = np.argsort(np.sum((x - x[i]) ** 2, axis=1), kind="stable")[1 : data.d + 3]
            if len(near) == data.d + 2:
                design = np.column_stack([np.ones(len(near)), x[near] - x[i]])
                off.append(y[i] - np.linalg.lstsq(design, y[near], rcond=None)[0][0])
    return max(1.4826 * float(np.median(np.abs(off))), LEAST_NOISE) if off else 0.02


# ----------------------------------------------------------------------------------------------------- trials


def _together(sweeps: Sequence[Sweep]) -> _Data:
    low, high = np.array([s.x.min(0) for s in sweeps]), np.array([s.x.max(0) for s in sweeps])
    beyond = 0.5 * (high - low) + 0.3
    top = high + beyond
    for k, s in enumerate(sweeps):
        broken = s.failed[:, 0] > high[k, 0] + 1e-9 if len(s.failed) else np.zeros(0, bool)
        if broken.any():  # diverged trials amid others say nothing about the rate alone
            top[k, 0] = min(top[k, 0], s.failed[broken, 0].min())
    sizes = np.log([[s.n_params, s.n_frames] for s in sweeps])
    sizes = np.column_stack([np.ones(len(sweeps)), sizes - sizes.mean(0)])
    vectors, values = np.linalg.svd(sizes, full_matrices=False)[:2]
    return _Data(
        np.repeat(np.arange(len(sweeps)), [len(s.loss) for s in sweeps]),
        np.concatenate([s.x for s in sweeps]),
        np.log(np.concatenate([s.loss for s in sweeps])),
        low - beyond,
        top,
        vectors[:, values > 1e-9 * values[0]],
    )


def _repeats(data: _Data) -> tuple[float, int]:
    """Variance of ln L between trials of the same cell and settings, and its degrees of freedom. Far from the
    minimum, near a cliff, repeats differ by more and do not count."""
    keys = np.column_stack([data.cell, np.round(data.x, 9)])
    group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    n = np.bincount(group)
    mean = np.bincount(group, data.y) / n
    lowest = np.full(data.n_cells, np.inf)
    np.minimum.at(lowest, data.cell, mean[group])
    rise = mean[group] - lowest[data.cell]
    several = n[group] > 1
    if not several.any():
        return 0.0, 0
    near = several & (rise <= np.median(rise[several]))
    dof = int(near.sum()) - len(np.unique(group[near]))
    return max(float(np.sum((data.y - mean[group])[near] ** 2)) / dof, LEAST_NOISE**2), dof


# ----------------------------------------------------------------------------------------------- the function


def _phi(z: Array, a: Array | float) -> tuple[Array, Array, Array]:
    """phi and its derivatives by z and a, each (n,)."""
    t = np.clip(a * z, -40.0, 12.0)
    small = np.abs(t) < 0.02
    safe = np.where(small, 1.0, t)
    e = np.exp(safe)
    value = np.where(small, 1 + t / 3 + t * t / 12, 2 * (e - 1 - safe) / safe**2)
    slope = np.where(small, 1 + t / 2 + t * t / 6, (e - 1) / safe)
    skew = np.where(small, 1 / 3 + t / 6 + t * t / 20, 2 * (safe * e - 2 * e + safe + 2) / safe**3)
    return z * z * value, 2 * z * slope, z**3 * skew


def _psi(p: Array, t: float) -> tuple[Array, Array, Array]:
    """psi and its derivatives by p and t, each (n,)."""
    log = np.log1p(p)
    x = np.clip(t * log, -50.0, 50.0)
    small = np.abs(x) < 1e-3
    safe = np.where(small, 1.0, x)
    value = log * np.where(small, 1 + x / 2, np.expm1(safe) / safe)
    by_t = log**2 * np.where(small, 0.5 + x / 3, (safe * np.exp(safe) - np.expm1(safe)) / safe**2)
    return value, np.exp(x - log), by_t


def _inner(u: Array, shape: Array, e: Array | float = 0.0) -> tuple[Array, Array, list[Array]]:
    """The argument of psi (n,), and its derivatives by u (n, d) and by the shape without t."""
    if u.shape[1] == 1:
        p, slope, skew = _phi(u[:, 0], shape[0] + e)
        return p, slope[:, None], [skew]
    rho, k = shape[3:]
    p1, s1, k1 = _phi(u[:, 0] + rho * u[:, 1], shape[0] + e)
    p2, s2, k2 = (np.exp(k) * part for part in _phi(u[:, 1], shape[1]))
    return p1 + p2, np.column_stack([s1, rho * s1 + s2]), [k1, k2, s1 * u[:, 1], p2]


def _depth(theta: _Theta, data: _Data) -> Array:
    """Fitted ln L of every trial above the minimum of its cell, (n,)."""
    p, *_ = _inner(data.x - theta.m[data.cell], theta.shape, theta.e[data.cell])
    return np.exp(theta.s)[data.cell] / 2 * _psi(p, theta.shape[data.d])[0]


def _jacobian(theta: _Theta, data: _Data) -> Array:
    """Derivatives of ln L of every trial by all parameters, (n, n_parameters), in the order of the vector."""
    n, d, rows = data.n_cells, data.d, np.arange(len(data.y))
    p, by_u, by_shape = _inner(data.x - theta.m[data.cell], theta.shape, theta.e[data.cell])
    half = np.exp(theta.s)[data.cell] / 2
    psi, by_p, by_t = _psi(p, theta.shape[d])
    outer = half * by_p
    columns = [outer * c for c in by_shape]
    columns.insert(d, half * by_t)
    jac = np.zeros((len(rows), n * (d + 3) + len(columns)))
    jac[rows, data.cell] = 1.0
    for k in range(d):
        jac[rows, n + data.cell * d + k] = -outer * by_u[:, k]
    jac[rows, n * (d + 1) + data.cell] = half * psi
    jac[rows, n * (d + 2) + data.cell] = columns[0]
    jac[:, n * (d + 3) :] = np.column_stack(columns)
    return jac


# ---------------------------------------------------------------------------------------------------- one fit


@dataclass(frozen=True)
class _Problem:
    """Penalised least squares over some of the trials."""

    data: _Data
    freedom: int
    noise: float
    pull: Array | None = None
    """Precision of m about a power law, (n_cells d, n_cells d)."""
    curvature_spread: float = CURVATURE_SPREAD

    @cached_property
    def free(self) -> Mask:
        """Which parameters are fitted, (n_parameters,)."""
        n, d = self.data.n_cells, self.data.d
        shape = np.r_[np.full(d, self.freedom >= 1), self.freedom >= 2, np.ones(2 * (d - 1), bool)]
        return np.r_[np.ones(n * (d + 2), bool), np.full(n, self.freedom >= 1), shape]

    @cached_property
    def prior(self) -> tuple[Array, Array]:
        """Precision and mean of the prior of all parameters."""
        n, d = self.data.n_cells, self.data.d
        weak = np.array([*[SKEW_SPREAD] * d, WALL_SPREAD, TILT_SPREAD, RATIO_SPREAD][: d + 1 + 2 * (d - 1)])
        size = n * (d + 3) + len(weak)
        precision, mean = np.zeros((size, size)), np.zeros(size)
        of_s, of_e = slice(n * (d + 1), n * (d + 2)), slice(n * (d + 2), n * (d + 3))
        precision[of_s, of_s] = self.data.apart / self.curvature_spread**2 + np.eye(n) / (
            n * CURVATURE[1] ** 2
        )
        precision[of_e, of_e] = np.eye(n) / SKEW_DIFFERS**2
        precision[range(size - len(weak), size), range(size - len(weak), size)] = 1 / weak**2
        mean[of_s], mean[n * (d + 3) + d] = CURVATURE[0], 1.0
        if self.pull is not None:
            precision[n : n * (d + 1), n : n * (d + 1)] = self.pull
        return precision, mean

    def moved(self, theta: _Theta, step: Array) -> _Theta:
        """Theta after a step, no further than a curved function may be trusted, and within its limits."""
        n, d = self.data.n_cells, self.data.d
        c, m, s, e, shape = np.split(step, [n, n * (d + 1), n * (d + 2), n * (d + 3)])
        return _Theta(
            theta.c + c,
            np.clip(theta.m + np.clip(m.reshape(n, d), -0.7, 0.7), self.data.low, self.data.high),
            np.clip(theta.s + np.clip(s, -1.0, 1.0), -16.0, 6.0),
            np.clip(theta.e + np.clip(e, -0.5, 0.5), -3.0, 3.0),
            np.clip(theta.shape + np.clip(shape, -0.7, 0.7), -6.0, 6.0),
        )

    def system(self, theta: _Theta) -> tuple[Array, Array]:
        """Normal matrix and gradient of the free parameters, both times noise^2."""
        jac, free = _jacobian(theta, self.data), self.free
        precision, mean = self.prior
        residual = self.data.y - theta.c[self.data.cell] - _depth(theta, self.data)
        normal = jac.T @ jac + self.noise**2 * precision
        gradient = jac.T @ residual - self.noise**2 * (precision @ (theta.vector - mean))
        return normal[np.ix_(free, free)], gradient[free]

    def costs(self, theta: _Theta) -> tuple[float, float]:
        """Residual sum of squares, and the cost of the prior in units of chi^2."""
        residual = self.data.y - theta.c[self.data.cell] - _depth(theta, self.data)
        precision, mean = self.prior
        away = theta.vector - mean
        return float(residual @ residual), float(away @ precision @ away)


def _minimised(problem: _Problem, theta: _Theta, *, tolerance: float = 1e-4) -> _Theta:
    """Levenberg-Marquardt from theta, until chi^2 falls by less than the tolerance."""
    noise2, free, damping = problem.noise**2, problem.free, 1e-3
    rss, cost = problem.costs(theta)
    before = rss + noise2 * cost
    for _ in range(60):
        normal, gradient = problem.system(theta)
        for _ in range(12):
            step = np.zeros(len(free))
            step[free] = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), gradient)
            new = problem.moved(theta, step)
            rss, cost = problem.costs(new)
            after = rss + noise2 * cost
            if after <= before:
                break
            damping *= 5
        else:
            return theta
        theta, damping, gain, before = new, max(damping / 5, 1e-9), before - after, after
        if gain <= tolerance * noise2 + 1e-12 * before:
            break
    return theta


def _part(data: _Data, used: Mask) -> _Data:
    return replace(data, cell=data.cell[used], x=data.x[used], y=data.y[used])


def _inverse(normal: Array) -> Array:
    return np.asarray(
        np.linalg.inv(normal + 1e-12 * np.diag(np.diag(normal)) + 1e-16 * np.eye(len(normal))), np.float64
    )


# -------------------------------------------------------------------------------------- fits with every limit


def _start(data: _Data) -> _Theta:
    """The best trial of every cell, and one curvature for all."""
    n, d = data.n_cells, data.d
    c, m = np.zeros(n), np.zeros((n, d))
    for k in range(n):
        mine = np.flatnonzero(data.cell == k)
        best = mine[np.argmin(data.y[mine])]
        c[k], m[k] = data.y[best], data.x[best]
    rise = data.y - c[data.cell]
    distance = np.sum((data.x - m[data.cell]) ** 2, axis=1)
    ratio = rise[distance > 0] / distance[distance > 0]
    curvature = max(2 * float(np.median(ratio)), 1e-4) if len(ratio) else 1.0
    shape = np.array([*[0.0] * d, 1.0, *[0.0] * (2 * (d - 1))])
    return _Theta(c, m, np.full(n, np.log(curvature)), np.zeros(n), shape)


def _members(theta: _Theta, data: _Data, depth: float, noise: float) -> Mask:
    """The trials whose fitted depth is below the limit, without those on a cliff; of every cell at least
    `LEAST`."""
    depths = _depth(theta, data)
    height = data.y - theta.c[data.cell]
    too_high = (data.x[:, 0] > theta.m[data.cell, 0]) & (height - depths > CLIFF * noise)
    too_high |= height > depth + CLIFF * noise
    score = np.where(too_high, 1e3 + height, depths)
    order = np.lexsort((score, data.cell))
    first = np.searchsorted(data.cell[order], np.arange(data.n_cells))
    place = np.empty(len(score), int)
    place[order] = np.arange(len(score)) - first[data.cell[order]]
    return (score <= depth) | (place < LEAST[data.d])


def _fits(data: _Data, noise: float) -> list[_Fitted]:
    """Fits with every limit and freedom that have degrees of freedom left and differ in their trials.

    Every fit begins with one curvature for all cells: a cell left to itself may fall into a narrow bowl about
    three trials, which then leaves all others out.
    """
    fits = []
    for freedom in (0, 1, 2):
        theta, seen = _start(data), set()
        for depth in DEPTHS:
            theta = replace(theta, s=np.full(data.n_cells, theta.s.mean()), e=np.zeros(data.n_cells))
            for spread, tolerance in (
                (0.05, 0.1),
                (0.05, 0.1),
                (CURVATURE_SPREAD, 0.1),
                (CURVATURE_SPREAD, 1e-4),
            ):
                used = _members(theta, data, depth, noise)
                problem = _Problem(_part(data, used), freedom, noise, curvature_spread=spread)
                theta = _minimised(problem, theta, tolerance=tolerance)
            key = used.tobytes()
            if key in seen:
                continue
            seen.add(key)
            fitted = _judged(problem, theta, used, depth)
            if fitted.dof < max(2.0, DOF_PER_CELL * data.n_cells):
                break
            fits.append(fitted)
    return fits


def _judged(problem: _Problem, theta: _Theta, used: Mask, depth: float) -> _Fitted:
    """The fit with what its weight and its noise follow from."""
    n, d = problem.data.n_cells, problem.data.d
    inverse, free = _inverse(problem.system(theta)[0]), problem.free
    precision = problem.prior[0][np.ix_(free, free)]
    shape = n * (d + 2) + (n if problem.freedom else 0)
    precision[shape:, shape:] = 0.0  # the common shape counts as free
    # n - tr(2 H - H H^T), H the hat matrix: what residuals have left where curvatures obey their power law
    pulled = problem.noise**2 * inverse @ precision
    n_effective = len(inverse) - float(np.sum(pulled * pulled.T))
    rss, cost = problem.costs(theta)
    of_m = slice(n, n * (d + 1))
    return _Fitted(
        theta, used, rss, cost, inverse[of_m, of_m], int(used.sum()) - n_effective, problem.freedom, depth
    )


def _noise(fits: Sequence[_Fitted], repeats: tuple[float, int]) -> tuple[float, float]:
    """Standard deviation of ln L of a trial and its degrees of freedom: of repeats where there are enough,
    else of the fit whose residuals say most surely that it is small."""
    if repeats[1] >= REPEATS:
        return float(np.sqrt(repeats[0])), float(repeats[1])
    dof = np.array([f.dof for f in fits])
    variance = np.maximum([f.rss / f.dof for f in fits], LEAST_NOISE**2)
    best = int(np.argmin(np.log(variance) + NOISE_CAUTION * np.sqrt(2 / dof)))
    return float(np.sqrt(variance[best])), float(dof[best])


# ------------------------------------------------------------------------------------------------- their mean


def _averaged(data: _Data, fits: Sequence[_Fitted], noise: float, dof: float, *, from_repeats: bool) -> Bowls:
    n, d = data.n_cells, data.d
    n_shape = np.array([(0, d, d + 1)[f.freedom] for f in fits])
    left_out = np.array([np.sum(~f.used) for f in fits])
    score = np.array([f.rss / noise**2 + f.cost for f in fits]) + 2 * n_shape + 2 * left_out
    weight = np.exp(-(score - score.min()) / 2)
    weight /= weight.sum()
    # the noise is itself known from `dof` numbers only, and a bowl that misses the trials is less sure
    student = (float(student_t.ppf(0.975, dof)) / 1.959964) ** 2
    inflation = np.array([noise**2 * student * max(1.0, f.rss / noise**2 / f.dof) for f in fits])
    mean, covariance = _mixture(
        weight,
        np.array([f.theta.m.ravel() for f in fits]),
        inflation[:, None, None] * np.array([f.covariance for f in fits]),
    )
    working, working_covariance = _linearised(data, fits, weight, inflation, mean, covariance, noise)
    best = fits[int(np.argmax(weight))]
    bowls = tuple(_bowl(data, best, mean.reshape(n, d)[k], k) for k in range(n))
    shown = {(f.depth, f.freedom): float(w) for f, w in zip(fits, weight, strict=True) if w > 1e-3}
    return Bowls(
        bowls, covariance, working.reshape(n, d), working_covariance, noise, dof, from_repeats, shown
    )


def _mixture(weight: Array, means: Array, covariances: Array) -> tuple[Array, Array]:
    """Mean and covariance of a mixture of normal distributions: means (k, n), covariances (k, n, n)."""
    mean = weight @ means
    away = means - mean
    return mean, np.einsum("k,kij->ij", weight, covariances) + (weight[:, None] * away).T @ away


def _linearised(
    data: _Data,
    fits: Sequence[_Fitted],
    weight: Array,
    inflation: Array,
    mean: Array,
    covariance: Array,
    noise: float,
) -> tuple[Array, Array]:
    """Optima (n_cells d,) and their covariance by one Gauss-Newton step from fits that are held near a power
    law.

    An optimum near the edge of a search seems to be well known where the noise has put it inside, and badly
    where it has put it outside. Weights from such errors draw exponents towards zero: in simulations, by up
    to 1.5 standard errors. Taken at the power law, errors know nothing of the noise of their own optimum (as
    the working response of a generalised linear model).
    """
    n, d = data.n_cells, data.d
    if n <= data.sizes.shape[1]:
        return mean, covariance
    pull = np.zeros((n * d, n * d))
    for k in range(d):
        tau = extra_scatter(data.sizes, mean[k::d], covariance[k::d, k::d])
        pull[k::d, k::d] = data.apart / max(tau, RULE_SCATTER) ** 2
    optima, covariances, kept = [], [], np.flatnonzero(weight > 0.01)
    for f in (fits[int(i)] for i in kept):
        part = _part(data, f.used)
        theta = _minimised(_Problem(part, f.freedom, noise, pull), f.theta)
        normal, gradient = _Problem(part, f.freedom, noise).system(theta)
        inverse, of_m = _inverse(normal), slice(n, n * (d + 1))
        optima.append(theta.m.ravel() + (inverse @ gradient)[of_m])
        covariances.append(inverse[of_m, of_m])
    return _mixture(
        weight[kept] / weight[kept].sum(),
        np.array(optima),
        inflation[kept, None, None] * np.array(covariances),
    )


def _bowl(data: _Data, fitted: _Fitted, optimum: Array, k: int) -> Bowl:
    theta = fitted.theta
    shape = theta.shape.copy()
    shape[0] += theta.e[k]
    at_limit = (theta.m[k] <= data.low[k] + 1e-9) | (theta.m[k] >= data.high[k] - 1e-9)
    return Bowl(
        optimum=optimum,
        hessian=_hessian(float(np.exp(theta.s[k])), shape, data.d),
        bottom=float(theta.c[k]),
        used=fitted.used[data.cell == k],
        shape=shape,
        log_curvature=float(theta.s[k]),
        clipped=bool(at_limit.any()),
    )


def _hessian(curvature: float, shape: Array, d: int) -> Array:
    if d == 1:
        return np.array([[curvature]])
    rho, k = shape[3:]
    return curvature * np.array([[1.0, rho], [rho, rho**2 + np.exp(k)]])
