"""Whether what a results folder holds is whole: records with their weights, the table, the answers. Nothing
heavy is imported here.

A study is finished when every point has a record that can be believed and the answers are those that were
made from these records. That is decided by contents, never by times: `answers.json`, written last, holds the
sha256 of all records and of every answer, so that an empty report after a power cut, a record from a machine
whose clock is ahead, or a figure that something cut short is seen.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sapis_lab.config import ConfigError, load, read_yaml
from sapis_lab.errors import MissingFile
from sapis_lab.files import digest, is_temporary, read_json, with_checksum, without_checksum, write_text
from sapis_lab.records import EVALUATIONS, JOBS, RECORD, Planned, Record, believed_record, evaluated_columns
from sapis_lab.sweep.evaluations import not_evaluated, wanted_evaluations
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.manifest import Manifest, read_manifest, refuse_other_study_file

WHOLE = "answers.json"
WEIGHTS = "model.safetensors"
ANSWERS = ("runs.parquet", "runs.csv", "fit.json", "report.html")
FOLDERS = ("figures", "tables")
COMPARED_BYTES = 4_000_000
"""Weights up to this size are compared with their record wherever it is believed (3 ms)."""
_LARGEST_HEADER = 100_000_000
"""safetensors refuses larger headers."""


# ----------------------------------------------------------------------------------------------------- points


def refuse_damaged(folder: Path, points: Sequence[Planned]) -> None:
    """Raise ConfigError, naming files and what to do, if a finished point of `points` has a record or weights
    that cannot be believed."""
    problems = [
        problem for point in points for problem in point_problems(point_folder(folder, point.id), point)
    ]
    if problems:
        more = [f"... and {len(problems) - 5} more"] if len(problems) > 5 else []
        raise ConfigError("\n".join(problems[:5] + more))


def point_problems(place: Path, point: Planned, *, deep: bool = False) -> list[str]:
    """What is wrong with a finished point, one sentence each; nothing for one that has not finished.

    Weights that `sapis study clean --also models` took away are no problem; a file of weights that is cut off
    is.

    Args:
        deep: read the whole weights and compare them with the record, also large ones; of these otherwise
            only the size that their header promises.
    """
    if not (place / RECORD).exists():
        return []
    try:
        record = believed_record(place, point)
        evaluated_columns(place, record)
        weights = weights_problem(place / WEIGHTS, record, deep=deep)
    except ConfigError as error:
        return [str(error)]
    return [] if weights is None else [f"{place / WEIGHTS}: {weights}; {_NO_RECORD}"]


_NO_RECORD = f"remove {RECORD} beside it and run the study again, which trains that point again"


def weights_problem(path: Path, record: Record, *, deep: bool) -> str | None:
    """What is wrong with the weights of a finished point, or None."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(facts.st_mode):
        return "is no file"
    size = facts.st_size
    wanted = _promised_size(path)
    if wanted != size:
        return f"has {size} bytes, " + (
            "its header cannot be read" if wanted is None else f"its header promises {wanted}"
        )
    if (deep or size <= COMPARED_BYTES) and record.weights is not None and digest(path) != record.weights:
        return f"is not the file that {RECORD} was written with (sha256 there {record.weights[:12]})"
    return None


def _promised_size(path: Path) -> int | None:
    """Bytes of a safetensors file as its header has them; None where that cannot be read."""
    try:
        with path.open("rb") as f:
            n = int.from_bytes(f.read(8), "little")
            if n > _LARGEST_HEADER:
                return None
            tensors = json.loads(f.read(n))
            ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
            return 8 + n + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


# ---------------------------------------------------------------------------------------------------- answers


def records_digest(folder: Path, manifest: Manifest) -> str:
    """sha256 (hex) of the records of all points with their evaluations, in the order of the lattice; a point
    without a record counts as such."""
    total = hashlib.sha256()
    for point in manifest.points:
        path = point_folder(folder, point.id) / RECORD
        total.update(f"{point.id} {digest(path) if path.is_file() else '-'}\n".encode())
        for scores in sorted((path.parent / EVALUATIONS).glob("*.json")):
            total.update(f"  {scores.name} {digest(scores)}\n".encode())
    return total.hexdigest()


def note_answers(folder: Path, records: str) -> None:
    """Write `answers.json`, which says that the answers now in `folder` were made from the records of digest
    `records`."""
    files = {str(path.relative_to(folder)): digest(path) for path in _answers(folder)}
    write_text(
        folder / WHOLE, json.dumps(with_checksum({"records": records, "files": files}), indent=1) + "\n"
    )


def _answers(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in ANSWERS if (folder / name).is_file())
    for name in FOLDERS:
        yield from sorted(p for p in (folder / name).rglob("*") if p.is_file() and not is_temporary(p))


