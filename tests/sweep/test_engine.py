"""The engine with real processes and real signals, on points that only pretend to train."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stub_points import STEPS, StubPoint

from sapis_lab.jobs.event_log import read_events
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.folder import state
from sapis_lab.jobs.host import current_commit
from sapis_lab.jobs.processes import children
from sapis_lab.records import read_record
from sapis_lab.sweep import engine
from sapis_lab.sweep.engine import Refused, Stopped
from sapis_lab.sweep.lock import Locked, holder, locked

SCRIPT = Path(__file__).with_name("stub_points.py")


def run(points: list[StubPoint], folder: Path, **options: object) -> list:
    options = {"target": "stub_points:run_point", "preload": ["stub_points"], "workers": 2, **options}
    return engine.run(points, folder=folder, cache=folder, **options)


@pytest.fixture
def engine_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts an engine in a process of its own, on the given works, in tmp_path/r."""
    started: list[subprocess.Popen] = []

    def start(*works: str, workers: int = 2) -> subprocess.Popen:
        started.append(
            subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path / "r"), str(workers), *works])
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def trace(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "trace").read_text().split()]


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def test_records_come_back_in_the_order_of_the_points(tmp_path):
    points = [StubPoint(id=f"p{k}", value=k + 1) for k in range(5)]
    records = run(points, tmp_path)
    assert [r.id for r in records] == [p.id for p in points]
    assert [r.metrics["val_force_rmse"] for r in records] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert "p0 works on cpu" in (tmp_path / "points/p0/log.txt").read_text()


def test_a_finished_point_is_not_run_again(tmp_path):
    points = [StubPoint(id="p0")]
    run(points, tmp_path)
    events: list[Event] = []
    run(points, tmp_path, on_event=events.append)
    assert [e.kind for e in events] == ["kept"]
    assert (tmp_path / "points/p0/sessions").read_text() == "session\n"


def test_a_failure_stays_with_its_point(tmp_path):
    points = [StubPoint(id=f"p-{work}", work=work) for work in ("raise", "kill", "exit", "nothing", "ok")]
    events: list[Event] = []
    records = run(points, tmp_path, on_event=events.append)
    assert [r.id for r in records] == ["p-ok"]
    reasons = {e.id: e.text for e in events if e.kind == "failed"}
    assert reasons["p-raise"] == "ValueError: the loss became NaN at step 3"
    assert reasons["p-kill"] == "killed by SIGKILL 3 times; the system may have run out of memory"
    killed = [e.text for e in events if e.kind == "killed"]
    assert killed == [
        f"killed by SIGKILL; started again from its checkpoint, if it has one ({n})" for n in (1, 2)
    ]
    assert (tmp_path / "points/p-kill/sessions").read_text().count("session") == 3
    assert reasons["p-exit"] == "ended with exit status 3 and without a record"
    assert reasons["p-nothing"] == "ended with exit status 0 and without a record"
    text = (tmp_path / "points/p-raise/failure.txt").read_text()
    assert text.startswith("ValueError: the loss became NaN at step 3\n") and "Traceback" in text


def test_what_points_want_people_to_know_is_in_their_logs_and_said_once(tmp_path):
    events: list[Event] = []
    run([StubPoint(id=f"p{k}", work="warn") for k in range(3)], tmp_path, on_event=events.append)
    assert [e.text for e in events if e.kind == "notice"] == ["a library is missing: this takes longer"]
    for k in range(3):
        log = (tmp_path / f"points/p{k}/log.txt").read_text()
        assert "a library is missing" in log and "of no interest to people" in log
    assert [e["event"] for e in read_events(tmp_path)].count("notice") == 1


def test_a_failed_point_is_left_until_asked_for(tmp_path):
    points = [StubPoint(id="p", work="exit")]
    run(points, tmp_path)
    events: list[Event] = []
    run(points, tmp_path, on_event=events.append)
    assert [(e.kind, e.text) for e in events] == [
        ("failed_before", "ended with exit status 3 and without a record")
    ]
    run(points, tmp_path, retry_failed=True)
    assert (tmp_path / "points/p/sessions").read_text().count("session") == 2


def test_other_settings_are_refused_before_anything_starts(tmp_path):
    run([StubPoint(id="a"), StubPoint(id="b")], tmp_path)
    with pytest.raises(Refused, match=r"b: value 1.0 -> 2.0"):
        run([StubPoint(id="new"), StubPoint(id="a"), StubPoint(id="b", value=2.0)], tmp_path)
    assert not (tmp_path / "points/new").exists()


def test_unfinished_work_of_other_settings_is_refused(tmp_path):
    run([StubPoint(id="a", work="exit")], tmp_path)
    with pytest.raises(Refused, match="a: work 'exit' -> 'ok'"):
        run([StubPoint(id="a")], tmp_path, retry_failed=True)


