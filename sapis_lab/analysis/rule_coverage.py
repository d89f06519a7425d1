"""How often 95 % intervals of rules hold the truth, by simulated sweeps.

In a world the best rate and batch size of every cell follow known power laws, and with u and v the distances
of ln rate and ln batch from them, and w = u - v / 2 (u where no batch size was swept),

    L = F + R(N, D) [1 + B(w) + h v^2 / 4 / (1 + 0.3 |v|)],
    B = h w^2 / 2 / (1 + 0.35 |w|)   for w < 0,
        h w^2 / 2 (1 + 0.4 w)        for w > 0,   and + 6 (w - w_c)^2 beyond the cliff at w_c.

Beyond 1.6 times the rate of the cliff runs diverge. The floor F is a share of L in the middle of the cells.
None of these is the function that is fitted. The grid of rates is the same in all cells and put at random, by
up to one step, about the middle of the optima, so that these lie near its edges and beyond in some cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sapis_lab.analysis.bowl import LEAST, Sweep
from sapis_lab.analysis.regime import find_optima

Array = NDArray[np.float64]

LEVEL = 0.95
WANTED = (0.93, 0.97)
TRUTH = {"learning_rate": (-0.3, 0.15), "batch_size": (0.0, 0.4)}
"""Exponents of N and D, by setting."""
EXPONENTS = ("n_exponent", "d_exponent")
CENTRE = (1e6, 1e8)
WIDEST = 0.5
"""An exponent whose intervals are wider than this in the median is not identified by a design."""


@dataclass(frozen=True)
class World:
    """One design of the simulation."""

    side: int = 4
    """Cells along N and along D."""
    decades: float = 1.5
    """Between the smallest and the largest N, and D."""
    rates: int = 7
    ratio: float = 1.6
    """Between neighbouring rates."""
    floor: float = 0.0
    """Share of the error in the middle of the cells."""
    noise: float = 0.01
    """Standard deviation of ln L of a run."""
    batches: int = 1
    """Batch sizes, a factor of 2 apart; 1: none was swept."""
    seeds: int = 1
    """Runs of the same settings."""
    scatter: float = 0.0
    """Standard deviation of ln optimum about the power law."""
    curvature: float = 0.4
    cliff: float = 3.5
    """Rate of the cliff over the best one."""

    @property
    def settings(self) -> tuple[str, ...]:
        return ("learning_rate", "batch_size")[: 1 + (self.batches > 1)]


@dataclass(frozen=True)
class RuleCoverage:
    """What the intervals of one world covered, by setting and exponent."""

    world: World
    n_sets: int
    covered: dict[str, dict[str, float]]
    width: dict[str, dict[str, float]]
    """Median."""
    bias: dict[str, dict[str, float]]
    """Mean of the estimate minus the truth."""
    identified: bool
    seconds: float
    """CPU time."""

    def deviates(self, *, standard_errors: float = 2.0) -> bool:
        """An exponent is covered outside 93-97 % by more than the simulation's own error."""
        slack = standard_errors * np.sqrt(LEVEL * (1 - LEVEL) / self.n_sets)
        shares = [share for by in self.covered.values() for share in by.values()]
        return any(not WANTED[0] - slack <= share <= WANTED[1] + slack for share in shares)


def worlds() -> Iterator[World]:
    """Floors, noises and grids, one setting and two."""
    for floor, noise in ((0.0, 0.01), (0.0, 0.02), (0.5, 0.003), (0.5, 0.01), (0.9, 0.003), (0.9, 0.01)):
        yield World(floor=floor, noise=noise)
    yield World(rates=5, ratio=1.4)
    yield World(rates=9, ratio=2.0, noise=0.02)
    yield World(side=3, decades=1.0, rates=6)
    yield World(side=5, decades=2.0, rates=6, floor=0.5)
    yield World(side=5, decades=2.0, rates=6, floor=0.5, noise=0.02)
    yield World(floor=0.5, seeds=2)
    yield World(floor=0.5, scatter=0.1)
    yield World(cliff=2.0, noise=0.02)
    for floor, noise in ((0.0, 0.01), (0.5, 0.01), (0.9, 0.003)):
        yield World(side=3, rates=6, batches=5, floor=floor, noise=noise)
    yield World(side=4, rates=6, batches=4, floor=0.5, noise=0.01, scatter=0.1)


