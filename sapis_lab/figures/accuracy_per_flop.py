"""Accuracy per FLOP, (1/MAE_E)/FLOPs, of training and of inference, against the error: at equal error the gap
is the ratio of FLOPs."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.compare import accuracy_per_flop
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.quantities import quantity
from sapis_lab.targets import ENERGY_MAE

PANELS = {"flops_train": "training", "flops_inference_per_frame": "inference"}


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """All points, and for each model those that no point of it with a lower or equal error beats."""
    if study.done.empty:
        return NotDrawn("no point has finished")
    found = {column: accuracy_per_flop(study.done, column) for column in PANELS}
    if any(v is None or not (np.isfinite(v) & (v > 0)).any() for v in found.values()):
        return NotDrawn(f"the runs table has no usable {ENERGY_MAE} and FLOPs")
    error = quantity(ENERGY_MAE)
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 3.0)
        panels = figure.subplots(1, 2, sharex=True)
        for axes, (column, word) in zip(panels, PANELS.items(), strict=True):
            for name, look in looks(study.runs).items():
                mine = (study.done["model"] == name).to_numpy()
                values = found[column]
                assert values is not None
                x, y = (
                    error.display_factor * study.done[ENERGY_MAE].to_numpy(float)[mine],
                    values.to_numpy(float)[mine],
                )
                usable = np.isfinite(x) & np.isfinite(y) & (y > 0)
                x, y = x[usable], y[usable]
                if not len(x):
                    continue
                axes.plot(x, y, ls="none", color=look.color, marker=look.marker, mfc="none", ms=3, alpha=0.45)
                front = upper_frontier(x, y)
                axes.plot(x[front], y[front], color=look.color, ls=look.line, marker=look.marker, label=name)
                columns = {
                    "cost": column,
                    "error": x,
                    "accuracy_per_flop": y,
                    "on_frontier": np.isin(np.arange(len(x)), front),
                }
                parts.append(pd.DataFrame({"model": name, "part": "point"} | columns))
            log_axes(axes, "xy")
            axes.set_xlabel(error.axis)
            axes.set_ylabel(f"accuracy per {word} FLOP (1/(eV FLOP))", fontsize=7)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study))


def upper_frontier(error: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Positions of the points with more accuracy per FLOP than every point of lower or equal error, in order
    of error."""
    order = np.lexsort((-value, error))
    best = np.maximum.accumulate(value[order])
    return order[np.r_[True, best[1:] > best[:-1]]]


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
        "Accuracy per FLOP, (1/MAE_E)/FLOPs, of training (left) and of a frame's energy and forces (right), "
        "against the error itself: "
        "between two models at equal error the vertical gap is the ratio of their FLOPs. Lines: the best of "
        "each model at or below an "
        "error."
    )
    return text + (f" Geometric means at equal N, D and seed: {ratios}." if ratios else "")