def answer_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Why the answers in `folder` are not, or no longer, those of its records; nothing where they are."""
    path, again = folder / WHOLE, "run the study again to make the answers again"
    try:
        noted = without_checksum(read_json(path), source=str(path), advice=again)
        files, records = dict(noted["files"]), noted["records"]
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        return [f"{error if isinstance(error, ConfigError) else f'{path}: damaged'}; {again}"]
    problems = [
        f"{folder / name}: {what}; {again}"
        for name, wanted in files.items()
        if (what := _differs(folder / name, wanted))
    ]
    problems += [f"{folder / name}: missing; {again}" for name in ANSWERS if name not in files]
    if records != records_digest(folder, manifest):
        problems.append(f"{folder}: the answers were made from other records than there are now; {again}")
    return problems


def _differs(path: Path, wanted: str) -> str | None:
    try:
        return None if digest(path) == wanted else "not what was written"
    except MissingFile:
        return "missing"
    except ConfigError as error:
        return str(error).removeprefix(f"{path}: ")


def finished(folder: Path, inputs: str) -> Manifest | None:
    """The manifest, if every point has a record and weights that can be believed, every answer is there,
    whole, and made from these records, and nothing they were made from has changed.

    Answers about another quantity than the study's (`sapis fit NAME --quantity ...`) are not its answers.

    Args:
        inputs: sha256 of all that the study is made from now (`folder.inputs_hash`).
    """
    try:
        manifest = read_manifest(folder)
        if manifest.inputs != inputs or answer_problems(folder, manifest):
            return None
        refuse_other_study_file(folder, manifest)
        quantity = (read_yaml(folder / "study.yaml").get("law") or {}).get("quantity")
        if read_json(folder / "fit.json").get("quantity") != quantity:
            return None
        for point in manifest.points:
            place = point_folder(folder, point.id)
            if not (place / RECORD).exists() or point_problems(place, point):
                return None
        if not_evaluated(folder, manifest.points, wanted_evaluations(folder)):
            return None
    except (ConfigError, OSError, AttributeError):
        return None
    return manifest


# ----------------------------------------------------------------------------------------------------- verify


class Verified(NamedTuple):
    """What `sapis study verify` looked at."""

    n_points: int
    """Points with a record."""
    n_without_weights: int
    """Of these, how many have no trained potential here: cleaned away, or known by their kept record
    alone."""
    n_checkpoints: int
    n_answers: int
    problems: list[str]
    """One sentence for everything that is not whole."""


def verify(folder: Path) -> Verified:
    """Read everything in a results folder and compare it with its checksums: records, weights, evaluations,
    checkpoints, answers.

    Raises:
        ConfigError: the study was never started, or its list of points cannot be read.
    """
    from sapis_lab.evaluation import MANIFEST, damaged_parts

    manifest = read_manifest(folder)
    problems: list[str] = []
    n_points = n_without = n_checkpoints = 0
    try:
        refuse_other_study_file(folder, manifest)
    except ConfigError as error:
        problems.append(str(error))
    for point in manifest.points:
        place = point_folder(folder, point.id)
        if (place / RECORD).exists():
            n_points += 1
            n_without += not (place / WEIGHTS).exists()
        problems += point_problems(place, point, deep=True)
        for manifest_file in sorted((folder / JOBS / point.id).glob(f"*/{MANIFEST}")):
            problems += damaged_parts(manifest_file.parent)
        for path in sorted(place.glob("*.ckpt")):
            n_checkpoints += 1
            if not _is_whole_archive(path):
                problems.append(
                    f"{path}: damaged; the point goes on from the other checkpoint, or from step 0"
                )
    answers = list(_answers(folder))
    if answers:
        problems += answer_problems(folder, manifest)
    return Verified(n_points, n_without, n_checkpoints, len(answers), problems)


class VerifiedStore(NamedTuple):
    """What was found of the frame store of a study."""

    n_frames: int
    """0 where there is no store on this machine."""
    problems: list[str]


def store_problems(folder: Path) -> VerifiedStore:
    """Read the frame store that the study in `folder` trains on, its neighbour tables included, and compare
    it with its checksums."""
    from sapis_lab.data import FrameStore, is_sealed, store_folder
    from sapis_lab.sweep.study import Study

    study = load(Study, read_yaml(folder / "study.yaml"), source=str(folder / "study.yaml"), recorded=True)
    place = store_folder(study.data, study.run.cache_folder)
    try:
        if not is_sealed(place):
            return VerifiedStore(0, [])
        store = FrameStore.open(place)
        return VerifiedStore(store.n_frames, store.problems())
    except ValueError as error:
        return VerifiedStore(0, [str(error)])


def _is_whole_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
