"""`sapis bench engine`: all points are run and counted, the parts of the overhead add up, and making a batch
is timed beside its step."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sapis_lab.bench.engine import LOADER_SIZES, Plan, run_engine

pytest.importorskip("tblite", reason="the smoke study generates its labels with tblite")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_cost_of_a_lattice_is_told_with_its_parts(project: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    console = Console(file=StringIO(), width=200)
    plan = Plan(study="smoke", n_frames=12, n_points=2, seconds=0.2, workers=1, trial_steps=10)
    assert run_engine(plan, cache=tmp_path / "cache", save=found.update, console=console) == 0
    assert len(found["seconds_train"]) == len(found["seconds_total"]) == 2 and found["steps"] > 1
    assert found["overhead"] == pytest.approx(found["seconds_wall"] / sum(found["seconds_train"]) - 1)
    assert all(
        total > train for total, train in zip(found["seconds_total"], found["seconds_train"], strict=True)
    )
    assert [row["n_params"] for row in found["loader"]] == pytest.approx(LOADER_SIZES, rel=0.25)
    assert all(row["batch_seconds"] > 0 and row["step_seconds"] > 0 for row in found["loader"])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        "2 points of geat" in text
        and text.count("making a batch takes") == 2
        and "start of the 1 workers, once" in text
    )
