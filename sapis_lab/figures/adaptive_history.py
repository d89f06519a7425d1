"""What the adaptive scaler did: its way through (N, D), and what it expected and found for its FLOPs."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, new_figure
from sapis_lab.quantities import quantity

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv*Ph"
ASIDE = ("seed", "repeat", "measure")
"""Actions that are no step of the way."""


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """Two panels: the points in order, one symbol an action; and the loss, measured and predicted, against
    the FLOPs spent."""
    history = study.history
    if history is None:
        return NotDrawn("the adaptive scaler has not run on this study (`sapis scale`)")
    steps = history[history["n_params"].gt(0) & history["n_frames"].gt(0)]
    if steps.empty:
        return NotDrawn("the adaptive scaler has not decided on a point yet")
    factor = study.quantity.display_factor
    actions = list(dict.fromkeys(steps["action"]))
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 3.0)
        plane, spent = figure.subplots(1, 2)
        path = steps[~steps["action"].isin(ASIDE)]
        plane.plot(path["n_params"], path["n_frames"], color="0.75", lw=0.8, zorder=1)
        for k, action in enumerate(actions):
            rows = steps[steps["action"] == action]
            style = {
                "ls": "none",
                "color": COLORS[k % len(COLORS)],
                "marker": MARKERS[k % len(MARKERS)],
                "mfc": "white",
                "ms": 4.5,
            }
            plane.plot(rows["n_params"], rows["n_frames"], **style)
            spent.plot(rows["flops_total"], factor * rows["measured"], **style, zorder=3)
        known = steps[steps["predicted"].notna()]
        spent.plot(
            known["flops_total"], factor * known["predicted"], ls="none", marker="_", ms=6, color="black"
        )
        spent.vlines(
            known["flops_total"],
            factor * known["predicted_low"],
            factor * known["predicted_high"],
            color="0.5",
            lw=0.9,
        )
        best = factor * steps["measured"].cummin()
        spent.plot(steps["flops_total"], best, color="0.4", lw=0.8, ls=":", drawstyle="steps-post")
        decided = steps[known.index[0] :] if len(known) else steps.iloc[:0]
        for number, row in enumerate(decided.drop_duplicates(["n_params", "n_frames"]).itertuples(), start=1):
            place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 6}
            plane.annotate(str(number), (row.n_params, row.n_frames), **place)
        log_axes(plane, "xy")
        log_axes(spent, "xy")
        plane.set_xlabel(quantity("n_params").axis)
        plane.set_ylabel(quantity("n_frames").axis)
        spent.set_xlabel("training FLOPs spent so far (FLOP)")
        spent.set_ylabel(study.quantity.axis)
        handles = [
            Line2D(
                [],
                [],
                ls="none",
                color=COLORS[k % len(COLORS)],
                marker=MARKERS[k % len(MARKERS)],
                mfc="white",
                label=a,
            )
            for k, a in enumerate(actions)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
    numbers = steps[["step", "action", "n_params", "n_frames", "seed", "flops", "flops_total"]].assign(
        part="step"
    )
    losses = ("predicted", "predicted_low", "predicted_high", "measured")
    return Drawing(figure, numbers.assign(**{k: factor * steps[k] for k in losses}), _caption(study, steps))


def _caption(study: StudyAnalysis, steps: pd.DataFrame) -> str:
    text = (
        "The adaptive scaler. Left: the points that it ran, numbered from its first decision. Right: what "
        "they reached for the FLOPs "
        "spent; bars: what was predicted before the run, with its 95 % interval; dotted: the lowest so far."
    )
    both = steps[steps["predicted"].notna() & steps["measured"].notna()]
    if len(both):
        inside = int(
            ((both["measured"] >= both["predicted_low"]) & (both["measured"] <= both["predicted_high"])).sum()
        )
        error = 100 * np.sqrt(np.mean(np.log(both["measured"] / both["predicted"]) ** 2))
        text += (
            f" {inside} of {len(both)} measurements lie in their interval; rms of ln(measured / predicted) "
            f"{error:.1f} %."
        )
    if steps["measured"].notna().any():
        best = steps.loc[steps["measured"].idxmin()]
        unit = study.quantity.display_unit or study.quantity.unit
        value = study.quantity.display_factor * best["measured"]
        text += f" Best: {value:.3g} {unit} at N = {best['n_params']:.0f}, D = {best['n_frames']:.0f}."
    return text
