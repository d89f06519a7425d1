"""Tables on the screen, all of one look: no lines, faint headings, numbers to the right; and sentences,
broken between words."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from rich.cells import cell_len
from rich.table import Table as Table
from rich.text import Text

_COMMAND = re.compile(r"(?:^|(?<=: ))(?:sapis \w|make \w+ NAME=).*$")
"""A command at the end of a line, to be copied."""
_INDENT = 16
"""The widest indentation that the lines after a break share."""


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


def wrapped(text: Text, width: int) -> Text:
    """The text with its lines broken between words, so that each is at most `width` wide; lines after a break
    are indented as their first one.

    A word that is longer than that stays whole, as a path does, and so does a command at the end of a line:
    what is copied from the screen then has no line break of ours in it.
    """
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        starts = _breaks(line.plain, width)
        parts = line.divide(starts)
        indent = line.plain[: len(line.plain) - len(line.plain.lstrip())][:_INDENT]
        for k, part in enumerate(parts):
            if k < len(parts) - 1:
                part.rstrip()
            lines.append(part if k == 0 else Text(indent) + part)
    joined = Text("\n", style=text.style).join(lines)
    joined.style = text.style
    return joined


def _breaks(line: str, width: int) -> list[int]:
    """Where the lines after the first one begin."""
    command = _COMMAND.search(line)
    end = len(line) if command is None else command.start()
    words = [m.span() for m in re.finditer(r"\S+", line[:end])]
    if command is not None:
        words.append(command.span())
    indent = min(words[0][0], _INDENT) if words else 0
    found, start, room = [], 0, width
    for k, (begin, stop) in enumerate(words):
        if k and cell_len(line[start:stop]) > room:
            found.append(begin)
            start, room = begin, width - indent
    return found
