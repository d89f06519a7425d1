"""The laws of groups of rows, and how exponents differ between them, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.laws import COMPUTE_LAWS, SYMBOLS, law_named
from sapis_lab.analysis.table_fit import together
from sapis_lab.analysis.table_groups import GroupsFit, Trend
from sapis_lab.report.laws_text import (
    SHOWN,
    left_out_rows,
    parameter_cells,
    parameter_heads,
    size_heads,
    sizes_at,
    warnings_of,
)
from sapis_lab.screen import Table, new_table

CLEAR = 0.05
MOST_PAIRS = 12
"""Pairs that are printed; all are in --json."""


def print_groups(found: GroupsFit, console: Console) -> None:
    """The common law of every group side by side, and the tests."""
    columns = found.columns
    total = len(found.groups) + len(found.left_out)
    console.print(
        Text(f"{found.path}: {len(found.groups)} of {total} groups by {columns.by}; ln loss"), soft_wrap=True
    )
    for line in notices(found):
        console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print()
    console.print(_grid(found, console.width))
    legend = (
        f"Of law {found.common}, the one with the lowest sum of AICc over the groups; chosen: the law of the "
        f"group alone; [ ]: 95 % profile intervals; ?: not identified."
    )
    console.print(Text(legend, "dim"), soft_wrap=True)
    if any(fit.forecasts for fit in found.groups.values()):
        console.print()
        console.print(_forecasts(found))
    console.print()
    for line in (*sentences_of_groups(found), *pair_sentences(found)):
        console.print(Text(line), soft_wrap=True)


def notices(found: GroupsFit) -> Iterator[str]:
    """What a reader must know of groups before using a number."""
    for name, reason in found.left_out.items():
        yield f"{name} is left out: {reason}"
    yield from together(
        (name, line)
        for name, fit in found.groups.items()
        for line in (*left_out_rows(fit.table), *warnings_of(fit))
    )


def parameters(found: GroupsFit) -> list[str]:
    """The parameters of the common law that are shown: exponents and a floor."""
    names = law_named(found.common).param_names
    return [name for name in SHOWN if name in names]


def _grid(found: GroupsFit, width: int) -> Table:
    names, against = parameters(found), found.columns.against
    heads = parameter_heads(names, width)
    extra = [against] if against else []
    grid = new_table(
        found.columns.by or "group",
        *extra,
        "law",
        *heads,
        "points",
        "chosen",
        left=[found.columns.by or "group", "law", *heads, "chosen"],
        wrapped=heads,
    )
    for name, fit in found.groups.items():
        result = found.common_result(name)
        number = [] if not against else [f"{fit.table.against:g}" if fit.table.against is not None else "–"]
        cells = parameter_cells(result, names, width)
        grid.add_row(name, *number, found.common, *cells, str(len(fit.table.points)), fit.selected)
    return grid


def _forecasts(found: GroupsFit) -> Table:
    compute = found.common in COMPUTE_LAWS
    sizes = size_heads(next(iter(found.groups.values())))
    by = found.columns.by or "group"
    grid = new_table(by, *sizes, "forecast", "95 % interval", left=[by, "95 % interval"])
    for name, fit in found.groups.items():
        for f in fit.forecasts:
            at = [f"{v:.4g}" for v in sizes_at(f, compute=compute)]
            grid.add_row(name, *at, f"{f.value:.5g}", f"[{f.low:.5g}, {f.high:.5g}]")
    return grid


def sentences_of_groups(found: GroupsFit) -> Iterator[str]:
    """Whether one exponent does for all groups, and how exponents go along their numbers."""
    for test in found.common_exponent:
        symbol = SYMBOLS[test.exponent]
        ratio = (
            f"likelihood ratio {test.statistic:.1f}, 95 % point {test.critical:.1f} by {test.n_simulations} "
            f"simulations, p = {test.p_value:.2g}"
        )
        if test.p_value < CLEAR:
            yield f"{symbol} differs between the {test.n_groups} groups ({ratio})."
        else:
            yield (
                f"One {symbol} = {test.value:.3f} for all {test.n_groups} groups is not excluded ({ratio})."
            )
    yield from (trend_sentence(found, line) for line in found.trends)
    for name, reason in found.no_trend.items():
        yield f"{SYMBOLS[name]} against {found.columns.against}: {reason}."


def pair_sentences(found: GroupsFit) -> Iterator[str]:
    """The tests of pairs, the clearest difference first."""
    shown = sorted(found.pairwise, key=lambda t: t.p_holm)
    if shown:
        yield f"Pairs, p corrected by Holm's method for {len(shown)} tests:"
    for t in shown[:MOST_PAIRS]:
        yield (
            f"  {SYMBOLS[t.exponent]} of {t.model} - {t.other}: {t.difference:+.3f} [{t.low:.3f}, "
            f"{t.high:.3f}], p = {t.p_holm:.2g}"
        )
    if len(shown) > MOST_PAIRS:
        yield f"  and {len(shown) - MOST_PAIRS} more pairs with larger p (--json)"
    if not shown:
        yield "No two groups have an exponent with a closed interval that excludes 0, so no pair is tested."


def trend_sentence(found: GroupsFit, line: Trend) -> str:
    """The line through an exponent in words."""
    symbol, against = SYMBOLS[line.exponent], found.columns.against
    wider = f"; widened by {line.scatter:.2g} for their scatter about the line" if line.scatter > 1 else ""
    return (
        f"{symbol} against {against}: {line.slope:+.3g} [{line.low:.3g}, {line.high:.3g}] a unit, p = "
        f"{line.p_value:.2g} (a line through the exponents of {len(line.groups)} groups, weighted by their "
        f"intervals{wider})."
    )
