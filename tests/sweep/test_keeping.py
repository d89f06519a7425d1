"""What is kept of a study: its event log, what cleaning leaves, and the archive for a paper."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from stub_points import StubPoint, record

from sapis_lab.config import ConfigError
from sapis_lab.jobs.event_log import EVENTS, EventLog, read_events
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.folder import state
from sapis_lab.records import Planned, read_record, write_record
from sapis_lab.sweep import clean, export
from sapis_lab.sweep.lock import Locked, holder, locked
from sapis_lab.sweep.manifest import Manifest, write_manifest


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of three points: one done, one failed, one stopped; and one that is no longer in the
    lattice."""
    monkeypatch.setenv("SAPIS_HOME", str(tmp_path))
    folder = tmp_path / "results" / "here"
    kept = [record(StubPoint(id=name)) for name in ("done", "failed", "stopped")]
    fields = Planned.model_fields
    planned = tuple(Planned(**{k: v for k, v in r.model_dump().items() if k in fields}) for r in kept)
    for name in ("done", "failed", "stopped", "old"):
        place = folder / "points" / name
        (place / "tensorboard").mkdir(parents=True)
        (place / "tensorboard" / "events").write_bytes(b"e" * 40)
        for file in (
            "config.yaml",
            "log.txt",
            "metrics.csv",
            "last.ckpt",
            "previous.ckpt",
            ".record.json.12.tmp",
        ):
            (place / file).write_text(file)
    write_record(folder / "points" / "done", kept[0])
    (folder / "points" / "done" / "model.safetensors").write_bytes(b"w" * 100)
    (folder / "points" / "failed" / "failure.txt").write_text("diverged\n")
    write_manifest(folder, Manifest(inputs="x", points=planned))
    for file in ("provenance.json", "runs.csv", "fit.json", "report.html"):
        (folder / file).write_text(file)
    (folder / "study.yaml").write_text("name: here\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.pdf").write_bytes(b"%PDF")
    return folder


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------ clean


def test_cleaning_takes_only_what_nothing_needs(study: Path) -> None:
    before = names(study)
    gone = clean.clean(study)
    assert before - names(study) == {
        *(f"points/done/{f}" for f in ("last.ckpt", "previous.ckpt", ".record.json.12.tmp")),
        "points/stopped/.record.json.12.tmp",
    }
    assert sum(w.n_bytes for w in gone) == len("last.ckpt") + len("previous.ckpt") + 2 * len(
        ".record.json.12.tmp"
    )
    assert read_record(study / "points" / "done").id == "done"
    assert clean.clean(study) == []


def leave(path: Path, *, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("place", ["", "figures", "tables", "scale", "slurm/logs"])
def test_half_written_files_go_wherever_they_lie(study: Path, place: str) -> None:
    left = leave(study / place / f".a.pdf.{os.getpid()}.tmp")
    kept = leave(study / place / "a.tmp")  # no name of ours
    clean.clean(study)
    assert not left.exists() and kept.exists()
    assert (study / "figures" / "a.pdf").exists()


GONE = 2**22 + 1
"""No process has such a number."""


@pytest.mark.parametrize(
    ("writer", "age", "goes"),
    [
        ("gone", 3600, True),
        ("gone", 10, False),
        ("alive", 3600, False),
        ("alive", 100_000, True),
        ("gone", 100_000, True),
    ],
)
@pytest.mark.parametrize(
    "place", ["tune/trials/t0", "STORE/splits", "STORE/neighbors-5.0", "STORE", "CACHE/x", "points/stopped"]
)
def test_what_another_host_may_be_writing_goes_when_it_is_silent(
    study: Path, tmp_path: Path, place: str, writer: str, age: float, goes: bool
) -> None:
    pid = os.getpid() if writer == "alive" else GONE
    if place == "points/stopped":
        (study / "slurm").mkdir()
        (study / "slurm" / "submissions.json").write_text("[]")
    if place == "CACHE/x":
        (study / "study.yaml").write_text(f"run: {{cache: {tmp_path / 'cache'}}}\n")
    folder = {"STORE": tmp_path / ".sapis" / "data" / "xtb-1", "CACHE": tmp_path / "cache"}.get(
        place.split("/")[0]
    )
    folder = study / place if folder is None else folder / place.partition("/")[2]
    left, whole = (
        leave(folder / f".trajectory-000-block-0001.npz.{pid}.tmp", age=age),
        leave(folder / "manifest.json", age=age),
    )
    clean.clean(study)
    assert left.exists() != goes and whole.exists()


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("orphans", "points/old/log.txt"),
        ("failed", "points/failed/log.txt"),
        ("curves", "points/done/tensorboard/events"),
        ("models", "points/done/model.safetensors"),
    ],
)
def test_more_goes_when_it_is_named(study: Path, what: clean.What, gone: str) -> None:
    kept = {"orphans", "failed", "curves", "models"} - {what}
    found = clean.find_waste(study, [what])
    assert {w.what for w in found} == {"checkpoints", "temporary", what}
    assert gone in names(study)  # looking deletes nothing
    clean.clean(study, [what])
    assert gone not in names(study)
    assert {w.what for w in clean.find_waste(study, list(kept))} == kept  # type: ignore[arg-type]
    assert {"points/stopped/last.ckpt", "points/stopped/previous.ckpt"} <= names(study)


