"""The lock of a results folder: one engine works in it, and what a killed one has left is known as such.
Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sapis_lab.errors import ConfigError
from sapis_lab.files import TEMPORARY, is_temporary, make_folder
from sapis_lab.jobs.folder import LOCK, open_lock
from sapis_lab.jobs.processes import is_alive
from sapis_lab.records import JOBS

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
    if folder in _held:  # a study holds it around the engine
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


_SHARED = {"points", "tune", "slurm", JOBS}
"""Folders in which processes of other hosts write without this lock; points clean up after themselves."""


def left_behind(folder: Path) -> Iterator[Path]:
    """Files outside of the shared folders that a process which is gone has left half written."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SHARED]
        for path in (Path(place) / name for name in names):
            if is_temporary(path) and not is_alive(_writer(path)):
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
        if not reaches and int(known["pid"]) != os.getpid() and is_alive(int(known["pid"])):
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


def _text(fd: int) -> str:
    return os.pread(fd, 200, 0).decode(errors="replace").strip()


def refuse_if_running(folder: Path) -> None:
    """Raise Locked if another process works in `folder` at this moment."""
    if (who := holder(folder)) is not None:
        raise _refusal(folder / LOCK, who)


def _refusal(path: Path, who: str, more: str = "") -> Locked:
    name, known = path.parent.name, _LOCK_TEXT.match(who)
    if known and known["host"] == platform.node() and not is_alive(int(known["pid"])):
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
        here = known and known["host"] == platform.node() and is_alive(int(known["pid"]))
        return who if here else elsewhere
    finally:
        os.close(fd)
