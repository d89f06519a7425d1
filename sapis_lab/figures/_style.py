"""One look for all figures: sizes, fonts, and which colour, marker and line belong to which model.

Colours are those of Okabe & Ito (2008), told apart by colour-blind readers; marker and line style repeat the
message for grey print. A family keeps its colour in every figure; models of one family with different l_max
differ in lightness and marker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

MM = 1 / 25.4
COLUMN = 85 * MM
"""Width of a one-column figure, inches."""
PAGE = 174 * MM
"""Width of a two-column figure, inches."""
WIDE = 2.2
"""Panels wider than this, in inches, hold two labels a decade."""

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the same glyphs on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.7,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "sapis_lab",
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "axes.unicode_minus": True,
}

FAMILY: dict[str, tuple[str, str, Any]] = {
    # family: colour, markers by l_max, line
    "geat": ("#0072B2", "osDph", "-"),
    "nequip": ("#D55E00", "^v<>^", "--"),
    "allegro": ("#009E73", "dHPXp", "-."),
    "transformer": ("#CC79A7", "XXXXX", ":"),
}
OTHER: list[tuple[str, str, Any]] = [
    ("#E69F00", "*****", (0, (5, 1))),
    ("#56B4E9", "8v8v8", (0, (3, 1, 1, 1))),
    ("#000000", "+++++", (0, (1, 1))),
]
"""For families that have no colour of their own yet, in order of appearance."""
LADDER_MARKERS = "osD^vXP*dh"


@dataclass(frozen=True)
class Look:
    """How one model is drawn everywhere."""

    color: tuple[float, float, float]
    marker: str
    line: Any


def looks(runs: pd.DataFrame) -> dict[str, Look]:
    """The look of every model of a runs table."""
    models = runs.drop_duplicates("model")[["model", "family", "lmax"]]
    unknown = [f for f in dict.fromkeys(models["family"]) if f not in FAMILY]
    table = FAMILY | {f: OTHER[i % len(OTHER)] for i, f in enumerate(unknown)}
    result = {}
    for family, group in models.groupby("family", sort=False):
        color, markers, line = table[family]
        degrees = [0 if pd.isna(d) else int(d) for d in group["lmax"]]
        for name, degree in zip(group["model"], degrees, strict=True):
            lighten = 0.28 * min(max(degrees) - degree, 2)  # the largest l_max carries the full colour
            result[name] = Look(_mix(color, lighten), markers[min(degree, len(markers) - 1)], line)
    return result


def _mix(color: str, white: float) -> tuple[float, float, float]:
    r, g, b = (c + (1 - c) * white for c in to_rgb(color))
    return r, g, b


def ladder(values: list[float]) -> dict[float, tuple[tuple, str]]:
    """Colour and marker for an ordered set of sizes: dark to light along viridis, whose lightness survives
    grey print."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(values), 2)))
    return {v: (tuple(shades[i]), LADDER_MARKERS[i % len(LADDER_MARKERS)]) for i, v in enumerate(values)}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches; no pyplot, so no global state and no display."""
    with mpl.rc_context(RC):
        return Figure(figsize=(width, height), layout="constrained")


def log_axes(axes: Axes, which: str) -> None:
    """Logarithmic axes with plain or power labels; between decades labels at 2 and 5 where less than a decade
    and a half is shown, and where there is room, on vertical axes and in wide panels, at 3 up to two decades
    and a half."""
    for axis, used in ((axes.xaxis, "x" in which), (axes.yaxis, "y" in which)):
        if not used:
            continue
        axis.axes.set_xscale("log") if axis is axes.xaxis else axis.axes.set_yscale("log")
        low, high = axis.get_view_interval()
        room = axis is axes.yaxis or _panel_width(axes) > WIDE
        between = (2.0, 5.0) if high / low < 30 else (3.0,) if high / low < 300 and room else ()
        axis.set_major_locator(LogLocator(subs=(1.0, *between)))
        axis.set_minor_locator(LogLocator(subs=tuple(range(2, 10))))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))


def _panel_width(axes: Axes) -> float:
    """About, in inches: the width of the figure over the number of columns."""
    place, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    assert figure is not None
    return float(figure.get_figwidth() / (place.get_gridspec().ncols if place is not None else 1))


def number_label(value: float) -> str:
    """A tick or legend number: 0.05, 20, 300, then 3×10⁴ as mathtext."""
    if value <= 0:
        return f"{value:g}"
    if 1e-2 <= value < 1e4:
        return f"{value:g}"
    power = int(np.floor(np.log10(value) + 1e-9))
    mantissa = value / 10**power
    return rf"$10^{{{power}}}$" if abs(mantissa - 1) < 1e-6 else rf"${mantissa:.3g}{{\times}}10^{{{power}}}$"


def panel_label(axes: Axes, text: str, *, color: Any = "black") -> None:
    """Name a panel above its axes, where no point can be."""
    axes.set_title(text, loc="left", color=color, fontsize=8, fontweight="bold", pad=3)


def empty(width: float, reason: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = new_figure(width, 1.2)
    figure.text(0.5, 0.5, reason, ha="center", va="center", fontsize=8, wrap=True)
    return figure
