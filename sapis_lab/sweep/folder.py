"""A results folder seen from its files alone: lock, manifest, and the state of every point. Nothing heavy is
imported here.

results/NAME/
  study.yaml        resolved settings           provenance.json   commit, versions, host, device, command,
  times points.json       the lattice: every point with its N, D and fingerprint, and what it was made from
  points/ID/        config.yaml, progress.json while it runs, then record.json or failure.txt; log.txt;
  last.ckpt runs.parquet, runs.csv, fit.json, figures/, report.html
  evaluations/ID/   what is asked of the evaluation of a point, and raw arrays; scores lie in
  points/ID/evaluation/ answers.json      sha256 of the records and of the answers made from them (`whole`)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from sapis_lab import outside
from sapis_lab.config import Config, ConfigError, dump, home, load
from sapis_lab.errors import MissingFile
from sapis_lab.files import (
    TEMPORARY,
    digest,
    is_temporary,
    make_folder,
    read_bytes,
    read_json,
    read_lossy,
    with_checksum,
    without_checksum,
    write_text,
)
from sapis_lab.records import FAILURE, JOBS, RECORD, Planned

MANIFEST, SETTINGS, LOCK, PROGRESS = "points.json", "study.yaml", ".lock", "progress.json"

State = Literal["done", "running", "failed", "stopped", "waiting"]


def results_folder(name: str) -> Path:
    """`results/NAME/` of the project."""
    return home() / "results" / name


def point_folder(folder: Path, id: str) -> Path:
    return folder / "points" / id


# ------------------------------------------------------------------------------------------------------- lock

_BEAT, _SILENT = 10.0, 60.0
"""Seconds between two signs of life of an engine, and after how many without one it counts as gone."""
_LOCK_TEXT = re.compile(r"host (?P<host>.+), process (?P<pid>\d+)")


class Locked(ConfigError):
    """Another engine works on the same study."""


_held: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[str | None]:
    """Hold the lock of a results folder; gives a sentence about the stale lock that was taken over, if there
    was one.

    What a killed process has left half written beside the points is removed.

    The system releases the lock when this process ends, however it ends. A shared file system may keep locks
    for each host alone: the lock file therefore names its holder, who touches it every 10 s, and a holder
    elsewhere who was heard of within a minute is believed.

    Raises:
        Locked: another process holds it; the message names its host and process.
    """
    folder = folder.resolve()
    if folder in _held:  # the road holds it around the engine
        yield None
        return
    make_folder(folder)
    path = folder / LOCK
    fd = open_lock(path, os.O_RDWR | os.O_CREAT)
    over = threading.Event()
    try:
        reaches = _lock_now(fd, path)
        stale = _take_over(fd, path, reaches)
        os.ftruncate(fd, 0)
        try:
            os.pwrite(fd, f"host {platform.node()}, process {os.getpid()}\n".encode(), 0)
        except OSError as error:
            # What makes room on a full disk works under this lock too; it is held, only its holder has no
            # name.
            if not reaches or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        threading.Thread(target=_beat, args=(path, over), daemon=True).start()
        _held.add(folder)
        try:
            for left in left_behind(folder):
                with contextlib.suppress(OSError):  # it costs some room and no number
                    left.unlink()
            yield stale
        finally:
            _held.discard(folder)
            over.set()
            os.ftruncate(fd, 0)  # an empty file: released in order
    finally:
        over.set()
        os.close(fd)


def open_lock(path: Path, flags: int) -> int:
    """A descriptor of the lock file `path`; what else may be in its place (a pipe would hang its reader) is a
    ConfigError.

    Raises:
        FileNotFoundError: there is none, and `flags` do not make it.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    except IsADirectoryError:
        pass
    raise ConfigError(
        f"{path}: wanted a file, got a folder or a pipe; remove it and run the same command again"
    )


_SHARED = {"points", "tune", "slurm", JOBS}
"""Folders in which processes of other hosts write without this lock; points clean up after themselves."""


