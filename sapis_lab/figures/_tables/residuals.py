"""What the chosen law leaves over along each size and along its own value, with the edges that miss."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.misfit import Edge
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, new_figure
from sapis_lab.figures._tables.common import FORECAST, LAW, loss_label, size_axes, size_label

MARGIN = 1.12
"""The band about the points of an edge is this factor wider on either side."""


def draw(fits: TableFit) -> Drawing | NotDrawn:
    """Residuals 100 ln(measured / law), each in its own noise where points are weighted."""
    law, points = fits.fits[fits.selected], fits.fits[fits.selected].points
    residual = 100 * law.residuals * np.sqrt(points.weights)
    noise = None if fits.misfit is None else 100 * fits.misfit.noise
    edges = () if fits.misfit is None else fits.misfit.edges
    along = dict(size_axes(fits)) | {"law": ("law", law.fitted)}
    numbers = pd.DataFrame(
        {"part": "point"}
        | {key: values for key, (_, values) in along.items()}
        | {"measured": points.loss, "residual_percent": residual}
    )
    parts = [numbers]
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.5)
        panels = figure.subplots(1, len(along), sharey=True)
        for axes, (symbol, values) in zip(panels, along.values(), strict=True):
            if noise is not None:
                axes.axhspan(-noise, noise, color="0.5", alpha=0.13, lw=0, zorder=0)
            axes.axhline(0, color="0.4", lw=0.8, ls=":", zorder=0)
            axes.plot(values, residual, ls="none", color=LAW, marker="o", mfc="none", ms=3.5)
            log_axes(axes, "x")
            axes.set_xlabel(f"{loss_label(fits)} by the law" if symbol == "law" else size_label(fits, symbol))
            for edge in edges:
                if edge.variable == symbol:
                    parts.append(_mark(axes, edge, values, noise or 0.0))
        weighted = points.weight is not None
        panels[0].set_ylabel("100 ln(measured / law)" + (" √weight" if weighted else ""))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(fits, weighted))


def _mark(axes: Axes, edge: Edge, values: Array, noise: float) -> pd.DataFrame:
    """A band about the points of an edge with a bar at their mean; the numbers."""
    inside = np.sort(values)[-edge.n_points :] if edge.largest else np.sort(values)[: edge.n_points]
    ends, mean = (inside.min() / MARGIN, inside.max() * MARGIN), edge.size * noise
    axes.axvspan(*ends, color=FORECAST, alpha=0.13, lw=0, zorder=0)
    axes.plot(ends, [mean, mean], color=FORECAST, lw=1.6, solid_capstyle="butt")
    axes.annotate(
        f"{edge.size:+.1f} σ",
        (ends[0] if edge.largest else ends[1], 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-2 if edge.largest else 2, 1),
        textcoords="offset points",
        ha="right" if edge.largest else "left",
        va="bottom",
        fontsize=6,
        color=FORECAST,
        annotation_clip=False,
    )
    end = "largest" if edge.largest else "smallest"
    return pd.DataFrame(
        [{"part": f"{end} {edge.variable}", "residual_percent": mean, "n_points": edge.n_points}]
    )


def _caption(fits: TableFit, weighted: bool) -> str:
    text = f"What law {fits.selected} leaves over of the measured loss"
    text += ", in units of each point's own noise." if weighted else "."
    found = fits.misfit
    if found is None:
        return text + " The points are too few to tell whether it misses them."
    text += f" Grey: the noise that law and trends leave, {100 * found.noise:.2g} %."
    p = min(p for p in (found.p_value, found.p_repeats) if p is not None)
    text += (
        f" The law misses the points (p = {p:.1g})."
        if found.found
        else f" No trend is found in its residuals (p = {p:.2g})."
    )
    if found.edges:
        where = "; ".join(edge.text for edge in found.edges)
        text += f" Marked: ends whose mean residual is larger than the noise ({where})."
    return text
