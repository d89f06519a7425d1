"""What can be deleted from a results folder without losing a number: `sapis study clean NAME`.

Kept in any case: settings, records, logs, tables, laws, figures, reports, and whatever an unfinished point
needs to go on.

Files that a kill left half written lie anywhere: with the points, the figures, the tables, the campaign of
`scale`, the trials of `tune`, the evaluations, and in the folder of frame stores that the study reads. Where
nobody but the holder of the study's lock writes they go at once. In the stores, which studies share, and
where jobs of Slurm or workers of a tuning may be writing on other hosts, they go when their process is gone
from this host and nothing was written to them for `SILENCE`, or when they are older than `DAY`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sapis_lab.config import ConfigError, home, read_yaml
from sapis_lab.errors import disk_error
from sapis_lab.files import is_temporary
from sapis_lab.jobs.processes import is_alive
from sapis_lab.records import EVALUATIONS, FAILURE, JOBS, RECORD
from sapis_lab.sweep.lock import locked
from sapis_lab.sweep.manifest import read_manifest

What = Literal["checkpoints", "temporary", "orphans", "failed", "curves", "models", "arrays"]
ALWAYS: tuple[What, ...] = ("checkpoints", "temporary")
MEANING: dict[What, str] = {
    "checkpoints": "checkpoints of points that are done",
    "temporary": "files that a kill left half written",
    "orphans": "points that are no longer in the lattice",
    "failed": "points that failed, with their logs",
    "curves": "TensorBoard events of points that are done",
    "models": "trained models of points that are done",
    "arrays": "raw arrays of evaluations that are scored",
}


SILENCE, DAY = 900.0, 86400.0
"""Seconds."""
_WRITER = re.compile(r"\.(\d+)\.tmp$")


class Waste(NamedTuple):
    """Something that can go."""

    what: What
    path: Path
    n_bytes: int


def find_waste(folder: Path, also: Sequence[What] = ()) -> list[Waste]:
    """What `clean` would delete: checkpoints of finished points, half-written files, and what `also` names.

    Raises:
        ConfigError: the study was never started, or its lattice cannot be read.
    """
    lattice = {p.id for p in read_manifest(folder).points}
    wanted = {*ALWAYS, *also}
    store = [
        Waste("temporary", path, _size(path))
        for path in _temporaries(stores_of(folder))
        if is_left_behind(path)
    ]
    return [w for w in _candidates(folder, lattice) if w.what in wanted] + store


def stores_of(folder: Path) -> Path:
    """The folder of frame stores that a study reads, as its study.yaml says."""
    path = folder / "study.yaml"
    run = (read_yaml(path).get("run") or {}) if path.exists() else {}
    return Path(run["cache"]) if run.get("cache") else home() / ".sapis" / "data"


def is_left_behind(path: Path) -> bool:
    """Whether nobody writes the temporary file `path` any more, for all that can be told of processes on
    other hosts."""
    try:
        age = time.time() - path.lstat().st_mtime
    except FileNotFoundError:  # it got its name meanwhile
        return False
    writer = _WRITER.search(path.name)
    return age > DAY or (age > SILENCE and not (writer and is_alive(int(writer[1]))))


def clean(folder: Path, also: Sequence[What] = ()) -> list[Waste]:
    """Delete what `find_waste` finds, and return it.

    Raises:
        Locked: an engine works on the study.   ConfigError: a file that cannot be deleted; what came before
        it is gone.
    """
    with locked(folder):
        waste = find_waste(folder, also)
        for one in waste:
            try:
                if one.path.is_dir() and not one.path.is_symlink():
                    shutil.rmtree(one.path)
                else:
                    one.path.unlink(missing_ok=True)
            except OSError as error:
                message = disk_error(error, about=one.path)
                raise message or ConfigError(
                    f"{one.path}: cannot be deleted: {error.strerror or error}"
                ) from None
        return waste


def _candidates(folder: Path, lattice: set[str]) -> Iterator[Waste]:
    points = folder / "points"
    # its jobs hold no lock of ours, and write on other hosts
    queued = (folder / "slurm" / "submissions.json").exists()
    for place in (
        sorted(p for p in points.iterdir() if p.is_dir() and not p.is_symlink()) if points.is_dir() else []
    ):
        if place.name not in lattice:
            yield Waste("orphans", place, _size(place))
            continue
        if (place / FAILURE).exists() and not (place / RECORD).exists():
            yield Waste("failed", place, _size(place))
            continue
        done = (place / RECORD).exists()
        for path in sorted(place.iterdir()):
            what = _kind(path, done)
            if what is not None and not (what == "temporary" and queued and not is_left_behind(path)):
                yield Waste(what, path, _size(path))
    jobs = (p for p in (folder / JOBS).glob("*") if p.is_dir() and not p.is_symlink())
    for place in sorted(p for p in jobs if p.name != "slurm"):  # which lies there beside them
        if place.name not in lattice:
            yield Waste("orphans", place, _size(place))
            continue
        scored = {path.stem for path in (points / place.name / EVALUATIONS).glob("*.json")}
        for one in sorted(place / label for label in scored):
            if one.is_dir():
                yield Waste("arrays", one, _size(one))
    for path in _temporaries(folder, besides=points):
        shared = queued or any(path.is_relative_to(folder / place) for place in ("tune", JOBS))
        if not shared or is_left_behind(path):
            yield Waste("temporary", path, _size(path))


def _temporaries(folder: Path, *, besides: Path | None = None) -> list[Path]:
    """All half-written files in `folder` and below, but for those below `besides`; links are not followed."""
    found = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if Path(place) / name != besides]
        found += [path for name in files if _is_temporary(path := Path(place) / name)]
    return sorted(found)


def _kind(path: Path, done: bool) -> What | None:
    if _is_temporary(path):
        return "temporary"
    if not done:
        return None
    if path.suffix == ".ckpt":
        return "checkpoints"
    if path.name == "tensorboard":
        return "curves"
    return "models" if path.name in ("model.safetensors", "model.yaml") else None


def _is_temporary(path: Path) -> bool:
    return path.is_file() and is_temporary(path)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(p) for p in path.iterdir())
    return path.lstat().st_size