def left_behind(folder: Path) -> Iterator[Path]:
    """Files outside of the shared folders that a process which is gone has left half written."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SHARED]
        for path in (Path(place) / name for name in names):
            if is_temporary(path) and not _is_alive(_writer(path)):
                yield path


def _writer(path: Path) -> int:
    """The process that writes the temporary file `path` (`files.temporary_of`); 0, which is always alive,
    where none is named."""
    number = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _lock_now(fd: int, path: Path) -> bool:
    """Take the lock; False where the file system has none. Raises Locked."""
    for attempt in range(10):  # a reader of the state holds it for a moment
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt == 9:
                raise _refusal(path, _text(fd)) from None
            time.sleep(0.05)
        except OSError:  # no locks on this file system: the holder that the file names decides
            break
    return False


def _take_over(fd: int, path: Path, reaches: bool) -> str | None:
    """A sentence about a lock that was left behind. Raises Locked if its holder is alive after all."""
    who = _text(fd)
    known = _LOCK_TEXT.match(who)
    if known is None:
        return None
    if known["host"] == platform.node():
        if not reaches and int(known["pid"]) != os.getpid() and _is_alive(int(known["pid"])):
            raise _refusal(path, who)
        return f"{path.parent.name}: the last run, by {who}, was killed and left its lock; it is taken over"
    silent = _silence(path)
    if silent < _SILENT:
        raise _refusal(path, who, f" (its last sign of life came {silent:.0f} s ago)")
    return (
        f"{path.parent.name}: the lock of {who} is stale, without a sign of life for {silent:.0f} s; it is "
        f"taken over"
    )


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _silence(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.tmp")
    probe.touch()
    try:
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    finally:
        probe.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _text(fd: int) -> str:
    return os.pread(fd, 200, 0).decode(errors="replace").strip()


def refuse_if_running(folder: Path) -> None:
    """Raise Locked if another process works in `folder` at this moment."""
    if (who := holder(folder)) is not None:
        raise _refusal(folder / LOCK, who)


def _refusal(path: Path, who: str, more: str = "") -> Locked:
    name, known = path.parent.name, _LOCK_TEXT.match(who)
    if known and known["host"] == platform.node() and not _is_alive(int(known["pid"])):
        return Locked(
            f"{name}: its lock is stale: {who} is gone, but a process that it started still holds {path}; "
            f"stop that one"
        )
    advice = "wait for it, or stop that process"
    if known and known["host"] != platform.node():
        advice += f"; if that host is down, remove {path}"
    return Locked(f"{name} is being run already, by {who or 'another process'}{more}; {advice}")


def holder(folder: Path) -> str | None:
    """Who runs the study at this moment ("host H, process P"), or None."""
    path = folder / LOCK
    try:
        fd = open_lock(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        who = _text(fd)
        known = _LOCK_TEXT.match(who)
        elsewhere = (
            who
            if known and known["host"] != platform.node() and time.time() - os.fstat(fd).st_mtime < _SILENT
            else None
        )
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return elsewhere
    except BlockingIOError:
        return who or "another process"
    except OSError:
        here = known and known["host"] == platform.node() and _is_alive(int(known["pid"]))
        return who if here else elsewhere
    finally:
        os.close(fd)


# --------------------------------------------------------------------------------------------------- manifest


class Manifest(Config):
    """`points.json`: the lattice of a study as it was last resolved."""

    schema_version: int = 1
    inputs: str
    """sha256 of all files the lattice was made from: the study, the configs, the program. While it holds,
    nothing has changed."""
    points: tuple[Planned, ...]
    """In the order of the lattice."""
    expected_seconds: dict[str, float] = {}
    """Estimated time of every point, s."""
    settings: str | None = None
    """sha256 of study.yaml, the resolved settings that were written with it; none in lists of older
    versions."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `points.json`, which belongs to the `study.yaml` that is there."""
    if (folder / SETTINGS).is_file():
        manifest = manifest.model_copy(update={"settings": digest(folder / SETTINGS)})
    write_text(
        folder / MANIFEST, json.dumps(with_checksum(dump(manifest)), indent=1, ensure_ascii=False) + "\n"
    )


