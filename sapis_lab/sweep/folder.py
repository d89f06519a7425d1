"""A results folder seen from its files alone: lock, manifest, and the state of every point. Nothing heavy is imported here.

results/NAME/
  study.yaml        resolved settings           provenance.json   commit, versions, host, device, command, times
  points.json       the lattice: every point with its N, D and fingerprint, and what it was made from
  points/ID/        config.yaml, progress.json while it runs, then record.json or failure.txt; log.txt; last.ckpt
  runs.parquet, runs.csv, fit.json, figures/, report.html
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sapis_lab.config import Config, ConfigError, home, load, read_yaml, write_text
from sapis_lab.records import FAILURE, RECORD, Planned, read_raw

MANIFEST, LOCK, PROGRESS = "points.json", ".lock", "progress.json"
ANSWERS = ("runs.parquet", "runs.csv", "fit.json", "report.html")

State = Literal["done", "running", "failed", "stopped", "waiting"]


def results_folder(name: str) -> Path:
    """`results/NAME/` of the project."""
    return home() / "results" / name


def point_folder(folder: Path, id: str) -> Path:
    return folder / "points" / id


# ---------------------------------------------------------------------------------------------------------------- lock


class Locked(ConfigError):
    """Another engine works on the same study."""


_held: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a results folder; the system releases it when this process ends, however it ends.

    Raises:
        Locked: another process holds it; the message names its host and process.
    """
    folder = folder.resolve()
    if folder in _held:  # the road holds it around the engine
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in range(10):  # a reader of the state holds it for a moment
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 9:
                    raise _refusal(folder, os.pread(fd, 200, 0).decode().strip()) from None
                time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"host {platform.node()}, process {os.getpid()}\n".encode(), 0)
        _held.add(folder)
        try:
            yield
        finally:
            _held.discard(folder)
    finally:
        os.close(fd)


def refuse_if_running(folder: Path) -> None:
    """Raise Locked if another process works in `folder` at this moment."""
    if (who := holder(folder)) is not None:
        raise _refusal(folder, who)


def _refusal(folder: Path, who: str) -> Locked:
    return Locked(f"{folder.name} is being run already, by {who or 'another process'}; wait for it, or stop that process")


def holder(folder: Path) -> str | None:
    """Who runs the study at this moment ("host H, process P"), or None."""
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.pread(fd, 200, 0).decode().strip() or "another process"
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------------------------ manifest


class Manifest(Config):
    """`points.json`: the lattice of a study as it was last resolved."""

    schema_version: int = 1
    inputs: str
    """sha256 of all files the lattice was made from: the study, the configs, the program. While it holds, nothing has changed."""
    points: tuple[Planned, ...]
    """In the order of the lattice."""
    expected_seconds: dict[str, float] = {}
    """Estimated time of every point, s."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The lattice of a results folder. ConfigError when the study was never started."""
    path = folder / MANIFEST
    if not path.exists():
        raise ConfigError(f"{path}: no such file; the study {folder.name!r} has not been started")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); run the study again to write it anew") from None
    return load(Manifest, raw, source=str(path))


def inputs_hash(name: str, settings: Sequence[str]) -> str:
    """sha256 of the study file with its overrides, all configs and the program: what a study's lattice and answers depend on."""
    package = Path(__file__).resolve().parent.parent
    files = [home() / "studies" / f"{name}.yaml", *sorted((home() / "configs").rglob("*.yaml"))]
    files += sorted(p for p in package.rglob("*") if p.suffix in (".py", ".j2", ".mplstyle"))
    digest = hashlib.sha256(json.dumps(list(settings)).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()


def is_finished(folder: Path, inputs: str) -> Manifest | None:
    """The manifest, if every point has its record, every answer is there and nothing they were made from has changed.

    Answers about another quantity than the study's (`sapis fit NAME --quantity ...`) are not its answers.
    """
    try:
        manifest = read_manifest(folder)
        if manifest.inputs != inputs or not all((folder / a).exists() for a in ANSWERS):
            return None
        quantity = (read_yaml(folder / "study.yaml").get("law") or {}).get("quantity")
        if json.loads((folder / "fit.json").read_text(encoding="utf-8")).get("quantity") != quantity:
            return None
        records = (read_raw(point_folder(folder, p.id) / RECORD) for p in manifest.points)
        same = all(r.get("fingerprint") == p.fingerprint for r, p in zip(records, manifest.points, strict=True))
    except (ConfigError, OSError, ValueError):
        return None
    return manifest if same else None


# -------------------------------------------------------------------------------------------------------------- states


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
        raw: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    val = {k if k.startswith("val_") else f"val_{k}": v for k, v in (raw.get("val") or {}).items()}
    return Progress(int(raw.get("step", 0)), int(raw.get("steps", 0)), raw.get("loss"), val, float(raw.get("seconds", 0.0)))


def state(folder: Path) -> State:
    """The state of the point in `folder`, from its files."""
    if (folder / RECORD).exists():
        return "done"
    if (folder / FAILURE).exists():
        return "failed"
    if _is_locked(folder / ".lock"):
        return "running"
    return "stopped" if (folder / PROGRESS).exists() else "waiting"


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def failure_reason(folder: Path) -> str:
    """Why a point failed, one line."""
    path = folder / FAILURE
    return (path.read_text(encoding="utf-8").partition("\n")[0] if path.exists() else "") or "no reason recorded"
