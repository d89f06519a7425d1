"""The loss against N at fixed D and against D at fixed N, or against C: points and the chosen law. Of a table
of training steps, the points at the last steps of every (N, D)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, PAGE, RC, ladder, log_axes, new_figure, number_label
from sapis_lab.figures._tables.common import (
    HELD,
    LAW,
    at_last_steps,
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
    sizes, parts, widths = _sizes(fits), [], {}
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 3.5)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, along, fixed in zip(panels, sizes, reversed(sizes), strict=True):
            numbers, widths[sizes[fixed][0]] = _panel(axes, fits, along, fixed)
            parts.append(numbers)
        panels[0].set_ylabel(loss_label(fits))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, widths))


def _shown(fits: TableFit) -> np.ndarray:
    """The points that are drawn, (n,) bool: all, or those at the last steps."""
    points = fits.table.points
    if points.steps is None:
        return np.ones(len(points), dtype=bool)
    return at_last_steps(points.n_params, points.n_frames, points.steps)


def _sizes(fits: TableFit) -> dict[str, tuple[str, Array]]:
    """N and D of the points that are drawn, as `size_axes` gives them."""
    rows = _shown(fits)
    return {k: (s, v[rows]) for k, (s, v) in size_axes(fits).items() if k != "steps"}


def _last_steps(fits: TableFit) -> Array | None:
    """S of the points that are drawn."""
    steps = fits.table.points.steps
    return None if steps is None else steps[_shown(fits)]


def _held(fits: TableFit) -> list[dict[str, float]]:
    """Runs that were left out; of a table of steps those with the S of the points that are drawn, or, where
    these differ in S, the last ones of each (N, D)."""
    held, steps = forecast_rows(fits)[1], _last_steps(fits)
    if steps is None or not held:
        return held
    if np.ptp(steps) == 0:
        return [r for r in held if r["steps"] == steps[0]]
    n, d, s = (np.array([r[k] for r in held]) for k in ("n_params", "n_frames", "steps"))
    return [r for r, last in zip(held, at_last_steps(n, d, s), strict=True) if last]


def _panel(axes: Axes, fits: TableFit, along: str, fixed: str) -> tuple[pd.DataFrame, float]:
    """Points and curves along one size; the numbers drawn, and the factor that a bin of the other spans."""
    sizes, loss, steps = _sizes(fits), fits.table.points.loss[_shown(fits)], _last_steps(fits)
    (symbol, x), (other, values) = sizes[along], sizes[fixed]
    found, width = levels(values)
    shades = ladder([level.size for level in found])
    law, parts = fits.fits[fits.selected], []
    held = _held(fits)
    reach = [*x, *(r[along] for r in held)]
    for level in found:
        color, marker = shades[level.size]
        order = np.argsort(x[level.rows], kind="stable")
        at, y = x[level.rows][order], loss[level.rows][order]
        label = number_label(float(f"{level.size:.2g}"))
        axes.plot(at, y, ls="none", color=color, marker=marker, mfc="white", zorder=3, label=label)
        look: dict[str, Any] = {"color": color}
        if steps is not None and np.ptp(steps):
            # no curve has one S: the law is shown at each point's own
            curve, predicted = at, law.fitted[_shown(fits)][level.rows][order]
            look |= {} if width == 1 else {"ls": "none", "marker": "_", "ms": 9}
        else:
            curve = np.geomspace(min(reach), max(reach), CURVE_POINTS)
            fixed_at = np.full(CURVE_POINTS, level.size)
            n_params, n_frames = (curve, fixed_at) if along == "n_params" else (fixed_at, curve)
            last = None if steps is None else np.full(CURVE_POINTS, steps[0])
            predicted = law.predict(n_params, n_frames, last)
        axes.plot(curve, predicted, **look)
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
    n, steps = int(_shown(fits).sum()), _last_steps(fits)
    what = "compute C" if not widths else "N at fixed D (left) and against D at fixed N (right)"
    text = f"The loss against {what}{_of_steps(steps)}. Symbols: {n} points; lines: law {fits.selected}."
    binned = [f"{symbol} by factors of {width:g}" for symbol, width in widths.items() if width > 1]
    if binned:
        text += f" Colours are bins, of {' and of '.join(binned)}"
    if steps is not None and np.ptp(steps):
        text += "." if binned else ""
        text += " Lines join, and dashes are, the law at the N, D and S of each point."
    elif binned:
        text += "; a line is the law in the middle of its bin, and points may lie beside it."
    if held := _held(fits):
        text += f" Crosses: {len(held)} runs that the fit has not seen."
    return text


def _of_steps(steps: Array | None) -> str:
    if steps is None:
        return ""
    if np.ptp(steps) == 0:
        return f", at the last steps, S = {steps[0]:.4g}"
    return f", at the last steps of each (N, D), S from {steps.min():.4g} to {steps.max():.4g}"