def test_a_study_that_runs_is_not_cleaned(study: Path) -> None:
    held, free = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(study, held, free))
    other.start()
    assert held.wait(20)
    with pytest.raises(Locked):
        clean.clean(study)
    free.set()
    other.join()
    assert (study / "points" / "done" / "last.ckpt").exists()


def test_the_next_holder_of_the_lock_removes_what_a_killed_one_left_half_written(study: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = [
        f"{name}.{ended.pid}.tmp" for name in (".runs.csv", "figures/.a.pdf", "records/done/.record.json")
    ]
    kept = [
        f"figures/.b.pdf.{os.getpid()}.tmp",
        ".notes.tmp",
        "points/done/.record.json.12.tmp",
        "figures/a.pdf",
        f"tune/.trials.csv.{ended.pid}.tmp",
    ]
    for name in (*dead, *kept):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("part")
    with locked(study):
        pass
    assert not set(dead) & names(study) and set(kept) <= names(study)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_stands_in_the_place_of_a_lock_is_named_and_hangs_nobody(study: Path, make) -> None:
    make(study / ".lock")
    with pytest.raises(ConfigError, match=r"here/\.lock: wanted a file, got a folder or a pipe; remove it"):
        holder(study)
    with pytest.raises(ConfigError, match=r"here/\.lock: wanted a file"), locked(study):
        pass
    make(study / "points" / "stopped" / ".lock")
    assert state(study / "points" / "stopped") == "waiting"


def _hold(
    folder: Path, held: multiprocessing.synchronize.Event, free: multiprocessing.synchronize.Event
) -> None:
    with locked(folder):
        held.set()
        free.wait(20)


# ------------------------------------------------------------------------------------------------------ watch


def test_watching_prints_what_changed_and_ends_with_the_study() -> None:
    from rich.console import Console

    from sapis_lab.sweep.status import watch_status

    console, told = (
        Console(file=io.StringIO(), width=100),
        iter(["1 of 2 done", "1 of 2 done", "2 of 2 done"]),
    )

    def show(to: Console) -> bool:
        text = next(told)
        to.print(text)
        return text != "2 of 2 done"

    watch_status(show, console, every=0.01)
    assert console.file.getvalue().splitlines() == ["1 of 2 done", "2 of 2 done"]  # type: ignore[attr-defined]


def test_watching_a_study_that_nobody_runs_ends_at_once(study: Path) -> None:
    from rich.console import Console

    from sapis_lab.sweep.manifest import read_manifest
    from sapis_lab.sweep.status import print_status, watch_status

    console = Console(file=io.StringIO(), width=100)
    watch_status(lambda to: print_status(read_manifest(study), study, to), console, every=60)
    assert "here: not running" in console.file.getvalue()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- export


def test_the_archive_holds_the_numbers_and_their_sums(study: Path, tmp_path: Path) -> None:
    (study / "figures" / "away.pdf").symlink_to("/etc/hostname")
    listed = export.export(study, tmp_path / "here.zip")
    with zipfile.ZipFile(tmp_path / "here.zip") as archive:
        assert archive.testzip() is None
        held = {name.removeprefix("here/"): archive.read(name) for name in archive.namelist()}
    assert (
        set(held)
        == set(listed)
        >= {"study.yaml", "runs.csv", "figures/a.pdf", "points/done/record.json", "points/failed/failure.txt"}
    )
    assert not any(
        name.endswith((".ckpt", ".tmp", ".safetensors", "away.pdf")) or "tensorboard" in name for name in held
    )
    sums = dict(reversed(line.split("  ")) for line in held["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in held.items() if name != "SHA256SUMS"
    }
    first = (tmp_path / "here.zip").read_bytes()
    export.export(study, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == first
    assert "points/done/model.safetensors" in export.export(study, tmp_path / "models.zip", models=True)


def test_an_archive_that_cannot_be_made_says_why(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"here\.tar: wanted a file name that ends in \.zip"):
        export.export(study, tmp_path / "here.tar")
    with pytest.raises(ConfigError, match=r"nowhere/here\.zip: cannot be written: No such file"):
        export.export(study, tmp_path / "nowhere" / "here.zip")
    (study / "runs.csv").unlink()
    with pytest.raises(
        ConfigError, match="here: no runs.csv in .*; run the study first: sapis study run here"
    ):
        export.export(study, tmp_path / "here.zip")


# ----------------------------------------------------------------------------------------------------- events


def test_the_log_holds_what_is_news(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for event in (
        Event("started", "p1"),
        Event("tick"),
        Event("kept", "p0"),
        Event("failed", "p1", "diverged", 3.14159),
    ):
        log(event)
    started, failed = read_events(tmp_path)
    assert (started["event"], started["id"]) == ("started", "p1") and "text" not in started
    assert (failed["event"], failed["text"], failed["seconds"]) == ("failed", "diverged", 3.142)
    assert {"time", "host", "process"} <= started.keys()


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log(Event("started", "p1"))
    with (tmp_path / EVENTS).open("a") as f:
        f.write('{"time": "2026')
    log(Event("done", "p1"))
    assert [e["event"] for e in read_events(tmp_path)] == ["started", "done"]
    assert [
        json.loads(line)["event"]
        for line in (tmp_path / EVENTS).read_text().splitlines()
        if line.endswith("}")
    ] == ["started", "done"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    EventLog(tmp_path / "file" / "below")(Event("started", "p1"))
    assert read_events(tmp_path / "nowhere") == []
