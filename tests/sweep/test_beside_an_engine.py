"""What writes into a results folder is refused while an engine works there, and before anything heavy is
imported for it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sapis_lab.cli import app
from sapis_lab.config import read_yaml
from sapis_lab.sweep import export
from sapis_lab.sweep.lock import Locked, holder, locked

HEAVY = ("torch", "lightning", "e3nn", "optuna", "pandas", "scipy", "matplotlib")
PROGRAM = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise AssertionError("imported: " + name)

sys.meta_path.insert(0, Blocker())
from sapis_lab.cli import main
main()
"""

WRITERS = {
    "study run": ["study", "run", "smoke"],
    "study run --as": ["study", "run", "quickstart", "--as", "smoke"],
    "tune": ["tune", "smoke"],
    "scale": ["scale", "smoke"],
    "evaluate": ["evaluate", "smoke", "--kind", "errors"],
    "fit": ["fit", "smoke"],
    "figures": ["figures", "smoke"],
    "report": ["report", "smoke"],
    "clean": ["study", "clean", "smoke", "--yes"],
    "export": ["study", "export", "smoke"],
}


@pytest.fixture
def results(project: Path) -> Path:
    """Results of a study that was started."""
    place = project / "results" / "smoke"
    place.mkdir(parents=True)
    for name in ("runs.csv", "fit.json"):
        (place / name).write_text(name)
    return place


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_command_that_writes_is_refused_at_once(project: Path, results: Path, words: list[str]) -> None:
    before = {p: p.read_bytes() for p in results.iterdir() if p.name != ".lock"}
    with locked(results):
        command = [sys.executable, "-c", PROGRAM, *words]
        done = subprocess.run(
            command, cwd=project, env=os.environ, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(
        f"error: smoke is being run already, by host {platform.node()}, process {os.getpid()}; "
    )
    assert {p: p.read_bytes() for p in results.iterdir() if p.name != ".lock"} == before
    assert not list(project.glob("*.zip"))


@pytest.mark.parametrize("word", ["figures", "report", "fit"])
def test_answers_are_written_under_the_lock(
    project: Path, results: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def analyse(place: Path, **_: object) -> None:
        held.append(holder(place))
        (place / "report.html").write_text("")

    monkeypatch.chdir(project)
    monkeypatch.setattr("sapis_lab.report.analyse_folder", analyse)
    monkeypatch.setattr("sapis_lab.sweep.answers.print_answers", lambda *_: None)
    done = CliRunner().invoke(app, [word, "smoke"])
    assert done.exit_code == 0, done.output
    assert held and str(os.getpid()) in (held[0] or "")
    assert holder(results) is None


def test_workers_that_share_a_database_share_the_study_too(project: Path, results: Path, sapis) -> None:
    """With run.storage nobody holds the study: what is refused here is refused for another reason."""
    path = project / "studies" / "smoke.yaml"
    path.write_text(yaml.safe_dump(read_yaml(path) | {"run": {"storage": "postgresql://u@h/d"}}))
    with locked(results):
        done = sapis("tune", "smoke")
    assert done.returncode == 2 and "has no tune: section" in done.stderr


def test_the_sums_of_an_archive_are_of_what_is_in_it(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file changes while it is packed."""
    import hashlib

    read, count = Path.read_bytes, iter(range(99))
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + str(next(count)).encode())
    export.export(results, tmp_path / "a.zip")
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for line in archive.read("smoke/SHA256SUMS").decode().splitlines():
            total, name = line.split("  ")
            assert hashlib.sha256(archive.read(f"smoke/{name}")).hexdigest() == total


def test_an_archive_is_not_made_of_a_study_that_runs(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sapis_lab.sweep.lock.holder", lambda _: "host h, process 1")
    with pytest.raises(Locked, match="smoke is being run already"):
        export.export(results, tmp_path / "a.zip")
