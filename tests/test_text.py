"""What leaves the program holds no password, and nothing that a terminal or a spreadsheet obeys instead of
showing it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table
from rich.text import Text

from sapis_lab import cli
from sapis_lab.config import ConfigError, dump_yaml, load
from sapis_lab.errors import MissingFile
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.sweep.provenance import write_provenance
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.study import Study, load_study
from sapis_lab.text import (
    as_cell,
    for_spreadsheets,
    from_cell,
    from_spreadsheets,
    never_fails,
    visible,
    without_password,
)

URL = "postgresql://u:secret@h/d"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\rred\x08\x9b31m \u202eevil\u2066\u2028[red]:smile:[/]"


def obeyed(text: str) -> set[str]:
    """What of a text a terminal would obey: controls but for the end of a line, and marks of direction."""
    return {
        c
        for c in text
        if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in "\u202e\u2066\u200f"
    }


# -------------------------------------------------------------------------------------------------- passwords


@pytest.mark.parametrize("error", [ConfigError, MissingFile])
def test_an_error_holds_no_password_whatever_its_message(error: type[ConfigError]) -> None:
    told = error(f"--set 'run.storage={URL}' and password=secret: wanted something else")
    assert "secret" not in str(told) + repr(told) and "u:***@h/d" in str(told)


@pytest.mark.parametrize(
    "words",
    [
        ["--set", f"run={URL}"],
        ["--set", f"run.storage=[{URL}]"],
        ["--set", f"run.storage.{URL}=1"],
        ["--set", URL],
        ["--set", "run.storage=mysql://u:secret@h/d"],
        ["--set", "run.storage=u:secret@h/d"],
        ["--set", "run.storage=postgresql://u:secret"],
        ["--set", "run.storage=host=h password=secret"],
        ["--set", f"run.storage='{URL}"],
        ["--set", f"run.workers={URL}"],
        ["--set", f"run.storage={{a: {'x' * 90}, b: {URL}, c: [}}"],
        ["--set", f"run=postgresql://u:{'secret' * 30}@h/d"],
        ["--set", f"models=[{URL}]"],
        ["--set", f"models.0={URL}"],
        ["--only", f"run.storage={URL}"],
        ["--as", URL],
        ["--workers", URL],
        [f"run.storage={URL}"],
        [f"--storage={URL}"],
    ],
)
def test_no_refusal_of_a_command_prints_a_password(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["sapis", "study", "plan", "smoke", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = "".join(capsys.readouterr())
    assert end.value.code == 2 and told
    assert "secret" not in told.replace("\n", "")


def test_a_yaml_file_that_is_broken_beside_a_password_is_told_by_its_place(project: Path) -> None:
    path = project / "studies" / "smoke.yaml"
    path.write_text(path.read_text() + f"run: {{workers: {'1' * 70}, storage: '{URL}, devices: [\n")
    with pytest.raises(ConfigError, match=r"smoke.yaml: not valid YAML: .*in line \d+, column \d+") as told:
        load_study("smoke")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("level", [None, "1"])
def test_the_command_that_goes_on_has_no_password(monkeypatch: pytest.MonkeyPatch, level: str | None) -> None:
    monkeypatch.delenv("MAKELEVEL", raising=False)
    if level:
        monkeypatch.setenv("MAKELEVEL", level)
    request = Request("smoke", (f"run.storage={URL}", "train.steps=3"))
    assert "secret" not in request.again + " ".join(request.command) and "train.steps=3" in request.again


def test_what_a_study_writes_of_its_settings_has_no_password(project: Path) -> None:
    study = load_study("smoke", (f"run.storage={URL}",))
    assert study.run.storage is not None and "secret" in study.run.storage  # it is used
    (project / "provenance.json").write_text(
        json.dumps({"started": "before", "command": f"sapis tune x --set run.storage={URL}"})
    )
    write_provenance(
        project, command=Request("smoke", (f"run.storage={URL}",)).command, device="cpu", workers=1, data={}
    )
    for text in (dump_yaml(study), (project / "provenance.json").read_text()):
        assert "u:***@h/d" in text and "secret" not in text
    assert load(Study, {**study.model_dump(mode="json")}, source="x").run.storage.endswith("u:***@h/d")


@pytest.mark.parametrize(
    "text",
    ["sapis study run x --set a.b=c", "http://host:8080/x and 12:30", "mail a@b.c", "results/x: no file"],
)
def test_text_without_a_password_is_left_alone(text: str) -> None:
    assert without_password(text) == text


@pytest.mark.parametrize(
    "value", ['question=a"b', "question=it's $5", "name=`x`", "x=a b", "x=\\n", "lattice.seeds=[0,1]", "x=!a"]
)
def test_make_and_its_shell_read_the_command_that_goes_on_as_it_was_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    (tmp_path / "Makefile").write_text("study:\n\t@printf '%s\\n' $(NAME) $(ARGS)\n")
    known = {k: v for k, v in os.environ.items() if k not in ("MAKELEVEL", "MAKEFLAGS")}
    command = ["sh", "-c", Request("smoke", (value,)).again]
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, check=True)
    assert done.stdout == f"smoke\n--set\n{value}\n"


# -------------------------------------------------------------------------------------------------- terminals


def test_what_a_terminal_obeys_is_written_out() -> None:
    assert (
        visible("\x1b[2J") == "\\x1b[2J"
        and visible("a\rb\u202ec") == "a\\rb\\u202ec"
        and visible("\ud800") == "\\ud800"
    )
    assert visible("α Å 日本 é\n\t✓") == "α Å 日本 é\n\t✓"
    assert not obeyed(visible(HOSTILE))


@pytest.mark.parametrize("colours", [False, True])
def test_a_console_shows_names_as_they_are_and_obeys_none(colours: bool) -> None:
    out = io.StringIO()
    console = PlainConsole(
        file=out, width=400, force_terminal=colours, color_system="truecolor" if colours else None
    )
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    for shown in (Text(HOSTILE, style="red"), HOSTILE, table):
        console.print(shown, soft_wrap=True)
    text = out.getvalue()
    assert "owned" in text and text.count("[red]:smile:[/]") == 5
    assert "\x1b]0;" not in text and "\x1b[2J" not in text and "\x9b" not in text
    assert obeyed(text) <= ({"\x1b"} if colours else set())


def test_a_failure_reaches_the_terminal_as_text(project: Path, sapis) -> None:
    """Of a study whose files somebody else wrote: reason of failure, question, and an error that quotes a
    file."""
    name = project / "studies" / "smoke.yaml"
    name.write_text(name.read_text().replace("question:", 'question: "\\e]0;owned\\a" #', 1))
    assert not obeyed(sapis("study", "list").stdout)
    assert not obeyed(sapis("study", "plan", "smoke", "--set", f"data={HOSTILE.replace(chr(13), '')}").stderr)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "eV/A # \\u2764"), ("latin-1", "eV/Å # \\u2764"), ("utf-8", "eV/Å ━ ❤")]
)
def test_output_that_an_encoding_lacks_ends_no_command(encoding: str, shown: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    never_fails(stream, None, io.StringIO())
    stream.write("eV/Å ━ ❤")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == shown  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.long),
        pytest.param({"LC_ALL": "C"}, marks=pytest.mark.long),
    ],
)
def test_a_command_works_where_the_terminal_speaks_another_encoding(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sapis_lab.cli", "kinds", "models", "geat"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"cutoff" in done.stdout


def test_logs_of_points_are_utf_8_whatever_the_terminal_speaks(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from sapis_lab.jobs import launcher; "
        "launcher._redirect(pathlib.Path(sys.argv[1])); "
        "print('eV/Å \\ud800'); print('❤', file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log.txt")], env=environment, check=True, timeout=60
    )
    assert set((tmp_path / "log.txt").read_text(encoding="utf-8").split()) == {"eV/Å", "\\ud800", "❤"}


# ----------------------------------------------------------------------------------------------- spreadsheets

CELLS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "=HYPERLINK('http://x')",
    "'=1",
    "''=1",
    "'tis",
    "＝1",
    "-",
    "geat",
    "a\nb",
    "",
    None,
]


@pytest.mark.parametrize("text", CELLS)
def test_a_spreadsheet_calculates_no_text_and_it_reads_back(text: str | None) -> None:
    cell = as_cell(text)
    assert from_cell(cell) == text
    assert not cell or cell[0] not in "=+-@\t\r＝"


@pytest.mark.parametrize("value", [-1.5, 3, "-1.5", "+3e4", "-inf", True, float("nan")])
def test_numbers_stay_as_they_are(value: object) -> None:
    assert as_cell(value) is value


def test_a_table_reads_back_from_its_csv_file() -> None:
    table = pd.DataFrame(
        {"reason": CELLS, "x": [-1.0] * len(CELLS), "n": pd.array([-3] * len(CELLS), dtype="Int64")}
    )
    table["mixed"] = pd.Series([-1, "=1", *CELLS[2:]], dtype=object)
    written = for_spreadsheets(table).to_csv(index=False)
    assert ",-1.0,-3," in written and "\n=1+1" not in written
    read = from_spreadsheets(pd.read_csv(io.StringIO(written, newline=""), keep_default_na=False))
    assert read["reason"].tolist() == [text or "" for text in CELLS]
    assert table["reason"].tolist()[:-1] == CELLS[:-1]  # the table itself is as it was
    plain = table[["x", "n"]]
    assert for_spreadsheets(plain) is plain


def test_a_control_character_in_a_text_moves_no_row() -> None:
    table = pd.DataFrame({"reason": ["a\r=1", "\r\x1b[2J\x00", "b"], "x": [1.0, 2.0, 3.0]})
    read = pd.read_csv(io.StringIO(for_spreadsheets(table).to_csv(index=False), newline=""))
    assert read["reason"].tolist() == ["a\\r=1", "\\r\\x1b[2J\\x00", "b"] and read["x"].tolist() == [
        1.0,
        2.0,
        3.0,
    ]
