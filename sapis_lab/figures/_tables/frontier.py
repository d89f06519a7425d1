"""The lowest loss that a cost N D buys, continued beyond the points, with the averaged forecast of runs."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.analysis.table_frontier import Band, Frontier, costs_of, frontier_band, table_frontier
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, PAGE, RC, log_axes, new_figure
from sapis_lab.figures._tables.common import (
    FORECAST,
    HELD,
    LAW,
    error_bars,
    forecast_rows,
    is_compute,
    loss_label,
    size_label,
)


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """Loss along the frontier of the chosen law, and the N and D that it asks for."""
    found = table_frontier(fits)
    if isinstance(found, str):
        return NotDrawn(found)
    band, parts = frontier_band(fits, found), []
    compute = is_compute(fits)
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN if compute else PAGE, 3.0)
        panels = figure.subplots(
            1, 1 if compute else 2, squeeze=False, width_ratios=[1] if compute else [1.6, 1]
        )[0]
        parts.append(_loss(panels[0], fits, found, band))
        if not compute:
            _split(panels[1], fits, found)
        for axes in panels:
            axes.set_xlabel(size_label(fits, "C") if compute else "cost N D")
        figure.legend(handles=_handles(fits, band), loc="outside upper center", ncols=2 if compute else 5)
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, found, band))


def _loss(axes: Axes, fits: TableFit, found: Frontier, band: Band | None) -> pd.DataFrame:
    costs, points = costs_of(fits), fits.table.points
    axes.plot(costs, points.loss, ls="none", color="0.55", marker="o", mfc="none", ms=2.5)
    _continued(axes, found, found.loss, LAW)
    about = {
        "n_params": found.n_params,
        "n_frames": found.n_frames,
        "extrapolated": found.cost > found.largest,
    }
    parts = [
        pd.DataFrame(
            {
                "part": "point",
                "cost": costs,
                "loss": points.loss,
                "n_params": points.n_params,
                "n_frames": points.n_frames,
            }
        ),
        pd.DataFrame({"part": "frontier", "cost": found.cost, "loss": found.loss} | about),
    ]
    if band is not None:
        axes.fill_between(band.cost, band.low, band.high, color=LAW, alpha=0.16, lw=0)
        parts.append(
            pd.DataFrame(
                {
                    "part": "forecast of runs",
                    "cost": band.cost,
                    "loss": band.value,
                    "low": band.low,
                    "high": band.high,
                }
            )
        )
    asked, held = forecast_rows(fits)
    for rows, color, marker, name in ((held, HELD, "s", "left out"), (asked, FORECAST, "D", "forecast")):
        if not rows:
            continue
        table = pd.DataFrame(rows)
        look: dict[str, Any] = {"color": color, "marker": marker, "mfc": "white", "ms": 3, "zorder": 4}
        error_bars(axes, table, **look)
        if "measured" in table:
            axes.plot(table["cost"], table["measured"], ls="none", color=color, marker="x", ms=4, zorder=5)
        parts.append(table.drop(columns="compute").rename(columns={"value": "loss"}).assign(part=name))
    log_axes(axes, "xy")
    axes.set_ylabel(loss_label(fits))
    return pd.concat(parts, ignore_index=True)


def _split(axes: Axes, fits: TableFit, found: Frontier) -> None:
    for values, color, symbol in ((found.n_params, LAW, "N"), (found.n_frames, FORECAST, "D")):
        _continued(axes, found, values, color)
        axes.annotate(
            symbol,
            (found.cost[-1], values[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )
    log_axes(axes, "xy")
    axes.set_ylabel("best N and D")


def _continued(axes: Axes, found: Frontier, values: np.ndarray, color: str) -> None:
    """A line over the points' costs, dashed beyond them."""
    inside = found.cost <= found.largest * 1.0001
    beyond = found.cost >= (found.cost[inside][-1] if inside.any() else 0.0)
    axes.plot(found.cost[inside], values[inside], color=color)
    axes.plot(found.cost[beyond], values[beyond], color=color, ls="--", lw=0.9)


def _handles(fits: TableFit, band: Band | None) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], ls="none", color="0.55", marker="o", mfc="none", ms=3, label="points"),
        Line2D([], [], color=LAW, label=f"law {fits.selected}"),
    ]
    if band is not None:
        handles.append(Patch(color=LAW, alpha=0.16, lw=0, label="95 % of runs"))
    if fits.held:
        handles.append(Line2D([], [], ls="none", color=HELD, marker="x", label="left out, with forecast"))
    if fits.forecasts:
        handles.append(Line2D([], [], ls="none", color=FORECAST, marker="D", mfc="white", label="forecast"))
    return handles


def _caption(fits: TableFit, found: Frontier, band: Band | None) -> str:
    compute = is_compute(fits)
    if compute:
        text = f"The loss against compute by law {fits.selected}, dashed beyond the largest C of the points."
    else:
        end = found.cost[-1]
        text = (
            f"The lowest loss that a cost N D buys by law {fits.selected} (left) and the N and D that buy it "
            f"(right), dashed beyond the largest cost of the points, {found.largest:.3g}. At {end:.3g} the "
            f"best N is {found.n_params[-1]:.2g} and the best D {found.n_frames[-1]:.2g}."
        )
    text += f" Grey: {len(fits.table.points)} points."
    if band is not None:
        laws = len(fits.averaged)
        who = "one law" if laws == 1 else f"the average over {laws} laws"
        text += f" Band: 95 % forecast interval of a run, of {who}, at {len(band.cost)} costs along the line."
    else:
        text += " There is no band: nothing is known of the noise."
    if fits.held:
        inside = sum(h.inside for h in fits.held)
        text += (
            f" Crosses: {len(fits.held)} runs that the fit has not seen, {inside} of them inside the "
            f"intervals of their forecasts (squares)."
        )
    if fits.forecasts:
        text += " Diamonds: forecasts asked for, with 95 % intervals"
        text += "." if compute else ", which need not lie on the frontier."
    return text
