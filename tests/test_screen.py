"""Tables on the screen have one look, since one function makes them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from sapis_lab import screen
from sapis_lab.screen import new_table


def test_words_stand_to_the_left_and_numbers_to_the_right():
    table = new_table("name", "N", left=["name"])
    table.add_row("a", "1")
    table.add_row("long name", "1000")
    file = io.StringIO()
    Console(file=file, width=40).print(table)
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "name          N",
        "a             1",
        "long name  1000",
    ]


def test_only_what_is_named_is_wrapped():
    table = new_table("name", "meaning", left="all", wrapped=["meaning"])
    table.add_row("a name", "a meaning of many words")
    file = io.StringIO()
    Console(file=file, width=20).print(table)
    lines = file.getvalue().splitlines()
    assert len(lines) == 3 and "a name" in lines[1]


def test_tables_are_made_in_one_place():
    package = Path(screen.__file__).parent
    makers = [p.name for p in package.rglob("*.py") if "rich.table" in p.read_text()]
    assert makers == ["screen.py"]
