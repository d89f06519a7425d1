"""The best split of a FLOP budget for one model of a study, under the costs that it measured, with bands.

A split is stated only where the points support it: training cost must grow in proportion to D (a fixed number
of epochs), and the chosen law must have terms in N and in D whose exponents have closed intervals that
exclude 0, and an optimum in nearly every draw; how wide the intervals are shows in the bands. Where a floor
is not excluded, the band of the loss includes the law with a floor; the split stays that of the chosen law,
which a floor moves little, while the loss beyond the lattice may stay higher.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sapis_lab.analysis.costs import cost_model
from sapis_lab.analysis.identify import MIN_EXPONENT, interval_text
from sapis_lab.analysis.laws import SYMBOLS, Array
from sapis_lab.analysis.optimum import Cost, OptimumBand, optimum, optimum_band
from sapis_lab.analysis.result import LawResult
from sapis_lab.analysis.uncertainty import ends

N_BUDGETS = 41
MOST_AT_EDGE = 0.02
"""Part of the draws that may have no optimum."""
BEYOND = 10.0
"""How many times the largest measured budget a frontier is drawn to."""


@dataclass(frozen=True)
class Allocation:
    """The frontier of one model, arrays (m,) over budgets; empty with the reason in `why_not` where there is
    none."""

    cost: Cost | None
    budget: Array
    """FLOPs, from the smallest measured cost to `BEYOND` times the largest."""
    largest: float
    """The largest measured cost: beyond it the law is extrapolated."""
    band: OptimumBand | None
    loss: tuple[Array, Array]
    """Band of the loss at the optimum; with the floor's where `with_floor`."""
    with_floor: bool
    compute_exponent: tuple[float, float, float] | None
    """-dlnL/dlnC of the frontier at the largest measured budget, with its 95 % interval."""
    why_not: str | None = None

    @classmethod
    def none(cls, reason: str) -> Allocation:
        nothing = np.empty(0)
        return cls(None, nothing, np.nan, None, (nothing, nothing), False, None, reason)

    def at(self, budget: float) -> dict[str, float | list[float]]:
        """The split of one budget, by interpolation in logarithms, with bands."""
        assert self.band is not None
        b = self.band

        def here(values: Array) -> float:
            return float(np.exp(np.interp(np.log(budget), np.log(self.budget), np.log(values))))

        def interval(pair: tuple[Array, Array]) -> list[float]:
            return [here(pair[0]), here(pair[1])]

        best = b.best
        return {
            "budget": budget,
            "n_params": here(best.n_params),
            "n_params_interval": interval(b.n_params),
            "n_frames": here(best.n_frames),
            "n_frames_interval": interval(b.n_frames),
            "loss": here(best.loss),
            "loss_interval": interval(self.loss),
            "waste": float(np.interp(np.log(budget), np.log(self.budget), b.waste)),
        }


def allocation(
    runs: pd.DataFrame, chosen: LawResult | None, floor: LawResult, *, floor_open: bool, label: float = 0.0
) -> Allocation:
    """The frontier of one model.

    Args:
        runs: its usable rows.   chosen: the law that describes them.   floor: the law with a floor, which
        counts where `floor_open`. label: cost of making one labelled frame, FLOPs.
    """
    if (
        chosen is None
        or chosen.fit is None
        or chosen.profiles is None
        or chosen.bootstrap is None
        or len(chosen.bootstrap.params) < 2
    ):
        return Allocation.none("no law with a band could be fitted")
    try:
        measured = cost_model(runs, "flops_train")
        cost = measured.per_budget(label=label)
    except ValueError as error:
        return Allocation.none(str(error))
    unknown = [_open(chosen, t.exponent) for t in chosen.fit.law.terms if t.name in ("n", "d")]
    if any(unknown):
        return Allocation.none(
            f"the law {chosen.law} does not bound what is traded: {'; '.join(u for u in unknown if u)}"
        )
    spent = cost.of(runs["n_params"].to_numpy(float), runs["n_frames"].to_numpy(float))
    budget = np.geomspace(spent.min(), BEYOND * spent.max(), N_BUDGETS)
    band = optimum_band(chosen.fit, chosen.bootstrap, budget, cost)
    if band.no_optimum > MOST_AT_EDGE:
        return Allocation.none(
            f"{100 * band.no_optimum:.0f} % of the resampled laws {chosen.law} have no best split"
        )
    loss, with_floor = band.loss, False
    if (
        floor_open
        and floor.fit is not None
        and floor.bootstrap is not None
        and len(floor.bootstrap.params) > 1
    ):
        other = optimum_band(floor.fit, floor.bootstrap, budget, cost).loss
        loss, with_floor = (np.minimum(loss[0], other[0]), np.maximum(loss[1], other[1])), True
    step = np.array([spent.max() / 1.05, spent.max() * 1.05])
    draws = np.log(optimum(chosen.fit.law, chosen.bootstrap.params, step, cost).loss)
    best = np.log(optimum(chosen.fit.law, chosen.fit.params, step, cost).loss)
    width = np.log(step[1] / step[0])
    slope = float((best[0] - best[1]) / width)
    low, high = ends((draws[:, 0] - draws[:, 1]) / width, slope)
    return Allocation(
        cost, budget, float(spent.max()), band, loss, with_floor, (slope, float(low), float(high))
    )


def _open(result: LawResult, exponent: str | None) -> str:
    """Why the exponent is not bounded, in words, or nothing."""
    assert result.profiles is not None and exponent is not None
    profile = result.profiles[exponent]
    if not (profile.open_low or profile.open_high or profile.low < MIN_EXPONENT):
        return ""
    return f"{SYMBOLS[exponent]} in {interval_text(profile.interval, digits='.2g')}"
