"""Rows of a CSV file by the names in its first line, quoted cells of several lines included."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from sapis_lab.files import read_text

MOST_BYTES = 10**9
"""Of a file of rows that is read."""
_MOST_CELL = 10**7
"""Characters of a cell."""


def read_rows(path: Path, wanted: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Every row after the names, with its place in words, 'FILE, row 1' being the first.

    Args:
        wanted: columns that there must be, once each.

    Raises:
        ValueError: one is not there, or a row has fewer or more cells than there are names.
    """
    csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(read_text(path, limit=MOST_BYTES), newline=""))
    try:
        names, *cells = list(reader) or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error}); copy it again") from None
    for name in wanted:
        if names.count(name) != 1:
            raise ValueError(
                f"{path}: {'several columns' if name in names else 'no column'} {name!r}; it has "
                f"{', '.join(names)[:200] or 'none'}; wanted it once, or another name in the settings"
            )
    rows = []
    for number, row in enumerate((row for row in cells if row), start=1):
        if len(row) != len(names):
            raise ValueError(f"{path}, row {number}: {len(row)} cells, wanted {len(names)}, one a column")
        rows.append((f"{path}, row {number}", dict(zip(names, row, strict=True))))
    return rows


def number_in(row: dict[str, str], column: str, place: str, *, may_lack: bool = False) -> float:
    """The number in a cell; NaN where the cell is empty and may be.

    Raises:
        ValueError: it is empty, or no finite number.
    """
    text = row[column].strip()
    if not text or text.lower() == "nan":
        if may_lack:
            return float("nan")
        raise ValueError(f"{place}: no {column}; leave the row out, or set missing: mask")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: {column} is {text[:60]!r}, wanted a finite number")
    return value