def quick_worlds() -> Iterator[World]:
    """One setting and two, with floors."""
    yield World(side=3, rates=6, floor=0.5)
    yield World(side=3, rates=5, batches=4, floor=0.9, noise=0.003)


def simulate(world: World, generator: np.random.Generator) -> list[Sweep]:
    """The sweeps of all cells, those with too few finished runs left out."""
    along = 10 ** (np.linspace(-0.5, 0.5, world.side) * world.decades)
    step = np.log(world.ratio)
    rates = step * (np.arange(world.rates) - (world.rates - 1) / 2 + generator.uniform(-1, 1))
    batches = np.log(2) * (np.arange(world.batches) - (world.batches - 1) / 2)
    grid = np.stack(np.meshgrid(rates, batches, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = np.repeat(grid[:, : len(world.settings)], world.seeds, axis=0)
    cells = [_cell(world, n, d, grid, generator) for n in along for d in along]
    least = LEAST[len(world.settings)]
    return [s for s in cells if len(s.loss) >= least and all(len(np.unique(column)) >= 3 for column in s.x.T)]


def _cell(world: World, n: float, d: float, grid: Array, generator: np.random.Generator) -> Sweep:
    """A cell at n and d times the middle."""
    best = [TRUTH[s][0] * np.log(n) + TRUTH[s][1] * np.log(d) for s in world.settings]
    away = grid - best - world.scatter * generator.standard_normal(len(best))
    v = away[:, 1] if len(best) == 2 else np.zeros(len(grid))
    w = away[:, 0] - v / 2
    h, edge = world.curvature, np.log(world.cliff)
    bowl = h * w**2 / 2 * np.where(w < 0, 1 / (1 + 0.35 * np.abs(w)), 1 + 0.4 * w)
    bowl += 6 * np.maximum(w - edge, 0) ** 2 + h * v**2 / 4 / (1 + 0.3 * np.abs(v))
    loss = world.floor / (1 - world.floor) + (n * d) ** -0.15 * (1 + bowl)
    loss *= np.exp(world.noise * generator.standard_normal(len(loss)))
    diverged = w > edge + np.log(1.6)
    return Sweep(CENTRE[0] * n, CENTRE[1] * d, grid[~diverged], loss[~diverged], grid[diverged])


def measure_rules(world: World, *, n_sets: int, seed: int = 0) -> RuleCoverage:
    """Simulate, fit and count."""
    begin = time.process_time()
    about = (world.side, world.rates, world.batches, world.seeds)
    shares = (world.floor, world.noise, world.scatter)
    generator = np.random.default_rng([seed, *about, *(round(1e4 * s) for s in shares)])
    found = np.array([_estimates(world, generator) for _ in range(n_sets)])  # (n_sets, settings, 2, 3)
    truth = np.array([TRUTH[s] for s in world.settings])
    inside = (found[..., 1] <= truth) & (truth <= found[..., 2])
    width = np.median(found[..., 2] - found[..., 1], axis=0)

    def named(values: Array) -> dict[str, dict[str, float]]:
        return {
            s: {e: float(values[k, j]) for j, e in enumerate(EXPONENTS)} for k, s in enumerate(world.settings)
        }

    return RuleCoverage(
        replace(world),
        n_sets,
        named(inside.mean(axis=0)),
        named(width),
        named(found[..., 0].mean(axis=0) - truth),
        bool((width < WIDEST).all()),
        time.process_time() - begin,
    )


def _estimates(world: World, generator: np.random.Generator) -> list[list[tuple[float, float, float]]]:
    """Of one data set, by setting and exponent: estimate and limits; limits of a rule that has none are
    infinite."""
    found = find_optima(simulate(world, generator))
    result = []
    for k in range(len(world.settings)):
        rule = found.rule(k, generator=generator)[0]
        row = []
        for name in EXPONENTS:
            low, high = rule.intervals[name] or (-np.inf, np.inf)
            row.append((getattr(rule, name), low, high))
        result.append(row)
    return result
