"""What one finished point reports, and the runs table: the file that joins training and analysis. No torch
here.

A point's process writes `record.json` as its last act and in one step, so a record that exists is complete.
Evaluations of a finished point lie beside it, `evaluation/LABEL.json`, and are columns `LABEL_KEY` of its
row. The table has one row per point that ended, in the order of the lattice; two identical studies give
tables
equal in every column but times, host, device and commit.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from sapis_lab.config import Config, ConfigError, dump, fingerprint, kind_class, load
from sapis_lab.errors import MissingFile
from sapis_lab.files import (
    CHECKSUM,
    read_bytes,
    read_json,
    read_lossy,
    read_text,
    with_checksum,
    without_checksum,
    write_text,
    write_with,
)
from sapis_lab.quantities import Quantity, came_later, declare, declared, is_time, known
from sapis_lab.targets import Target
from sapis_lab.text import for_spreadsheets, from_spreadsheets

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1
ERRORS = ("_rmse", "_mae", "_mae_per_atom")
"""Ends of the names of quantities that cannot be negative."""
RECORD, FAILURE, CHECKPOINT = "record.json", "failure.txt", "last.ckpt"
AGAIN = "remove that file and run the study again, which takes its kept copy or trains that point again"
"""What to do about a record that cannot be believed."""


class Planned(Config):
    """What is known of a point before it runs."""

    id: str
    """Readable identity, the name of its folder."""
    fingerprint: str
    """sha256 of everything its numbers depend on."""
    model: str
    """Label of the model, one per curve in a figure."""
    family: str
    """Kind of the model."""
    symmetry: str
    """Group under which its energies are invariant by construction: 'O(3)' or 'none'."""
    lmax: int | None = None
    """Largest degree of its equivariant features; none for models without."""
    seed: int
    """Seed of parameters, batches and augmentation."""
    n_params_target: float
    """The number of parameters that was asked for."""
    n_params: int = Field(gt=0)
    """N, counted."""
    n_frames: int = Field(gt=0)
    """D, the number of distinct labelled training frames."""
    steps: int = Field(gt=0)
    """Optimiser steps."""
    batch_size: int = Field(gt=0)
    """Frames per step."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""


class Record(Planned):
    """One finished point."""

    schema_version: int = SCHEMA_VERSION
    """Version of this list of fields."""
    science: dict[str, Any]
    """The settings behind `fingerprint`, which name what differs when it does."""
    n_params_equivariant: int = Field(ge=0)
    """Parameters that act on features of degree above zero."""
    n_params_scalar: int = Field(ge=0)
    """All other parameters."""
    epochs: float = Field(gt=0)
    """Passes over the D frames."""
    samples: int = Field(gt=0)
    """Frames seen, with repetition."""
    flops_per_step: float = Field(ge=0)
    """Matrix-product FLOPs of one training step."""
    flops_elementwise_per_step: float = Field(ge=0)
    """Estimate of all other operations of one training step."""
    flops_train: float = Field(ge=0)
    """C, the matrix-product FLOPs of the whole training."""
    flops_inference_per_frame: float = Field(ge=0)
    """Matrix-product FLOPs of energy and forces of one frame."""
    seconds_train: float = Field(ge=0)
    """Wall time of the optimiser steps over all sessions, s."""
    cpu_seconds_train: float = Field(ge=0)
    """CPU time of the same, s."""
    seconds_total: float = Field(ge=0)
    """Wall time of the point, evaluation included, s."""
    device: str
    """Where it ran."""
    host: str | None = None
    """Which machine it ran on."""
    kernel: str | None = None
    """The forms of the training step that made the numbers, which agree to rounding alone: 'C++', 'PyTorch',
    'PyTorch compiled', 'PyTorch on cuda', 'CUDA graph', or several where the point was interrupted and went
    on in another; none in older records."""
    weights: str | None = None
    """sha256 (hex) of the file of its trained weights; none in records from before it was noted."""
    metrics: dict[str, float]
    """Measured quantities by key, in the package's units."""
    versions: dict[str, str] = {}
    """Versions of the packages that made the numbers."""
    commit: str | None = None
    """Commit of the program that made the numbers; none outside of git, and in records from before it was
    noted."""
    dirty: bool | None = None
    """Whether the program had changes that were not committed."""

    @model_validator(mode="after")
    def _groups_add_up(self) -> Self:
        equivariant, scalar = self.n_params_equivariant, self.n_params_scalar
        if equivariant + scalar != self.n_params:
            raise ValueError(
                f"n_params_equivariant {equivariant} + n_params_scalar {scalar} must be n_params "
                f"{self.n_params}"
            )
        return self

    @field_validator("metrics")
    @classmethod
    def _possible(cls, metrics: dict[str, float]) -> dict[str, float]:
        impossible = {k: v for k, v in metrics.items() if k.endswith(ERRORS) and v < 0}
        if impossible:
            raise ValueError(f"an error is never negative, got {impossible}")
        return metrics


