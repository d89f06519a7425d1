"""N and D both x sqrt(growth): no fit.

Wastes 0.1-3 % on the frontier with alpha ~ beta, and 100-700 % elsewhere.
"""

from __future__ import annotations

from typing import Literal

from sapis_lab.policies._base import Decision, PolicyConfig, Prices, Rules, Runs
from sapis_lab.policies._moves import grown_alike, move


class NullConfig(PolicyConfig):
    """N and D grow by one factor, whatever was measured."""

    kind: Literal["null"] = "null"

    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        why = "the null policy grows both, whatever was measured"
        return move(runs, prices, grown_alike(runs, prices, next_cost), next_cost, rules, why)