def test_killing_only_the_engine_leaves_no_process_and_a_restart_continues(tmp_path, engine_process):
    first = engine_process("slow", "slow")
    folders = [tmp_path / "r/points/p0-slow", tmp_path / "r/points/p1-slow"]
    wait_for(lambda: all((f / "trace").exists() and len(trace(f)) > 3 for f in folders))
    everyone = descendants(first.pid)
    assert len(everyone) == 3  # the launcher and two points
    assert [state(f) for f in folders] == ["running", "running"]
    first.kill()
    first.wait()
    wait_for(lambda: not any(alive(pid) for pid in everyone), seconds=2)
    done = [len(trace(f)) for f in folders]
    assert engine_process("slow", "slow").wait(timeout=60) == 0
    for folder, n in zip(folders, done, strict=True):
        assert (folder / "sessions").read_text().count("session") == 2
        # The step under way when it was killed may be there twice, as after any crash between work and
        # checkpoint.
        assert trace(folder)[n:] in (list(range(n, STEPS)), list(range(n - 1, STEPS)))
        assert read_record(folder).metrics == {"val_force_rmse": 0.1}


def test_a_killed_point_goes_on_behind_those_that_wait(tmp_path, engine_process):
    process = engine_process("slow", "ok", workers=1)
    folder = tmp_path / "r/points/p0-slow"
    for n in range(4):  # more often than a point may be killed that makes no progress
        wait_for(lambda n=n: (folder / "trace").exists() and len(trace(folder)) > 4 * n + 2)
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        wait_for(lambda n=n: (folder / "sessions").read_text().count("session") == n + 2)
    assert process.wait(timeout=60) == 0
    assert sorted(set(trace(folder))) == list(range(STEPS)) and len(trace(folder)) <= STEPS + 4
    started = [e["id"] for e in read_events(tmp_path / "r") if e["event"] == "started"]
    assert started == ["p0-slow", "p1-ok", *["p0-slow"] * 4]
    assert sum(e["event"] == "killed" for e in read_events(tmp_path / "r")) == 4


def test_killing_the_launcher_is_no_failure_of_the_points(tmp_path, engine_process):
    process = engine_process("slow")
    folder = tmp_path / "r/points/p0-slow"
    wait_for(lambda: (folder / "trace").exists())
    launcher, point = descendants(process.pid)
    os.kill(launcher, signal.SIGKILL)
    wait_for(lambda: not alive(point), seconds=2)
    assert process.wait(timeout=20) not in (0, 75)
    assert not (folder / "failure.txt").exists()
    assert engine_process("slow").wait(timeout=60) == 0


def test_a_tree_killed_from_its_leaves_is_no_failure_of_the_points(tmp_path, engine_process):
    process = engine_process("slow")
    folder = tmp_path / "r/points/p0-slow"
    wait_for(lambda: (folder / "trace").exists())
    for pid in [*reversed(descendants(process.pid)), process.pid]:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    process.wait()
    assert not (folder / "failure.txt").exists()


def test_a_second_engine_is_refused_and_told_who_runs(tmp_path, engine_process):
    process = engine_process("slow")
    wait_for(lambda: (tmp_path / "r/points/p0-slow/pid").exists())
    with pytest.raises(Locked, match=f"is being run already, by host .*, process {process.pid}"):
        run([StubPoint(id="other")], tmp_path / "r")
    process.kill()
    process.wait()
    wait_for(lambda: holder(tmp_path / "r") is None, seconds=2)
    assert len(run([StubPoint(id="other")], tmp_path / "r")) == 1


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_stops_the_points_and_the_rest_can_go_on(tmp_path, engine_process, number):
    process = engine_process("slow", "slow", "slow")
    folder = tmp_path / "r/points/p0-slow"
    wait_for(lambda: (folder / "trace").exists())
    pids = descendants(process.pid)
    process.send_signal(getattr(signal, number))
    assert process.wait(timeout=15) == 75
    assert not any(alive(pid) for pid in pids)
    assert not list((tmp_path / "r").glob("points/*/failure.txt"))
    assert state(tmp_path / "r/points/p2-slow") == "waiting"


def test_a_second_interrupt_ends_what_does_not_stop(tmp_path, engine_process):
    process = engine_process("stubborn")
    folder = tmp_path / "r/points/p0-stubborn"
    wait_for(lambda: (folder / "trace").exists())
    pids = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    n = len(trace(folder))
    wait_for(lambda: len(trace(folder)) > n + 3)  # the first one waits for it
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) == 75
    assert not any(alive(pid) for pid in pids) and not (folder / "failure.txt").exists()


