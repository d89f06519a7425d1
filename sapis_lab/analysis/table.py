"""Points from any table with columns of N, D and loss (`table_formats` says in which forms, `table_numbers`
which numbers).

Nothing is guessed: a column that is missing, an entry that is no positive number, an empty table end with a
`ValueError` that names file, column and row (1 is the first row after the header), what stood there and what
was wanted. Rows where nothing stands, as runs that did not finish leave them, are refused too, or left out on
request; their number is kept to be told.

Rows that agree in everything, the loss to its last digit, are one run written several times, as two tables
pasted together leave them: they count once, and their number is kept to be told. Taken for repeats, they
would halve the noise that a fit sees. Seeds differ in a column (an id, a seed, a time), and stay.

Of a table that holds several settings (learning rates, batch sizes) of one N and D, the best ones can be
taken, see `Columns.best_over`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.table_formats import READERS, frame_of, read_frame, table_bytes
from sapis_lab.analysis.table_numbers import (
    label_column,
    named_column,
    number_column,
    positive_column,
    setting_column,
)

__all__ = ["READERS", "Columns", "PointTable", "positive_column", "read_frame", "read_groups", "read_points"]

Missing = Literal["refuse", "drop"]
"""What becomes of rows without a number in a column that is needed."""
ALIKE = 1e-8
"""Losses that differ by less than this part of them are one number."""


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
    by: str | None = None
    """Each of its values, a model say, is a table of its own for `read_groups`."""
    against: str | None = None
    """A number that belongs to each value of `by`, such as l_max."""
    best_over: tuple[str, ...] = ()
    """Settings of which the best stays for every (N, D, epochs, `by`).

    Rows that agree in all of these columns are seeds of one setting. The setting with the smallest mean loss
    over its seeds is chosen and keeps all of them: the best single row would be a minimum over noise, lower
    than what the setting gives, and the more so the more seeds there are. Rows that are left out count as
    nothing here: a setting whose other seeds have diverged is judged by the lucky ones.
    """
    seed: str | None = None
    """The seed of a row: two rows of one setting must not have the same one."""
    steps: str | None = None
    """Number of training steps, for laws of them."""


ROLES = {
    "n_params": "N",
    "n_frames": "D",
    "loss": "the loss",
    "weight": "the weight",
    "group": "the group",
    "steps": "the steps",
    "epochs": "the epochs",
    "by": "the groups",
    "against": "the number of a group",
    "seed": "the seed",
}
"""What the columns are to be, in the words of messages."""


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
    n_dropped: int = 0
    """Rows left out because nothing stood in a column that is needed."""
    n_reduced: int = 0
    """Rows left out because another setting of `columns.best_over` is better."""
    against: float | None = None
    """The number of this group in `columns.against`."""


def read_points(
    path: Path, columns: Columns, *, missing: Missing = "refuse", sheet: str | None = None
) -> PointTable:
    """The points of a table.

    Args:
        missing: what becomes of rows where nothing stands (an empty entry, NaN, NA, None, null) in a column
            of numbers that is needed.   sheet: of an Excel file.

    Raises:
        ValueError: the file or a column cannot be read; the message names the place.
    """
    rows = _read_rows(Path(path), columns, missing=missing, sheet=sheet)
    return rows.table(np.ones(len(rows.stays), dtype=bool))


def read_groups(
    path: Path, columns: Columns, *, missing: Missing = "refuse", sheet: str | None = None
) -> dict[str, PointTable]:
    """The points of a table for each value of the column `columns.by`, in the order in which they appear.

    Raises:
        ValueError: as `read_points`; no column is named; no row of a value is left; or `columns.against`
            is not one number for each value.
    """
    if columns.by is None:
        raise ValueError(f"{path}: groups of rows need the column that tells them apart, got none")
    rows = _read_rows(Path(path), columns, missing=missing, sheet=sheet)
    labels = rows.labels
    assert labels is not None
    tables = {}
    for label in dict.fromkeys(labels[labels != ""].tolist()):  # '' stands in dropped rows alone
        own = labels == label
        if not (own & rows.stays).any():
            raise ValueError(
                f"{path}, column {columns.by!r}: no row of {label!r} has all numbers that are needed; "
                f"{int(own.sum())} were left out"
            )
        tables[label] = replace(rows.table(own), against=rows.number_of(label))
    return tables


@dataclass(frozen=True)
class _Rows:
    """A table whose columns are read, and what becomes of each of its rows."""

    frame: pd.DataFrame
    path: Path
    columns: Columns
    sha256: str
    numbers: dict[str, Array]
    """By role, (n,) each; nan in rows that are dropped."""
    group: np.ndarray | None
    labels: np.ndarray | None
    dropped: np.ndarray
    copied: np.ndarray
    reduced: np.ndarray

    @property
    def stays(self) -> np.ndarray:
        """Rows that are points, (n,) bool."""
        return ~(self.dropped | self.copied | self.reduced)

    def table(self, which: np.ndarray) -> PointTable:
        """The points among some of the rows, (n,) bool."""
        own = {role: self.numbers[role] for role in ("n_params", "loss")}
        frames = self.numbers.get("n_frames", np.ones(len(self.frame)))
        points = Points(
            **own,
            n_frames=frames,
            weight=self.numbers.get("weight"),
            group=self.group,
            steps=self.numbers.get("steps"),
        )
        taken, epochs = self.stays & which, self.numbers.get("epochs")
        return PointTable(
            points.take(taken),
            None if epochs is None else epochs[taken],
            self.path,
            self.columns,
            self.sha256,
            n_copies=int((self.copied & which).sum()),
            n_dropped=int((self.dropped & which).sum()),
            n_reduced=int((self.reduced & which).sum()),
        )

    def number_of(self, label: str) -> float | None:
        """What stands in the column `against` for one value of `by`."""
        if self.columns.against is None or self.labels is None:
            return None
        own = np.flatnonzero((self.labels == label) & self.stays)
        values = self.numbers["against"][own]
        other = np.flatnonzero(values != values[0])
        if other.size:
            raise ValueError(
                f"{self.path}, column {self.columns.against!r}: got {values[0]:g} in row {own[0] + 1} and "
                f"{values[other[0]]:g} in row {own[other[0]] + 1} for {self.columns.by} {label!r}, wanted "
                f"one number for each value of column {self.columns.by!r}"
            )
        return float(values[0])


def check_distinct(named: dict[str, str], path: Path, roles: dict[str, str]) -> None:
    """No column is two of the numbers that a law, or a rule, is of; a `ValueError` names it."""
    taken: dict[str, str] = {}
    for role in ("n_params", "n_frames", "learning_rate", "batch_size", "loss", "steps"):
        if role in named and (other := taken.setdefault(named[role], role)) != role:
            raise ValueError(
                f"{path}, column {named[role]!r}: got it for {roles[other]} and for {roles[role]}, wanted a "
                f"column for each"
            )


def _read_rows(path: Path, columns: Columns, *, missing: Missing, sheet: str | None) -> _Rows:
    data = table_bytes(path)
    frame = frame_of(data, path, sheet=sheet)
    roles = ROLES if columns.n_frames is not None else ROLES | {"n_params": "C"}
    named = {role: name for role, name in vars(columns).items() if isinstance(name, str)}
    for role, name in [*named.items(), *(("best_over", name) for name in columns.best_over)]:
        named_column(frame, name, path, role=roles.get(role, "a setting"))
    for role, name in named.items():
        if name in columns.best_over and role != "group":
            raise ValueError(
                f"{path}: column {name!r} is {roles[role]} and no setting of which the best can stay"
            )
    check_distinct(named, path, roles)
    if frame.empty:
        raise ValueError(f"{path}: the table has no rows")
    numbers = {
        role: number_column(
            frame,
            name,
            path,
            sign="any" if role == "against" else "positive",
            empty="nan" if missing == "drop" else "refuse",
            advice="fill in what is missing, or leave such rows out (--drop-missing)",
        )
        for role, name in named.items()
        if role not in ("group", "by", "seed")
    }
    dropped = np.any([np.isnan(values) for values in numbers.values()], axis=0)
    if dropped.all():
        lost = {named[role]: int(np.isnan(values).sum()) for role, values in numbers.items()}
        where = ", ".join(f"{n} in column {name!r}" for name, n in lost.items() if n)
        raise ValueError(
            f"{path}: none of the {len(frame)} rows has all numbers that are needed; missing {where}"
        )
    _check_epochs(numbers.get("epochs"), path, columns)
    group, labels = (
        None if name is None else label_column(frame, name, path, needed=~dropped)
        for name in (columns.group, columns.by)
    )
    copied = ~dropped & copies(frame, {named[role]: values for role, values in numbers.items()})
    rows = _Rows(
        frame,
        path,
        columns,
        hashlib.sha256(data).hexdigest(),
        numbers,
        group,
        labels,
        dropped,
        copied,
        reduced=np.zeros(len(frame), dtype=bool),
    )
    return replace(rows, reduced=_other_settings(rows))


def _check_epochs(epochs: Array | None, path: Path, columns: Columns) -> None:
    if epochs is not None and (epochs < 1).any():
        row = int(np.flatnonzero(epochs < 1)[0])
        raise ValueError(
            f"{path}, column {columns.epochs!r}, row {row + 1}: got {epochs[row]:g} epochs, wanted at least 1"
        )


def copies(frame: pd.DataFrame, numbers: dict[str, Array]) -> np.ndarray:
    """Which rows equal an earlier one in every column, (n,) bool; `numbers` as values, since 1e4 is 10000.

    A column without a name is the running number of whoever wrote the table, and tells no runs apart.
    """
    known = {k: frame.iloc[:, k] for k, name in enumerate(frame.columns) if not _UNNAMED.fullmatch(str(name))}
    text = pd.DataFrame({k: column.astype(str) for k, column in known.items()}, index=frame.index)
    for name, values in numbers.items():
        text[name] = values
    return text.drop(columns=[k for k in known if frame.columns[k] in numbers]).duplicated().to_numpy()


_UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")


def _other_settings(rows: _Rows) -> np.ndarray:
    """Rows of settings that are not the best one of their N, D, epochs and `by`, (n,) bool (`best_over`)."""
    columns, stays, other = rows.columns, rows.stays, np.zeros(len(rows.frame), dtype=bool)
    if not columns.best_over:
        return other
    about = pd.DataFrame({r: v for r, v in rows.numbers.items() if r in ("n_params", "n_frames", "epochs")})
    if rows.labels is not None:
        about["by"] = rows.labels
    cell, setting = list(about), [f"setting {k}" for k in range(len(columns.best_over))]
    for key, name in zip(setting, columns.best_over, strict=True):
        about[key] = setting_column(rows.frame, name, rows.path, needed=~rows.dropped)
    about = about[stays].assign(loss=rows.numbers["loss"][stays])
    _check_seeds(rows, about[[*cell, *setting]])
    groups = about.groupby([*cell, *setting], sort=False)
    which = groups.ngroup()
    best = groups["loss"].transform("mean").groupby([about[key] for key in cell]).transform("idxmin")
    other[stays] = which.to_numpy() != which.loc[best].to_numpy()
    return other


def _check_seeds(rows: _Rows, settings: pd.DataFrame) -> None:
    """Two rows of one setting with one seed differ in something that no column of `best_over` names."""
    name = rows.columns.seed
    if name is None:
        return
    keys = settings.assign(seed=label_column(rows.frame, name, rows.path, needed=rows.stays)[rows.stays])
    again = keys.index[keys.duplicated()]
    if len(again):
        first = keys.index[(keys == keys.loc[again[0]]).all(axis=1)][0]
        raise ValueError(
            f"{rows.path}, column {name!r}, row {again[0] + 1}: got the seed of row {first + 1}, "
            f"{keys['seed'][first]!r}, with the same {', '.join(rows.columns.best_over)}; name the column in "
            f"which they differ as a setting, too"
        )


def check_differ(table: PointTable) -> None:
    """ValueError where the losses are one number, but for rounding."""
    loss = table.points.loss
    where = f"{table.path}, column {table.columns.loss!r}: all {len(loss)} losses"
    if len(np.unique(loss)) == 1:
        raise ValueError(f"{where} are {loss[0]:g}; a law needs losses that differ")
    if (span := float(np.log(loss.max() / loss.min()))) < ALIKE:
        raise ValueError(
            f"{where} are {loss[0]:.6g} within {span:.1g} of it, which rounding may make; a law needs losses "
            f"that differ"
        )
