"""`sapis scale`: what is refused before anything is spent; a campaign that is killed ends as one
that was not; warm starts and later labels reach the points."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from sapis_lab.config import ConfigError
from sapis_lab.records import RECORD, read_record
from sapis_lab.scaling.answers import print_comparison, print_design
from sapis_lab.scaling.campaign import resolve
from sapis_lab.scaling.history import ASIDE, decide_next, read_decisions, read_history, replayed, same
from sapis_lab.sweep.folder import point_folder

TINY = [
    "data=ethanol-xtb-tiny",
    "train.epochs=2",
    "train.batch_size=4",
    "train.validations=1",
    "lattice.n_params=[3e3,6e3,1.2e4]",
    "lattice.n_frames=[6,12]",
    "scale.budget=2.5e9",
    "law.bootstrap=100",
    "law.calibrate=0",
]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.epochs=null", "train.steps=100"], "scale: wanted train.epochs, got train.steps"),
        (["models=[geat,nequip]"], "scale: wanted one model to scale, got 2"),
        (["scale.budget=1e9"], "scale.budget: 1e.09 FLOPs do not cover the lattice, which costs 4"),
        (["lattice.n_params=[3e3]"], "at least 6 points with two sizes and two amounts of data, got 3"),
        (["scale.policy=best"], "scale.policy"),
        (["scale=null"], "has no scale: section"),
    ],
)
def test_what_cannot_be_scaled_is_refused(project, settings, words):
    with pytest.raises(ConfigError, match=words):
        resolve("quickstart-scale", settings)


def test_frames_are_labelled_later_only_where_the_data_can(project):
    with pytest.raises(ConfigError, match="'rmd17' cannot make more frames; wanted kind xtb"):
        resolve("quickstart-scale", ["data=rmd17-ethanol", "scale.label_more=100"])


# ---------------------------------------------------------------------------------------- with real trainings


def started(home, *settings):
    words = [w for s in [*TINY, *settings] for w in ("--set", s)]
    return subprocess.Popen(
        [sys.executable, "-m", "sapis_lab.cli", "scale", "quickstart-scale", "--workers", "1", *words],
        cwd=home,
        env={**os.environ, "SAPIS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(home, *settings):
    process = started(home, *settings)
    told = process.communicate(timeout=600)[0]
    assert process.returncode == 0, told
    return told


@pytest.fixture
def homes(project, tmp_path):
    """Two projects with the same files."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("configs", "studies"):
        (other / name).symlink_to(project / name)
    return project, other


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_campaign_that_is_killed_decides_and_measures_what_one_does_that_is_not(homes, monkeypatch):
    pytest.importorskip("tblite", reason="the data are generated with tblite")
    whole, killed = homes
    finished(whole)
    folder = whole / "results/quickstart-scale/scale"
    rows, entries = read_history(folder), read_decisions(folder)
    assert entries[-1].decision.action == "stop" and len(entries) >= 3
    assert all(same(entry.decision, again) for entry, again in replayed(folder))
    assert rows[-1].flops_total <= 2.5e9 * 1.02

    place = killed / "results/quickstart-scale"
    for condition in (
        lambda: len(list(place.glob(f"points/*/{RECORD}"))) >= 2,
        lambda: (place / "scale/decisions.jsonl").exists(),
        lambda: len((place / "scale/decisions.jsonl").read_text().splitlines()) >= 2,
    ):
        process = started(killed)
        end = time.monotonic() + 300
        while not condition():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finished(killed)
    assert read_history(place / "scale") == rows or str(read_history(place / "scale")) == str(rows)
    again = read_decisions(place / "scale")
    assert len(again) == len(entries) and all(
        same(a.decision, b.decision) for a, b in zip(again, entries, strict=True)
    )

    monkeypatch.setenv("SAPIS_HOME", str(whole))
    with (whole / "screen.txt").open("w") as file:
        print_design("quickstart-scale", Console(file=file, width=160))
        print_comparison("quickstart-scale", ["quickstart-scale"], Console(file=file, width=160))
    assert "variance less by" in (whole / "screen.txt").read_text()
    found = json.loads((folder / "comparison.json").read_text())["found"]
    assert found[0]["loss"] == found[1]["loss"] == min(r.measured for r in rows)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_path_may_grow_its_model_warm_and_label_more_frames(project):
    pytest.importorskip("tblite", reason="the data are generated with tblite")
    finished(
        project, "scale.warm_start=true", "scale.label_more=24", "scale.label_cost=1e5", "scale.policy='null'"
    )
    folder = project / "results/quickstart-scale"
    rows, entries = read_history(folder / "scale"), read_decisions(folder / "scale")
    path = [e for e in entries if e.id and e.decision.action not in ASIDE]
    records = [read_record(point_folder(folder, e.id)) for e in path]
    assert any(r.n_frames > 24 for r in records) and any(e.decision.action == "label" for e in path)
    for before, after in zip(records, records[1:], strict=False):
        assert after.science["parent"]["id"] == before.id and after.n_params >= before.n_params
    paid = rows[-1].flops - records[-1].flops_train
    assert paid == pytest.approx(1e5 * max(0, records[-1].n_frames - max(24, records[-2].n_frames)))
    assert np.isfinite([r.measured for r in rows]).all()
    assert decide_next(rows, entries[-1].basis).action == "stop"
