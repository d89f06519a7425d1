"""N*(C) of the two-term fit (Hoffmann et al. 2022)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sapis_lab.analysis.fit import fit
from sapis_lab.policies._base import Decision, PolicyConfig, Prices, Rules, Runs
from sapis_lab.policies._moves import move, splits


class JumpConfig(PolicyConfig):
    """Straight to N* of the cost, of a fit."""

    kind: Literal["jump"] = "jump"

    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        found = fit("n+d", runs.n_params, runs.n_frames, runs.loss)
        N = splits(runs, prices, next_cost, rules)
        best = float(N[np.argmin(found.predict(N, prices.frames(N, next_cost)))])
        return move(
            runs,
            prices,
            best,
            next_cost,
            rules,
            f"N* = {best:.3g} of the fit alpha {found.params['alpha']:.2f}, beta {found.params['beta']:.2f}",
        )
