"""The loss against N at fixed D and against D at fixed N, or against C: points and the chosen law."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, PAGE, RC, ladder, log_axes, new_figure, number_label
from sapis_lab.figures._tables.common import (
    HELD,
    LAW,
    forecast_rows,
    is_compute,
    levels,
    loss_label,
    size_axes,
    size_label,
)

CURVE_POINTS = 80


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """Two panels, the other size in colour; one for a law of compute."""
    if is_compute(fits):
        return _of_compute(fits)
    sizes, parts, widths = size_axes(fits), [], {}
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 3.5)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, along, fixed in zip(panels, sizes, reversed(sizes), strict=True):
            numbers, widths[sizes[fixed][0]] = _panel(axes, fits, along, fixed)
            parts.append(numbers)
        panels[0].set_ylabel(loss_label(fits))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, widths))


def _panel(axes: Axes, fits: TableFit, along: str, fixed: str) -> tuple[pd.DataFrame, float]:
    """Points and curves along one size; the numbers drawn, and the factor that a bin of the other spans."""
    sizes, loss = size_axes(fits), fits.table.points.loss
    (symbol, x), (other, values) = sizes[along], sizes[fixed]
    found, width = levels(values)
    shades = ladder([level.size for level in found])
    law, parts = fits.fits[fits.selected], []
    held = forecast_rows(fits)[1]
    reach = [*x, *(r[along] for r in held)]
    for level in found:
        color, marker = shades[level.size]
        order = np.argsort(x[level.rows], kind="stable")
        at, y = x[level.rows][order], loss[level.rows][order]
        label = number_label(float(f"{level.size:.2g}"))
        axes.plot(at, y, ls="none", color=color, marker=marker, mfc="white", zorder=3, label=label)
        curve = np.geomspace(min(reach), max(reach), CURVE_POINTS)
        fixed_at = np.full(CURVE_POINTS, level.size)
        predicted = law.predict(*((curve, fixed_at) if along == "n_params" else (fixed_at, curve)))
        axes.plot(curve, predicted, color=color)
        about = {"panel": along, "level": level.size}
        parts.append(pd.DataFrame({**about, "part": "point", "x": at, "loss": y}))
        parts.append(pd.DataFrame({**about, "part": "law", "x": curve, "loss": predicted}))
    if held:
        at, y = [r[along] for r in held], [r["measured"] for r in held]
        axes.plot(at, y, ls="none", color=HELD, marker="x", ms=4, zorder=3, label="left out")
        parts.append(pd.DataFrame({"panel": along, "part": "left out", "x": at, "loss": y}))
    log_axes(axes, "xy")
    axes.set_xlabel(size_label(fits, symbol))
    axes.legend(
        title=f"{other}{'' if width == 1 else f', bins of a factor {width:g}'}",
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        columnspacing=1.0,
        handlelength=1.0,
        title_fontsize=7,
        alignment="left",
    )
    return pd.concat(parts, ignore_index=True), width


def _of_compute(fits: TableFit) -> Drawing:
    points, law = fits.table.points, fits.fits[fits.selected]
    held = forecast_rows(fits)[1]
    reach = [*points.n_params, *(r["n_params"] for r in held)]
    curve = np.geomspace(min(reach), max(reach), CURVE_POINTS)
    predicted = law.predict(curve, np.ones(CURVE_POINTS))
    parts = [
        pd.DataFrame({"part": "point", "x": points.n_params, "loss": points.loss}),
        pd.DataFrame({"part": "law", "x": curve, "loss": predicted}),
    ]
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 2.6)
        axes = figure.subplots()
        axes.plot(points.n_params, points.loss, ls="none", color=LAW, marker="o", mfc="white", zorder=3)
        axes.plot(curve, predicted, color=LAW)
        if held:
            at, y = [r["n_params"] for r in held], [r["measured"] for r in held]
            axes.plot(at, y, ls="none", color=HELD, marker="x", ms=4, zorder=3)
            parts.append(pd.DataFrame({"part": "left out", "x": at, "loss": y}))
        log_axes(axes, "xy")
        axes.set_xlabel(size_label(fits, "C"))
        axes.set_ylabel(loss_label(fits))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, {}))


def _caption(fits: TableFit, widths: dict[str, float]) -> str:
    n = len(fits.table.points)
    what = "compute C" if not widths else "N at fixed D (left) and against D at fixed N (right)"
    text = f"The loss against {what}. Symbols: {n} points; lines: law {fits.selected}."
    binned = [f"{symbol} by factors of {width:g}" for symbol, width in widths.items() if width > 1]
    if binned:
        text += (
            f" Colours are bins, of {' and of '.join(binned)}; a line is the law in the middle of its bin, "
            f"and points may lie beside it."
        )
    if fits.held:
        text += f" Crosses: {len(fits.held)} runs that the fit has not seen."
    return text
