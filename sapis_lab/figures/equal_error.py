"""How much more the other models must spend than the reference to reach the same error: accuracy per FLOP in
its fair form."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sapis_lab.analysis.efficiency import COSTS, EqualError
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, Look, log_axes, looks, new_figure, panel_label
from sapis_lab.quantities import quantity

CLAIM = 2.0
TITLES = {
    "flops_train": "training FLOPs",
    "cpu_seconds_train": "training CPU time",
    "flops_inference_per_frame": "inference FLOPs",
    "n_frames": "labels",
}
WIDEST = 100.0
"""A band that goes on is cut here."""


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One row an error, one column a cost, one line a model with its 95 % band; dotted where the edge of the
    lattice decides."""
    found = [e for e in study.efficiency if len(e.error)]
    if len(study.models) < 2:
        return NotDrawn("there is one model, and nothing to compare it with")
    if not found:
        reasons = sorted({f"{e.model}: {e.why_not}" for e in study.efficiency if e.why_not})
        return NotDrawn("; ".join(reasons) or "no two models have a law with a band")
    errors = list(dict.fromkeys(e.quantity for e in found))
    costs = [c for c in COSTS if any(e.cost == c for e in found)]
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.5 + 2.0 * len(errors))
        panels = figure.subplots(len(errors), len(costs), sharex="row", sharey=True, squeeze=False)
        shown: dict[str, Look] = {}
        for row, error in zip(panels, errors, strict=True):
            for axes, cost in zip(row, costs, strict=True):
                axes.axhline(1.0, color="0.4", lw=0.8, ls=":", zorder=0)
                axes.axhline(CLAIM, color="0.6", lw=0.7, ls=(0, (4, 3)), zorder=0)
                for e in found:
                    if (e.quantity, e.cost) == (error, cost):
                        shown[e.model] = looks(study.runs)[e.model]
                        _paint(axes, e, shown[e.model], quantity(error).display_factor)
                log_axes(axes, "xy")
                axes.set_xlabel(quantity(error).axis, fontsize=7)
                if error == errors[0]:
                    panel_label(axes, TITLES[cost])
            row[0].set_ylabel(f"cost / that of {found[0].reference}", fontsize=7)
            row[0].invert_xaxis()
        handles = [_line(look, name) for name, look in shown.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    return Drawing(figure, _numbers(found), _caption(study, found))


def _line(look: Look, name: str) -> Line2D:
    """A legend entry."""
    return Line2D([], [], color=look.color, ls=look.line, marker=look.marker, label=name)


def _paint(axes: Axes, e: EqualError, look: Look, factor: float) -> None:
    x = factor * e.error
    top = np.minimum(e.high, max(WIDEST, 3 * e.ratio.max()))
    axes.fill_between(
        x, np.maximum(e.low, min(0.3, e.ratio.min() / 3)), top, color=look.color, alpha=0.16, lw=0
    )
    inner = np.flatnonzero(~e.at_edge)
    axes.plot(x, e.ratio, color=look.color, lw=0.7, ls=":")
    if inner.size:
        axes.plot(x[inner], e.ratio[inner], color=look.color, ls=look.line, marker=look.marker, ms=3)


def _numbers(found: list[EqualError]) -> pd.DataFrame:
    parts = []
    for e in found:
        factor = quantity(e.quantity).display_factor
        columns = {
            "error": factor * e.error,
            "ratio": e.ratio,
            "low": e.low,
            "high": e.high,
            "at_edge": e.at_edge,
        }
        about = {
            "model": e.model,
            "part": "ratio",
            "reference": e.reference,
            "quantity": e.quantity,
            "cost": e.cost,
        }
        parts.append(pd.DataFrame(about | columns))
    return pd.concat(parts, ignore_index=True)


def _caption(study: StudyAnalysis, found: list[EqualError]) -> str:
    text = (
        f"What a model must spend to reach an error, over what {found[0].reference} must, with 95 % bands: "
        f"the cheapest N and D inside the "
        "lattice by each model's law and measured costs. Accuracy grows to the right. Dotted curves: the "
        "smallest size or data of the "
        f"lattice decides, and a smaller one might be cheaper. Dotted line: equal cost; dashed line: "
        f"{CLAIM:g} times the cost."
    )
    middle = [
        (e, m)
        for e in found
        if e.quantity == found[0].quantity and (m := e.middle()) is not None and e.cost == "flops_train"
    ]
    if middle:
        unit, factor = quantity(found[0].quantity).display_unit, quantity(found[0].quantity).display_factor
        said = ", ".join(
            f"{e.model} {m[1]:.3g} [{m[2]:.3g}, {m[3]:.3g}] at {factor * m[0]:.3g} {unit}" for e, m in middle
        )
        text += f" Training FLOPs in the middle of the range: {said}."
    apart = sorted({f"{e.model} in {quantity(e.quantity).label}" for e in study.efficiency if e.why_not})
    return text + (f" No error that both reach: {', '.join(apart)}." if apart else "")
