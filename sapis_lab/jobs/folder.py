"""What a job leaves in its folder: `log.txt`, `.lock` while it runs, `progress.json` if there is any to tell,
its answer or `failure.txt`. Nothing heavy is imported here.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Literal, NamedTuple

from sapis_lab.errors import ConfigError
from sapis_lab.files import read_json, read_lossy, replacing
from sapis_lab.records import FAILURE, RECORD

LOG, LOCK, PROGRESS = "log.txt", ".lock", "progress.json"

State = Literal["done", "running", "failed", "stopped", "waiting"]


class Progress(NamedTuple):
    """What a running job last said about itself."""

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
    """The latest `progress.json` of a job, if there is one."""
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
    """The state of the job in `folder`, a point unless it has another `answer`, from its files."""
    if (folder / answer).exists():
        return "done"
    if (folder / FAILURE).exists():
        return "failed"
    if _is_locked(folder / LOCK):
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
    """Why a job failed, one line."""
    path = folder / FAILURE
    return (read_lossy(path).partition("\n")[0] if path.exists() else "") or "no reason recorded"


def write_failure(folder: Path, reason: str, detail: str) -> None:
    """`failure.txt`: the reason on the first line, then what is known about it."""
    with replacing(folder / FAILURE) as temporary:
        temporary.write_text(f"{reason}\n\n{detail.rstrip()}\n", encoding="utf-8", errors="replace")


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
