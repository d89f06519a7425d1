"""Both, until the slope -d ln L / d ln C of the last frontier runs falls under (1 - q) alpha of
A C^-alpha + E, fitted to the frontier; then the greedy axis.

Suppressed while the profile interval of E is open: a flattening is not told apart from noise then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.profile import profiles
from sapis_lab.policies._base import Decision, PolicyConfig, Prices, Rules, Runs
from sapis_lab.policies._moves import grown_alike, move
from sapis_lab.policies.greedy import larger_gain

FLATTENED = 0.5
"""q of the rule."""


class TriggerConfig(PolicyConfig):
    """Both, until the loss flattens; then the axis that gains more."""

    kind: Literal["trigger"] = "trigger"

    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        C, L = frontier(runs)
        both = grown_alike(runs, prices, next_cost)
        if len(C) < 4:
            return move(
                runs, prices, both, next_cost, rules, f"{len(C)} frontier runs do not show a floor; both grow"
            )
        found = fit("c+e", C, np.ones_like(C), L, robust="none")
        floor = profiles(found, ["E"])["E"]
        slope = -float(np.log(L[-1] / L[-2]) / np.log(C[-1] / C[-2]))
        fitted = found.params["alpha"]
        numbers = {"slope": slope, "fitted": fitted, "floor_low": floor.low, "floor_high": floor.high}
        if floor.open_low or floor.open_high:
            text = (
                f"slope {slope:.2f}, fitted {fitted:.2f}; the floor's interval is open, so the trigger is "
                f"suppressed; both grow"
            )
            return replace(move(runs, prices, both, next_cost, rules, text), numbers=numbers)
        if slope >= (1 - FLATTENED) * fitted:
            text = f"slope {slope:.2f} is above {(1 - FLATTENED) * fitted:.2f}; both grow"
            return replace(move(runs, prices, both, next_cost, rules, text), numbers=numbers)
        text = f"slope {slope:.2f} fell under {(1 - FLATTENED) * fitted:.2f}: "
        decision = larger_gain(runs, prices, next_cost, rules, text)
        return replace(decision, numbers=decision.numbers | numbers)


def frontier(runs: Runs) -> tuple[Array, Array]:
    """Costs and losses of the runs that no cheaper or equal run beats, by cost."""
    order = np.lexsort((runs.loss, runs.cost))
    best = np.minimum.accumulate(np.r_[np.inf, runs.loss[order][:-1]])
    on = order[runs.loss[order] < best]
    return runs.cost[on], runs.loss[on]
