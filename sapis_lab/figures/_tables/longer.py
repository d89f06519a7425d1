"""Longer trainings: the averaged forecast along the number of training steps S, at the N and D asked for."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sapis_lab.analysis.forecast import forecast
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, PAGE, RC, log_axes, new_figure, number_label, panel_label
from sapis_lab.figures._tables.common import (
    FORECAST,
    HELD,
    LAW,
    error_bars,
    forecast_rows,
    loss_label,
    pairs_of,
    size_label,
)

REACH = 10.0
"""Without a target the band goes this far beyond the largest S of the points."""
N_BAND = 12
MOST_PANELS = 3


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """One panel for each (N, D) that was asked for; without any, that of the largest N D of the points."""
    points = fits.table.points
    if points.steps is None:
        return NotDrawn("no column of training steps is named")
    if not fits.averaged:
        return NotDrawn("nothing is known of the noise, so that no forecast has an interval")
    asked = pd.DataFrame(forecast_rows(fits)[0])
    wanted = list(dict.fromkeys(zip(asked["n_params"], asked["n_frames"], strict=True))) if len(asked) else []
    if not wanted:
        pairs = pairs_of(points.n_params, points.n_frames)
        n, d = pairs[np.argmax(pairs.prod(axis=1))]
        wanted = [(float(n), float(d))]
    places, parts = wanted[:MOST_PANELS], []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN if len(places) == 1 else PAGE, 2.8)
        panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
        for axes, (n, d) in zip(panels, places, strict=True):
            panel_label(
                axes, ", ".join(f"{k} = {number_label(float(f'{v:.3g}'))}" for k, v in (("N", n), ("D", d)))
            )
            parts.append(_panel(axes, fits, asked, n, d))
            axes.set_xlabel(size_label(fits, "S"))
        panels[0].set_ylabel(loss_label(fits))
        figure.legend(handles=_handles(fits), loc="outside upper center", ncols=2 if len(places) == 1 else 5)
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, places, len(wanted)))


def _panel(axes: Axes, fits: TableFit, asked: pd.DataFrame, n: float, d: float) -> pd.DataFrame:
    """Band, law, points of this (N, D), and targets; the numbers drawn."""
    points, law = fits.table.points, fits.fits[fits.selected]
    assert points.steps is not None
    first, last = float(points.steps.min()), float(points.steps.max())
    targets = asked[(asked["n_params"] == n) & (asked["n_frames"] == d)] if len(asked) else asked
    far = float(targets["steps"].max()) if len(targets) else REACH * last
    near = min(first, float(targets["steps"].min())) if len(targets) else first
    steps = np.geomspace(near, max(far, last), N_BAND)
    found = [forecast(fits.fits, fits.averaged, n, d, float(s)) for s in steps]
    value, low, high = (np.array([getattr(f, k) for f in found]) for k in ("value", "low", "high"))
    axes.fill_between(steps, low, high, color=LAW, alpha=0.16, lw=0)
    curve = np.geomspace(steps[0], steps[-1], 80)
    predicted = law.predict(np.full(80, n), np.full(80, d), curve)
    inside = curve <= last * 1.0001
    axes.plot(curve[inside], predicted[inside], color=LAW)
    axes.plot(curve[~inside], predicted[~inside], color=LAW, ls="--", lw=0.9)
    about = {"n_params": n, "n_frames": d}
    band = {"steps": steps, "loss": value, "low": low, "high": high}
    parts = [
        pd.DataFrame({**about, "part": "forecast of runs", **band}),
        pd.DataFrame({**about, "part": "law", "steps": curve, "loss": predicted, "extrapolated": ~inside}),
    ]
    mine = (points.n_params == n) & (points.n_frames == d)
    axes.plot(points.steps[mine], points.loss[mine], ls="none", color="0.45", marker="o", mfc="none", ms=3)
    here = {"steps": points.steps[mine], "loss": points.loss[mine]}
    parts.append(pd.DataFrame({**about, "part": "point", **here}))
    held = [r for r in forecast_rows(fits)[1] if r["n_params"] == n and r["n_frames"] == d]
    if held:
        at, y = [r["steps"] for r in held], [r["measured"] for r in held]
        axes.plot(at, y, ls="none", color=HELD, marker="x", ms=4, zorder=5)
        parts.append(pd.DataFrame({**about, "part": "left out", "steps": at, "loss": y}))
    if len(targets):
        look: dict[str, Any] = {"color": FORECAST, "marker": "D", "mfc": "white", "ms": 3, "zorder": 4}
        error_bars(axes, targets, along="steps", **look)
        drawn = targets[["n_params", "n_frames", "steps", "low", "high"]]
        parts.append(drawn.assign(loss=targets["value"], part="forecast"))
    log_axes(axes, "xy")
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _handles(fits: TableFit) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=LAW, label=f"law {fits.selected}"),
        Patch(color=LAW, alpha=0.16, lw=0, label="95 % of runs"),
        Line2D([], [], ls="none", color="0.45", marker="o", mfc="none", ms=3, label="points of this N and D"),
    ]
    if fits.held:
        handles.append(Line2D([], [], ls="none", color=HELD, marker="x", label="left out"))
    if fits.forecasts:
        handles.append(Line2D([], [], ls="none", color=FORECAST, marker="D", mfc="white", label="forecast"))
    return handles


def _caption(fits: TableFit, places: list[tuple[float, float]], n_wanted: int) -> str:
    steps = fits.table.points.steps
    assert steps is not None
    laws = len(fits.averaged)
    who = "one law" if laws == 1 else f"the average over {laws} laws"
    at = "the largest N D of the points" if not fits.forecasts else "the N and D asked for"
    text = (
        f"The loss against the number of training steps S at {at}, by law {fits.selected}, dashed beyond the "
        f"largest S of the points, {steps.max():.3g}. Band: 95 % forecast interval of a run, of {who}, at "
        f"{N_BAND} values of S."
    )
    points = fits.table.points
    known = {tuple(pair) for pair in pairs_of(points.n_params, points.n_frames)}
    lacking = [place for place in places if place not in known]
    if lacking:
        where = "; ".join(f"N = {n:.4g}, D = {d:.4g}" for n, d in lacking)
        text += f" No run of the table has {where}."
    if fits.forecasts:
        text += " Diamonds: forecasts asked for, with 95 % intervals."
    if n_wanted > len(places):
        text += f" The first {len(places)} of {n_wanted} (N, D) asked for are drawn."
    if fits.held:
        text += f" Crosses: runs of this N and D among {len(fits.held)} that the fit has not seen."
    return text
