"""The verbs of make hand a study's name on as it is: whatever stands in it, nothing of it is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="wants GNU make")

VERBS = {
    "study": ["study", "run"],
    "plan": ["study", "plan"],
    "status": ["study", "status"],
    "evaluate": ["evaluate"],
    "figures": ["figures"],
    "report": ["report"],
    "tune": ["tune"],
    "scale": ["scale"],
    "dashboard": ["dashboard"],
}
HOSTILE = [
    "x; touch pwned",
    "$(touch pwned)",
    "$$(touch pwned)",
    "`touch pwned`",
    "$(shell touch pwned)",
    "$(eval $(shell touch pwned))",
    "x' ; touch pwned ; '",
    'x" ; touch pwned ; "',
    "x && touch pwned",
    "x | touch pwned",
    "x > pwned",
    "x\ntouch pwned",
    "*",
    "a b",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile, a set-up that is done, and programs that write down their words."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "stamp"):
        (tmp_path / name).write_text("numpy==2.0\n")
    os.utime(tmp_path / "stamp", (2e9, 2e9))
    (tmp_path / "bin").mkdir()
    for program in ("sapis", "python", "ruff", "mypy"):
        path = tmp_path / "bin" / program
        path.write_text(f'#!/bin/sh\nprintf "%s\\0" {program} "$@" >> words\n')
        path.chmod(0o755)
    return tmp_path


def make(folder: Path, *words: str, **environment: str) -> list[str]:
    """The words that the program of a verb was given."""
    (folder / "words").unlink(missing_ok=True)
    known = {
        k: v for k, v in os.environ.items() if k not in ("NAME", "ARGS", "TORCH", "MAKEFLAGS", "MAKELEVEL")
    }
    command = ["make", *words, "BIN=bin", "STAMP=stamp"]
    done = subprocess.run(
        command, cwd=folder, env={**known, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "words").read_text().split("\0")[:-1]


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_reaches_every_verb_as_one_word(folder: Path, verb: str) -> None:
    assert make(folder, verb, "NAME=smoke") == ["sapis", *VERBS[verb], "smoke"]
    for name in HOSTILE[:5]:
        assert make(folder, verb, f"NAME={name}") == ["sapis", *VERBS[verb], name]
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_is_run(folder: Path, name: str) -> None:
    assert make(folder, "study", f"NAME={name}") == ["sapis", "study", "run", name]
    assert make(folder, "study", NAME=name) == ["sapis", "study", "run", name]
    assert make(folder, "lint", f"NAME={name}")[0] == "ruff"  # a verb that does not use it
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("torch", ["x' ; touch pwned ; '", "$(shell touch pwned)", "`touch pwned`"])
def test_nothing_in_the_choice_of_torch_is_run(folder: Path, torch: str) -> None:
    os.utime(folder / "stamp", (0, 0))
    (folder / ".venv").mkdir()
    assert torch in make(folder, "setup", f"TORCH={torch}")  # a requirement for pip, which refuses it
    assert not (folder / "pwned").exists()
    assert (folder / ".venv" / ".torch").read_text() == torch


def test_the_name_is_quickstart_where_none_is_given(folder: Path) -> None:
    assert make(folder, "plan") == ["sapis", "study", "plan", "quickstart"]


def test_args_are_words_of_the_users_own_shell(folder: Path) -> None:
    words = make(folder, "study", "NAME=smoke", "ARGS=--only 'geat-*' --set train.steps=5")
    assert words == ["sapis", "study", "run", "smoke", "--only", "geat-*", "--set", "train.steps=5"]


def test_the_hooks_before_a_commit_run_what_lint_runs(folder: Path) -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].removeprefix(".venv/bin/").split() for hook in hooks]
    assert all(hook["language"] == "system" for hook in hooks)
    lint = make(folder, "lint")
    assert [word for entry in entries for word in entry] == [w for w in lint if w not in (".", "--check")]
