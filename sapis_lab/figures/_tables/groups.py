"""Exponents of the groups of a table with their intervals, against the number of each group where it has
one."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sapis_lab.analysis.laws import MAX_EXPONENT, SYMBOLS
from sapis_lab.analysis.table_groups import GroupExponent, GroupsFit
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, ladder, new_figure
from sapis_lab.figures._tables.common import FORECAST, LAW, plain_text

WIDEST = 1.6
"""As in the figure of a study: an interval that goes on beyond this leaves the panel with an arrow."""
BESIDE = 0.02
"""Groups with one number stand side by side, this part of the axis apart."""
LETTERS = 110
"""What a legend across the page holds."""
MOST_TICKS = 8
"""Numbers of groups up to which each has its tick."""


def draw(found: GroupsFit) -> Drawing | NotDrawn:
    """One panel an exponent of the common law: rows of groups, or groups along their numbers with the line
    through them."""
    names = list(dict.fromkeys(e.exponent for e in found.exponents))
    numbers = _numbers(found)
    along = found.columns.against is not None
    across = int(np.clip(LETTERS // (6 + max(len(name) for name in found.groups)), 1, 4))
    with mpl.rc_context(RC):
        figure = new_figure(
            PAGE, 2.5 + 0.16 * -(-len(found.groups) // across) if along else 0.85 + 0.2 * len(found.groups)
        )
        panels = figure.subplots(1, len(names), sharey=not along, squeeze=False)[0]
        parts = [numbers]
        for axes, name in zip(panels, names, strict=True):
            mine = [e for e in found.exponents if e.exponent == name]
            if along:
                parts.append(_against(axes, mine, found, name))
            else:
                _rows(axes, mine, found, name)
        if along:
            handles = [
                Line2D([], [], ls="none", color=color, marker=marker, label=plain_text(name))
                for name, (color, marker) in _shades(found).items()
            ]
            figure.legend(handles=handles, loc="outside upper center", ncols=across)
        else:
            panels[0].set_yticks(range(len(found.groups)), [plain_text(name) for name in found.groups])
            panels[0].set_ylim(len(found.groups) - 0.4, -0.6)
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(found))


def _numbers(found: GroupsFit) -> pd.DataFrame:
    columns = ["group", "exponent", "value", "low", "high", "identified", "against"]
    table = pd.DataFrame([vars(e) for e in found.exponents])[columns]
    return table.assign(part="exponent", law=found.common)


def _look(e: GroupExponent, color: Any = LAW, marker: str = "o") -> tuple[dict[str, Any], dict[str, Any]]:
    """Line of the interval and marker of the value: hollow and dashed where it is not identified."""
    line = {"ls": "-", "lw": 1.1} if e.identified else {"ls": (0, (2, 2)), "lw": 0.8}
    return line | {"color": color}, {
        "ls": "none",
        "marker": marker,
        "mfc": color if e.identified else "white",
        "color": color,
    }


def _shades(found: GroupsFit) -> dict[str, tuple[Any, str]]:
    """Colour and marker of every group, in the order of the table."""
    order = list(found.groups)
    shades = ladder([float(k) for k in range(len(order))])
    return {name: shades[float(k)] for k, name in enumerate(order)}


def _rows(axes: Axes, exponents: list[GroupExponent], found: GroupsFit, name: str) -> None:
    groups = list(found.groups)
    for e in exponents:
        y, (line, marker) = groups.index(e.group), _look(e)
        axes.plot([e.low, min(e.high, WIDEST)], [y, y], **line)
        if e.high > WIDEST:
            axes.plot(WIDEST, y, color=LAW, marker=">", ms=3, clip_on=False)
        if e.identified or e.value <= WIDEST:
            axes.plot(e.value, y, **marker)
    common = next(t for t in found.common_exponent if t.exponent == name)
    if common.value <= WIDEST:
        axes.axvline(common.value, color=FORECAST, lw=0.9, ls="--", zorder=0)
    axes.set_xlim(0, min(WIDEST, max(0.2, 1.08 * max(min(e.high, WIDEST) for e in exponents))))
    axes.set_xlabel(f"exponent {SYMBOLS[name]}")


def _against(axes: Axes, exponents: list[GroupExponent], found: GroupsFit, name: str) -> pd.DataFrame:
    """Exponents along the numbers of the groups; the line that was drawn."""
    x = np.array([e.against for e in exponents], dtype=float)
    span = float(np.ptp(x)) or 1.0
    seen: dict[float, int] = {}
    shades = _shades(found)
    top = min(WIDEST, max(0.2, 1.1 * max(min(e.high, WIDEST) for e in exponents)))
    for e, at in zip(exponents, x, strict=True):
        again = seen[at] = seen.get(at, -1) + 1
        place, (line, marker) = at + BESIDE * span * again, _look(e, *shades[e.group])
        axes.plot([place, place], [e.low, min(e.high, top)], **line)
        if e.high > top:
            axes.plot(place, top, color=line["color"], marker="^", ms=3, clip_on=False)
        if e.identified or e.value <= top:
            axes.plot(place, e.value, **marker)
    fit = next((t for t in found.trends if t.exponent == name), None)
    line_at = np.array([x.min(), x.max()])
    drawn = pd.DataFrame()
    if fit is not None:
        values = fit.intercept + fit.slope * line_at
        axes.plot(line_at, values, color=FORECAST, lw=0.9, ls="--", zorder=0)
        drawn = pd.DataFrame({"part": "line", "exponent": name, "against": line_at, "value": values})
    axes.set_ylim(0, top)
    axes.set_xlim(x.min() - 0.12 * span, x.max() + 0.12 * span)
    if len(seen) <= MOST_TICKS:
        axes.set_xticks(sorted(seen), [f"{at:g}" for at in sorted(seen)])
    axes.set_xlabel(plain_text(found.columns.against or ""))
    axes.set_ylabel(f"exponent {SYMBOLS[name]}")
    return drawn


def _caption(found: GroupsFit) -> str:
    unknown = sum(not e.identified for e in found.exponents)
    text = f"Exponents of law {found.common} in {len(found.groups)} groups, with 95 % profile intervals."
    if unknown:
        text += (
            f" Hollow symbols and dashed lines: {unknown} that the points do not identify; no value should "
            f"be read from those (exponents are sought up to {MAX_EXPONENT:g})."
        )
    if found.columns.against is None:
        text += " Dashed across: the exponent that describes all groups best together."
    for test in found.common_exponent:
        text += f" One {SYMBOLS[test.exponent]} for all: p = {test.p_value:.2g}."
    for line in found.trends:
        text += (
            f" Line through {SYMBOLS[line.exponent]}: {line.slope:+.3g} [{line.low:.3g}, {line.high:.3g}] a "
            f"unit of {found.columns.against}, p = {line.p_value:.2g}."
        )
    return text
