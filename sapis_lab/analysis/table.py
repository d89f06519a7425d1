"""Points from any table with columns of N, D and loss: CSV (with commas, semicolons or tabs), parquet, JSON
lines or one JSON array.

Nothing is guessed: a column that is missing, an entry that is no positive number, an empty table end with a
`ValueError` that names file, column and row (1 is the first row after the header), what stood there and what
was wanted.

Rows that agree in everything, the loss to its last digit, are one run written several times, as two tables
pasted together leave them: they count once, and their number is kept to be told. Taken for repeats, they
would halve the noise that a fit sees. Seeds differ in a column (an id, a seed, a time), and stay.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import Array
from sapis_lab.files import read_bytes

READERS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON lines",
}


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table."""

    n_params: str
    """N, or the compute C for a law of compute."""
    n_frames: str | None
    """D; None for a law of compute."""
    loss: str
    weight: str | None = None
    """Precision of ln loss up to a factor."""
    group: str | None = None
    """The run that a row comes from, for points that err together."""
    epochs: str | None = None
    """Passes over the D distinct frames, for laws of repeated data."""


@dataclass(frozen=True)
class PointTable:
    """Points, and where they come from."""

    points: Points
    epochs: Array | None
    path: Path
    columns: Columns
    sha256: str
    """Of the bytes of the file."""
    n_copies: int = 0
    """Rows that say again what an earlier one says, and count as nothing."""


def read_points(path: Path, columns: Columns) -> PointTable:
    """The points of a table.

    Raises:
        ValueError: the file or a column cannot be read; the message names the place.
    """
    path = Path(path)
    data = _bytes(path)
    frame = _frame(data, path)
    for role, name in vars(columns).items():
        if name is not None and name not in frame:
            near = difflib.get_close_matches(name, map(str, frame.columns), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{path}: no column {name!r} for {role}, got the columns "
                f"{', '.join(map(str, frame.columns))}{hint}"
            )
    if frame.empty:
        raise ValueError(f"{path}: the table has no rows")
    named = {role: name for role, name in vars(columns).items() if name is not None and role != "group"}
    numbers = {role: _positive(frame[name], path, name) for role, name in named.items()}
    values = {named[role]: column for role, column in numbers.items()}
    group = None if columns.group is None else _labels(frame[columns.group], path, columns.group)
    numbers.setdefault("n_frames", np.ones(len(frame)))
    epochs = numbers.pop("epochs", None)
    if epochs is not None and (epochs < 1).any():
        row = int(np.flatnonzero(epochs < 1)[0])
        raise ValueError(
            f"{path}, column {columns.epochs!r}, row {row + 1}: got {epochs[row]:g} epochs, wanted at least 1"
        )
    first = ~_copies(frame, values)
    points = Points(**numbers, group=group).take(first)
    return PointTable(
        points,
        None if epochs is None else epochs[first],
        path,
        columns,
        hashlib.sha256(data).hexdigest(),
        n_copies=int((~first).sum()),
    )


def _copies(frame: pd.DataFrame, numbers: dict[str, Array]) -> np.ndarray:
    """Which rows equal an earlier one in every column, (n,) bool; `numbers` as values, since 1e4 is 10000.

    A column without a name is the running number of whoever wrote the table, and tells no runs apart.
    """
    known = {k: frame.iloc[:, k] for k, name in enumerate(frame.columns) if not _UNNAMED.fullmatch(str(name))}
    text = pd.DataFrame({k: column.astype(str) for k, column in known.items()}, index=frame.index)
    for name, values in numbers.items():
        text[name] = values
    return text.drop(columns=[k for k in known if frame.columns[k] in numbers]).duplicated().to_numpy()


_UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")


def _bytes(path: Path) -> bytes:
    """Of a regular file, which may have any size."""
    if path.suffix.lower() not in READERS and path.is_file():
        raise ValueError(
            f"{path}: got a file ending in {path.suffix or 'nothing'!r}, wanted one of {', '.join(READERS)}"
        )
    return read_bytes(path, limit=None)


def _frame(data: bytes, path: Path) -> pd.DataFrame:
    form = READERS.get(path.suffix.lower())
    if form is None:
        raise ValueError(
            f"{path}: got a file ending in {path.suffix or 'nothing'!r}, wanted one of {', '.join(READERS)}"
        )
    try:
        if form == "parquet":
            return pd.read_parquet(io.BytesIO(data))
        text = data.decode("utf-8-sig")
        if form == "CSV":
            # text as it stands: a reader that guesses types hides which entry was wrong
            return pd.read_csv(
                io.StringIO(text),
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                sep=_separator(text),
            )
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty, wanted a header and rows") from None
    except Exception as error:  # the readers raise many kinds
        raise ValueError(
            f"{path}: not a table in {form}: {next(iter(str(error).splitlines()), type(error).__name__)}"
        ) from None
    return _json_lines(text, path)


def _separator(text: str) -> str:
    """What separates the names of the header: a comma unless semicolons or tabs are more frequent."""
    return max(",;\t", key=text.partition("\n")[0].count)


def _json_lines(text: str, path: Path) -> pd.DataFrame:
    if text.lstrip().startswith("["):
        return pd.DataFrame(
            [_object(row, f"{path}, entry {k}") for k, row in enumerate(_parsed(text, f"{path}"), start=1)]
        )
    lines = [(f"{path}, line {k}", line) for k, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return pd.DataFrame([_object(_parsed(line, place), place) for place, line in lines])


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        what = (
            "nested too deeply"
            if deep
            else error.msg
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        raise ValueError(
            f"{place}: not JSON ({what}), wanted one object a line, or an array of objects"
        ) from None


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: got {type(row).__name__}, wanted a JSON object")
    return row


def _positive(column: pd.Series, path: Path, name: str) -> Array:
    # an integer beyond all floats would end the reader; true is no 1
    mixed = column.dtype == object or column.dtype == bool
    values = pd.to_numeric(column.astype(str) if mixed else column, errors="coerce").to_numpy(
        dtype=float, na_value=np.nan
    )
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"{path}, column {name!r}, row {row + 1}: got {_shown(column.iloc[row])}, wanted a positive "
            f"number"
        )
    return values


def _labels(column: pd.Series, path: Path, name: str) -> np.ndarray:
    empty = np.flatnonzero(column.isna() | (column.astype(str).str.strip() == ""))
    if empty.size:
        raise ValueError(
            f"{path}, column {name!r}, row {int(empty[0]) + 1}: got nothing, wanted the label of a run"
        )
    return column.astype(str).to_numpy()


def _shown(value: Any) -> str:
    if (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (not isinstance(value, str) and pd.isna(value))
    ):
        return "nothing"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
