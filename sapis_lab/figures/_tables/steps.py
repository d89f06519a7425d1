"""The loss against the number of training steps S: the runs of every (N, D) and the chosen law."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, PAGE, RC, ladder, log_axes, new_figure, number_label, panel_label
from sapis_lab.figures._tables.common import (
    HELD,
    Level,
    forecast_rows,
    levels,
    loss_label,
    pairs_of,
    size_axes,
    size_label,
)

MOST_PANELS = 4
MOST_CURVES = 4
"""Curves of one colour in one panel; of more (N, D) there is one in their middle."""
CURVE_POINTS = 80


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """One panel a D and one colour an N, or the other way round where D never changes."""
    sizes = size_axes(fits)
    if "steps" not in sizes:
        return NotDrawn("no column of training steps is named")
    panel_of, color_of = "n_frames", "n_params"
    if len(np.unique(sizes["n_frames"][1])) > 1 == len(np.unique(sizes["n_params"][1])):
        panel_of, color_of = color_of, panel_of
    rows, row_width = levels(sizes[panel_of][1], most=MOST_PANELS)
    shades, color_width = levels(sizes[color_of][1])
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN if len(rows) == 1 else PAGE, 2.9)
        panels = figure.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False)[0]
        for axes, level in zip(panels, rows, strict=True):
            symbol = sizes[panel_of][0]
            about = "≈" if row_width > 1 else "="
            panel_label(axes, f"{symbol} {about} {number_label(float(f'{level.size:.2g}'))}")
            parts.append(_panel(axes, fits, level, shades, color_of))
            axes.set_xlabel(size_label(fits, "S"))
        _left_out(panels, fits, rows, panel_of, parts)
        log_axes(panels[0], "xy")
        for axes in panels[1:]:
            log_axes(axes, "x")
        panels[0].set_ylabel(loss_label(fits))
        title = sizes[color_of][0] + ("" if color_width == 1 else f", bins of a factor {color_width:g}")
        figure.legend(
            handles=_handles(shades, fits),
            title=title,
            loc="outside upper center",
            ncols=4 if len(rows) == 1 else 9,
            handlelength=1.0,
            title_fontsize=7,
        )
    widths = {sizes[panel_of][0]: row_width, sizes[color_of][0]: color_width}
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, widths))


def _panel(axes: Axes, fits: TableFit, panel: Level, shades: list[Level], color_of: str) -> pd.DataFrame:
    """The points of a panel with the law of each (N, D); the numbers drawn."""
    points, law, look = fits.table.points, fits.fits[fits.selected], ladder([s.size for s in shades])
    assert points.steps is not None
    curve = np.geomspace(*_reach(fits), CURVE_POINTS)
    parts = []
    for level in shades:
        rows = panel.rows & level.rows
        if not rows.any():
            continue
        color, marker = look[level.size]
        n_params, n_frames = points.n_params[rows], points.n_frames[rows]
        at, loss = points.steps[rows], points.loss[rows]
        axes.plot(at, loss, ls="none", color=color, marker=marker, mfc="white", ms=3, zorder=3)
        about = {"panel": panel.size, "level": level.size}
        drawn = {"n_params": n_params, "n_frames": n_frames, "steps": at, "loss": loss}
        parts.append(pd.DataFrame({**about, "part": "point", **drawn}))
        pairs = pairs_of(n_params, n_frames)
        if len(pairs) > MOST_CURVES:
            pairs = np.exp(np.log(pairs).mean(axis=0))[None]
        for n, d in pairs:
            predicted = law.predict(np.full(CURVE_POINTS, n), np.full(CURVE_POINTS, d), curve)
            axes.plot(curve, predicted, color=color, lw=0.9)
            drawn = {"n_params": n, "n_frames": d, "steps": curve, "loss": predicted}
            parts.append(pd.DataFrame({**about, "part": "law", **drawn}))
    return pd.concat(parts, ignore_index=True)


def _reach(fits: TableFit) -> tuple[float, float]:
    """The smallest and the largest S of points and of runs that were left out."""
    assert fits.table.points.steps is not None
    every = [*fits.table.points.steps, *(r["steps"] for r in forecast_rows(fits)[1])]
    return float(min(every)), float(max(every))


def _left_out(
    panels: Array, fits: TableFit, rows: list[Level], panel_of: str, parts: list[pd.DataFrame]
) -> None:
    """Runs that were left out, each in the panel whose size is nearest."""
    for run in forecast_rows(fits)[1]:
        away = [abs(np.log(run[panel_of] / level.size)) for level in rows]
        k = int(np.argmin(away))
        axes: Axes = panels[k]
        axes.plot(run["steps"], run["measured"], ls="none", color=HELD, marker="x", ms=4, zorder=4)
        drawn = {key: run[key] for key in ("n_params", "n_frames", "steps")} | {"loss": run["measured"]}
        parts.append(pd.DataFrame([{"panel": rows[k].size, "part": "left out", **drawn}]))


def _handles(shades: list[Level], fits: TableFit) -> list[Line2D]:
    handles = []
    for size, (color, marker) in ladder([s.size for s in shades]).items():
        label = number_label(float(f"{size:.2g}"))
        handles.append(Line2D([], [], color=color, marker=marker, mfc="white", ms=3, label=label))
    if fits.held:
        handles.append(Line2D([], [], ls="none", color=HELD, marker="x", ms=4, label="left out"))
    return handles


def _caption(fits: TableFit, widths: dict[str, float]) -> str:
    n_pairs = len(pairs_of(fits.table.points.n_params, fits.table.points.n_frames))
    text = (
        f"The loss against the number of training steps S, of {n_pairs} distinct (N, D). Symbols: "
        f"{len(fits.table.points)} points; lines: law {fits.selected}."
    )
    if not fits.fits[fits.selected].law.of_steps:
        text += " The law has no term of S, so that its lines are level."
    binned = [f"{symbol} by factors of {width:g}" for symbol, width in widths.items() if width > 1]
    if binned:
        text += (
            f" Panels and colours are bins, of {' and of '.join(binned)}; where more than {MOST_CURVES} "
            f"(N, D) share a bin, the line is the law in their middle, and points may lie beside it."
        )
    if fits.held:
        text += f" Crosses: {len(fits.held)} runs that the fit has not seen."
    return text