class Evaluated(Config):
    """What one evaluation found of one finished point."""

    schema_version: int = SCHEMA_VERSION
    """Version of this list of fields."""
    kind: str
    """Kind of the evaluation."""
    name: str | None = None
    """Its name, where it has one."""
    settings: dict[str, Any]
    """All its settings."""
    version: int = Field(ge=1)
    """Of the kind."""
    fingerprint: str
    """sha256 of all that the scores depend on: settings and version, weights, frames."""
    point: str
    """Fingerprint of the point."""
    weights: str
    """sha256 (hex) of the weights that were evaluated."""
    scores: dict[str, float]
    """Measured quantities by key, in the package's units."""
    seconds: float = Field(ge=0)
    """Wall time of the session that scored it, s."""
    device: str
    """Where it was measured."""
    host: str | None = None
    """On which machine."""
    commit: str | None = None
    """Commit of the program; none outside of git."""
    dirty: bool | None = None
    """Whether the program had changes that were not committed."""

    @property
    def label(self) -> str:
        """The name of its file, and what its columns begin with."""
        return self.kind if self.name is None else f"{self.kind}-{self.name}"


# Nullable integers where a failed row has no value; FLOPs are floats, since C may exceed 2^63.
_DTYPES = {
    "id": "str",
    "status": "str",
    "failure": "str",
    "model": "str",
    "family": "str",
    "symmetry": "str",
    "lmax": "Int64",
    "seed": "int64",
    "n_params_target": "float64",
    "n_params": "int64",
    "n_params_equivariant": "Int64",
    "n_params_scalar": "Int64",
    "n_frames": "int64",
    "steps": "int64",
    "epochs": "float64",
    "samples": "Int64",
    "batch_size": "int64",
    "learning_rate": "float64",
    "flops_per_step": "float64",
    "flops_elementwise_per_step": "float64",
    "flops_train": "float64",
    "flops_inference_per_frame": "float64",
    "seconds_train": "float64",
    "cpu_seconds_train": "float64",
    "seconds_total": "float64",
    "device": "str",
    "kernel": "str",
    "host": "str",
    "commit": "str",
    "dirty": "boolean",
    "fingerprint": "str",
}


# ---------------------------------------------------------------------------------------------------- records


