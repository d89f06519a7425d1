"""Job arrays in a real Slurm, with what happens to them on a cluster; run with `pytest -m slurm`, as root,
with Slurm installed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import slurm_node
from stub_points import MEASURE, STEPS, StubPoint, write_job

from sapis_lab.config import ConfigError, load
from sapis_lab.data import prepare
from sapis_lab.data.labelled import LabelledDataConfig
from sapis_lab.executors import slurm
from sapis_lab.executors.slurm import SlurmOptions, SlurmQueue, jobs_of, queue_of
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.executor import Task
from sapis_lab.jobs.folder import read_progress
from sapis_lab.records import read_record, same_numbers
from sapis_lab.sweep import engine
from sapis_lab.sweep.folder import point_folder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(slurm_node.missing() is not None, reason=str(slurm_node.missing())),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_node.SlurmNode]:
    with slurm_node.SlurmNode(tmp_path_factory.mktemp("node"), max_array=4) as started:
        yield started


@pytest.fixture(autouse=True)
def _asks_this_slurm(node: slurm_node.SlurmNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLURM_CONF", str(node.conf))
    monkeypatch.setattr(slurm, "_INTERVAL", 0.5)
    yield
    node.ask("scancel", f"--user={os.getuid()}", "--full")
    wait_for(lambda: not node.ask("squeue", "--noheader"))


def task(folder: Path) -> Task:
    return Task("stub_points:run_point", arguments={"cache": str(folder)}, preload=("stub_points",))


def queue(folder: Path, **options: object) -> SlurmQueue:
    values = SlurmOptions.model_validate({"time": 10, "bundle_minutes": 0, **options})
    return SlurmQueue(folder, values, task(folder))


def run(points: list[StubPoint], folder: Path, **options: object) -> tuple[list[str], list[Event]]:
    """Ids of the points that are done, and what the engine told."""
    events: list[Event] = []
    records = engine.run(
        points, folder=folder, cache=folder, executor=queue(folder, **options), on_event=events.append
    )
    return [r.id for r in records], [e for e in events if e.kind != "tick"]


def submit(points: list[StubPoint], folder: Path, **options: object) -> list[Path]:
    """The folders of the points, which are left to Slurm."""
    folders = [
        point_folder(folder, p.id) for p in engine.prepare_points(points, folder, False, lambda event: None)
    ]
    queue(folder, **options).start(*folders)
    return folders


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def steps(folder: Path) -> list[int]:
    return (
        [int(line) for line in (folder / "trace").read_text().split()] if (folder / "trace").exists() else []
    )


def sessions(folder: Path) -> int:
    return (folder / "sessions").read_text().count("session")


def went_on(folder: Path) -> bool:
    """Every step once; the one under way when it was stopped may be there twice."""
    return list(dict.fromkeys(steps(folder))) == list(range(STEPS)) and len(steps(folder)) - STEPS < sessions(
        folder
    )


def test_arrays_are_split_and_a_failure_stays_with_its_point(tmp_path, node):
    points = [StubPoint(id=f"p{k}", value=k + 1) for k in range(5)] + [StubPoint(id="p-raise", work="raise")]
    done, events = run(points, tmp_path)
    assert done == [f"p{k}" for k in range(5)]
    assert [e.text for e in events if e.kind == "failed"] == ["ValueError: the loss became NaN at step 3"]
    jobs = jobs_of(tmp_path)
    assert len({job.number.partition("_")[0] for job in jobs.values()}) == 2  # of at most four elements each
    assert "Slurm job" in (point_folder(tmp_path, "p0") / ".lock").read_text()
    assert queue_of(tmp_path).lines[0] == "Slurm: 0 points running, 0 queued, in 0 jobs; 0 lost"


def test_a_bundle_runs_one_after_the_other(tmp_path):
    done, _ = run([StubPoint(id=f"p{k}") for k in range(4)], tmp_path, bundle_minutes=10)
    assert len(done) == 4
    (number,) = {job.number for job in jobs_of(tmp_path).values()}
    assert "_" not in number  # an array of one is a plain job


def test_one_job_cancelled_and_slurmd_killed_and_restarted(tmp_path, node):
    folders = submit([StubPoint(id=f"p{k}", work="slow") for k in range(4)], tmp_path)
    wait_for(lambda: len(steps(folders[0])) > 5 and len(steps(folders[1])) > 5)
    node.ask("scancel", jobs_of(tmp_path)["p0"].number)
    node.kill_slurmd()
    time.sleep(1)
    node.start_slurmd()
    wait_for(lambda: not any(job.alive for job in jobs_of(tmp_path).values()))
    lost = slurm.lost(jobs_of(tmp_path))
    assert list(lost) == ["p0"] and "is CANCELLED" in lost["p0"].message
    assert any("lost    p0: Slurm job" in line for line in queue_of(tmp_path).lines)
    assert [sessions(f) for f in folders[1:]] == [1, 1, 1]
    queue(tmp_path).start(*folders[:1])
    wait_for(lambda: (folders[0] / "record.json").exists())
    assert all(went_on(f) for f in folders) and sessions(folders[0]) == 2
    assert not list(tmp_path.glob("points/*/failure.txt"))


@pytest.mark.parametrize("number", ["USR1", "USR2"])
def test_a_warned_job_saves_and_goes_back_into_the_queue(tmp_path, node, number):
    (folder,) = submit([StubPoint(id="p", work="slow")], tmp_path)
    wait_for(lambda: len(steps(folder)) > 5)
    node.ask("scancel", f"--signal={number}", jobs_of(tmp_path)["p"].number)
    wait_for(lambda: (folder / "record.json").exists())
    assert sessions(folder) == 2 and went_on(folder) and not (folder / "failure.txt").exists()
    assert "saved; back into the queue (restart 1)" in jobs_of(tmp_path)["p"].log.read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_near_its_time_limit_saves_and_goes_back_into_the_queue(tmp_path, node):
    # 100 s of work, one minute at a time
    (folder,) = submit([StubPoint(id="p", work="lasting")], tmp_path, time=1, signal_seconds=10)
    wait_for(lambda: (folder / "record.json").exists(), seconds=600)
    assert sessions(folder) >= 2 and went_on(folder) and not (folder / "failure.txt").exists()
    assert "saved; back into the queue (restart 1)" in jobs_of(tmp_path)["p"].log.read_text()


def test_a_preempted_job_is_put_back_and_goes_on(tmp_path, node):
    (folder,) = submit([StubPoint(id="p", work="slow")], tmp_path, cpus=os.cpu_count())
    wait_for(lambda: len(steps(folder)) > 5)
    node.ask(
        "sbatch",
        "--partition=urgent",
        f"--cpus-per-task={os.cpu_count()}",
        "--output=/dev/null",
        "--wrap=sleep 2",
    )
    wait_for(lambda: (folder / "record.json").exists())
    assert sessions(folder) == 2 and went_on(folder) and not (folder / "failure.txt").exists()
    assert "waiting for Slurm to end this job" in jobs_of(tmp_path)["p"].log.read_text()


def test_a_killed_job_is_noticed_and_goes_on_when_submitted_again(tmp_path, node):
    points = [StubPoint(id="p", work="slow")]
    (folder,) = submit(points, tmp_path)
    wait_for(lambda: len(steps(folder)) > 5)
    node.ask("scancel", "--signal=KILL", "--full", jobs_of(tmp_path)["p"].number)
    # follows the job that is there; it died, which is no failure of the point
    done, events = run(points, tmp_path)
    if not done:
        assert [e.kind for e in events][-1] == "stopped" and "Slurm job" in events[-1].text
        done, _ = run(points, tmp_path)
    assert done == ["p"] and went_on(folder) and sessions(folder) == 2


def test_a_point_is_never_submitted_twice_at_once(tmp_path):
    points = [StubPoint(id=f"p{k}", work="slow") for k in range(2)]
    folders = submit(points, tmp_path)
    again = queue(tmp_path)
    again.start(*folders)
    assert again.submitted == []
    assert run(points, tmp_path)[0] == ["p0", "p1"]
    assert [sessions(f) for f in folders] == [1, 1]


def test_what_slurm_refuses_is_told_in_its_words(tmp_path):
    with pytest.raises(ConfigError, match="Slurm refused the jobs: .*invalid partition specified: nowhere"):
        submit([StubPoint(id="p")], tmp_path, partition="nowhere")
    assert jobs_of(tmp_path) == {}


def test_any_folder_may_be_a_job_with_an_answer_of_its_own(tmp_path):
    """As evaluations of points are, beside the jobs of the points themselves."""
    place = tmp_path / "evaluations"
    folders = [write_job(place / name, work) for name, work in (("a", "ok"), ("b", "ok"), ("c", "raise"))]
    values = SlurmOptions.model_validate({"time": 10, "bundle_minutes": 0})
    events: list[Event] = []
    engine.run_jobs(folders, SlurmQueue(place, values, MEASURE), on_event=events.append)
    assert {e.id: e.kind for e in events if e.kind in ("done", "failed")} == {
        "a": "done",
        "b": "done",
        "c": "failed",
    }
    assert sorted(p.parent.name for p in place.glob("*/done.json")) == ["a", "b"]
    assert slurm.lost(jobs_of(place)) == {} and jobs_of(tmp_path) == {}
    assert queue_of(place).lines[0] == "Slurm: 0 points running, 0 queued, in 0 jobs; 0 lost"


def test_an_interrupt_leaves_the_jobs_in_the_queue(tmp_path):
    points = [StubPoint(id="p", work="slow")]
    (folder,) = submit(points, tmp_path)
    wait_for(lambda: steps(folder))

    def stop(event: Event) -> None:
        if event.kind == "started":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(engine.Stopped):
        engine.run(points, folder=tmp_path, cache=tmp_path, executor=queue(tmp_path), on_event=stop)
    wait_for(lambda: (folder / "record.json").exists())
    assert sessions(folder) == 1
    assert read_record(folder).metrics == {"val_force_rmse": 0.1}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("study", "minutes"), [("smoke", 0.02), pytest.param("quickstart", 0.5, marks=pytest.mark.long)]
)
def test_a_study_gives_the_same_table_as_on_this_machine(project, sapis, node, study, minutes):
    """One job is cancelled, and slurmd is killed and restarted under the others."""
    pytest.importorskip("tblite", reason="the study generates its labels with tblite")
    here = sapis("study", "run", study, "--as", "here", timeout=1800)
    assert here.returncode == 0, here.stdout + here.stderr
    words = [study, "--executor", "slurm", "--set", f"run.slurm.bundle_minutes={minutes}"]
    submitted = sapis("study", "run", *words)
    print(submitted.stdout, submitted.stderr)
    assert submitted.returncode == 0 and f"sapis study collect {study}" in submitted.stdout
    local = sapis("study", "run", study)
    assert local.returncode == 2 and "is being run already, by the Slurm jobs" in local.stderr
    folder = project / "results" / study
    wait_for(lambda: list(folder.glob("points/*/progress.json")), seconds=300)
    cancelled = jobs_of(folder)[next(iter(slurm.running(jobs_of(folder))))].number
    subprocess.run(["scancel", cancelled], check=True)
    node.kill_slurmd()
    time.sleep(1)
    node.start_slurmd()
    print(sapis("study", "status", study).stdout)
    wait_for(lambda: slurm.lost(jobs_of(folder)))
    open_ends = sapis("study", "collect", study)
    assert (
        open_ends.returncode == 75
        and f"Slurm job {cancelled} is CANCELLED; submit it again" in open_ends.stdout
    ), open_ends.stdout
    again = sapis("study", "collect", study, "--resubmit")
    print(again.stdout)
    assert again.returncode == 75
    followed = sapis("study", "run", *words, "--wait", timeout=1800)
    print(followed.stdout, followed.stderr)
    n = len(list(folder.glob("points/*")))
    assert followed.returncode == 0
    gathered = sapis("study", "collect", study)
    assert gathered.returncode == 0 and f"{n} of {n} points done, 0 failed" in gathered.stdout
    tables = [pd.read_parquet(project / "results" / name / "runs.parquet") for name in (study, "here")]
    assert len(tables[0]) == n and same_numbers(*tables)


@pytest.mark.timeout(1800)
def test_a_campaign_runs_its_decisions_as_jobs_and_decides_what_it_does_on_this_machine(project, sapis):
    pytest.importorskip("tblite", reason="the study generates its labels with tblite")
    settings = [
        "data=ethanol-xtb-tiny",
        "train.epochs=2",
        "train.batch_size=4",
        "train.validations=1",
        "lattice.n_params=[3e3,6e3,1.2e4]",
        "lattice.n_frames=[6,12]",
        "scale.budget=1.5e9",
        "law.bootstrap=100",
        "law.calibrate=0",
    ]
    words = [w for s in settings for w in ("--set", s)]
    here = sapis("scale", "quickstart-scale", "--as", "here", *words, timeout=900)
    assert here.returncode == 0, here.stdout + here.stderr
    there = sapis(
        "scale", "quickstart-scale", "--as", "there", *words, "--set", "run.executor=slurm", timeout=1500
    )
    assert there.returncode == 0 and "Traceback" not in there.stdout + there.stderr, (
        there.stdout + there.stderr
    )
    tables = [pd.read_parquet(project / "results" / name / "runs.parquet") for name in ("here", "there")]
    assert len(tables[0]) > 6 and same_numbers(*tables)
    assert set(jobs_of(project / "results/there")) == set(tables[1]["id"])


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_ranks_over_two_nodes_train_what_they_train_on_one(project, sapis, tmp_path_factory, monkeypatch):
    """And they save, go back into the queue and continue when they are warned."""
    pytest.importorskip("tblite", reason="the study generates its labels with tblite")
    words = ["smoke", "--only", "geat-l2-n3.0e3-d8-s0", "--set", "train.steps=1000", "--set", "run.devices=2"]
    here = sapis("study", "run", *words, "--as", "here", timeout=900)
    assert here.returncode == 0, here.stdout + here.stderr
    with slurm_node.SlurmNode(tmp_path_factory.mktemp("nodes"), n_nodes=2) as nodes:
        monkeypatch.setenv("SLURM_CONF", str(nodes.conf))
        command = [*words, "--as", "spread", "--executor", "slurm", "--set", "run.slurm.nodes=2"]
        assert sapis("study", "run", *command).returncode == 0
        folder = project / "results/spread"
        place = folder / "points/geat-l2-n3.0e3-d8-s0"
        wait_for(lambda: (now := read_progress(place)) is not None and now.step > 5, seconds=600)
        (job,) = {job.number for job in jobs_of(folder).values()}
        nodes.ask("scancel", "--signal=USR2", job)
        followed = sapis("study", "run", *command, "--wait", timeout=900)
        assert followed.returncode == 0, (
            followed.stdout + followed.stderr + next(iter(jobs_of(folder).values())).log.read_text()
        )
        assert (
            "saved; back into the queue (restart 1)" in next(iter(jobs_of(folder).values())).log.read_text()
        )
    tables = [pd.read_parquet(project / "results" / name / "runs.parquet") for name in ("spread", "here")]
    assert len(tables[0]) == 1 and same_numbers(*tables)


def test_labels_are_made_by_jobs_and_are_those_of_this_machine(tmp_path):
    settings = {
        "kind": "labelled",
        "system": {"crystal": "Si", "lattice": "diamond", "a": 5.431},
        "generator": {"kind": "rattled"},
        "n_frames": 8,
        "oracle": {"kind": "stillinger_weber"},
        "n_validation": 2,
        "n_test": 2,
    }
    where = {"kind": "slurm", "options": {"time": 10, "bundle_minutes": 0}}
    jobs = load(LabelledDataConfig, {**settings, "executor": where}, source="test")
    here = load(LabelledDataConfig, settings, source="test")
    one, other = prepare(jobs, cache=tmp_path / "slurm"), prepare(here, cache=tmp_path / "here")
    assert one.folder.name == other.folder.name and one.n_frames == 8
    for name in ("positions", "energy", "forces"):
        assert (getattr(one, name) == getattr(other, name)).all()
