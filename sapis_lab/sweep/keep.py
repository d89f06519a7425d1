"""Records that travel with a repository: `results/NAME/records/ID/`, a few kilobytes for every finished
point.

`points/` is large (weights, checkpoints, curves) and stays out of git. What a table, a law and a report are
made from is small: the record and the resolved settings of a point, and its evaluations. The engine copies
them to `records/` as points finish; committed, they make that a clone trains only what is missing, and a long
study can be computed in pieces on several machines. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sapis_lab.config import ConfigError
from sapis_lab.files import digest, read_bytes, write_bytes
from sapis_lab.records import EVALUATIONS, RECORD, Planned, believed_record, read_record
from sapis_lab.sweep.folder import point_folder

KEPT = "records"
SETTINGS = "config.yaml"
WEIGHTS = "model.safetensors"


def kept_folder(folder: Path, id: str) -> Path:
    """Where the record of a point is kept."""
    return folder / KEPT / id


def keep(folder: Path, id: str) -> None:
    """Copy what is small of a finished point to `records/ID/`, the record last."""
    place, kept = point_folder(folder, id), kept_folder(folder, id)
    _copy([SETTINGS, *_evaluations(place), RECORD], place, kept)


def _copy(names: Sequence[str], place: Path, to: Path) -> None:
    """Those of the files `names` in `place` that are there, where the copy is another or none."""
    for name in names:
        source, target = place / name, to / name
        if source.is_file() and not (target.is_file() and digest(target) == digest(source)):
            write_bytes(target, read_bytes(source))


def _evaluations(place: Path) -> Iterator[str]:
    yield from (f"{EVALUATIONS}/{p.name}" for p in sorted((place / EVALUATIONS).glob("*.json")))


def restore(folder: Path, points: Sequence[Planned]) -> list[str]:
    """Bring the kept records of planned points back to `points/`, where there are none; the ids of those.

    Where there is the same record, kept evaluations that are not there are brought back alone.

    A kept record of other settings stays where it is (`engine.refuse_other_settings` tells of it). So does
    one beside weights that are not its own: that point is to be trained again.

    Raises:
        ConfigError: a kept record is damaged, or was edited.
    """
    restored = []
    for point in points:
        place, kept = point_folder(folder, point.id), kept_folder(folder, point.id)
        if not (kept / RECORD).exists():
            continue
        if (place / RECORD).exists():
            if digest(place / RECORD) == digest(kept / RECORD):
                _copy([n for n in _evaluations(kept) if not (place / n).exists()], kept, place)
            continue
        try:
            record = believed_record(kept, point)
        except ConfigError:
            if _is_of_other_settings(kept, point):
                continue
            raise
        weights = place / WEIGHTS
        if weights.exists() and record.weights != digest(weights):
            continue
        _copy([SETTINGS, *_evaluations(kept), RECORD], kept, place)
        restored.append(point.id)
    return restored


def _is_of_other_settings(kept: Path, point: Planned) -> bool:
    return read_record(kept).fingerprint != point.fingerprint
