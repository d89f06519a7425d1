"""The engine on folders that are no points: what is done there, and by which file it is done, is for who
asks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from stub_points import MEASURE, write_job
from test_engine import alive, wait_for

from sapis_lab.executors.local import LocalPool
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.folder import failure_reason, state
from sapis_lab.sweep import engine


def run_jobs(folders: list[Path], *, retry_failed: bool = False) -> dict[str, tuple[str, str]]:
    """How every job ended, and what was said about it."""
    events: list[Event] = []
    pool = LocalPool(folders[0].parent / "log.txt", MEASURE, workers=2)
    engine.run_jobs(folders, pool, on_event=events.append, retry_failed=retry_failed)
    ends = ("kept", "failed_before", "done", "failed")
    assert [e.kind for e in events].count("launched") <= 1
    return {e.id: (e.kind, e.text) for e in events if e.kind in ends}


def test_a_job_is_done_by_its_own_answer_and_leaves_what_all_jobs_leave(tmp_path):
    place = tmp_path / "evaluations"
    folders = [write_job(place / work, work, 3.5) for work in ("ok", "raise", "nothing", "kill")]
    ended = run_jobs(folders)
    assert ended == {
        "ok": ("done", ""),
        "raise": ("failed", "ValueError: no model to measure"),
        "nothing": ("failed", "ended with exit status 0 and without done.json"),
        "kill": ("failed", "killed by SIGKILL 3 times; the system may have run out of memory"),
    }
    assert json.loads((place / "ok/done.json").read_text()) == {"value": 7.0}
    assert "ok is measured on cpu" in (place / "ok/log.txt").read_text()
    assert (place / "ok/.lock").read_text().startswith("host ")
    assert failure_reason(place / "raise") == "ValueError: no model to measure"
    assert [state(f, answer="done.json") for f in folders] == ["done", "failed", "failed", "failed"]
    assert not list(tmp_path.rglob("config.yaml")) and not list(tmp_path.rglob("record.json"))


def test_what_is_done_is_kept_and_what_failed_is_left_until_asked_for(tmp_path):
    folders = [write_job(tmp_path / work, work) for work in ("ok", "raise")]
    run_jobs(folders)
    (tmp_path / "ok/pid").unlink()
    assert run_jobs(folders) == {
        "ok": ("kept", ""),
        "raise": ("failed_before", "ValueError: no model to measure"),
    }
    write_job(tmp_path / "raise", "ok")
    assert run_jobs(folders, retry_failed=True) == {"ok": ("kept", ""), "raise": ("done", "")}
    assert not (tmp_path / "ok/pid").exists() and not (tmp_path / "raise/failure.txt").exists()


def test_a_job_that_is_stopped_has_not_failed(tmp_path):
    folder = write_job(tmp_path / "slow", "slow")

    def stop(event: Event) -> None:
        if event.kind == "started":
            wait_for((folder / "pid").exists)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(engine.Stopped):
        engine.run_jobs([folder], LocalPool(tmp_path / "log.txt", MEASURE), on_event=stop)
    assert not alive(int((folder / "pid").read_text()))
    assert not (folder / "failure.txt").exists() and not (folder / "done.json").exists()
