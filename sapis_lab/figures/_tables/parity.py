"""Measured losses against those of the chosen law, coloured by the number of training steps."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, RC, ladder, log_axes, new_figure, number_label
from sapis_lab.figures._tables.common import HELD, forecast_rows, levels, loss_label, size_axes


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """Points on the diagonal are met by the law; runs that were left out stand with their intervals."""
    sizes = size_axes(fits)
    symbol, values = sizes.get("steps", sizes.get("n_params", next(iter(sizes.values()))))
    found, width = levels(values)
    shades, points = ladder([level.size for level in found]), fits.fits[fits.selected].points
    predicted, parts = fits.fits[fits.selected].fitted, []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 3.4)
        axes = figure.subplots()
        for level in found:
            color, marker = shades[level.size]
            at, loss = predicted[level.rows], points.loss[level.rows]
            label = number_label(float(f"{level.size:.2g}"))
            axes.plot(at, loss, ls="none", color=color, marker=marker, mfc="none", ms=3, label=label)
            drawn = {"level": level.size, "law": at, "measured": loss}
            parts.append(pd.DataFrame({"part": "point", **drawn}))
        held = forecast_rows(fits)[1]
        if held:
            table = pd.DataFrame(held)
            bars = [table["value"] - table["low"], table["high"] - table["value"]]
            look: dict[str, Any] = {"color": HELD, "marker": "x", "ms": 4, "lw": 0.7}
            axes.errorbar(
                table["value"],
                table["measured"],
                xerr=np.maximum(bars, 0.0),
                ls="none",
                label="left out",
                **look,
            )
            columns = ["low", "high", "measured"]
            parts.append(table[columns].assign(law=table["value"], part="left out"))
        log_axes(axes, "xy")
        ends = _ends(pd.concat(parts, ignore_index=True))
        axes.plot(ends, ends, color="0.4", lw=0.8, ls=":", zorder=0)
        axes.set_xlabel(f"{loss_label(fits)} by the law")
        axes.set_ylabel(f"{loss_label(fits)}, measured")
        title = symbol + ("" if width == 1 else f", bins of a factor {width:g}")
        figure.legend(title=title, loc="outside upper center", ncols=4, title_fontsize=7, handlelength=1.0)
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, symbol))


def _ends(table: pd.DataFrame) -> tuple[float, float]:
    both = table[["law", "measured"]].to_numpy()
    return float(both.min()), float(both.max())


def _caption(fits: TableFit, symbol: str) -> str:
    spread = fits.fits[fits.selected].residual_sd
    text = (
        f"Measured losses of {len(fits.table.points)} points against those by law {fits.selected}, coloured "
        f"by {symbol}; on the dotted line both agree."
    )
    if spread is not None:
        text += f" Scatter about it: {100 * spread:.2g} %."
    if fits.held:
        text += (
            f" Crosses: {len(fits.held)} runs that the fit has not seen, at the averaged forecast with its "
            f"95 % interval."
        )
    return text
