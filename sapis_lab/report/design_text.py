"""What to run next as text for a terminal: what `sapis design TABLE` prints."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.design_table import TableDesign, intervals
from sapis_lab.analysis.laws import Array
from sapis_lab.report.laws_text import misfit_text
from sapis_lab.screen import new_table

MOST_TARGETS = 4
"""Targets that get a column where the terminal has room; all are in --json."""
RUN_WIDTH, TARGET_WIDTH = 50, 30
"""Characters that a run with its price takes, and a target."""


def print_design(found: TableDesign, console: Console) -> None:
    """The runs in order, what they cost, and what the forecasts are expected to be after each."""
    pool, points = found.pool, found.table.points
    sources = {"pool": "of the pool", "grid": "of the grid around the runs"}
    source = sources.get(found.candidates.source, "without a loss")
    budget = f", budget {found.budget:.4g}" if np.isfinite(found.budget) else ""
    head = f"{found.table.path}: {len(points)} runs made; {len(pool)} possible ones {source}{budget}"
    console.print(Text(head), soft_wrap=True)
    if found.forecast is None:
        _print_first(found, console)
        return
    weights = ", ".join(f"{name} {w:.2f}" for name, w in found.belief.weights.items())
    console.print(Text(f"Laws and their weights: {weights}"), soft_wrap=True)
    for name, reason in found.belief.left_out.items():
        console.print(Text(f"Left out: {name} {reason}", "yellow"), soft_wrap=True)
    for name, misfit in found.misfits.items():
        console.print(Text(misfit_text(name, misfit), "yellow"), soft_wrap=True)
    console.print()
    room = min(max((console.width - RUN_WIDTH) // TARGET_WIDTH, 1), MOST_TARGETS)
    shown = found.targets[:room].tolist()
    headings = [f"N={n:.4g}, D={d:.4g}" for n, d in shown]
    rows = ["row"] if found.candidates.rows is not None else []
    grid = new_table("run", *rows, "N", "D", "price", "total", *headings, left=headings)
    grid.add_row("now", *["" for _ in rows], "", "", "", "", *_cells(found, found.forecast[1])[:room])
    for k, bought in enumerate(found.purchases, start=1):
        at = bought.place
        row = [str(found.candidates.rows[at])] if found.candidates.rows is not None else []
        sizes = f"{pool.n_params[at]:.4g}", f"{pool.n_frames[at]:.4g}"
        costs = f"{pool.price[at]:.4g}", f"{bought.spent:.4g}"
        grid.add_row(str(k), *row, *sizes, *costs, *_cells(found, bought.sd)[:room])
    console.print(grid)
    legend = (
        f"price: {found.price}; [ ]: 95 % interval of a run at the target, as it is expected after each run "
        f"(about today's forecast); fit again when some of them are made."
    )
    if found.candidates.source == "rows without a loss":
        legend += " Rows whose loss is empty or nan can be made; take out those that diverged."
    console.print(Text(legend, "dim"), soft_wrap=True)
    if len(found.targets) > room:
        console.print(Text(f"{len(found.targets) - room} more targets in --json", "dim"))


def _cells(found: TableDesign, sd: Array) -> list[str]:
    """An interval for each target."""
    ends = intervals(found, sd)
    return [f"[{e['low']:.4g}, {e['high']:.4g}] ±{_percent(e['high'] / e['value'])} %" for e in ends]


def _percent(factor: float) -> str:
    return f"{100 * (factor - 1):.2g}" if factor < 10 else "large"


def _print_first(found: TableDesign, console: Console) -> None:
    """Runs to begin with."""
    for name, reason in found.belief.left_out.items():
        console.print(Text(f"Left out: {name} {reason}", "yellow"), soft_wrap=True)
    console.print(Text("No law can be fitted yet; runs to begin with, spread over N and D:"), soft_wrap=True)
    console.print()
    grid, total = new_table("run", "N", "D", "price", "total"), 0.0
    for k, at in enumerate(found.first, start=1):
        total += float(found.pool.price[at])
        n, d, price = found.pool.n_params[at], found.pool.n_frames[at], found.pool.price[at]
        grid.add_row(str(k), f"{n:.4g}", f"{d:.4g}", f"{price:.4g}", f"{total:.4g}")
    console.print(grid)
