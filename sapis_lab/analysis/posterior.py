"""What a table of runs says about its law before it says much: a posterior on a grid of exponents, for
decisions.

A fit answers with one law and an interval; to choose the next run one needs the mean of a gain over
everything that the points still allow. The exponents lie on a grid, the amplitudes follow from each cell
(non-negative least squares of the relative error, exact), and the noise is integrated out. With m = n - K +
nu degrees of freedom and residual sum of squares q in a cell,

    ln p(cell | data) = -m/2 ln(q + nu s0^2) + ln p(exponents),

which counts each amplitude as a free parameter whose share of the loss may be anything (without the
determinant, that is a unit-information prior). Laws are averaged by the sum of this over their cells. No
starts, no chains: a second valley is simply another part of the grid. Once the runs say much, the posterior
is narrower than a cell of the grid over everything: a second and a third grid of as many cells cover the
smallest box that holds it (`LIKELY`), each cell weighted by its volume, so that laws and grids stay
comparable.

The prior is weak in the exponents, ln alpha ~ N(ln 0.45, 0.8^2), and less so in their ratio, ln(alpha/beta) ~
0.3 t_2: free exponents extrapolate two to three times worse from small runs than shrunk ones do, unless the
data object. They do object where, without that prior, equal exponents lie in a tail of less than `EXCLUDED`;
it is dropped then.

Draws make it usable: cells in proportion to their weight (systematically, so that 256 of them serve as well
as thousands at random), moved within the cell, the noise from its inverse-gamma, the amplitudes from their
normal distribution truncated at zero. The seed is fixed: equal tables give equal draws, and so equal
decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from sapis_lab.analysis.laws import LAWS, Array, Centre, Law
from sapis_lab.analysis.optimum import Cost, Optimum, optimum
from sapis_lab.analysis.search import project_amplitudes

UNION = LAWS["n+d+nd+e"]
"""Draws of all laws are kept in its parameters; a term that a law lacks has amplitude 0."""
AVERAGED = ("n+d", "n+d+e", "n+d+nd")
GRIDS = {2: np.geomspace(0.05, 2.0, 40), 3: np.geomspace(0.05, 2.0, 12)}
"""Values of an exponent, by the number of exponents of the law."""
LIKELY = (30.0, 14.0, 14.0)
"""How far below the best cell a cell may lie, in log probability, to be in the next finer grid; further for
the whole grid, which is so coarse that a sharp posterior may lie between its cells."""
EXCLUDED = 1e-3
SWEEPS = 6
"""Of the Gibbs sampler that truncates two to four correlated amplitudes; it starts at their best values."""
SMALLEST = 1e-12
"""Of the loss: an absent term."""


@dataclass(frozen=True)
class Prior:
    """What is believed before the first run; the defaults are those of the docstring above."""

    exponent: float = 0.45
    """Median of alpha, beta and gamma."""
    exponent_spread: float = 0.8
    """Standard deviation of their logarithms."""
    ratio_spread: float = 0.3
    """Scale of ln(alpha/beta), Student's t with 2 degrees of freedom."""
    noise: float = 0.03
    """s0: standard deviation of ln L between seeds."""
    noise_weight: float = 1.0
    """nu: how many measurements that guess counts for."""


