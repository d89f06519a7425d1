"""Laws side by side: how much worse each describes the points, its weight, and what it forecasts."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, new_figure, number_label
from sapis_lab.figures._tables.common import FORECAST, LAW, is_compute, loss_label

WORST = 40.0
"""Differences of AICc beyond this leave the panel with an arrow: such a law is out of the question."""
MOST_LAWS = 16
"""Rows; further laws are in the table of laws."""


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """One row a law, the best one on top; the forecast is that of the first target."""
    table = law_table(fits)
    if table.empty:
        return NotDrawn("the points are too few for an AICc of any law")
    n_laws = len(table)
    table = table[(table.index < MOST_LAWS) | (table["law"] == fits.selected)].reset_index(drop=True)
    target, rows = (fits.forecasts[0] if fits.forecasts else None), np.arange(len(table))
    shade = [LAW if name == fits.selected else "0.45" for name in table["law"]]
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.75 + 0.17 * len(table))
        panels = figure.subplots(1, 2 if target is None else 3, sharey=True)
        worst = min(WORST, max(4.0, 1.1 * float(table["delta_aicc"].max())))
        panels[0].hlines(rows, 0, table["delta_aicc"].clip(upper=worst), color=shade, lw=1.0)
        for y, value, color in zip(rows, table["delta_aicc"], shade, strict=True):
            out = value > worst
            panels[0].plot(min(value, worst), y, color=color, marker=">" if out else "o", ms=3, clip_on=False)
        panels[0].set_xlim(0, worst)
        panels[0].set_xlabel("AICc from the best law")
        panels[1].barh(rows, table["weight"], color=shade, height=0.6)
        panels[1].set_xlim(0, 1)
        panels[1].set_xlabel("weight in the average")
        if target is not None:
            axes = panels[2]
            axes.axvspan(target.low, target.high, color=FORECAST, alpha=0.13, lw=0)
            axes.axvline(target.value, color=FORECAST, lw=0.9)
            for y, row, color in zip(rows, table.itertuples(), shade, strict=True):
                axes.plot([row.low, row.high], [y, y], color=color, lw=1.0)
                axes.plot(row.forecast, y, color=color, marker="o", ms=3)
            size = _target(fits)
            axes.set_xlabel(f"{loss_label(fits)} at {size}")
        panels[0].set_yticks(rows, table["law"].tolist())
        panels[0].set_ylim(len(table) - 0.4, -0.6)
    return Drawing(figure, table.assign(part="law"), _caption(fits, table, n_laws))


def _target(fits: TableFit) -> str:
    found = fits.forecasts[0]
    at = {"C": found.n_params} if is_compute(fits) else {"N": found.n_params, "D": found.n_frames}
    at |= {} if found.steps is None else {"S": found.steps}
    return ", ".join(f"{k} = {number_label(v)}" for k, v in at.items())


def law_table(fits: TableFit) -> pd.DataFrame:
    """Columns law, n_parameters, aicc, delta_aicc, weight and, of the first target, forecast, low, high; one
    row a law with an AICc, best first."""
    target = fits.forecasts[0] if fits.forecasts else None
    rows = []
    for name, fit in fits.fits.items():
        score, found = aicc(fit), None if target is None else target.laws.get(name)
        if score is not None:
            about = (name, fit.law.n_parameters, score, fits.weights.get(name, 0.0))
            at = (np.nan,) * 3 if found is None else (found.value, found.low, found.high)
            rows.append((*about, *at))
    table = pd.DataFrame(rows, columns=["law", "n_parameters", "aicc", "weight", "forecast", "low", "high"])
    table = table.sort_values("aicc", kind="stable", ignore_index=True)
    table.insert(3, "delta_aicc", table["aicc"] - table["aicc"].min())
    return table


def _caption(fits: TableFit, table: pd.DataFrame, n_laws: int) -> str:
    of = f" of {n_laws}" if n_laws > len(table) else ""
    text = (
        f"The best {len(table)}{of} laws by AICc. Weight: exp(-AICc/2) over the sum of all. Blue: the chosen "
        f"law, {fits.selected}."
    )
    if float(table["delta_aicc"].max()) > WORST:
        text += " An arrow: a difference beyond the panel."
    if fits.forecasts:
        found = fits.forecasts[0]
        text += (
            f" Right: each law's forecast of a run with 95 % interval, for laws with a part in the average, "
            f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}] (orange)."
        )
    return text
