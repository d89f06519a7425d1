"""The whole way of a small study through the real engine: data, points, table, laws, figures, report; then
again, killed, and failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sapis_lab.records import same_numbers

pytest.importorskip("tblite", reason="the smoke study generates its labels with tblite")


@pytest.mark.timeout(900)
def test_the_smoke_study_travels_the_whole_road_and_survives_being_killed(project, sapis, tmp_path):
    first = sapis("study", "run", "smoke", timeout=600)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "8 of 8 points done, 0 failed" in first.stdout and "results/smoke/report.html" in first.stdout
    folder = project / "results/smoke"
    runs = pd.read_parquet(folder / "runs.parquet")
    assert len(runs) == 8 and (runs["status"] == "done").all() and runs["val_force_rmse"].gt(0).all()
    assert (runs["n_params_equivariant"] + runs["n_params_scalar"] == runs["n_params"]).all()
    for name in ("runs.csv", "fit.json", "report.html", "study.yaml", "provenance.json", "points.json"):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "figures").glob("*.pdf")) and list((folder / "figures").glob("*.csv"))
    assert {"commit", "versions", "host", "device"} <= set(
        json.loads((folder / "provenance.json").read_text())
    )

    again = sapis("study", "run", "smoke")
    assert again.returncode == 0 and "smoke is finished: all 8 points are done" in again.stdout

    status = sapis("study", "status", "smoke")
    assert "not running" in status.stdout and "transformer" in status.stdout

    changed = sapis("study", "run", "smoke", "--set", "train.steps=7")
    assert changed.returncode == 2 and "train.steps 6 -> 7" in changed.stderr

    # The process group killed before the first point and again among the points: elsewhere, the same numbers
    # come out.
    other = tmp_path / "other"
    other.mkdir()
    for name in ("configs", "studies"):
        (other / name).symlink_to(project / name)
    for product in ("points.json", "points/*/progress.json"):
        process = _start_some(other)
        _wait_for(lambda product=product: list(other.glob(f"results/smoke/{product}")), process)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert _start_some(other).wait(timeout=600) == 0
    some = runs[(runs["model"] == "transformer") & (runs["n_params_target"] == 3e3)]
    assert same_numbers(pd.read_parquet(other / "results/smoke/runs.parquet"), some)


def _start_some(home: Path) -> subprocess.Popen:
    words = "-m sapis_lab.cli study run smoke --set lattice.n_params=[3e3] --set models=[transformer]"
    command = [sys.executable, *words.split()]
    return subprocess.Popen(
        command,
        cwd=home,
        env={**os.environ, "SAPIS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
