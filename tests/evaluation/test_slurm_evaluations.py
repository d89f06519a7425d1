"""Points are evaluated by jobs of a real Slurm; run with `pytest -m slurm`, as root, with Slurm installed."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tiny_study import NAME, scores

sys.path.append(str(Path(__file__).resolve().parents[1] / "sweep"))

import slurm_node  # noqa: E402

from sapis_lab.executors import slurm  # noqa: E402
from sapis_lab.records import read_table  # noqa: E402
from sapis_lab.selftest._project import Project  # noqa: E402
from sapis_lab.sweep.evaluate import EvaluateRequest, evaluate_study  # noqa: E402
from sapis_lab.sweep.lock import Locked  # noqa: E402
from sapis_lab.sweep.manifest import read_manifest  # noqa: E402

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(slurm_node.missing() is not None, reason=str(slurm_node.missing())),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_node.SlurmNode]:
    with slurm_node.SlurmNode(tmp_path_factory.mktemp("node"), max_array=4) as started:
        yield started


@pytest.fixture(autouse=True)
def _asks_this_slurm(node: slurm_node.SlurmNode, study: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(node.conf))
    monkeypatch.setenv("SAPIS_HOME", str(study.home))
    monkeypatch.setattr(slurm, "_INTERVAL", 0.5)


def evaluate(*kinds: str, status: int = 0, **request: object) -> str:
    """What was printed."""
    text = io.StringIO()
    found = evaluate_study(EvaluateRequest(NAME, kinds, **request), Console(file=text, width=200))  # type: ignore[arg-type]
    assert found == status, text.getvalue()
    return text.getvalue()


def test_points_are_evaluated_by_jobs_and_gathered_by_the_same_command(study: Project) -> None:
    ids = [p.id for p in read_manifest(study.folder).points]
    said = evaluate("errors", executor="slurm")
    assert "Slurm job array" in said and "2 submitted" in said and "gather them with: sapis evaluate" in said
    with pytest.raises(Locked, match="is being evaluated already, by the Slurm job"):
        evaluate("errors", executor="local")
    assert "Slurm job array" not in evaluate("errors", executor="slurm"), "they are in the queue"
    end = time.monotonic() + 120
    while not all((study.folder / "evaluations" / id / "evaluated.json").exists() for id in ids):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
    assert "2 of 2 points evaluated (errors), 0 failed" in evaluate("errors", executor="slurm")
    assert scores(study, ids[0], "errors") and (study.folder / "evaluations" / "slurm").is_dir()
    said = evaluate("smoothness", executor="slurm", wait=True)
    assert "2 of 2 points evaluated (smoothness), 0 failed" in said
    table = read_table(study.folder)
    assert table[["errors_test_force_error_max", "smoothness_energy_jump"]].notna().all(axis=None)
    assert not (study.folder / "slurm").exists(), "of the points' own jobs"
