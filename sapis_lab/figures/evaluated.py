"""What evaluations measured on the points of a study, against the error that its law describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.quantities import Quantity, evaluated_quantities

ACROSS, MOST, FEWEST = 3, 9, 4


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel a quantity, a symbol a point. Quantities of fewer than four points are left out, and those
    that are the same at every point, that are neither good nor bad, and that baselines have; of more than
    nine every evaluation has its share."""
    shown = _in_turn([q for q in evaluated_quantities(study.done.columns) if _is_shown(study.done, q)])
    if not shown:
        return NotDrawn(f"no evaluation has measured what differs between {FEWEST} points")
    drawn, x = shown[:MOST], study.quantity
    across = min(len(drawn), ACROSS)
    down, parts = -(-len(drawn) // across), []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.2 * down + 0.45)
        panels = figure.subplots(down, across, sharex=True, squeeze=False)
        for axes, q in zip(panels.flat, drawn, strict=False):
            for name, look in looks(study.runs).items():
                runs = study.done.loc[study.done["model"] == name].dropna(subset=[x.key, q.key])
                if runs.empty:
                    continue
                style = {"ls": "none", "color": look.color, "marker": look.marker, "mfc": "none", "ms": 3.5}
                values = {x.key: x.display_factor * runs[x.key], q.key: q.display_factor * runs[q.key]}
                axes.plot(values[x.key], values[q.key], label=name, **style)
                where = {"model": name, "part": q.key, "id": runs["id"]}
                columns = {"error": values[x.key], "value": values[q.key]}
                parts.append(pd.DataFrame({**where, **columns}))
            values = study.done[q.key].dropna()
            log_axes(axes, "xy" if (values > 0).all() and values.max() > 5 * values.min() else "x")
            axes.set_ylabel(fill(q.axis, 28))
        for axes in panels.flat[len(drawn) :]:
            axes.set_axis_off()
        for column in range(across):
            last = [k for k in range(down) if k * across + column < len(drawn)][-1]
            panels[last, column].set_xlabel(x.axis)
            panels[last, column].tick_params(labelbottom=True)
        known = dict[str, Artist]()
        for axes in panels.flat:
            handles, labels = axes.get_legend_handles_labels()
            known |= dict(zip(labels, handles, strict=True))
        figure.legend(
            handles=list(known.values()),
            labels=list(known),
            loc="outside upper center",
            ncols=min(len(known), 5),
        )
    left = "" if len(shown) <= MOST else f" {len(shown) - MOST} further quantities are in runs.csv alone."
    text = f"What evaluations measured against the {x.label}, a symbol for every point.{left}"
    return Drawing(figure, pd.concat(parts, ignore_index=True), text)


def _is_shown(runs: pd.DataFrame, q: Quantity) -> bool:
    values = runs[q.key].dropna()
    usual = q.better != "none" and q.evaluation.partition("-")[0] != "baselines"
    return usual and len(values) >= FEWEST and bool(np.ptp(values) > 0)


def _in_turn(quantities: Sequence[Quantity]) -> list[Quantity]:
    """The first of every evaluation, then the second of each, and so on."""
    turn = Counter[str]()
    found = []
    for q in quantities:
        found.append((turn[q.evaluation], q))
        turn[q.evaluation] += 1
    return [q for _, q in sorted(found, key=lambda pair: pair[0])]