@dataclass(frozen=True)
class Posterior:
    """Draws of the law and of the noise, R of them, all equally likely."""

    params: Array
    """(R, 7) in the order of `UNION.param_names`, amplitudes in the unit of the loss."""
    noise: Array
    """(R,) standard deviation of ln L of one run."""
    probability: dict[str, float]
    """Of each law."""
    ratio_prior: bool
    """The prior on alpha/beta is in force; False: the data exclude equal exponents, and it was dropped."""
    normal: Array
    """(R,) standard normal deviates, for predictions of a single run."""

    def __len__(self) -> int:
        return len(self.noise)

    def column(self, name: str) -> Array:
        """(R,) draws of one parameter."""
        return self.params[:, UNION.param_names.index(name)]

    @cached_property
    def exponent_sum(self) -> float:
        """Mean of alpha + beta, which turns an error of ln N into wasted compute."""
        return float(np.mean(self.column("alpha") + self.column("beta")))

    def log_loss(self, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """ln L at points (m,), for every draw: (R, m)."""
        x, y = np.broadcast_arrays(np.log(np.atleast_1d(n_params)), np.log(np.atleast_1d(n_frames)))
        total = np.zeros((len(self), x.size))
        for k, (term, slot) in enumerate(zip(UNION.terms, UNION.slots, strict=True)):
            if slot is None:
                total += self.params[:, k : k + 1]
            else:
                total += self.params[:, k : k + 1] * np.exp(
                    -self.params[:, slot : slot + 1] * (term.power_n * x + term.power_d * y)
                )
        return np.log(total)

    def predict(self, n_params: float, n_frames: float, *, level: float = 0.95) -> tuple[float, float, float]:
        """Median and interval of the loss that one more run at (N, D) would measure."""
        values = np.exp(self.log_loss(n_params, n_frames)[:, 0] + self.noise * self.normal)
        low, middle, high = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
        return float(middle), float(low), float(high)

    def optimum(self, budget: ArrayLike, cost: Cost) -> Optimum:
        """N* and D* of budgets (m,) for every draw, arrays (R, m)."""
        return optimum(UNION, self.params, budget, cost)

    def gain(self, now: tuple[float, float], n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """ln L(now) - ln L(N, D) at points (m,), (R, m): what moving there gains."""
        return self.log_loss(*now) - self.log_loss(n_params, n_frames)

    def information(self, quantity: Array, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """By how much one measurement at each point (m,) would shrink the variance of `quantity` (R,), (m,).

        To first order (linear regression of the quantity on what is measured), Var -> Var - Cov(q, ln L)^2 /
        (Var(ln L) + sigma^2): no data are simulated, and a repeat of a point that is there already is a
        measurement like any other.
        """
        predicted = self.log_loss(n_params, n_frames)
        centred = predicted - predicted.mean(axis=0)
        covariance = (centred * (quantity - quantity.mean())[:, None]).mean(axis=0)
        return covariance**2 / ((centred**2).mean(axis=0) + np.mean(self.noise**2))


@dataclass(frozen=True)
class _Cells:
    """A grid of one law."""

    law: Law
    exponents: Array
    """(G, J)."""
    log_likelihood: Array
    """(G,), up to a constant of the number of points."""
    log_prior: Array
    """(G,) of the exponents without their ratio: density times volume of the cell, of one whole grid."""
    log_ratio_prior: Array
    """(G,) what the prior on the ratio multiplies it by."""
    steps: Array
    """(J,) of the grid in the logarithm of each exponent."""

    def log_weight(self, ratio_prior: bool) -> Array:
        """Log posterior probability of each cell, up to the constant that all laws share."""
        return self.log_likelihood + self.log_prior + (self.log_ratio_prior if ratio_prior else 0.0)

    @property
    def log_ratio(self) -> Array:
        """ln(alpha/beta)."""
        return np.asarray(np.log(self.exponents[:, 0] / self.exponents[:, 1]))


def posterior(
    n_params: ArrayLike,
    n_frames: ArrayLike,
    loss: ArrayLike,
    *,
    laws: Sequence[str] = AVERAGED,
    prior: Prior = Prior(),  # noqa: B008  (frozen)
    n_draws: int = 256,
    seed: int = 0,
) -> Posterior:
    """What the runs say about the law.

    Args:
        n_params, n_frames, loss: (n,) each, of finished runs; seeds of one (N, D) are rows of their own.
        laws: what is averaged over; each has a term in N and one in D.   seed: of the draws.

    Raises:
        ValueError: fewer points than the simplest law has parameters, or all of one N or one D.
    """
    N, D, L = (np.asarray(a, dtype=float) for a in (n_params, n_frames, loss))
    fewest = min(LAWS[name].n_parameters for name in laws)
    if len(L) < fewest or len(np.unique(N)) < 2 or len(np.unique(D)) < 2:
        raise ValueError(
            f"a law of N and D needs {fewest} runs with two sizes and two amounts of data, got {len(L)} runs "
            f"with "
            f"{len(np.unique(N))} and {len(np.unique(D))}"
        )
    centre = Centre.of(N, D)
    lattices = [_Lattice(LAWS[name], N, D, L, centre, prior) for name in laws if LAWS[name].n_terms < len(L)]
    grids = [lattice.closer(lattice.whole(), ratio_prior=False) for lattice in lattices]
    kept = not _excluded(grids)
    if kept:
        grids = [
            lattice.closer(grid, ratio_prior=True) for lattice, grid in zip(lattices, grids, strict=True)
        ]
    weights = [grid.log_weight(kept) for grid in grids]
    evidence = np.array([special.logsumexp(w) for w in weights])
    share = np.exp(evidence - special.logsumexp(evidence))
    generator = np.random.default_rng(seed)
    which, cell = _systematic(weights, n_draws, generator)
    params = np.zeros((n_draws, UNION.n_parameters))
    params[:, UNION.n_terms :] = 1.0
    noise = np.empty(n_draws)
    for k, grid in enumerate(grids):
        mine = np.flatnonzero(which == k)
        if mine.size:
            params[mine], noise[mine] = _drawn(grid, cell[mine], N, D, L, centre, prior, generator)
    probability = {g.law.name: float(p) for g, p in zip(grids, share, strict=True)}
    return Posterior(
        params,
        noise,
        probability,
        kept,
        generator.permutation(_normal_scores(n_draws)),
    )


class _Lattice:
    """Grids of one law over one table, ever finer where the posterior is."""

    def __init__(self, law: Law, N: Array, D: Array, L: Array, centre: Centre, prior: Prior) -> None:
        self.law, self.prior, self.n = law, prior, len(L)
        self.z, self.log_loss = law.coordinates(N, D, centre=centre), np.log(L)
        self.axis = GRIDS[len(law.exponent_names)]
        exponents, volume = self._exponents([self.axis] * len(law.exponent_names))
        density = self._log_density(exponents)
        self.norm = special.logsumexp(density) + volume
        self.ratio_norm = special.logsumexp(density + self._log_ratio_density(exponents)) + volume - self.norm

    def whole(self) -> _Cells:
        """Over everything that is thought possible."""
        return self._cells([self.axis] * len(self.law.exponent_names))

    def closer(self, cells: _Cells, *, ratio_prior: bool) -> _Cells:
        """The smallest box of cells that holds the posterior, with a grid of its own."""
        for within in LIKELY:
            weight = cells.log_weight(ratio_prior)
            likely = np.log(cells.exponents[weight > weight.max() - within])
            low = np.maximum(likely.min(axis=0) - cells.steps, np.log(self.axis[0]))
            high = np.minimum(likely.max(axis=0) + cells.steps, np.log(self.axis[-1]))
            steps = (high - low) / (len(self.axis) - 1)
            if np.all(steps > 0.7 * cells.steps):
                break  # the box is about the grid's own: nothing to gain
            cells = self._cells(
                [np.exp(np.linspace(a, b, len(self.axis))) for a, b in zip(low, high, strict=True)]
            )
        return cells

    def _cells(self, axes: Sequence[Array]) -> _Cells:
        exponents, volume = self._exponents(axes)
        _, half = project_amplitudes(self.law, exponents, z=self.z, log_loss=self.log_loss)
        rss = np.maximum(2 * half, 0.0) + self.prior.noise_weight * self.prior.noise**2
        m = self.n - self.law.n_terms + self.prior.noise_weight
        likelihood = special.gammaln(m / 2) - m / 2 * np.log(rss / 2)
        log_prior = self._log_density(exponents) + volume - self.norm
        ratio = self._log_ratio_density(exponents) - self.ratio_norm
        return _Cells(
            self.law, exponents, likelihood, log_prior, ratio, np.array([np.log(a[1] / a[0]) for a in axes])
        )

    @staticmethod
    def _exponents(axes: Sequence[Array]) -> tuple[Array, float]:
        """(G, J), and the log volume of a cell."""
        cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        return cells, float(sum(np.log(np.log(a[1] / a[0])) for a in axes))

    def _log_density(self, exponents: Array) -> Array:
        off = np.log(exponents / self.prior.exponent) / self.prior.exponent_spread
        return np.asarray(-0.5 * (off**2).sum(axis=1))

    def _log_ratio_density(self, exponents: Array) -> Array:
        return np.asarray(
            stats.t.logpdf(np.log(exponents[:, 0] / exponents[:, 1]) / self.prior.ratio_spread, 2)
        )


def _excluded(grids: list[_Cells]) -> bool:
    """Without the prior on the ratio, equal exponents lie in a tail."""
    weights = [grid.log_weight(False) for grid in grids]
    top = max(w.max() for w in weights)
    total = sum(np.exp(w - top).sum() for w in weights)
    above = (
        sum(
            (np.exp(w - top) * (0.5 + 0.5 * np.sign(g.log_ratio))).sum()
            for g, w in zip(grids, weights, strict=True)
        )
        / total
    )
    return bool(min(above, 1 - above) < EXCLUDED)


def _systematic(
    weights: list[Array], n_draws: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Law and cell of each draw: equally spaced in the cumulated weight."""
    everything = np.concatenate(weights)
    cumulated = np.cumsum(np.exp(everything - everything.max()))
    at = np.searchsorted(cumulated, (np.arange(n_draws) + generator.uniform()) / n_draws * cumulated[-1])
    at = np.minimum(at, len(everything) - 1)
    first = np.cumsum([0, *(len(w) for w in weights)])
    which = np.searchsorted(first, at, side="right") - 1
    return which, at - first[which]


def _drawn(
    grid: _Cells,
    cell: np.ndarray,
    N: Array,
    D: Array,
    L: Array,
    centre: Centre,
    prior: Prior,
    generator: np.random.Generator,
) -> tuple[Array, Array]:
    """Draws from cells (R,): parameters of `UNION`, (R, 7), and noise, (R,)."""
    law, R, n = grid.law, len(cell), len(L)
    moved = grid.steps * generator.uniform(-0.5, 0.5, (R, len(law.exponent_names)))
    exponents = grid.exponents[cell] * np.exp(moved)
    z = law.coordinates(N, D, centre=centre)
    padded = law.exponents(np.hstack([np.zeros((R, law.n_terms)), exponents]))
    basis = np.exp(-padded[:, None, :] * z - np.log(L)[:, None])  # R draws, n points, K terms
    gram, linear = np.einsum("rnk,rnl->rkl", basis, basis), basis.sum(axis=1)
    start, half = project_amplitudes(law, exponents, z=z, log_loss=np.log(L))
    m = n - law.n_terms + prior.noise_weight
    rss = np.maximum(2 * half, 0.0) + prior.noise_weight * prior.noise**2
    noise = np.sqrt(rss / generator.chisquare(m, R))
    amplitude = _truncated(gram, linear, start, noise, generator)
    natural = np.hstack([amplitude * np.exp(padded * law.centres(centre)), exponents])
    params = np.zeros((R, UNION.n_parameters))
    params[:, UNION.n_terms :] = 1.0
    for name, values in zip(law.param_names, natural.T, strict=True):
        params[:, UNION.param_names.index(name)] = values
    return params, noise


def _truncated(
    gram: Array, linear: Array, start: Array, noise: Array, generator: np.random.Generator
) -> Array:
    """Amplitudes (R, K) from the normal distribution of precision gram / noise^2 about the least-squares
    solution, truncated at 0."""
    x = start.copy()
    K = x.shape[1]
    floor = SMALLEST / np.sqrt(gram[:, range(K), range(K)])
    for _ in range(SWEEPS):
        for k in range(K):
            others = (gram[:, k] * x).sum(axis=1) - gram[:, k, k] * x[:, k]
            mean, sd = (linear[:, k] - others) / gram[:, k, k], noise / np.sqrt(gram[:, k, k])
            # the part of a normal distribution above 0, by the inverse of its upper tail
            tail = special.log_ndtr(mean / sd)
            x[:, k] = mean - sd * special.ndtri_exp(tail + np.log(generator.uniform(size=len(x))))
            x[:, k] = np.maximum(x[:, k], floor[:, k])
    return x


def _normal_scores(n: int) -> Array:
    return np.asarray(special.ndtri((np.arange(n) + 0.5) / n), dtype=float)
