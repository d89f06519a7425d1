"""Moves of the path: a run of a given cost, kept within the reach of what was measured and within the
rules."""

from __future__ import annotations

import numpy as np

from sapis_lab.analysis.laws import Array
from sapis_lab.policies._base import Action, Decision, Prices, Rules, Runs

REACH = (0.5, 8.0)
"""How far beyond the smallest and the largest N (or D) so far a run may go, as factors: a fit says little
further out."""
SPLITS = 61
"""Of a budget that are compared."""
UNCHANGED = 0.02
"""|change of ln N| below which an axis counts as kept."""


def grown_alike(runs: Runs, prices: Prices, cost: float) -> float:
    """N when N and D grow by one factor to `cost`."""
    N, D = runs.n_params[runs.last], runs.n_frames[runs.last]
    low, high = 0.0, np.log(cost / float(prices.of(N, D))) + 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high)
            if float(prices.of(N * np.exp(middle), D * np.exp(middle))) < cost
            else (low, middle)
        )
    return float(N * np.exp(0.5 * (low + high)))


def splits(runs: Runs, prices: Prices, cost: float, rules: Rules) -> Array:
    """Model sizes that a run of `cost` may have, ascending: within reach of what was measured, and of the
    data."""
    low_n, high_n = REACH[0] * runs.n_params.min(), min(REACH[1] * runs.n_params.max(), rules.most_params)
    low_d, high_d = REACH[0] * runs.n_frames.min(), min(REACH[1] * runs.n_frames.max(), rules.most_frames)
    low, high = max(low_n, prices.params(high_d, cost)), min(high_n, prices.params(low_d, cost))
    if low >= high:  # the data are used up: all goes into the model, as far as that may grow
        return np.array([min(low, rules.most_params)])
    return np.geomspace(low, high, SPLITS)


def move(runs: Runs, prices: Prices, n_params: float, cost: float, rules: Rules, reason: str) -> Decision:
    """A run of `cost` with about `n_params` parameters, as the limits allow."""
    possible = splits(runs, prices, cost, rules)
    N = min(max(n_params, float(possible[0])), float(possible[-1]))
    D = min(float(prices.frames(N, cost)), rules.most_frames)
    was_n, was_d = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    dn, dd = np.log(N / was_n), np.log(D / was_d)
    action: Action = "both"
    if dn < -UNCHANGED or dd < -UNCHANGED:
        action = "jump"
    elif abs(dn) <= UNCHANGED:
        action = "data"
    elif abs(dd) <= UNCHANGED:
        action = "model"
    if prices.labelled * (1 + 1e-9) < D:
        action, reason = "label", f"{reason}; {D - prices.labelled:.0f} more frames must be labelled"
    if 0.999 * rules.most_frames <= D:
        reason += f"; all {rules.most_frames:.0f} frames are in use"
    elif abs(np.log(N / n_params)) > UNCHANGED:
        reason += f"; held to N = {N:.3g}, within {REACH[1]:g} times of what was run"
    return Decision(action, N, D, free_seed(runs, N, D), float(prices.of(N, D)), reason=reason)


def free_seed(runs: Runs, n_params: float, n_frames: float) -> int:
    """The first seed that was not run at (N, D)."""
    same = (np.abs(np.log(runs.n_params / n_params)) < 1e-9) & (
        np.abs(np.log(runs.n_frames / n_frames)) < 1e-9
    )
    used = set(runs.seed[same].tolist())
    return next(s for s in range(len(used) + 1) if s not in used)