def read_manifest(folder: Path) -> Manifest:
    """The lattice of a results folder. ConfigError when the study was never started."""
    path = folder / MANIFEST
    again = "run the study again to write it anew"
    try:
        raw = without_checksum(read_json(path, then=again), source=str(path), advice=again)
    except MissingFile:
        raise MissingFile(f"{path}: no such file; the study {folder.name!r} has not been started") from None
    return load(Manifest, raw, source=str(path))


def refuse_other_study_file(folder: Path, manifest: Manifest) -> None:
    """Raise ConfigError if `study.yaml` is not what was written with the list of points: cut, it may still be
    YAML, of other settings."""
    path = folder / SETTINGS
    if manifest.settings is not None and digest(path) != manifest.settings:
        raise ConfigError(
            f"{path} is not what was written with {MANIFEST}: it was damaged or edited; run the study again "
            f"to write it anew"
        )


_SOURCES = (".py", ".j2", ".mplstyle", ".cpp", ".h", ".cu")
_ASIDE = ("bench", "selftest", "cli")


def inputs_hash(name: str, settings: Sequence[str]) -> str:
    """sha256 of the study file with its overrides, all configs and the program: what a study's lattice and
    answers depend on.

    Of the program it takes every source that numbers or answers can depend on, the C++ kernels too; what only
    measures, tests or prints (`_ASIDE`) may change without reopening a study.
    """
    package = Path(__file__).resolve().parent.parent
    files = [home() / "studies" / f"{name}.yaml", *sorted((home() / "configs").rglob("*.yaml"))]
    files += sorted(
        p
        for p in package.rglob("*")
        if p.suffix in _SOURCES and p.relative_to(package).parts[0] not in _ASIDE
    )
    files += sorted(p for place in outside.folders() for p in place.rglob("*.py"))
    files += sorted((home() / "results").glob("*/regime.json"))  # rules that a study may take its rates from
    digest = hashlib.sha256(json.dumps(list(settings)).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + (read_bytes(path) if path.exists() else b""))
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------- states


class Progress(NamedTuple):
    """What a running point last said about itself."""

    step: int
    steps: int
    loss: float | None
    val: dict[str, float]
    seconds: float
    """Training time so far, s."""

    @property
    def share(self) -> float:
        return self.step / self.steps if self.steps else 0.0


def read_progress(folder: Path) -> Progress | None:
    """The latest `progress.json` of a point, if there is one."""
    try:
        raw = read_json(folder / PROGRESS)
        val = {k if k.startswith("val_") else f"val_{k}": float(v) for k, v in (raw.get("val") or {}).items()}
        loss = None if raw.get("loss") is None else float(raw["loss"])
        return Progress(
            int(raw.get("step", 0)), int(raw.get("steps", 0)), loss, val, float(raw.get("seconds", 0.0))
        )
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
    ):
        # it is written once a second: the next one will do
        return None


def state(folder: Path, *, answer: str = RECORD) -> State:
    """The state of the point in `folder`, or of another job with its `answer`, from its files."""
    if (folder / answer).exists():
        return "done"
    if (folder / FAILURE).exists():
        return "failed"
    if _is_locked(folder / ".lock"):
        return "running"
    return "stopped" if (folder / PROGRESS).exists() else "waiting"


def _is_locked(path: Path) -> bool:
    try:
        fd = open_lock(path, os.O_RDONLY)
    except (FileNotFoundError, ConfigError):  # nobody can hold what is no file
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(fd)


def failure_reason(folder: Path) -> str:
    """Why a point failed, one line."""
    path = folder / FAILURE
    return (read_lossy(path).partition("\n")[0] if path.exists() else "") or "no reason recorded"
