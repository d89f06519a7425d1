"""Figures of a table of N, D and loss, each a pure function of its `TableFit`; of groups of rows, of their
`GroupsFit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.analysis.table_groups import GroupsFit
from sapis_lab.figures._drawing import Drawing, NotDrawn, write_drawings
from sapis_lab.figures._tables import frontier, groups, laws, loss, residuals

TABLE_FIGURES: dict[str, Callable[[TableFit], Drawing | NotDrawn]] = {
    "table_loss": loss.draw,
    "table_frontier": frontier.draw,
    "table_laws": laws.draw,
    "table_residuals": residuals.draw,
}
"""In the order of the report."""


def draw_groups(found: GroupsFit, folder: Path) -> list[Path]:
    """Write the figure of the exponents of groups into `folder`; the paths, as of `draw_table`."""
    return write_drawings([("group_exponents", groups.draw(found))], folder)


def draw_table(fits: TableFit, folder: Path) -> list[Path]:
    """Write every figure that the table supports into `folder`, and not_drawn.json, which says why the others
    are missing; the paths."""
    return write_drawings(((name, draw(fits)) for name, draw in TABLE_FIGURES.items()), folder)