def write_record(folder: Path, record: Record) -> Path:
    """Write `record.json` in one step, the last act of a point; returns its path."""
    path = Path(folder) / RECORD
    write_text(
        path, json.dumps(with_checksum(dump(record)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    return path


def read_record(folder: Path) -> Record:
    """The record in a point's folder. ConfigError when there is none, it is damaged, or a newer program wrote
    it."""
    path = Path(folder) / RECORD
    return load(Record, read_raw(path), source=str(path))


def read_raw(path: Path) -> dict[str, Any]:
    """A record as plain data, its schema version and its checksum checked: faster than `read_record` when two
    keys are wanted.

    Raises:
        ConfigError: there is none, it is damaged or was edited, or a newer program wrote it.
    """
    try:
        raw = read_json(path, then=AGAIN)
    except MissingFile:
        raise MissingFile(f"{path}: no such file; the point has not finished") from None
    version = raw.get("schema_version", 0)
    if not isinstance(version, int):
        raise ConfigError(f"{path}: schema_version: wanted an integer, got {version!r}; {AGAIN}")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {version}, this program reads up to {SCHEMA_VERSION}; update "
            f"sapis_lab to read it"
        )
    missing = [name for name in _NEEDED if name not in raw]
    if missing or not isinstance(raw["science"], dict) or not isinstance(raw["metrics"], dict):
        what = f"lacks {', '.join(missing)}" if missing else "science and metrics must be mappings"
        raise ConfigError(f"{path}: {what}; {AGAIN}")
    return without_checksum(raw, source=str(path), advice=AGAIN)


_NEEDED = tuple(name for name, field in Record.model_fields.items() if field.is_required())


# ------------------------------------------------------------------------------------------------ evaluations

EVALUATIONS = "evaluation"
"""Folder of a point in which its scores lie."""
JOBS = "evaluations"
"""Folder of a study in which its points are evaluated, and the raw arrays lie."""


def evaluation_file(folder: Path, label: str) -> Path:
    """Where the scores of an evaluation of the point in `folder` lie."""
    return Path(folder) / EVALUATIONS / f"{label}.json"


def write_evaluated(folder: Path, evaluated: Evaluated) -> None:
    """Write the scores of an evaluation of the point in `folder`, in one step."""
    text = json.dumps(with_checksum(dump(evaluated)), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(evaluation_file(folder, evaluated.label), text + "\n")


def read_evaluated(path: Path) -> Evaluated:
    """The scores in a file `evaluation/LABEL.json`.

    Raises:
        ConfigError: there is none, it is damaged or was edited, it lies under another name, or a newer
        program wrote it.
    """
    raw = read_json(path, then=EVALUATE)
    version = raw.get("schema_version", 0)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {version}, this program reads up to {SCHEMA_VERSION}; update "
            f"sapis_lab to read it"
        )
    if CHECKSUM not in raw:
        raise ConfigError(f"{path}: lacks {CHECKSUM}; {EVALUATE}")
    rest = without_checksum(raw, source=str(path), advice=EVALUATE)
    found: Evaluated = load(Evaluated, rest, source=str(path))
    if path.stem != found.label:
        raise ConfigError(f"{path}: its contents are of the evaluation {found.label!r}; {EVALUATE}")
    return found


EVALUATE = "remove that file and evaluate again (sapis evaluate)"
"""What to do about scores that cannot be believed."""


def evaluated_columns(folder: Path, record: Record) -> dict[str, float]:
    """Scores of all evaluations of a finished point, by the names of their columns.

    Raises:
        ConfigError: one cannot be believed, or is of other weights than the record.
    """
    columns: dict[str, float] = {}
    for path in sorted((folder / EVALUATIONS).glob("*.json")):
        found = read_evaluated(path)
        if found.point != record.fingerprint or record.weights not in (None, found.weights):
            raise ConfigError(f"{path}: was measured on other weights than those of {RECORD}; {EVALUATE}")
        columns |= {f"{found.label}_{key}": value for key, value in found.scores.items()}
    return columns


# ------------------------------------------------------------------------------------------------------ table


def runs_table(points_folder: Path, expected: Sequence[Planned]) -> DataFrame:
    """The runs table: one row per expected point that is done or failed, in the order given; points still
    open have no row."""
    import pandas as pd

    rows = [row for point in expected if (row := _row(Path(points_folder) / point.id, point)) is not None]
    metrics = {key for row in rows for key in row["metrics"]}
    order = known()
    metric_columns = [k for k in order if k in metrics] + sorted(metrics - set(order))
    metric_columns += sorted({key for row in rows for key in row["evaluated"]})
    flat = [{**row, **row["metrics"], **row["evaluated"]} for row in rows]
    dtypes = _DTYPES | dict.fromkeys(metric_columns, "float64")
    # before 3, "str" would turn None into 'None'
    text = "str" if int(pd.__version__.split(".")[0]) >= 3 else "object"
    table = pd.DataFrame(
        {
            c: pd.Series([row.get(c) for row in flat], dtype=text if t == "str" else t)
            for c, t in dtypes.items()
        }
    )
    if of_study := declared(metric_columns):
        table.attrs[_QUANTITIES] = [asdict(q) for q in of_study]
    return table


def _row(folder: Path, point: Planned) -> dict[str, Any] | None:
    if (folder / RECORD).exists():
        record = believed_record(folder, point)
        _declare_targets(record.science)
        return {**dump(record), "status": "done", "evaluated": evaluated_columns(folder, record)}
    if (folder / FAILURE).exists():
        reason = read_lossy(folder / FAILURE).partition("\n")[0] or "no reason recorded"
        return {**dump(point), "status": "failed", "failure": reason, "metrics": {}, "evaluated": {}}
    return None


def _declare_targets(science: Mapping[str, Any]) -> None:
    """Make the errors of the targets known that a record was trained for, beyond energies and forces."""
    train = science.get("train")
    for plain in (train.get("targets") or ()) if isinstance(train, Mapping) else ():
        target = load(kind_class("targets", plain["kind"]), plain, source="targets", recorded=True)
        assert isinstance(target, Target)
        declare(*target.measures())


def believed_record(folder: Path, point: Planned) -> Record:
    """The record in the folder of a planned point, once it is found to be of that point.

    Raises:
        ConfigError: there is none; it is damaged, or of other settings, or says something else about itself
        than the plan.
    """
    record, path = read_record(folder), Path(folder) / RECORD
    if record.fingerprint != point.fingerprint:
        raise ConfigError(
            f"{path} was made from other settings than the study has now; run the study to see which"
        )
    if fingerprint(record.science) != record.fingerprint:
        raise ConfigError(f"{path}: its fingerprint is not that of the settings in it (science); {AGAIN}")
    for key in Planned.model_fields:
        got, wanted = getattr(record, key), getattr(point, key)
        if got != wanted:
            raise ConfigError(f"{path}: {key} is {got!r}, the lattice has {wanted!r}; {AGAIN}")
    return record


def write_table(table: DataFrame, folder: Path) -> None:
    """Write runs.parquet and runs.csv, each in one step; the CSV holds every float with all its digits, and
    no text that a spreadsheet would calculate (`text.from_spreadsheets` gives back what parquet has)."""
    folder = Path(folder)
    write_with(folder / "runs.parquet", lambda path: table.to_parquet(path, index=False))
    write_with(folder / "runs.csv", lambda path: for_spreadsheets(table).to_csv(path, index=False))


def read_table(folder: Path) -> DataFrame:
    """The runs table of a results folder. ConfigError when there is none yet."""
    import pandas as pd

    path = Path(folder) / "runs.parquet"
    if not path.exists():
        raise ConfigError(f"{path}: no such file; no point of this study has finished yet")
    data = io.BytesIO(read_bytes(path))
    try:
        table = pd.read_parquet(data)
    except (OSError, ValueError) as error:  # those of pyarrow are either
        raise ConfigError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); run the study again to write it anew"
        ) from None
    declare(*(Quantity(**plain) for plain in table.attrs.get(_QUANTITIES, ())))
    return table


