"""What can be deleted from a results folder without losing a number: `sapis study clean NAME`.

Kept in any case: settings, records, logs, tables, laws, figures, reports, and whatever an unfinished point needs to go on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sapis_lab.config import ConfigError
from sapis_lab.files import is_temporary
from sapis_lab.records import FAILURE, RECORD
from sapis_lab.sweep.folder import left_behind, locked, read_manifest

What = Literal["checkpoints", "temporary", "orphans", "failed", "curves", "models"]
ALWAYS: tuple[What, ...] = ("checkpoints", "temporary")
MEANING: dict[What, str] = {
    "checkpoints": "checkpoints of points that are done",
    "temporary": "files that a kill left half written",
    "orphans": "points that are no longer in the lattice",
    "failed": "points that failed, with their logs",
    "curves": "TensorBoard events of points that are done",
    "models": "trained models of points that are done",
}


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
    return [w for w in _candidates(folder, lattice) if w.what in wanted]


def clean(folder: Path, also: Sequence[What] = ()) -> list[Waste]:
    """Delete what `find_waste` finds, and return it.

    Raises:
        Locked: an engine works on the study.   ConfigError: a file that cannot be deleted; what came before it is gone.
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
                raise ConfigError(f"{one.path}: cannot be deleted: {error.strerror or error}") from None
        return waste


def _candidates(folder: Path, lattice: set[str]) -> Iterator[Waste]:
    points = folder / "points"
    for place in sorted(p for p in points.iterdir() if p.is_dir() and not p.is_symlink()) if points.is_dir() else []:
        if place.name not in lattice:
            yield Waste("orphans", place, _size(place))
            continue
        if (place / FAILURE).exists() and not (place / RECORD).exists():
            yield Waste("failed", place, _size(place))
            continue
        done = (place / RECORD).exists()
        for path in sorted(place.iterdir()):
            what = _kind(path, done)
            if what is not None:
                yield Waste(what, path, _size(path))
    yield from (Waste("temporary", path, _size(path)) for path in sorted(left_behind(folder)))


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
