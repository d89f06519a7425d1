"""The rows of a table file as a DataFrame: CSV (with commas, semicolons or tabs), Excel, parquet, JSON by
rows or by columns.

Entries stay as they are in the file, those of CSV as text: `table_numbers` reads numbers. Text is UTF-8,
UTF-16 or UTF-32, with or without a byte order mark; CSV that is none of these is read as Windows-1252, which
holds Latin-1 (digits and signs are the same bytes in all of them). Names of columns lose the blanks around
them. Rows count from 1, the first one after the header; blank rows are not counted.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab.files import read_bytes

READERS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".xlsx": "Excel",
    ".xlsm": "Excel",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON",
}
"""Endings of names, and what such a file holds."""

BLANKS = " \t\r\n\v\f\u00a0\u2007\u2009\u200a\u202f\u200b\u200e\ufeff"
"""What may stand around a name or an entry and means nothing: spaces of all widths, and marks without one."""

_SIGNATURES = {
    b"PK\x03\x04": "a zip file, as Excel writes them (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an Excel file of before 2007",
    b"PAR1": "parquet",
    b"\x1f\x8b": "a file packed by gzip",
}


def read_frame(path: Path, *, sheet: str | None = None) -> pd.DataFrame:
    """The rows of a table under the names in its header; rows are numbered from 0.

    Args:
        sheet: of an Excel file; needed where several sheets hold something.

    Raises:
        ValueError: there is no such file, or it is no table; the message names the place.
    """
    path = Path(path)
    return frame_of(table_bytes(path), path, sheet=sheet)


def table_bytes(path: Path) -> bytes:
    """Of a regular file, which may have any size."""
    if path.is_file():
        _form(path)
    return read_bytes(path, limit=None)


def frame_of(data: bytes, path: Path, *, sheet: str | None = None) -> pd.DataFrame:
    """`read_frame` of bytes that are at hand; `path` opens the messages."""
    form = _form(path)
    if sheet is not None and form != "Excel":
        raise ValueError(f"{path}: a file of {form} has no sheets, got sheet {sheet!r} (--sheet)")
    try:
        if form == "Excel":
            frame = _excel(data, path, sheet)
        elif form == "parquet":
            frame = _with_named_index(pd.read_parquet(io.BytesIO(data)))
        else:
            frame = _csv(_text(data, path, form), path) if form == "CSV" else _json(data, path, form)
    except _NoTable:
        raise
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty, wanted a header and rows") from None
    except Exception as error:  # the readers raise many kinds
        raise _no_table(path, form, _first_line(error)) from None
    frame.columns = pd.Index([str(name).strip(BLANKS) for name in frame.columns], dtype=object)
    return frame.reset_index(drop=True)


class _NoTable(ValueError):
    """A message that is whole as it is."""


def _no_table(path: Path, form: str, why: str) -> _NoTable:
    return _NoTable(f"{path}: not a table in {form}: {why}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _form(path: Path) -> str:
    form = READERS.get(path.suffix.lower())
    if form is None:
        raise ValueError(
            f"{path}: got a file ending in {path.suffix or 'nothing'!r}, wanted one of {', '.join(READERS)}"
        )
    return form


def _with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """What pandas wrote as an index with a name is a column like the others."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named) if named else frame


# ------------------------------------------------------------------------------------------------------- text


def _text(data: bytes, path: Path, form: str) -> str:
    kind = next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)
    if kind is not None:
        raise _no_table(path, form, f"the bytes are those of {kind}")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if form != "CSV" or encoding != "utf-8-sig":
            raise
        text = data.decode("cp1252")
    if "\x00" in text:
        raise _no_table(path, form, "it holds zero bytes, which no text has")
    return text


