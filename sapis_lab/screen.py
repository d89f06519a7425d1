"""Tables on the screen, all of one look: no lines, faint headings, numbers to the right."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rich.table import Table as Table


def new_table(
    *columns: str, left: Collection[str] | Literal["all"] = (), wrapped: Collection[str] = ()
) -> Table:
    """An empty table.

    Args:
        columns: headings.   left: those of words; the others are numbers.   wrapped: those whose cells may
            take several lines; rows are one line each otherwise.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        words = left == "all" or column in left
        table.add_column(column, justify="left" if words else "right", no_wrap=column not in wrapped)
    return table
