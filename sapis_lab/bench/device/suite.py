"""The tests that need a GPU, counted by file.

They run in a process of their own, in several where pytest-xdist and the cores are there, which notes every
outcome as it comes: a test that hangs costs those behind it and no other. Without a device they are
collected.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sapis_lab.bench.device.part import SAY, TIME_UP, Asked
from sapis_lab.bench.environments import MAIN, command
from sapis_lab.config import home
from sapis_lab.jobs.host import n_cores

MARK = "mark.gpu"
_LONGEST = 120
"""Time of one test, s."""
_TOLD = 3
"""Failures of a file whose reasons are told."""


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """A row for every file with tests that are marked `gpu`."""
    files = marked_files(home() / "tests")
    missing = None
    if not files:
        missing = f"{home() / 'tests'} holds no test that is marked gpu"
    elif importlib.util.find_spec("pytest") is None:
        missing = "pytest is not installed"
    if missing:
        yield {"file": "-", "absent": missing}
        return
    notes, log = Path(asked.folder) / "outcomes.jsonl", Path(asked.folder) / "pytest.log"
    collect = asked.device == "cpu"
    n = 1 if collect or importlib.util.find_spec("xdist") is None else min(6, n_cores() // 2)
    options = [str(notes), *_options(n, collect=collect), *map(str, files)]
    if collect:
        yield {SAY: "no CUDA device: the tests are collected, and not run"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(MAIN, "device.suite", *options), cwd=home(), stdout=out, stderr=subprocess.STDOUT
        )
        try:
            status: int | None = process.wait(max(1.0, asked.left()))
        except subprocess.TimeoutExpired:
            status = None
            process.kill()
            process.wait()
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    yield from rows([json.loads(line) for line in lines], collect=collect)
    if status is None:
        yield {SAY: TIME_UP}
    elif status not in (0, 1) or not lines:
        words = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = " | ".join([line for line in words if line][-3:])
        yield {"file": "-", "error": f"pytest ended with status {status}: {last}"}


def marked_files(folder: Path) -> list[Path]:
    """Test files that mention the mark, those of kernels first."""
    found = [path for path in folder.rglob("test_*.py") if MARK in path.read_text(encoding="utf-8")]
    return sorted(found, key=lambda path: ("kernels" not in path.parts, str(path)))


def rows(outcomes: Sequence[dict[str, Any]], *, collect: bool) -> Iterator[dict[str, Any]]:
    """Counts by file, from lines {"test": ..., "outcome": ..., "reason": ...}; a test that was collected has
    none of the other outcomes until it is done."""
    of_test: dict[str, dict[str, Any]] = {}
    for line in outcomes:
        of_test[line["test"]] = line
    files = dict.fromkeys(test.split("::")[0] for test in of_test)
    for file in files:
        own = [line for test, line in of_test.items() if test.split("::")[0] == file]
        counts = Counter(line["outcome"] for line in own)
        row: dict[str, Any] = {"file": file, "n_tests": len(own)}
        row |= {outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")}
        row["not_reached"] = counts["collected"]
        failures = [f"{line['test'].split('::')[1]}: {line['reason']}" for line in own if line["reason"]]
        if failures:
            more = f"; and {len(failures) - _TOLD} more" if len(failures) > _TOLD else ""
            row["error"] = "; ".join(failures[:_TOLD]) + more
        if row["not_reached"] and not collect:
            row["note"] = f"{row['not_reached']} tests not reached in time"
        yield row


def _options(n: int, *, collect: bool) -> list[str]:
    found = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers"]
    found += ["-o", f"timeout={_LONGEST}"]
    return found + (["--collect-only"] if collect else []) + (["-n", str(n)] if n > 1 else [])


class _Notes:
    """A plugin of pytest that writes every outcome to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, test: str, outcome: str, reason: str = "") -> None:
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"test": test, "outcome": outcome, "reason": reason}) + "\n")

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            self.note(item.nodeid, "collected")

    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        if node.gateway.id == "gw0":
            for test in ids:
                self.note(test, "collected")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            reason = report.longreprtext.strip().splitlines()[-1] if report.failed else ""
            self.note(report.nodeid, report.outcome, reason)


def main(arguments: Sequence[str]) -> int:
    """pytest with the options behind the first argument, the file of the outcomes."""
    import pytest

    sys.path.insert(0, str(Path.cwd()))
    notes, *options = arguments
    plugin = _Notes(Path(notes))
    if "-n" not in options:  # a hook that pytest does not know is an error
        del _Notes.pytest_xdist_node_collection_finished
    return int(pytest.main(options, plugins=[plugin]))
