"""Six synthetic worlds in which a policy scales, and what it wastes there.

A campaign starts from a 3 x 3 lattice of runs with noise, N in {3e3, 1e4, 3e4} and D in {100, 300, 1000}.
Each step has a run that costs twice as much as the one before; cost = 6 N D. The waste of a step is

    (C + M) / C_needed - 1,      C_needed: the cheapest cost at which the true law, on its frontier, has the
    loss of the run,

with C the cost of the run and M that of the measurements made since the run before. Shares of the terms are
given at N = 1e4, D = 300:

    plain     alpha .8, beta .6                     asymmetric   alpha .9, beta .3, shares .3 and .7
    floor     alpha .55, beta .4, floor 5 %         far in N     alpha .5, beta .45, shares .85 and .10: N ten
    times too small interaction   alpha .5, beta .4, gamma .15      far in D     the same the other way round
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sapis_lab.analysis.laws import LAWS, Array
from sapis_lab.analysis.optimum import Cost, optimum
from sapis_lab.policies import Decision, PolicyConfig, Prices, Rules, Runs

LAW = LAWS["n+d+nd+e"]
KAPPA = 6.0
MIDDLE = (1e4, 3e2)
N_SEEDS, D_SEEDS = (3e3, 1e4, 3e4), (1e2, 3e2, 1e3)
STEPS, LAST = 7, 3
NOISE = 0.03
SHARES: dict[str, dict[str, float]] = {
    "plain": {"A": 0.5, "alpha": 0.8, "B": 0.5, "beta": 0.6},
    "floor": {"A": 0.45, "alpha": 0.55, "B": 0.45, "beta": 0.4, "E": 0.05},
    "interaction": {"A": 0.4, "alpha": 0.5, "B": 0.4, "beta": 0.4, "C": 0.2, "gamma": 0.15},
    "asymmetric": {"A": 0.3, "alpha": 0.9, "B": 0.7, "beta": 0.3},
    "far in N": {"A": 0.85, "alpha": 0.5, "B": 0.1, "beta": 0.45, "E": 0.05},
    "far in D": {"A": 0.1, "alpha": 0.5, "B": 0.85, "beta": 0.45, "E": 0.05},
}


class Step(NamedTuple):
    """One doubling of a campaign."""

    waste: float
    measured: float
    """Cost of the measurements before the run, over that of the run."""
    decision: Decision


@dataclass(frozen=True)
class World:
    """A true law."""

    name: str
    params: dict[str, float]

    @classmethod
    def named(cls, name: str) -> World:
        """One of `SHARES`."""
        p = {"A": 0.0, "B": 0.0, "C": 0.0, "E": 0.0, "alpha": 1.0, "beta": 1.0, "gamma": 1.0} | SHARES[name]
        n, d = MIDDLE
        return cls(
            name,
            p
            | {
                "A": p["A"] * n ** p["alpha"],
                "B": p["B"] * d ** p["beta"],
                "C": p["C"] * (n * d) ** p["gamma"],
            },
        )

    def loss(self, n_params: float | Array, n_frames: float | Array) -> Array:
        """The true loss."""
        return LAW.predict(self.params, n_params, n_frames)

    def needed(self, loss: float, cost: float) -> float:
        """The cheapest cost of a loss that `cost` has bought."""
        costs = cost * np.geomspace(1e-3, 1.0, 400)
        best = np.log(optimum(LAW, self.params, costs, Cost(KAPPA)).loss)
        return float(np.exp(np.interp(-np.log(loss), -best, np.log(costs))))


def campaign(
    world: World,
    policy: PolicyConfig,
    *,
    seed: int,
    rules: Rules = Rules(),  # noqa: B008
    steps: int = STEPS,
    noise: float = NOISE,
) -> list[Step]:
    """The steps of one campaign; `seed` draws the noise."""
    generator = np.random.default_rng(seed)
    N, D = (a.ravel() for a in np.meshgrid(N_SEEDS, D_SEEDS, indexing="ij"))
    prices = Prices(KAPPA)

    def measured(n: float | Array, d: float | Array) -> Array:
        loss = world.loss(n, d)
        return np.asarray(loss * np.exp(generator.normal(0, noise, np.shape(loss))))

    runs = Runs(N, D, measured(N, D), prices.of(N, D), np.zeros(len(N), int), np.zeros(len(N), bool))
    costs = float(runs.cost.max()) * 2.0 ** np.arange(1, steps + 1)
    found = []
    for t, cost in enumerate(costs):
        spent = 0.0
        while True:
            step = policy.decide(
                runs, prices, next_cost=float(cost), horizon=float(costs[t:].sum()), rules=rules
            )
            aside = step.action in ("repeat", "measure")
            loss = float(measured(step.n_params, step.n_frames))
            runs = runs.and_then(
                step.n_params, step.n_frames, loss, step.cost, seed=step.seed, measured=aside
            )
            if not aside:
                break
            spent += step.cost
        needed = world.needed(float(world.loss(step.n_params, step.n_frames)), step.cost)
        found.append(Step((step.cost + spent) / needed - 1, spent / step.cost, step))
    return found
