"""Which term limits the loss where: the parts of the N term and of the D term in the fitted loss over N and
D."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm

from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._panels import model_panels
from sapis_lab.figures._style import RC, log_axes
from sapis_lab.figures._supported import fitted_models
from sapis_lab.quantities import quantity

N_GRID = 25
MARGIN = 1.5
LEVELS = np.array([-1.0, -0.8, -0.5, -0.2, 0.0, 0.2, 0.5, 0.8, 1.0])
COLORS = "PuOr"
NAMES = {"n": "N term", "d": "D term", "nd": "interaction", "e": "floor"}


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel a model: part of the N term minus part of the D term; hatched where a third term is the
    largest."""
    models = fitted_models(study)
    if isinstance(models, NotDrawn):
        return models
    with mpl.rc_context(RC):
        figure, panels, numbers = model_panels(study, models, lambda axes, model: _paint(axes, model, study))
        log_axes(panels[0], "xy")
        figure.supxlabel(quantity("n_params").axis, fontsize=8)
        figure.supylabel(quantity("n_frames").axis, fontsize=8)
        colors = ScalarMappable(BoundaryNorm(LEVELS, 256), COLORS)
        bar = figure.colorbar(colors, ax=panels, aspect=25, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.set_label("part of N term − part of D term", fontsize=7)
        bar.outline.set_linewidth(0.4)
    return Drawing(figure, numbers, _caption(study, models))


def _paint(axes: Axes, model: ModelAnalysis, study: StudyAnalysis) -> pd.DataFrame:
    fit = model.fit
    assert fit is not None
    x = np.geomspace(study.done["n_params"].min() / MARGIN, study.done["n_params"].max() * MARGIN, N_GRID)
    y = np.geomspace(study.done["n_frames"].min() / MARGIN, study.done["n_frames"].max() * MARGIN, N_GRID)
    values = fit.law.term_values(fit.params, x[None], y[:, None])
    part = {t.name: values[..., k] / values.sum(axis=-1) for k, t in enumerate(fit.law.terms)}
    balance = part["n"] - part["d"]
    axes.contourf(x, y, balance, levels=LEVELS, cmap=COLORS, norm=BoundaryNorm(LEVELS, 256))
    if balance.min() < 0 < balance.max():
        axes.contour(x, y, balance, levels=[0.0], colors="black", linewidths=1.0)
    others = [part[name] for name in part if name not in ("n", "d")]
    if others:
        third = np.max(others, axis=0) - np.maximum(part["n"], part["d"])
        if third.max() > 0:
            axes.contourf(x, y, third, levels=[0.0, 1.0], colors="none", hatches=["////"])
            axes.contour(x, y, third, levels=[0.0], colors="0.3", linewidths=0.7)
    axes.plot(model.runs["n_params"], model.runs["n_frames"], ls="none", marker=".", ms=2.5, color="black")
    # words where each side is strongest: the two ends of the colours are alike in grey
    for sign, word in ((1, "N limits"), (-1, "D limits")):
        if (sign * balance).max() > 0.1:
            (x0, y0), (ha, va) = (
                ((0.04, 0.96), ("left", "top")) if sign > 0 else ((0.96, 0.04), ("right", "bottom"))
            )
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75}
            axes.text(x0, y0, word, transform=axes.transAxes, fontsize=6.5, ha=ha, va=va, bbox=box)
    columns = {"n_params": np.tile(x, N_GRID), "n_frames": np.repeat(y, N_GRID)} | {
        f"part_{k}": v.ravel() for k, v in part.items()
    }
    points = {k: model.runs[k].to_numpy(float) for k in ("n_params", "n_frames")}
    return pd.concat(
        [pd.DataFrame({"part": "law"} | columns), pd.DataFrame({"part": "point"} | points)]
    ).assign(model=model.name)


def _caption(study: StudyAnalysis, models: list[ModelAnalysis]) -> str:
    corners = []
    for m in models:
        assert m.fit is not None
        N, D = float(m.runs["n_params"].max()), float(m.runs["n_frames"].max())
        values = m.fit.law.term_values(m.fit.params, N, D)
        terms = ", ".join(
            f"{NAMES[t.name]} {100 * v / values.sum():.0f} %"
            for t, v in zip(m.fit.law.terms, values, strict=True)
        )
        corners.append(
            f"{m.name} ({m.selected}{'' if m.chosen and m.chosen.identified else ', not fully identified'}): "
            f"{terms}"
        )
    return (
        f"Which term of the chosen law limits the {study.quantity.label}: the part of the term in N minus "
        f"that of the term in D; "
        "black line: both equal; hatched: a third term is the largest; dots: measured points. At the largest "
        "measured N and D: " + "; ".join(corners) + "."
    )