def test_a_point_that_another_process_stops_is_no_failure(tmp_path):
    folder, events = tmp_path / "points/p", []

    def terminate(event: Event) -> None:
        events.append(event)
        if event.kind == "started":
            wait_for(lambda: (folder / "trace").exists())
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)

    assert run([StubPoint(id="p", work="slow")], tmp_path, on_event=terminate) == []
    assert [(e.id, e.text) for e in events if e.kind == "stopped"] == [
        ("p", "told to stop by another process")
    ]
    assert state(folder) != "failed"
    assert [r.id for r in run([StubPoint(id="p", work="slow")], tmp_path)] == ["p"]


# ------------------------------------------------------------------------------------------------------- lock


def test_the_lock_of_a_killed_engine_is_recognised(tmp_path, engine_process):
    process = engine_process("slow")
    wait_for(lambda: (tmp_path / "r/points/p0-slow/pid").exists())
    process.kill()
    process.wait()
    wait_for(lambda: holder(tmp_path / "r") is None, seconds=5)
    with locked(tmp_path / "r") as told:
        assert (
            told is not None
            and f"process {process.pid}, was killed and left its lock; it is taken over" in told
        )
    with locked(tmp_path / "r") as told:
        assert told is None


def test_a_lock_of_another_host_is_believed_while_it_gives_signs_of_life(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("host elsewhere, process 5\n")
    assert holder(tmp_path) == "host elsewhere, process 5"
    told = r"by host elsewhere, process 5 \(its last sign of life came .* if that host is down, remove"
    with pytest.raises(Locked, match=told), locked(tmp_path):
        pass
    os.utime(path, (time.time() - 600, time.time() - 600))
    assert holder(tmp_path) is None
    with locked(tmp_path) as told:
        assert (
            told is not None
            and "the lock of host elsewhere, process 5 is stale, without a sign of life for 600 s" in told
        )


def test_a_lock_that_outlives_its_engine_is_called_stale(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / ".lock").write_text(f"host {platform.node()}, process {ended.pid}\n")
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        with pytest.raises(
            Locked,
            match=f"its lock is stale: .*process {ended.pid} is gone, "
            "but a process that it started still holds",
        ):
            run([StubPoint(id="p")], tmp_path)
        child.communicate()
    assert len(run([StubPoint(id="p")], tmp_path)) == 1


def test_a_running_engine_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("sapis_lab.sweep.lock._BEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        wait_for(lambda: (tmp_path / ".lock").stat().st_mtime > 1)


# ---------------------------------------------------------------------------------------------------- workers


def test_the_engine_runs_outside_the_main_thread(tmp_path):
    found: list = []
    thread = threading.Thread(target=lambda: found.extend(run([StubPoint(id="p")], tmp_path)))
    thread.start()
    thread.join()
    assert [r.id for r in found] == ["p"]


def test_a_survivor_and_a_new_worker_never_write_together(tmp_path):
    import fcntl

    folder = tmp_path / "points/p"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as survivor:
        fcntl.flock(survivor, fcntl.LOCK_EX)
        threading.Timer(1.5, lambda: fcntl.flock(survivor, fcntl.LOCK_UN)).start()
        began = time.monotonic()
        run([StubPoint(id="p")], tmp_path)
    assert time.monotonic() - began > 1.4


def test_workers_get_their_environment_and_the_caller_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("MALLOC_TOP_PAD_", raising=False)
    seen: list[int] = []

    def look(event: Event) -> None:
        if event.kind == "started":
            # a test runner may have other children
            seen.extend(
                pid
                for pid in descendants(os.getpid())
                if "sapis_lab.jobs.launcher" in Path(f"/proc/{pid}/cmdline").read_text()
            )
            environment = Path(f"/proc/{seen[0]}/environ").read_text().split("\0")
            assert "MALLOC_TOP_PAD_=100000000" in environment and "OMP_NUM_THREADS=1" in environment

    run([StubPoint(id="p", work="slow")], tmp_path, on_event=look)
    assert seen and "MALLOC_TOP_PAD_" not in os.environ


def test_a_module_that_cannot_be_imported_is_told(tmp_path):
    with pytest.raises(engine.LauncherDied, match="No module named 'no_such_module'"):
        run([StubPoint(id="p")], tmp_path, preload=["no_such_module"])


def test_stopped_is_not_caught_by_accident():
    assert not issubclass(Stopped, ValueError)


def test_points_learn_the_commit_of_the_program(tmp_path, monkeypatch):
    monkeypatch.setenv("SAPIS_COMMIT", "of another program")
    (record,) = run([StubPoint(id="p")], tmp_path)
    assert (record.commit or None, record.dirty) == current_commit()
