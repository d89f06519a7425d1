"""L along one axis of the lattice at fixed values of the other: the common part of `loss_vs_size` and
`loss_vs_data`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, ladder, log_axes, looks, new_figure, number_label, panel_label
from sapis_lab.quantities import quantity

CURVE_POINTS = 60
Along = Literal["n_params", "n_frames"]


@dataclass(frozen=True)
class _Axis:
    along: Along
    fixed: str
    """Column whose values tell the curves apart: the requested size, so that curves of different models
    compare."""
    symbol: str


AXES = {"n_params": _Axis("n_params", "n_frames", "D"), "n_frames": _Axis("n_frames", "n_params_target", "N")}


def draw_slices(study: StudyAnalysis, along: Along) -> Drawing | NotDrawn:
    """One panel a model, axes shared: points, the chosen law and its 95 % band for every value of the other
    variable."""
    axis = AXES[along]
    models = [m for m in study.models.values() if len(m.runs)]
    if not models:
        return NotDrawn("no point has finished")
    shades = ladder(sorted(study.done[axis.fixed].unique()))
    n_columns = min(len(models), 4)
    n_rows = -(-len(models) // n_columns)
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.3 * n_rows + 0.45)
        grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        parts = [
            _draw_model(axes, model, study, axis, shades)
            for axes, model in zip(grid.flat, models, strict=False)
        ]
        for axes in grid.flat[len(models) :]:
            axes.set_axis_off()
        log_axes(grid[0, 0], "xy")
        figure.supxlabel(quantity(along).axis, fontsize=8)
        figure.supylabel(study.quantity.axis, fontsize=8)
        handles = [
            Line2D([], [], color=c, marker=m, label=f"{axis.symbol} = {number_label(v)}")
            for v, (c, m) in shades.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study, models, axis))


def _draw_model(
    axes: Axes, model: ModelAnalysis, study: StudyAnalysis, axis: _Axis, shades: dict
) -> pd.DataFrame:
    factor, key = study.quantity.display_factor, study.quantity.key
    panel_label(axes, model.name, color=looks(study.runs)[model.name].color)
    parts = []
    for value, (color, marker) in shades.items():
        rows = model.runs[model.runs[axis.fixed] == value].sort_values(axis.along)
        axes.plot(
            rows[axis.along], factor * rows[key], ls="none", color=color, marker=marker, mfc="white", zorder=3
        )
        parts.append(_numbers(model, "point", value, axis, rows[axis.along], factor * rows[key]))
        if model.chosen is None or model.fit is None or rows.empty:
            continue
        # Where D varies, the curve belongs to one size: the mean count of the row, which differs a little
        # from the target.
        fixed = float(value) if axis.along == "n_params" else float(rows["n_params"].mean())
        x, mean, low, high = _curve(model, model.runs[axis.along], fixed, axis.along)
        axes.plot(x, factor * mean, color=color, ls="-" if model.chosen.identified else "--")
        axes.fill_between(x, factor * low, factor * high, color=color, alpha=0.18, lw=0)
        parts.append(_numbers(model, "law", value, axis, x, factor * mean, factor * low, factor * high))
    return pd.concat(parts, ignore_index=True)


def _curve(model: ModelAnalysis, measured: pd.Series, fixed: float, along: Along) -> tuple[np.ndarray, ...]:
    """x over the measured range only, law, and band (nan where the fit has no bootstrap)."""
    assert model.fit is not None
    x = np.geomspace(measured.min(), measured.max(), CURVE_POINTS)
    N, D = (x, fixed) if along == "n_params" else (fixed, x)
    nothing = np.full_like(x, np.nan)
    low, high = model.band(N, D) or (nothing, nothing)
    return x, model.fit.predict(N, D), low, high


def _numbers(
    model: ModelAnalysis, part: str, fixed: float, axis: _Axis, x, y, low=np.nan, high=np.nan
) -> pd.DataFrame:
    columns = {axis.along: np.asarray(x, float), "loss": np.asarray(y, float), "low": low, "high": high}
    return pd.DataFrame({"model": model.name, "part": part, axis.fixed: fixed} | columns)


def _caption(study: StudyAnalysis, models: list[ModelAnalysis], axis: _Axis) -> str:
    what = quantity(axis.along).label
    chosen = "; ".join(f"{m.name}: {m.selected or 'none'}" for m in models)
    sentences = [
        f"{study.quantity.label[0].upper()}{study.quantity.label[1:]} against {what} at fixed {axis.symbol}, "
        f"one panel a model.",
        f"Symbols: {len(study.done)} finished points.",
    ]
    if any(m.chosen for m in models):
        sentences.append(
            f"Lines: the law chosen by AICc for each model ({chosen}); bands: 95 % bootstrap intervals of "
            f"the law."
        )
    if any(m.floor_open for m in models):
        sentences.append("Bands include the law with a floor, which the points do not exclude.")
    dashed = [m.name for m in models if m.chosen and not m.chosen.identified]
    if dashed:
        sentences.append(
            f"Dashed: a law with terms that the points do not identify ({', '.join(dashed)}); read it as a "
            f"guide to the eye."
        )
    bare = [m.name for m in models if m.chosen is None]
    if bare:
        sentences.append(f"No law could be fitted to {', '.join(bare)}.")
    if len(study.failed):
        sentences.append(f"{len(study.failed)} of {len(study.runs)} points failed and are not shown.")
    return " ".join(sentences)
