"""Tuning by many workers on a real PostgreSQL: when one of them is killed no trial is lost, none is counted
twice, none is added."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres_server
import pytest
import yaml

from sapis_lab.records import read_record
from sapis_lab.sweep.tuner.table import read_trials

SCRIPT = Path(__file__).with_name("tune_process.py")
PASSWORD = "pa55-of-the-test"
STUDY: dict[str, Any] = {
    "question": "?",
    "data": "ethanol-xtb-tiny",
    "models": ["geat"],
    "lattice": {"n_params": [3e3], "n_frames": [8, 24]},
    "train": {"use": "default", "steps": 20, "batch_size": 4},
    "tune": {"space": {"train.learning_rate": {"log": [1e-3, 0.1]}}, "trials": 8},
}

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        postgres_server.programs() is None, reason="no PostgreSQL server: initdb and pg_ctl are not installed"
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.Server]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with tempfile.TemporaryDirectory(prefix="sapis-pg-") as folder:
        Path(folder).chmod(0o755)  # the server's account must reach its own folder in it
        with postgres_server.server(Path(folder) / "server", password=PASSWORD) as made:
            yield made


@pytest.fixture
def url(server: postgres_server.Server) -> str:
    return server.url


@pytest.fixture
def worker(project: Path, url: str) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a worker of `studies/t.yaml` in a process of its own."""
    started: list[subprocess.Popen] = []
    raw = {**STUDY, "run": {"storage": url, "heartbeat": 1}}
    (project / "studies" / "t.yaml").write_text(yaml.safe_dump(raw))

    def start(**environment: str) -> subprocess.Popen:
        log = (project / f"out{len(started)}.txt").open("w")
        command = [sys.executable, str(SCRIPT), "worker", "t", "1"]
        started.append(
            subprocess.Popen(command, env={**os.environ, **environment}, cwd=project, stdout=log, stderr=log)
        )
        log.close()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], *, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def trial_folders(project: Path) -> list[Path]:
    return sorted((project / "results/t/tune/trials").glob("*"))


def steps_done(folder: Path) -> list[int]:
    return (
        [int(line) for line in (folder / "trace").read_text().split()] if (folder / "trace").exists() else []
    )


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def printed(project: Path) -> str:
    return "\n".join(p.read_text() for p in sorted(project.glob("out*.txt")))


@pytest.mark.long
def test_four_workers_of_which_one_is_killed_lose_no_trial_and_count_none_twice(
    project: Path, worker, url: str
):
    processes = [
        worker(TUNED_SECONDS="3") for _ in range(4)
    ]  # at the same moment: they also make tables and data together
    wait_for(lambda: any(5 < len(steps_done(folder)) < 15 for folder in trial_folders(project)))
    first = next(folder for folder in trial_folders(project) if 5 < len(steps_done(folder)) < 15)
    victim = parent(parent(int((first / "pid").read_text())))  # point, launcher, worker
    os.kill(victim, signal.SIGKILL)
    assert not (first / "record.json").exists(), "it had ended already"
    assert {p.pid: p.wait(timeout=400) for p in processes} == {
        p.pid: -9 if p.pid == victim else 0 for p in processes
    }, printed(project)

    trials = read_trials(project / "results/t/tune")
    assert len(trials) == 16 and trials["trial"].is_unique and (trials["state"] == "done").all()
    assert {folder.name for folder in trial_folders(project)} == set(trials["trial"])
    for row in trials.to_dict("records"):
        record = read_record(project / "results/t/tune/trials" / row["trial"])
        assert (
            record.metrics["val_force_rmse"] == row["val_force_rmse"]
            and record.learning_rate == row["train.learning_rate"]
        )
    assert trials.set_index("trial").loc[first.name, "attempts"] == 2 and trials["attempts"].sum() == 17
    assert f"put back {first.name}: its worker is gone" in printed(project)
    done = steps_done(first)
    assert sorted(set(done)) == list(range(20)) and len(done) <= 21, "it did not go on from its checkpoint"
    for path in [p for p in (project / "results").rglob("*") if p.is_file()]:
        assert PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in printed(project)


@pytest.mark.long
def test_a_worker_that_is_stopped_hands_its_trial_over_at_once(project: Path, worker, url: str):
    raw = yaml.safe_load((project / "studies" / "t.yaml").read_text())
    raw["run"]["heartbeat"] = 1000  # nobody would call it dead in time
    raw["lattice"]["n_params"] = [4e3]
    (project / "studies" / "t.yaml").write_text(
        yaml.safe_dump({**raw, "tune": {**raw["tune"], "trials": 2, "n_frames": [8]}})
    )
    first = worker(TUNED_SECONDS="60")
    wait_for(lambda: trial_folders(project) and len(steps_done(trial_folders(project)[0])) > 2)
    first.terminate()
    assert first.wait(timeout=120) == 75
    assert worker().wait(timeout=240) == 0
    trials = read_trials(project / "results/t/tune")
    assert len(trials) == 2 and (trials["state"] == "done").all()
    assert sorted(trials["attempts"]) == [1, 2]


