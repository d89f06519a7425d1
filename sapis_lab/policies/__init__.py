"""Policies of scaling: what to run next, one module per kind; no torch here.

The next run of a campaign costs `next_cost`; a policy splits it between N and D, or measures something
cheaper first, or stops. `PolicyConfig.decide` is the contract; `move`, `splits` and `grown_alike` make runs
that the rules allow, and `posterior_of` is what the runs say of their law.
"""

from sapis_lab.policies._base import (
    Action,
    Decision,
    PolicyChoice,
    PolicyConfig,
    Prices,
    Rules,
    Runs,
    policy,
    written,
)
from sapis_lab.policies._belief import log_optimum, posterior_of
from sapis_lab.policies._moves import free_seed, grown_alike, move, splits

__all__ = [
    "Action",
    "Decision",
    "PolicyChoice",
    "PolicyConfig",
    "Prices",
    "Rules",
    "Runs",
    "free_seed",
    "grown_alike",
    "log_optimum",
    "move",
    "policy",
    "posterior_of",
    "splits",
    "written",
]