_QUANTITIES = "quantities"
"""Where a table carries what is known of its columns by declaration alone."""


def read_csv(path: Path, *, columns: Sequence[str], then: str) -> DataFrame:
    """A table of ours in CSV. ConfigError when it is damaged or lacks one of `columns`; `then` says what to
    do."""
    import pandas as pd

    text = read_text(path)
    try:
        table = pd.read_csv(io.StringIO(text))
    except (ValueError, OverflowError) as error:  # those of pandas are ValueErrors
        raise ConfigError(f"{path}: cannot be read ({str(error).splitlines()[0]}); {then}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        got = ", ".join(map(str, table.columns))[:200]
        raise ConfigError(f"{path}: no columns {', '.join(missing)}, got {got}; {then}")
    return from_spreadsheets(table)


def same_numbers(a: DataFrame, b: DataFrame) -> bool:
    """Two tables are equal, bit for bit, in every column but times, host, device, form of the step and
    commit."""
    return not differing_columns(a, b)


def differing_columns(a: DataFrame, b: DataFrame) -> list[str]:
    """The columns in which two tables differ (or that one lacks); times, host, device, form of the step and
    commit aside, and what older records lack in points that one of the two did not record it of."""
    ignored = {"host", "device", "kernel", "commit", "dirty"}
    columns = [c for c in dict.fromkeys([*a, *b]) if c not in ignored and not is_time(c)]
    return [c for c in columns if not _same_column(c, a, b)]


def _same_column(name: str, a: DataFrame, b: DataFrame) -> bool:
    later = came_later(name)
    if name not in a or name not in b:
        return later
    one, other = a[name].reset_index(drop=True), b[name].reset_index(drop=True)
    if later and len(one) == len(other):
        known_to_both = one.notna() & other.notna()
        one, other = one[known_to_both], other[known_to_both]
    return bool(one.equals(other))
