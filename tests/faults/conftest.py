"""A finished tiny study, a process that runs `sapis` commands on copies of it, and frames for single
points."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "training")]

from mutations import NAME  # noqa: E402
from ranked_points import write_clusters  # noqa: E402


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of 2 to 12 atoms, made as those of the training tests are."""
    return write_clusters(tmp_path_factory.mktemp("clusters"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frame stores of these points."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a finished study of two points; its twin `home` is where copies of it
    belong."""
    from sapis_lab.selftest._project import Project, small_study
    from sapis_lab.selftest.ranks import write_molecules

    place = tmp_path_factory.mktemp("damaged")
    write_molecules(place / "molecules.xyz")
    project = Project(place / "home", NAME, place / "log.txt")
    size = {"n_params": (3e3,), "n_frames": (12,), "steps": 8}
    project.write(small_study(place, cache=project.home / "cache", question="Is damage seen?", **size))
    status = project.end(project.start("study", "run", NAME))
    assert status == 0, project.log()
    return project.home.rename(place / "finished")


Sapis = Callable[..., tuple[int | None, str]]


@pytest.fixture(scope="session")
def forked(finished: Path) -> Iterator[Sapis]:
    """Runs `sapis WORDS` in a project; exit status, None if it had to be ended after a minute, and output."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, str(HERE / "forked_sapis.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdin is not None and process.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)

    def answer(timeout: float) -> dict:
        assert selector.select(timeout), "the process that runs the commands does not answer"
        return json.loads(process.stdout.readline())

    def run(*words: str, home: Path, timeout: float = 60) -> tuple[int | None, str]:
        process.stdin.write(json.dumps({"words": words, "home": str(home), "timeout": timeout}) + "\n")
        process.stdin.flush()
        said = answer(timeout + 60)
        return said["status"], said["output"]

    assert answer(300) == {"ready": True}
    yield run
    selector.close()
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tally of the damage, by kind of file."""
    reports = [
        r
        for key in ("passed", "failed")
        for r in terminalreporter.getreports(key)
        if getattr(r, "when", "") == "call"
    ]
    tally = [value for report in reports for key, value in report.user_properties if key == "damage"]
    if not tally:
        return
    cases, bad = Counter(kind for kind, _, _ in tally), Counter(kind for kind, _, faults in tally if faults)
    terminalreporter.section("damaged results")
    for kind, n in sorted(cases.items()):
        words = f"{n - bad[kind]:>3} rebuilt or refused, {bad[kind]:>3} not"
        terminalreporter.line(f"{kind:<24}{n:>4} kinds of damage, {words}")
    n_right = len(tally) - sum(bad.values())
    terminalreporter.line(f"{'all':<24}{len(tally):>4} kinds of damage, {n_right:>3} rebuilt or refused")
    for kind, what, faults in sorted(tally):
        for fault in faults:
            terminalreporter.line(f"  {kind}: {what}: {fault}")
