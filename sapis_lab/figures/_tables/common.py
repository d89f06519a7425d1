"""What the figures of tables share: names of axes, levels of N and D, and which runs are drawn how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.analysis.forecast import Forecast
from sapis_lab.analysis.laws import COMPUTE_LAWS, Array
from sapis_lab.analysis.table_fit import TableFit

MOST_LEVELS = 8
"""Curves that one panel can hold."""
LAW = "#0072B2"
FORECAST = "#D55E00"
HELD = "#000000"


def is_compute(fits: TableFit) -> bool:
    """The table is one of compute C and loss."""
    return fits.selected in COMPUTE_LAWS


def size_axes(fits: TableFit) -> dict[str, tuple[str, Array]]:
    """Of each size of the points its symbol and its values, by the name of its column in `numbers`."""
    points = fits.table.points
    if is_compute(fits):
        return {"compute": ("C", points.n_params)}
    sizes = {"n_params": ("N", points.n_params), "n_frames": ("D", points.n_frames)}
    return sizes | ({} if points.steps is None else {"steps": ("S", points.steps)})


def size_label(fits: TableFit, symbol: str) -> str:
    """A label of an axis: the symbol, and what the table calls it where that is another word."""
    columns = fits.table.columns
    names = {"N": columns.n_params, "C": columns.n_params, "D": columns.n_frames, "S": columns.steps}
    name = names[symbol]
    return symbol if name in (None, symbol) else f"{symbol} ({plain_text(name or '')})"


def loss_label(fits: TableFit) -> str:
    return plain_text(fits.table.columns.loss)


def plain_text(text: str) -> str:
    """Text of a table, as matplotlib prints it: a dollar begins no formula, and a line stays one."""
    return " ".join(text.split()).replace("$", r"\$")


@dataclass(frozen=True)
class Level:
    """Points of about one size: `size` is theirs, or the middle of the bin in ln."""

    size: float
    rows: np.ndarray
    """(n,) bool"""


def levels(values: Array, *, most: int = MOST_LEVELS) -> tuple[list[Level], float]:
    """The distinct values, ascending, and 1; of more than `most` bins, and the factor that one spans: the
    smallest power of 2 that leaves no more bins than that."""
    known = np.unique(values)
    if len(known) <= most:
        return [Level(float(v), values == v) for v in known], 1.0
    width = 2.0
    while np.log(known[-1] / known[0]) / np.log(width) >= most:
        width *= 2.0
    bins = np.floor(np.log(values / known[0]) / np.log(width) + 1e-9).astype(int)
    return [Level(float(np.exp(np.log(values[bins == b]).mean())), bins == b) for b in np.unique(bins)], width


def error_bars(axes: Axes, table: pd.DataFrame, *, along: str = "cost", **look: Any) -> None:
    """Forecasts as markers with their intervals as bars, along cost or another size."""
    bars = [table["value"] - table["low"], table["high"] - table["value"]]
    axes.errorbar(
        table[along], table["value"], yerr=np.maximum(bars, 0.0), ls="none", lw=0.9, capsize=2, **look
    )


def pairs_of(n_params: Array, n_frames: Array) -> Array:
    """The distinct (N, D), (n, 2), by N and then D."""
    return np.unique(np.stack([n_params, n_frames], axis=1), axis=0)


def at_last_steps(n_params: Array, n_frames: Array, steps: Array) -> np.ndarray:
    """Which rows hold the largest S of their (N, D), (n,) bool."""
    pairs = np.stack([n_params, n_frames], axis=1)
    cell = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    last = np.zeros(cell.max() + 1)
    np.maximum.at(last, cell, steps)
    return np.asarray(steps == last[cell])


def forecast_rows(fits: TableFit) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The forecasts asked for, and those of runs that were left out with what was measured: N, D, S where
    there is one, cost N D (or C), value and interval."""
    asked = [_forecast_row(f) for f in fits.forecasts]
    return asked, [_forecast_row(h.forecast) | {"measured": h.loss} for h in fits.held]


def _forecast_row(found: Forecast) -> dict[str, float]:
    row = {k: float(getattr(found, k)) for k in ("n_params", "n_frames", "value", "low", "high")}
    row |= {} if found.steps is None else {"steps": found.steps}
    return row | {"compute": found.n_params, "cost": found.n_params * found.n_frames}
