"""The columns of a table as people write them, as numbers and labels.

A text is a number where it can mean one number only. Spaces, underscores and apostrophes may part its digits
in threes. Whether a comma or a point is the decimal mark is decided for a whole column, by its entries that
can be read in one way: `0,5`, `1,25` and `1.234,5` have decimal commas, `1,234,567` has commas between
thousands. `1,500` alone may be 1.5 or 1500 and is refused; so is `1.500` where another column of the table
has decimal commas, and a column that has both kinds. Elsewhere a point is a decimal point.
"""

from __future__ import annotations

import datetime
import difflib
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.table_formats import BLANKS

MOST_SHOWN = 30
"""Names of columns that a message lists."""
NO_NUMBER = ("", "nan", "na", "n/a", "#n/a", "<na>", "none", "null")
"""Texts that stand for nothing, whatever their case."""
SMALLEST, LARGEST = 1e-100, 1e100
"""Positive numbers of a table lie between these: their products and powers then stay numbers."""
FILL = "fill in what is missing, or take such rows out of the table"


def positive_column(frame: pd.DataFrame, name: str, path: Path, *, role: str = "") -> Array:
    """A column of a table as positive floats, (n,).

    Args:
        path: of the table, for the messages.   role: what the column is to be, as "N" or "the loss".

    Raises:
        ValueError: there is no such column, or an entry that is no positive number; the message names it.
    """
    return number_column(frame, name, path, role=role)


def number_column(
    frame: pd.DataFrame,
    name: str,
    path: Path,
    *,
    role: str = "",
    sign: Literal["positive", "any"] = "positive",
    empty: Literal["refuse", "nan"] = "refuse",
    advice: str = FILL,
) -> Array:
    """A column as finite floats, (n,); with `empty="nan"` rows without a number are nan.

    Args:
        advice: what to do about rows without a number.

    Raises:
        ValueError: as `positive_column`; or a positive number is smaller than `SMALLEST` or larger than
            `LARGEST`.
    """
    column = named_column(frame, name, path, role=role)
    place = f"{path}, column {name!r}"
    found = _read(column)
    wanted = "a positive number" if sign == "positive" else "a number"
    _refuse_mixed_marks(found, column, place)
    _refuse_two_meanings(found, column, frame, place)
    bad = ~found.missing & ~np.isfinite(found.values)
    if sign == "positive":
        bad |= found.values <= 0
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        also = f"; {bad.sum()} of {len(bad)} rows are like it" if bad.sum() > 1 else ""
        what = f"got {shown(column.iloc[k])}, wanted {wanted}{_written_out(column.iloc[k])}"
        raise ValueError(f"{place}, row {k + 1}: {what}{also}")
    out = ~found.missing & ((found.values < SMALLEST) | (found.values > LARGEST))
    if sign == "positive" and out.any():
        k = int(np.flatnonzero(out)[0])
        also = f"; {out.sum()} of {len(out)} rows are like it" if out.sum() > 1 else ""
        raise ValueError(
            f"{place}, row {k + 1}: got {shown(column.iloc[k])}, wanted a number between {SMALLEST:g} and "
            f"{LARGEST:g}; write the column in another unit{also}"
        )
    if empty == "refuse" and found.missing.any():
        raise ValueError(_none_there(frame, column, found.missing, place, wanted=wanted, advice=advice))
    return found.values


def label_column(
    frame: pd.DataFrame,
    name: str,
    path: Path,
    *,
    role: str = "",
    needed: np.ndarray | None = None,
    advice: str = FILL,
) -> np.ndarray:
    """A column as labels, (n,) str without blanks around them.

    Args:
        needed: (n,) bool, rows that must have one; all when not given.   advice: what to do about others.

    Raises:
        ValueError: there is no such column, or an entry that is needed is empty.
    """
    column = named_column(frame, name, path, role=role)
    texts = column.astype(object).where(column.notna(), "").map(lambda value: str(value).strip(BLANKS))
    missing = (texts == "").to_numpy(dtype=bool) & (True if needed is None else needed)
    if missing.any():
        place = f"{path}, column {name!r}"
        raise ValueError(_none_there(frame, column, missing, place, wanted="a label", advice=advice))
    return texts.to_numpy(dtype=str)


