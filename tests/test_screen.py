"""Tables on the screen have one look, since one function makes them; sentences break between words."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from sapis_lab import screen
from sapis_lab.cli.common import to_stderr
from sapis_lab.screen import new_table, wrapped
from sapis_lab.sweep.console import PlainConsole


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


LONG = "  the law n+d misses the data at 3.1 x the noise; see /a/very/long/path/that/no/line/holds for more"


def test_a_sentence_breaks_between_words_and_keeps_its_indentation():
    lines = wrapped(Text(LONG), 30).plain.split("\n")
    assert lines == [
        "  the law n+d misses the data",
        "  at 3.1 x the noise; see",
        "  /a/very/long/path/that/no/line/holds",
        "  for more",
    ]
    assert " ".join(line.strip() for line in lines) == LONG.strip()


@pytest.mark.parametrize("text", ["", "short", "two\nlines", "a trailing newline\n", "  ", "日本語 " * 3])
def test_text_that_fits_stays_as_it_is(text):
    assert wrapped(Text(text), 40).plain == text


def test_letters_that_are_two_columns_wide_count_as_two():
    assert wrapped(Text("日本 日本 日本"), 9).plain == "日本 日本\n日本"


@pytest.mark.parametrize(
    "command", ["sapis study run quickstart --only a", "make study NAME=a ARGS='--only b'"]
)
def test_a_command_at_the_end_of_a_line_is_left_in_one_piece(command):
    text = f"stopped; nothing is lost. Continue with: {command}"
    assert wrapped(Text(text), 30).plain == f"stopped; nothing is lost.\nContinue with:\n{command}"


def test_words_keep_their_style_across_a_break():
    text = Text("one two three", style="yellow")
    text.stylize("bold", 4, 13)
    found = wrapped(text, 8)
    assert found.plain == "one two\nthree" and found.style == "yellow"
    bold = [found.plain[s.start : s.end] for s in found.spans if s.style == "bold"]
    assert bold == ["two", "three"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("what", [LONG, Text(LONG, style="yellow")])
@pytest.mark.parametrize("options", [{}, {"soft_wrap": True}])
def test_the_console_breaks_between_words_on_a_terminal_and_nowhere_in_a_pipe(what, options):
    terminal, pipe = Terminal(), io.StringIO()
    PlainConsole(file=terminal, width=30, color_system=None).print(what, **options)
    PlainConsole(file=pipe, width=30).print(what, **options)
    assert terminal.getvalue() == wrapped(Text(LONG), 30).plain + "\n"
    assert pipe.getvalue() == LONG + "\n"


def test_a_pipe_gets_one_line_also_where_colours_are_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe = io.StringIO()
    PlainConsole(file=pipe, width=30).print(LONG, soft_wrap=True)
    assert pipe.getvalue() == LONG + "\n"


def test_an_error_breaks_between_words_on_a_terminal_and_nowhere_in_a_pipe(monkeypatch):
    for stream, wanted in ((Terminal(), wrapped(Text(LONG), 30).plain), (io.StringIO(), LONG)):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("COLUMNS", "30")
        to_stderr(LONG)
        assert stream.getvalue() == wanted + "\n"


def test_every_console_of_a_command_breaks_lines_alike():
    package = Path(screen.__file__).parent
    makers = [p.name for p in package.rglob("*.py") if re.search(r"\bConsole\(", p.read_text())]
    assert makers == []