def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_put_back(project: Path, worker, url: str):
    """Optuna overlooks it for ever: a trial without any heartbeat is not stale."""
    import optuna

    from sapis_lab.sweep.tuner import tickets
    from sapis_lab.sweep.tuner.many_hosts import Worker, open_storage

    storage = open_storage(url, heartbeat=1)
    study = optuna.create_study(storage=storage, study_name="silent/cell")
    study.enqueue_trial({"x": 0.5}, user_attrs={tickets.FOLDER: "cell-t0000"})
    storage.set_trial_state_values(study.trials[0]._trial_id, optuna.trial.TrialState.RUNNING)
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state.name == "RUNNING"
    looker = Worker("silent", [], [], None, (), project, storage, 1, print)
    wait_for(lambda: (looker._fail_stale(0, study), study.trials[0].state.name == "FAIL")[1], seconds=30)
    assert tickets.put_back(study, is_dead=lambda trial: False) == ["cell-t0000"]
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs["fixed_params"] == {"x": 0.5}
    assert tickets.put_back(study, is_dead=lambda trial: False) == []
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.long
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_worker_outlives_a_restart_of_the_server(
    project: Path, worker, server: postgres_server.Server, how: str
):
    raw = yaml.safe_load((project / "studies" / "t.yaml").read_text())
    raw["lattice"]["n_params"] = [{"fast": 5e3, "immediate": 6e3}[how]]
    (project / "studies" / "t.yaml").write_text(
        yaml.safe_dump({**raw, "tune": {**raw["tune"], "trials": 2, "n_frames": [8]}})
    )
    processes = [worker(TUNED_SECONDS="6") for _ in range(2)]
    wait_for(
        lambda: (
            len(trial_folders(project)) == 2 and all(steps_done(folder) for folder in trial_folders(project))
        )
    )
    server.stop(how)
    wait_for(lambda: "the database does not answer" in printed(project))
    time.sleep(4)  # longer than a worker without a heartbeat is believed to live
    server.start()
    assert [process.wait(timeout=240) for process in processes] == [0, 0], printed(project)
    trials, told = read_trials(project / "results/t/tune"), printed(project)
    assert list(trials["state"]) == ["done"] * 2 and list(trials["attempts"]) == [1, 1], told
    assert all(steps_done(folder) == list(range(20)) for folder in trial_folders(project)), (
        "a point was run twice"
    )
    assert told.count("the database does not answer") == told.count("the database answers again") <= 2
    assert "Traceback" not in told and PASSWORD not in told


@pytest.mark.long
def test_a_worker_whose_database_stays_away_saves_and_ends_with_one_line(
    project: Path, worker, server: postgres_server.Server
):
    raw = yaml.safe_load((project / "studies" / "t.yaml").read_text())
    raw["lattice"]["n_params"] = [7e3]
    (project / "studies" / "t.yaml").write_text(
        yaml.safe_dump({**raw, "tune": {**raw["tune"], "trials": 1, "n_frames": [8]}})
    )
    process = worker(TUNED_SECONDS="40", SAPIS_TEST_PATIENCE="2")
    wait_for(lambda: trial_folders(project) and len(steps_done(trial_folders(project)[0])) > 2)
    server.stop()
    try:
        assert process.wait(timeout=60) == 75, printed(project)
    finally:
        server.start()
    *_, asked, ended = printed(project).strip().splitlines()
    assert asked.startswith("the database does not answer (") and asked.endswith(
        "; asking again for up to 2 s"
    )
    assert ended.startswith("error: run.storage: postgresql+psycopg://tuner:***@127.0.0.1:")
    assert "nothing is lost. Continue with: sapis tune t --worker" in ended
    done = steps_done(trial_folders(project)[0])
    assert worker().wait(timeout=240) == 0, printed(project)
    (folder,) = trial_folders(project)
    assert done and steps_done(folder)[: len(done)] == done and set(steps_done(folder)) == set(range(20))


@pytest.mark.long
def test_a_stop_while_the_database_is_away_is_obeyed(project: Path, worker, server: postgres_server.Server):
    raw = yaml.safe_load((project / "studies" / "t.yaml").read_text())
    raw["lattice"]["n_params"] = [8e3]
    (project / "studies" / "t.yaml").write_text(
        yaml.safe_dump({**raw, "tune": {**raw["tune"], "trials": 1, "n_frames": [8]}})
    )
    process = worker(TUNED_SECONDS="40")
    wait_for(lambda: trial_folders(project) and len(steps_done(trial_folders(project)[0])) > 2)
    server.stop()
    try:
        wait_for(lambda: "the database does not answer" in printed(project))
        process.terminate()
        assert process.wait(timeout=40) == 75, printed(project)
    finally:
        server.start()
    assert (
        printed(project).strip().splitlines()[-1] == "stopped; nothing is lost. Continue with: sapis tune t"
    )


def test_a_lock_that_a_restart_has_taken_away_is_noticed_before_anything_is_written(
    server: postgres_server.Server,
):
    from sapis_lab.sweep.tuner.many_hosts import one_writer, open_storage
    from sapis_lab.sweep.tuner.patient import Patience

    said: list[str] = []
    storage = open_storage(server.url, heartbeat=1, patience=Patience(said.append))
    attempts = []

    def work() -> None:
        with one_writer(storage.engine, "lost"):
            attempts.append(len(attempts))
            if len(attempts) == 1:
                server.stop()
                server.start()
            storage.get_all_studies()
            attempts.append("written")

    storage.patience(work)
    assert attempts == [0, 1, "written"] and len(said) == 2
    storage.remove_session()
    storage.engine.dispose()


def test_a_database_that_cannot_be_reached_is_told_without_its_password(project: Path):
    from sapis_lab.config import ConfigError
    from sapis_lab.sweep.tuner.many_hosts import open_storage

    with pytest.raises(ConfigError, match="cannot be used") as refused:
        open_storage(f"postgresql+psycopg://tuner:{PASSWORD}@127.0.0.1:9/postgres", heartbeat=1)
    assert PASSWORD not in str(refused.value)