def setting_column(
    frame: pd.DataFrame, name: str, path: Path, *, role: str = "", needed: np.ndarray | None = None
) -> np.ndarray:
    """`label_column` in which equal numbers are equal, (n,) str: 1e-3 and 0.001 are one setting."""
    labels = label_column(frame, name, path, role=role, needed=needed)
    found = _read(named_column(frame, name, path))
    sure = np.isfinite(found.values) & ~np.isin(np.arange(len(labels)), list(found.either))
    return np.array([repr(float(v)) if s else t for t, v, s in zip(labels, found.values, sure, strict=True)])


def named_column(frame: pd.DataFrame, name: str, path: Path, *, role: str = "") -> pd.Series:
    """The one column of that name.

    Raises:
        ValueError: none or several have it; the message says which there are, and which may be meant.
    """
    places = [k for k, there in enumerate(frame.columns) if there == name]
    if len(places) == 1:
        return frame.iloc[:, places[0]]
    about = f" for {role}" if role else ""
    if places:
        which = " and ".join(str(k + 1) for k in places)
        raise ValueError(
            f"{path}: {len(places)} columns are named {name!r}{about} (columns {which}), wanted one"
        )
    names = list(map(str, frame.columns))
    listed = ", ".join(names[:MOST_SHOWN])
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    raise ValueError(
        f"{path}: no column {name!r}{about}; got the columns {listed}{more}{_meant(name, names)}"
        f"{_export(frame)}"
    )


# ---------------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class _Entry:
    """A text that is a number, up to what its one comma or point means where `either`."""

    digits: str
    """Sign, digits, commas and points, exponent."""
    decimal: str
    """The decimal mark; '' for none."""
    group: str
    """The mark between thousands; '' for none, or for one that is no comma and no point."""
    either: bool = False
    """`decimal` and `group` are the same mark, which may be the one or the other."""

    @property
    def value(self) -> float:
        """Where `either`, with its mark as the decimal one."""
        digits = (
            self.digits if self.either else self.digits.replace(self.group, "") if self.group else self.digits
        )
        return float(digits.replace(",", "."))

    @property
    def value_in_thousands(self) -> float:
        return float(self.digits.replace(self.group, ""))


_NUMBER = re.compile(
    r"([+-]?)([0-9.,](?:[0-9., \u00a0\u2007\u2009\u200a\u202f_'\u2019]*[0-9.,])?)((?:[eE][+-]?[0-9]+)?)"
)
_USUAL = re.compile(r"(?:[0-9]+|0?\.[0-9]+|[0-9]+\.[0-9]{4,})(?:[eE][+-]?[0-9]+)?")
"""Numbers that mean one thing, as programs write them."""


def _entry(text: str) -> _Entry | None:
    """The number that a text is; None for any other text."""
    match = _NUMBER.fullmatch(text.strip(BLANKS).replace("\u2212", "-"))
    if match is None:
        return None
    sign, mantissa, exponent = match.groups()
    blank = next((c for c in mantissa if c not in "0123456789.,"), "")
    if blank:
        whole = re.split("[.,]", mantissa)[0]
        if re.fullmatch(rf"[0-9]{{1,3}}(?:{blank}[0-9]{{3}})+", whole) is None:
            return None
        mantissa = whole.replace(blank, "") + mantissa[len(whole) :]
    if re.fullmatch(r"[0-9.,]*[0-9][0-9.,]*", mantissa) is None:
        return None
    digits, marks = sign + mantissa + exponent, [c for c in mantissa if c in ".,"]
    if not marks:
        return _Entry(digits, "", "")
    if len(marks) == 1:
        # after blanks between thousands, and before an exponent, a mark is the decimal one
        either = not blank and not exponent and _in_threes(mantissa, marks[0])
        return _Entry(digits, marks[0], marks[0] if either else "", either)
    decimal, group = (marks[-1], marks[0]) if marks[-1] != marks[0] else ("", marks[0])
    whole = mantissa.partition(decimal)[0] if decimal else mantissa
    return (
        _Entry(digits, decimal, group)
        if not blank and _in_threes(whole, group) and marks.count(decimal) < 2
        else None
    )


