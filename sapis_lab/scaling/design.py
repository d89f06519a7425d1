"""Which run to add next, when the aim is to know rather than to have a good model: the most information per
FLOP.

The variance of a quantity q over the posterior of the law shrinks by Cov(q, ln L)^2 / (Var(ln L) + sigma^2)
when one more run measures L at (N, D) (linear regression of q on the measurement; `Posterior.information`).
The best design is the point with the largest reduction per cost. q is either ln N* at a budget, or ln L at a
target. Candidates are all combinations of the sizes and amounts of data that were run, and those half and
twice as large as the extremes: a new seed of an old point is a candidate like any other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.posterior import Posterior
from sapis_lab.policies import Prices, Rules, Runs, log_optimum, posterior_of


class Candidate(NamedTuple):
    """One run that might be added."""

    n_params: float
    n_frames: float
    seed: int
    cost: float
    reduction: float
    """Of the variance, as a part of what it is now."""
    per_cost: float
    """Reduction over cost, relative to the best candidate."""


class Design(NamedTuple):
    """What is known of the quantity, and what would teach most about it."""

    quantity: str
    mean: float
    """Of ln q."""
    sd: float
    candidates: list[Candidate]
    """The most informative per cost first."""


def next_points(
    runs: Runs,
    prices: Prices,
    *,
    budget: float | None = None,
    target: tuple[float, float] | None = None,
    rules: Rules = Rules(),  # noqa: B008
) -> Design:
    """Candidates by what they teach per cost, of N* at `budget` or of L at `target` = (N, D).

    Raises:
        ValueError: not exactly one of budget and target; too few runs for a law.
    """
    if (budget is None) == (target is None):
        raise ValueError("wanted exactly one of budget and target")
    belief = posterior_of(runs)
    if budget is not None:
        quantity, name = log_optimum(belief, runs, prices, budget), f"N* at {budget:.3g} FLOPs"
    else:
        assert target is not None
        quantity, name = belief.log_loss(*target)[:, 0], f"L at N = {target[0]:.4g}, D = {target[1]:.4g}"
    n, d = candidates(runs, rules)
    return Design(
        name, float(quantity.mean()), float(quantity.std()), _ranked(belief, runs, prices, quantity, n, d)
    )


def candidates(runs: Runs, rules: Rules) -> tuple[Array, Array]:
    """N and D of all candidates."""
    sizes, frames = np.unique(runs.n_params), np.unique(runs.n_frames)
    sizes, frames = np.r_[sizes[0] / 2, sizes, 2 * sizes[-1]], np.r_[frames[0] / 2, frames, 2 * frames[-1]]
    n, d = (a.ravel() for a in np.meshgrid(sizes, frames, indexing="ij"))
    possible = (n <= rules.most_params) & (d <= rules.most_frames)
    return n[possible], d[possible]


def _ranked(
    belief: Posterior, runs: Runs, prices: Prices, quantity: Array, n: Array, d: Array
) -> list[Candidate]:
    reduction = belief.information(quantity, n, d) / quantity.var()
    cost = prices.of(n, d)
    score = reduction / cost
    found = []
    for k in np.argsort(-score):
        used = set(runs.seed[(runs.n_params == n[k]) & (runs.n_frames == d[k])].tolist())
        seed = next(s for s in range(len(used) + 1) if s not in used)
        found.append(
            Candidate(
                float(n[k]),
                float(d[k]),
                seed,
                float(cost[k]),
                float(reduction[k]),
                float(score[k] / score.max()),
            )
        )
    return found
