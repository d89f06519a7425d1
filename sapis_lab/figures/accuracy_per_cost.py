"""Loss against what its training cost, in FLOPs and in CPU seconds, with the frontier of every model."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.quantities import quantity

COSTS = ("flops_train", "cpu_seconds_train")


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """All points, and for each model the lowest loss reached at or below each cost."""
    if study.done.empty:
        return NotDrawn("no point has finished")
    factor, key = study.quantity.display_factor, study.quantity.key
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.8)
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for axes, cost in zip(panels, COSTS, strict=True):
            for name, look in looks(study.runs).items():
                runs = study.done[study.done["model"] == name]
                if runs.empty:
                    continue
                x, y = runs[cost].to_numpy(float), factor * runs[key].to_numpy(float)
                axes.plot(x, y, ls="none", color=look.color, marker=look.marker, mfc="none", ms=3, alpha=0.45)
                front = frontier(x, y)
                axes.plot(
                    x[front],
                    y[front],
                    color=look.color,
                    ls=look.line,
                    drawstyle="steps-post",
                    marker=look.marker,
                    label=name,
                )
                columns = {
                    "cost": cost,
                    "value": x,
                    "loss": y,
                    "on_frontier": np.isin(np.arange(len(x)), front),
                }
                parts.append(pd.DataFrame({"model": name, "part": "point"} | columns))
            log_axes(axes, "xy")
            axes.set_xlabel(quantity(cost).axis)
        panels[0].set_ylabel(study.quantity.axis)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study))


def frontier(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Positions of the points that no cheaper or equally cheap point beats, in order of cost."""
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    new = np.r_[True, best[1:] < best[:-1]]
    return order[new]


def _caption(study: StudyAnalysis) -> str:
    ratios = "; ".join(
        f"{study.reference} / {c.model} {1 / c.accuracy_per_flop_train.geometric_mean:.2f} in training"
        + (
            f", {1 / c.accuracy_per_flop_inference.geometric_mean:.2f} in inference"
            if c.accuracy_per_flop_inference
            else ""
        )
        for c in study.comparisons
        if c.accuracy_per_flop_train is not None
    )
    text = (
        f"{study.quantity.label[0].upper()}{study.quantity.label[1:]} against training cost. Faint symbols: "
        f"all finished points; "
        "bold symbols and steps: for each model the lowest loss reached at or below a cost."
    )
    return text + (
        f" Accuracy per FLOP, (1/MAE_E)/FLOPs, at equal N, D and seed (geometric means): {ratios}."
        if ratios
        else ""
    )