def _in_threes(digits: str, mark: str) -> bool:
    return re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:{re.escape(mark)}[0-9]{{3}})+", digits) is not None


@dataclass(frozen=True)
class _Read:
    """What the entries of a column say."""

    values: Array
    """(n,), nan where there is no number or none that is sure."""
    missing: np.ndarray
    """(n,) bool, where nothing stands."""
    decimals: dict[str, int]
    """Decimal marks of entries that can be read in one way, each with the position of the first of them."""
    groups: dict[str, int]
    """Marks between thousands, likewise."""
    either: dict[int, _Entry]
    """Entries whose mark the column does not tell the meaning of. Points are read as decimal ones."""


def _read(column: pd.Series) -> _Read:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        missing = column.isna().to_numpy(dtype=bool)
        return _Read(column.to_numpy(dtype=float, na_value=np.nan), missing, {}, {}, {})
    values, missing = np.full(len(column), np.nan), np.zeros(len(column), dtype=bool)
    decimals: dict[str, int] = {}
    groups: dict[str, int] = {}
    unsure = {}
    for k, value in enumerate(column):
        if isinstance(value, str) and _USUAL.fullmatch(value):  # as _entry, ten times as fast
            values[k] = float(value)
            if "." in value:
                decimals.setdefault(".", k)
            continue
        missing[k] = _is_nothing(value)
        entry = _entry(value) if isinstance(value, str) else None
        values[k] = _float(value) if entry is None else entry.value
        if entry is not None and entry.either:
            unsure[k] = entry
        elif entry is not None:
            decimals.setdefault(entry.decimal, k)
            groups.setdefault(entry.group, k)
    decimals.pop("", None)
    groups.pop("", None)
    unsure = {k: entry for k, entry in unsure.items() if entry.decimal not in decimals}
    for k, entry in unsure.items():
        if entry.group in groups:
            values[k] = entry.value_in_thousands
    either = {k: entry for k, entry in unsure.items() if entry.group not in groups}
    return _Read(values, missing, decimals, groups, either)


