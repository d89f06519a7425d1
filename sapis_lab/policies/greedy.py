"""The textbook rule: the axis with the larger gain per cost, gains from the derivatives of a fitted law,

    dL_N = (alpha A N^-alpha + gamma C (ND)^-gamma) dN/N,   dL_D likewise,   dN/N = dD/D,

each with its share of the cross term, which is the same in both: it never decides, but belongs to the size of
the gain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sapis_lab.analysis.fit import LawFit, fit
from sapis_lab.policies._base import Decision, PolicyConfig, Prices, Rules, Runs
from sapis_lab.policies._moves import move


class GreedyConfig(PolicyConfig):
    """The axis that gains more per cost."""

    kind: Literal["greedy"] = "greedy"

    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        return larger_gain(runs, prices, next_cost, rules)


def greedy_gains(found: LawFit, n_params: float, n_frames: float) -> tuple[float, float, float]:
    """Gains in L of d ln N = 1 and of d ln D = 1, and the cross term's share, which is part of both."""
    p = found.params
    cross = p.get("gamma", 0.0) * p.get("C", 0.0) * (n_params * n_frames) ** -p.get("gamma", 0.0)
    gain_n, gain_d = found.law.slopes(p, n_params, n_frames)
    return -float(gain_n), -float(gain_d), float(cross)


def larger_gain(runs: Runs, prices: Prices, cost: float, rules: Rules, why: str = "") -> Decision:
    """A run of `cost` that grows the axis with the larger gain; `why` opens its reason."""
    N, D = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    law = "n+d+nd" if len(runs) > 8 else "n+d"
    found = fit(law, runs.n_params, runs.n_frames, runs.loss)
    gain_n, gain_d, cross = greedy_gains(found, N, D)
    training = prices.kappa * N**prices.power * D
    per_n, per_d = (
        gain_n / (prices.power * training),
        gain_d / (training + (prices.label * D if prices.labelled <= D else 0.0)),
    )
    larger = per_n > per_d
    target = prices.params(D, cost) if larger else N
    text = (
        f"gain per cost {per_n:.3g} of a larger model, {per_d:.3g} of more data (the cross term gives "
        f"{cross:.3g} to either)"
    )
    numbers = {
        "gain_n": gain_n,
        "gain_d": gain_d,
        "gain_n_per_cost": per_n,
        "gain_d_per_cost": per_d,
        "cross": cross,
    }
    return replace(move(runs, prices, target, cost, rules, why + text), numbers=numbers)
