"""Databases of ASE: SQLite (.db), LMDB with compressed JSON (.aselmdb, as OMat24 and OMol25 are given away)
and JSON (.json): eV and Å, forces without constraints, stress in Voigt order with positive tension.

Frames are rows in the order of their ids; a frame's number is its place in that order. Labels are results
(energy, free_energy, forces, stress, dipole, charges, magmoms, ...), tags, momenta, key-value pairs, and what
stands in `data`. The files are opened for reading only, and by their bytes: no object of ASE is made.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sapis_lab.formats._ase_db_writer import write_ase_db
from sapis_lab.formats._ase_rows import blob_array, parsed, plain_value, row_frame, unpacked
from sapis_lab.formats._base import (
    Block,
    Reading,
    Single,
    first_bytes,
    joined,
    package,
    picked,
    taken,
    uncompressed,
    without_compression,
)
from sapis_lab.formats._json_stream import json_entries

ENDINGS = (".db", ".aselmdb", ".json")
FIXED = {"energy_unit": "eV", "length_unit": "Angstrom", "stress_unit": "eV/Angstrom^3"}
write = write_ase_db

_MOST_ROW = 2**26
"""Bytes of a row once it is unpacked."""
_SQLITE = b"SQLite format 3\0"


def is_one(path: Path) -> bool:
    """Whether `path` is a database; of JSON files, one whose entries are rows with atomic numbers."""
    start = first_bytes(path)
    if start.startswith(_SQLITE) or without_compression(path).suffix.lower() == ".aselmdb":
        return True
    return start.lstrip().startswith(b'{"1":') or (start.lstrip()[:1] == b"{" and b'"unique_id"' in start)


def count(path: Path) -> int:
    """Rows of the database."""
    if _is_json(path):
        return sum(1 for _ in _json_rows(path))
    with uncompressed(path) as plain:
        if _is_sqlite(path):
            with closing(_connected(plain, path)) as connection:
                return _n_rows(connection, path)
        with _Lmdb(plain, path) as table:
            return len(table.ids)


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The rows as frames."""
    if _is_json(path):
        rows = picked(_json_rows(path), reading, path, lambda: count(path))
        yield from joined(_of_json(row, k, path, reading) for k, row in rows)
        return
    with uncompressed(path) as plain:
        if _is_sqlite(path):
            yield from joined(_of_sqlite(plain, path, reading))
        else:
            with _Lmdb(plain, path) as table:
                numbers = taken(len(table.ids), reading.wanted, path, skip=reading.skip)
                yield from joined(_of_json((table.ids[k], table.row(k)), k, path, reading) for k in numbers)


def _is_json(path: Path) -> bool:
    return without_compression(path).suffix.lower() == ".json" or first_bytes(path, 1) == b"{"


def _is_sqlite(path: Path) -> bool:
    return without_compression(path).suffix.lower() != ".aselmdb"


# ----------------------------------------------------------------------------------------------------- SQLite

_FLOATS = ("positions", "cell", "initial_magmoms", "initial_charges", "momenta")
_RESULTS = ("forces", "stress", "dipole", "magmoms", "charges")
_PLAIN = ("energy", "free_energy", "magmom")
_COLUMNS = ("numbers", "pbc", "tags", *_FLOATS, *_RESULTS, *_PLAIN, "key_value_pairs", "data")


def _connected(plain: Path, path: Path) -> sqlite3.Connection:
    if not first_bytes(plain).startswith(_SQLITE):
        raise ValueError(f"{path}: not an SQLite database (its first bytes are others), wanted one of ASE")
    connection = sqlite3.connect(f"file:{quote(str(plain.resolve()))}?mode=ro", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _n_rows(connection: sqlite3.Connection, path: Path) -> int:
    try:
        return int(connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0])
    except sqlite3.Error as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: cannot be read as a database of ASE, which has a table of systems ({error}); is it "
        "another, "
        "or cut off?"
    )