def _float(value: Any) -> float:
    """A number that is one already; nan for dates, true and false, lists."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | Decimal | np.number):
        return float("nan")
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return float("inf")


def _is_nothing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip(BLANKS).lower() in NO_NUMBER
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


# --------------------------------------------------------------------------------------------------- messages


def _refuse_mixed_marks(found: _Read, column: pd.Series, place: str) -> None:
    """A column has one decimal mark, and another one between thousands."""
    ways = [(k, f"decimal {_MARK[mark]}s") for mark, k in found.decimals.items()]
    ways += [(k, f"{_MARK[mark]}s between thousands") for mark, k in found.groups.items()]
    marks = [*found.decimals], [*found.groups]
    if max(map(len, marks)) < 2 and not set(marks[0]) & set(marks[1]):
        return
    (first, one), (later, other) = sorted(ways)[0], sorted(ways)[-1]
    raise ValueError(
        f"{place}, row {later + 1}: got {shown(column.iloc[later])} with {other} and "
        f"{shown(column.iloc[first])} in row {first + 1} with {one}; write the column in one way"
    )


_MARK = {",": "comma", ".": "point"}


def _refuse_two_meanings(found: _Read, column: pd.Series, frame: pd.DataFrame, place: str) -> None:
    """A mark that may be a decimal one or stand between thousands is refused, but for points in a table
    without decimal commas."""
    commas = {k: entry for k, entry in found.either.items() if entry.decimal == ","}
    elsewhere = None if commas or not found.either else _decimal_comma(frame)
    unsure = commas or (found.either if elsewhere or "," in found.decimals else {})
    if not unsure:
        return
    k, entry = next(iter(unsure.items()))
    as_decimal = entry.digits.replace(entry.decimal, ",") + "0"  # four digits can be decimals alone
    also = f"; {len(unsure)} of {len(column)} rows are like it" if len(unsure) > 1 else ""
    raise ValueError(
        f"{place}, row {k + 1}: got {shown(column.iloc[k])}, which may be {entry.value:g} or "
        f"{entry.value_in_thousands:.0f}{elsewhere or ''}; write {as_decimal} or "
        f"{entry.digits.replace(entry.group, '')}{also}"
    )


def _decimal_comma(frame: pd.DataFrame) -> str | None:
    """Where a table has decimal commas, in a column of numbers; None for nowhere."""
    for k, name in enumerate(frame.columns):
        found = _read(frame.iloc[:, k])
        if "," in found.decimals and (np.isfinite(found.values) | found.missing).all():
            row = found.decimals[","]
            return f" (column {str(name)!r} has decimal commas: {shown(frame.iloc[row, k])} in row {row + 1})"
    return None


def _none_there(
    frame: pd.DataFrame, column: pd.Series, missing: np.ndarray, place: str, *, wanted: str, advice: str
) -> str:
    """Of rows where nothing stands: the first, how many there are, and what state their runs are in."""
    rows = np.flatnonzero(missing)
    k = int(rows[0])
    also = ""
    if len(rows) > 1:
        listed = ", ".join(str(row + 1) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        also = f"; {len(rows)} of {len(column)} rows have none there (rows {listed})"
    states = [c for c, name in enumerate(frame.columns) if str(name).lower() in ("state", "status")]
    if states:
        there = dict.fromkeys(str(v).strip(BLANKS) for v in frame.iloc[rows, states[0]] if not _is_nothing(v))
        also += f"; {frame.columns[states[0]]}: {', '.join(there)}" if there else ""
    return f"{place}, row {k + 1}: got {shown(column.iloc[k])}, wanted {wanted}{also}; {advice}"


def _written_out(value: Any) -> str:
    """What to do about 70M, whose letter may be a power of ten or of two."""
    short = re.fullmatch(r"[0-9.,]+ ?[kKmMbBgGtT]", value.strip(BLANKS)) if isinstance(value, str) else None
    return " without a letter, such as 7e7" if short else ""


def _meant(name: str, names: list[str]) -> str:
    """The columns that differ from a name in case, blanks, punctuation or what stands before it."""
    bare = _bare(name)
    same = [there for there in names if _bare(there) == bare]
    ends = [
        there
        for there in names
        if bare in (_bare(re.split(r"[./]", there)[-1]), _bare(there.split(" - ")[-1]))
    ]
    close = {_bare(there): there for there in reversed(names)}
    near = [close[key] for key in difflib.get_close_matches(bare, close, n=1)]
    likely = same or ends or near
    return f"; did you mean {' or '.join(map(repr, likely[:3]))}?" if bare and likely else ""


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _export(frame: pd.DataFrame) -> str:
    """What to do about two tables that hold no column of the kind that is wanted."""
    names = list(map(str, frame.columns))
    curves = [name for name in names if " - " in name]
    if curves and (len(curves) >= len(names) - 1 or any(name.endswith("__MIN") for name in curves)):
        return (
            f"; these are curves, one column a run ({curves[0]!r}) and one row a step: export the table of "
            f"runs instead, one row a run"
        )
    packed = [name for k, name in enumerate(names) if len(frame) and _is_packed(frame.iloc[0, k])]
    packed = [name for name in packed if not name.startswith("_")]
    if packed:
        return (
            f"; {', '.join(map(repr, packed[:3]))} hold{'s' if len(packed) == 1 else ''} many values in one "
            f"entry, each of which must be a column"
        )
    return ""


def _is_packed(value: Any) -> bool:
    return isinstance(value, dict) or isinstance(value, str) and re.match(r"\s*\{\s*['\"]", value) is not None


def shown(value: Any) -> str:
    """An entry as a message shows it, on one line."""
    if _is_nothing(value) and not (isinstance(value, str) and value.strip(BLANKS)):
        return "nothing"
    if isinstance(value, datetime.date):
        return f"the date {value:%Y-%m-%d}"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
