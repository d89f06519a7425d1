"""Tuning on one host with real processes, real signals and a real SQLite file, on points that only pretend to
train."""

from __future__ import annotations

import io
import json
import os
import pkgutil
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tuned_points
import yaml
from rich.console import Console

from sapis_lab import cli
from sapis_lab.records import RECORD, read_record
from sapis_lab.sweep.engine import Refused
from sapis_lab.sweep.lock import Locked
from sapis_lab.sweep.tuner.request import TuneRequest
from sapis_lab.sweep.tuner.run_tune import run_tune
from sapis_lab.sweep.tuner.table import best_rows, read_trials

SCRIPT = Path(__file__).with_name("tune_process.py")
STUDY: dict[str, Any] = {
    "question": "?",
    "data": "ethanol-xtb-tiny",
    "models": ["geat"],
    "lattice": {"n_params": [3e3], "n_frames": [8, 24]},
    "train": {"use": "default", "steps": 20, "batch_size": 4},
    "tune": {"space": {"train.learning_rate": {"log": [1e-3, 0.1]}}, "trials": 4},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def write_study(project: Path, changes: dict[str, Any] | None) -> None:
    """`studies/t.yaml`: STUDY with `changes` laid on its `tune:` section."""
    raw = {**STUDY, "tune": {**STUDY["tune"], **(changes or {})}}
    (project / "studies" / "t.yaml").write_text(yaml.safe_dump(raw))


@pytest.fixture
def tune(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Tunes `studies/t.yaml` in this process, which has imported everything; exit status and what was
    printed."""

    def run(
        *settings: str,
        workers: int = 2,
        changes: dict[str, Any] | None = None,
        retry: bool = False,
        **environment: str,
    ):
        write_study(project, changes)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        out = io.StringIO()
        request = TuneRequest(
            "t",
            (f"run.cache={cache}", *settings),
            workers=workers,
            retry_failed=retry,
            target="tuned_points:run_point",
            preload=("tuned_points",),
        )
        status = run_tune(request, Console(file=out, width=200))
        for name in environment:
            monkeypatch.delenv(name)
        return status, out.getvalue()

    return run


@pytest.fixture
def tune_process(project: Path, cache: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a tuning of `studies/t.yaml` in a process of its own, to be killed."""
    started: list[subprocess.Popen] = []

    def start(
        *settings: str, workers: int = 2, what: str = "tune", changes: dict | None = None, **environment: str
    ) -> subprocess.Popen:
        write_study(project, changes)
        command = [sys.executable, str(SCRIPT), what, "t", str(workers), f"run.cache={cache}", *settings]
        log = (project / f"out{len(started)}.txt").open("w")
        started.append(
            subprocess.Popen(command, env={**os.environ, **environment}, cwd=project, stdout=log, stderr=log)
        )
        log.close()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def table(project: Path) -> pd.DataFrame:
    return read_trials(project / "results/t/tune")


def trial_folders(project: Path) -> list[Path]:
    return sorted((project / "results/t/tune/trials").glob("*"))


def steps_done(folder: Path) -> list[int]:
    return (
        [int(line) for line in (folder / "trace").read_text().split()] if (folder / "trace").exists() else []
    )


def wait_for(condition: Callable[[], object], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_every_trial_is_a_point_and_the_best_is_found(project: Path, tune):
    status, out = tune()
    assert status == 0, out
    trials = table(project)
    assert list(trials["state"]) == ["done"] * 8 and trials["cell"].nunique() == 2
    for row in trials.to_dict("records"):
        record = read_record(project / "results/t/tune/trials" / row["trial"])
        assert record.learning_rate == row["train.learning_rate"] == row["learning_rate"]
        assert row["val_force_rmse"] == record.metrics["val_force_rmse"]
    assert not list((project / "results/t/tune/trials").glob("*/last.ckpt"))
    best = yaml.safe_load((project / "results/t/tune/best.yaml").read_text())
    for cell, rows in trials.groupby("cell"):
        lowest = rows.loc[rows["val_force_rmse"].idxmin()]
        assert best[cell][0]["set"] == [f"train.learning_rate={lowest['train.learning_rate']}"]
        assert lowest["trial"].rsplit("-", 1)[1] in out
    for name in ("settings.pdf", "regime.pdf"):
        assert (project / "results/t/tune/figures" / name).stat().st_size > 0
    assert (project / "results/t/regime.json").exists() and "learning rate =" in out
    status, out = tune()  # nothing is left to do
    assert status == 0 and "started" not in out and table(project).equals(trials)


def test_other_settings_are_refused_and_more_trials_are_not(project: Path, tune):
    assert tune(changes={"trials": 1})[0] == 0
    with pytest.raises(Refused, match=r"made from other settings \(space.train.learning_rate.log\)"):
        tune(changes={"trials": 1, "space": {"train.learning_rate": {"log": [1e-3, 0.2]}}})
    assert tune(changes={"trials": 2})[0] == 0
    assert len(table(project)) == 4


def test_a_point_that_dies_again_and_again_is_failed_and_may_be_retried(project: Path, tune):
    status, out = tune(TUNED_DIES="geat-l2-n3.0e3-d8-t0001")
    bad = table(project).set_index("trial").loc["geat-l2-n3.0e3-d8-t0001"]
    assert status == 1 and bad["state"] == "failed"
    assert bad["reason"] == "ended 3 times without a result, the last time by SIGKILL"
    assert bad["reason"] in out and (table(project)["state"] == "done").sum() == 7
    assert tune(retry=True)[0] == 0
    assert (table(project)["state"] == "done").all() and len(table(project)) == 8


def test_failures_and_divergence_count_and_are_told(project: Path, tune):
    status, out = tune(TUNED_FAILS="geat-l2-n3.0e3-d24-t0000", TUNED_DIVERGES="0.03")
    trials = table(project).set_index("trial")
    assert status == 1
    assert trials.loc["geat-l2-n3.0e3-d24-t0000", ["state", "reason"]].tolist() == [
        "failed",
        "ValueError: no such luck",
    ]
    fast = trials["train.learning_rate"] > 0.03
    assert fast.any() and (trials["state"][fast & (trials["state"] != "failed")] == "diverged").all()
    assert "ValueError: no such luck" in out and len(trials) == 8


@pytest.mark.parametrize(
    "pruner",
    [
        "asha",
        pytest.param("median", marks=pytest.mark.long),
        pytest.param("hyperband", marks=pytest.mark.long),
    ],
)
def test_hopeless_trials_are_pruned_from_inside_the_point(project: Path, tune, pruner: str):
    status, out = tune(changes={"pruner": pruner, "trials": 14, "n_frames": [8]}, TUNED_SECONDS="1")
    trials = table(project)
    assert status == 0 and len(trials) == 14 and set(trials["state"]) == {"done", "pruned"}, out
    for row in trials.to_dict("records"):
        folder = project / "results/t/tune/trials" / row["trial"]
        assert (
            (folder / RECORD).exists() == (row["state"] == "done") == (not (folder / "pruned.json").exists())
        )
        if row["state"] == "pruned":
            said = json.loads((folder / "pruned.json").read_text())
            assert said["of"] == 10 and 1 <= said["validation"] < 10 and said["val_force_rmse"] > 0
            assert len(steps_done(folder)) < 20
    assert best_rows(trials, ["val_force_rmse"])["train.learning_rate"].between(0.003, 0.03).all()


def test_two_objectives_end_in_a_pareto_front(project: Path, tune):
    space = {
        "train.learning_rate": {"log": [1e-3, 0.1]},
        "n_params_target": {"log": [3e3, 1e4]},
        "model.heads": {"choice": [1, 2]},
    }
    changes = {"space": space, "objectives": ["val_force_rmse", "flops_train"], "trials": 10, "n_frames": [8]}
    status, out = tune(changes=changes, TUNED_DIVERGES="0.05")
    trials = table(project)
    assert (
        status == 0 and len(trials) == 10 and set(trials["cell"]) == {"geat-l2-d8"} and "Pareto front" in out
    )
    front = best_rows(trials, ["val_force_rmse", "flops_train"])
    assert len(front)
    for row in front.itertuples():
        beats = (trials["val_force_rmse"] <= row.val_force_rmse) & (trials["flops_train"] < row.flops_train)
        assert not beats.any()
    best = yaml.safe_load((project / "results/t/tune/best.yaml").read_text())["geat-l2-d8"]
    assert [entry["trial"] for entry in best] == list(front["trial"])
    assert (project / "results/t/tune/figures/pareto.pdf").exists() and not (
        project / "results/t/regime.json"
    ).exists()


@pytest.mark.parametrize("sampler", ["cmaes", pytest.param("gp", marks=pytest.mark.long)])
def test_other_samplers_come_near_the_minimum(project: Path, tune, sampler: str):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    space = {"train.learning_rate": {"log": [1e-3, 0.1]}, "train.batch_size": {"linear": [2, 8]}}
    assert tune(changes={"sampler": sampler, "space": space, "trials": 14, "n_frames": [8]})[0] == 0
    assert table(project)["val_force_rmse"].min() < 1.1 * tuned_points.error(0.01, width=2)
    assert table(project)["train.batch_size"].between(2, 8).all()


# ----------------------------------------------------------------------------------------------------- killed


@pytest.mark.long
def test_a_parent_and_a_point_that_are_killed_end_in_the_same_table(project: Path, tune, tune_process):
    """With one worker the values tried, their order and their results are those of an undisturbed run."""
    undisturbed(project, tune)
    process = tune_process(workers=1, TUNED_SECONDS="3")
    wait_for(lambda: len(trial_folders(project)) >= 2 and len(steps_done(trial_folders(project)[-1])) > 3)
    point = trial_folders(project)[-1]
    os.kill(int((point / "pid").read_text()), signal.SIGKILL)
    wait_for(lambda: "put back" in (project / "out0.txt").read_text())
    n_done = len(steps_done(point))
    wait_for(lambda: len(steps_done(point)) > n_done)
    process.kill()
    process.wait()
    status, out = tune(workers=1)
    assert status == 0 and f"goes on  {point.name}" in out
    done = steps_done(point)
    # a step at which it died may have been done twice
    assert sorted(set(done)) == list(range(20)) and len(done) <= 22
    assert same_as_undisturbed(project)


@pytest.mark.long
def test_a_parent_that_is_killed_at_random_moments_ends_in_the_same_table(project: Path, tune, tune_process):
    undisturbed(project, tune)
    chance, kills = random.Random(5), 0
    while not (project / "results/t/tune/trials.csv").exists() and kills < 50:
        process = tune_process(workers=1, TUNED_SECONDS="1")
        before = sum(len(steps_done(f)) for f in trial_folders(project))
        wait_for(
            lambda p=process, n=before: (
                p.poll() is not None or sum(len(steps_done(f)) for f in trial_folders(project)) > n
            )
        )
        time.sleep(chance.uniform(0.0, 1.5))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 3, "it was hardly disturbed"
    assert tune(workers=1)[0] == 0
    assert same_as_undisturbed(project)


def undisturbed(project: Path, tune: Callable[..., tuple[int, str]]) -> None:
    assert tune(workers=1)[0] == 0
    (project / "results/t").rename(project / "results/undisturbed")


def same_as_undisturbed(project: Path) -> bool:
    return (
        table(project).equals(read_trials(project / "results/undisturbed/tune"))
        and len(trial_folders(project)) == 8
    )


def test_it_stops_on_sigterm_refuses_a_second_one_shows_its_state_and_goes_on(
    project: Path, tune, tune_process, inside
):
    process = tune_process(TUNED_SECONDS="20")
    wait_for(lambda: len(trial_folders(project)) == 2 and all(map(steps_done, trial_folders(project))))
    with pytest.raises(Locked, match=f"process {process.pid}"):
        tune()
    status, out, _ = inside("tune", "t", "--status")  # on a copy of the file
    # it only looks
    assert status == 0 and "t: 8 trials" in out and not (project / "results/t/tune/trials.csv").exists()
    process.terminate()
    assert process.wait(timeout=120) == 75
    assert "nothing is lost. Continue with: sapis tune t" in (project / "out0.txt").read_text()
    assert set(table(project)["state"]) == {"running", "waiting"}
    assert tune()[0] == 0
    assert (table(project)["state"] == "done").all() and len(table(project)) == 8
    with closing(sqlite3.connect(project / "results/t/tune/optuna.db")) as database:
        assert database.execute("select state from trials").fetchall() == [("COMPLETE",)] * 8
    (project / "results/t/tune/optuna.db").unlink()
    assert "8 trials" in inside("tune", "t", "--status")[1]  # from trials.csv alone, as in published results
    status, _, told = inside("dashboard", "t")
    assert status == 2 and told.startswith("error: ")


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("sweep.tuner.session.prepare_data", "SIGUSR1"),
        ("executors.local.LocalPool.close", "SIGTERM"),
        ("sweep.tuner.run_tune.report", "SIGUSR2"),
        ("sweep.tuner.answers.draw", "SIGTERM"),
    ],
)
def test_a_signal_at_any_moment_stops_it_and_it_goes_on(
    project: Path, tune, monkeypatch, moment: str, name: str
):
    usual = pkgutil.resolve_name(f"sapis_lab.{moment}")

    def signalled(*arguments: Any, **named: Any) -> Any:
        value = usual(*arguments, **named)
        os.kill(os.getpid(), getattr(signal, name))
        return value

    with monkeypatch.context() as patched:
        patched.setattr(f"sapis_lab.{moment}", signalled)
        status, out = tune(changes={"trials": 1})
    assert status == 75 and "nothing is lost. Continue with: sapis tune t" in out
    assert tune(changes={"trials": 1})[0] == 0
    assert (table(project)["state"] == "done").all()


@pytest.fixture
def inside(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `sapis` in this process: exit status, output, errors."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sapis", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        return code, *capsys.readouterr()

    return run


def test_a_study_without_a_tune_section_is_refused(inside):
    status, _, told = inside("tune", "quickstart")
    assert status == 2 and "studies/quickstart.yaml has no tune: section" in told
    assert "has not been tuned" in inside("tune", "quickstart", "--status")[1]


def test_a_worker_wants_a_database(project: Path, inside):
    write_study(project, None)
    status, _, told = inside("tune", "t", "--worker")
    assert status == 2 and "--worker needs run.storage" in told