def _of_sqlite(plain: Path, path: Path, reading: Reading) -> Iterator[Single]:
    with closing(_connected(plain, path)) as connection:
        numbers = taken(_n_rows(connection, path), reading.wanted, path, skip=reading.skip)
        try:
            kinds = connection.execute("SELECT type FROM sqlite_master WHERE name = 'systems'").fetchall()
            if kinds != [("table",)]:
                raise ValueError(f"{path}: its systems are no table, wanted a database as ASE writes it")
            there = {row[1] for row in connection.execute("PRAGMA table_info(systems)")}
            names = ["id", *(name for name in _COLUMNS if name in there)]
            chosen = f"SELECT {', '.join(names)} FROM systems ORDER BY id LIMIT ? OFFSET ?"
            window = (max(len(numbers), 1) * numbers.step, numbers.start)
            for k, values in enumerate(connection.execute(chosen, window)):
                number = numbers.start + k
                if number in numbers:
                    yield _of_columns(dict(zip(names, values, strict=True)), number, path, reading)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None


def _of_columns(row: dict[str, Any], number: int, path: Path, reading: Reading) -> Single:
    place = f"{path}, frame {number}, row {row['id']}"
    found: dict[str, Any] = {name: row.get(name) for name in _PLAIN}
    for name, kind in (("numbers", "<i4"), ("tags", "<i4"), *((n, "<f8") for n in (*_FLOATS, *_RESULTS))):
        if row.get(name) is not None:
            found[name] = blob_array(row[name], kind, f"{place}: {name}")
    if isinstance(row.get("pbc"), int):
        found["pbc"] = (row["pbc"] & np.array([1, 2, 4])).astype(bool)
    for name in ("key_value_pairs", "data"):
        value = row.get(name)
        if isinstance(value, bytes):
            found[name] = unpacked(value, place)
        elif isinstance(value, str) and value not in ("null", ""):
            found[name] = parsed(value, place)
    return row_frame(found, number, place, labels=reading.labels)


# ------------------------------------------------------------------------------------------------------- JSON


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in json_entries(path):
        if key.isdecimal():
            yield key, value


def _of_json(entry: tuple[str, Any], number: int, path: Path, reading: Reading) -> Single:
    key, row = entry
    place = f"{path}, frame {number}, row {key}"
    row = plain_value(row, place)
    if not isinstance(row, dict):
        raise ValueError(f"{place}: wanted a row, got {type(row).__name__}")
    return row_frame(row, number, place, labels=reading.labels)


# ------------------------------------------------------------------------------------------------------- LMDB


class _Lmdb:
    """The rows of an .aselmdb file."""

    def __init__(self, plain: Path, path: Path) -> None:
        lmdb = package("lmdb", path)
        self._path = path
        try:
            self._table = lmdb.open(str(plain), subdir=False, readonly=True, lock=False, readahead=False)
            self._look = self._table.begin()
        except lmdb.Error as error:
            raise ValueError(
                f"{path}: cannot be read as a database of LMDB ({error}); is it another, or cut off?"
            ) from None
        n = self._value("nextid", required=False) or 1
        gone = set(self._value("deleted_ids", required=False) or ())
        most = self._table.stat()["entries"]
        if not isinstance(n, int) or n - 1 - len(gone) > most:
            raise ValueError(f"{path}: promises {n} rows and has {most} entries; is it cut off?")
        self.ids = [str(k) for k in range(1, n) if k not in gone]

    def __enter__(self) -> _Lmdb:
        return self

    def __exit__(self, *_: object) -> None:
        self._look.abort()
        self._table.close()

    def row(self, k: int) -> Any:
        """Row k of the ids."""
        return self._value(self.ids[k], required=True)

    def _value(self, key: str, *, required: bool) -> Any:
        packed = self._look.get(key.encode())
        if packed is None:
            if required:
                raise ValueError(f"{self._path}, row {key}: is missing; is the file cut off?")
            return None
        unpacker = zlib.decompressobj()
        try:
            text = unpacker.decompress(packed, _MOST_ROW)
            if unpacker.unconsumed_tail:
                raise ValueError(f"more than {_MOST_ROW} bytes")
            return json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise ValueError(
                f"{self._path}, row {key}: no compressed JSON ({str(error)[:80]}), wanted a row as ASE "
                "writes it; pickled rows are refused because reading them runs code"
            ) from None