def _encoding(data: bytes) -> str:
    """UTF-8 unless a byte order mark, or zeros in every second byte of the beginning, say otherwise."""
    marks = {
        codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    for mark, encoding in marks.items():
        if data.startswith(mark):
            return encoding
    start = data[:4096]
    first, second = start[::2].count(0), start[1::2].count(0)
    if len(data) % 2 == 0 and max(first, second) > 0.4 * len(start) / 2 and min(first, second) == 0:
        return "utf-16-le" if second else "utf-16-be"
    return "utf-8-sig"


# -------------------------------------------------------------------------------------------------------- CSV


def _csv(text: str, path: Path) -> pd.DataFrame:
    hint = re.match(r"sep=(.)[\r\n]+", text)  # a first line of Excel's, which says the separator
    text = text[hint.end() :] if hint else text
    separator = hint.group(1) if hint else _separator(text)
    try:
        # text as it stands: a reader that guesses types hides which entry was wrong. The header is a row like
        # the others: pandas takes the first column for an index where rows are longer than a header.
        rows = pd.read_csv(
            io.StringIO(text),
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            sep=separator,
        )
    except pd.errors.ParserError as error:
        ragged = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if ragged is None:
            raise
        wanted, line, got = ragged.groups()
        name = {"\t": "tab"}.get(separator, repr(separator))
        raise _no_table(
            path,
            "CSV",
            f"line {line} has {got} entries with {name} between them, wanted {wanted} as in the header; an "
            f"entry that holds a {name} needs quotes about it",
        ) from None
    frame = rows.iloc[1:]
    frame.columns = pd.Index(rows.iloc[0], dtype=object)
    return frame


def _separator(text: str) -> str:
    """What separates the names of the header: a comma unless semicolons or tabs are more frequent."""
    header = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t", key=bare.count)


# ------------------------------------------------------------------------------------------------------ Excel


def _excel(data: bytes, path: Path, sheet: str | None) -> pd.DataFrame:
    try:
        import openpyxl
    except ImportError:
        raise _NoTable(
            f"{path}: Excel files need the package openpyxl, which is not installed: "
            f"pip install 'sapis-lab[xlsx]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of styles and menus that openpyxl does not keep
        book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    tables = {page.title: _filled_rows(page) for page in book.worksheets}
    if sheet is None:
        filled = [name for name, rows in tables.items() if rows]
        if len(filled) > 1:
            raise _NoTable(
                f"{path}: several sheets hold something, {', '.join(map(repr, filled))}; say which one "
                f"is the table (--sheet)"
            )
        sheet = filled[0] if filled else book.sheetnames[0]
    if sheet not in tables:
        raise _NoTable(f"{path}: no sheet {sheet!r}, got the sheets {', '.join(map(repr, tables))}")
    if not tables[sheet]:
        raise _NoTable(f"{path}: the sheet {sheet!r} is empty, wanted a header and rows")
    header, *rows = tables[sheet]
    names = pd.Index(["" if name is None else name for name in header], dtype=object)
    return pd.DataFrame(rows, columns=names, dtype=object)


def _filled_rows(page: Any) -> list[tuple[Any, ...]]:
    """The rows of a sheet that hold something, without the blank columns at their right."""
    rows = [row for row in page.iter_rows(values_only=True) if any(_filled(v) for v in row)]
    width = max((k + 1 for row in rows for k, v in enumerate(row) if _filled(v)), default=0)
    return [row[:width] for row in rows]


def _filled(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip(BLANKS))


# ------------------------------------------------------------------------------------------------------- JSON


def _json(data: bytes, path: Path, form: str) -> pd.DataFrame:
    """One object a line, an array of objects, or one object of columns (see `_columns`)."""
    text = _text(data, path, form)
    lines = [(f"{path}, line {k}", line) for k, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if text.lstrip().startswith("["):
        rows = _parsed(text, f"{path}")
        return pd.DataFrame([_object(row, f"{path}, entry {k}") for k, row in enumerate(rows, start=1)])
    by_lines = form == "JSON lines" or len(lines) <= 1 or _is_json(lines[0][1])
    if by_lines and len(lines) != 1:
        return pd.DataFrame([_object(_parsed(line, place), place) for place, line in lines])
    place = lines[0][0] if by_lines else str(path)
    return _columns(_object(_parsed(lines[0][1] if by_lines else text, place), place), path)


def _columns(table: dict[str, Any], path: Path) -> pd.DataFrame:
    """The table that one object holds, by the forms in which programs write it.

    {"N": [1, 2], ...}, pandas' {"N": {"0": 1, "1": 2}, ...}, and {"columns": ["N", ...], "data": [[1, ...],
    ...]} (tables of Weights & Biases, and pandas' `split`); anything else is one row.
    """
    names, rows = table.get("columns"), table.get("data")
    if isinstance(names, list) and isinstance(rows, list):
        for k, row in enumerate(rows, start=1):
            if not isinstance(row, list) or len(row) != len(names):
                got = f"{len(row)} entries" if isinstance(row, list) else type(row).__name__
                raise _NoTable(f"{path}, entry {k} of 'data': got {got}, wanted a list of {len(names)}")
        return pd.DataFrame(rows, columns=pd.Index(names, dtype=object))
    if table and all(isinstance(column, list) for column in table.values()):
        lengths = {name: len(column) for name, column in table.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name!r} {n}" for name, n in lengths.items())
            raise _NoTable(f"{path}: columns must be lists of one length, got {shown}")
        return pd.DataFrame(table)
    if table and all(isinstance(column, dict) for column in table.values()):
        labels = list(dict.fromkeys(label for column in table.values() for label in column))
        return pd.DataFrame({n: [column.get(label) for label in labels] for n, column in table.items()})
    return pd.DataFrame([table])


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        what = "nested too deeply"
    except ValueError as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    raise _NoTable(f"{place}: not JSON ({what}), wanted one object a line, an array of objects, or columns")


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise _NoTable(f"{place}: got {type(row).__name__}, wanted a JSON object")
    return row
