"""Writing databases of ASE: SQLite, or LMDB where the name ends in .aselmdb. Float64 is kept bit for bit; a
stress becomes six numbers, the symmetric part of its matrix.

Rows are given to ASE as rows and not as Atoms with a calculator, whose state it compares with itself each
time, array by array.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import Block, Written, package
from sapis_lab.formats._writing import OneFrame, frames_of, six_of

_RESULTS = ("energy", "free_energy", "dipole", "magmom")
_OF_ATOMS = ("forces", "charges", "magmoms", "tags", "initial_charges", "initial_magmoms", "momenta")


def write_ase_db(path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
    """Write the frames as rows; labels that are no results of a calculator go to `data`.

    Raises:
        ValueError: the name has another ending.
    """
    kind = name.suffix.lower().removeprefix(".")
    if kind not in ("db", "aselmdb"):
        raise ValueError(
            f"{name}: an ASE database is written as .db or .aselmdb, got {name.suffix or 'neither'}"
        )
    if kind == "aselmdb":
        package("ase_db_backends", name)
    from ase.db import connect
    from ase.db.core import now

    n = 0
    with connect(str(path), type=kind, use_lock_file=False, append=True) as database:
        for block in blocks:
            for frame in frames_of(block):
                row, data = _row(frame, now())
                database.write(row, data=data)
                n += 1
    if kind == "aselmdb":
        path.with_name(f"{path.name}-lock").unlink(missing_ok=True)
    return Written(n)


def _row(frame: OneFrame, now: float) -> tuple[Any, dict[str, Any]]:
    """A row of ASE, and what it has no column for."""
    from ase.db.row import AtomsRow

    row: dict[str, Any] = {
        "numbers": frame.species.astype(np.int64),
        "positions": frame.positions.astype(np.float64),
        "cell": frame.cell.astype(np.float64),
        "pbc": frame.pbc.astype(bool),
        "unique_id": secrets.token_hex(16),
        "ctime": now,
        "user": os.getenv("USER"),
    }
    data: dict[str, Any] = {}
    for key, value in frame.info.items():
        if key == "stress":
            row[key] = six_of(np.asarray(value, dtype=np.float64))
        elif key in _RESULTS:
            array = np.asarray(value, dtype=np.float64)
            row[key] = float(array) if array.ndim == 0 else array
        else:
            data[key] = value if isinstance(value, str) else _plain(np.asarray(value))
    for key, column in frame.columns.items():
        if key in _OF_ATOMS:
            row[key] = column if key == "tags" else column.astype(np.float64)
        else:
            data[key] = column
    if {"energy", "forces"} & set(row):
        row |= {"calculator": "unknown", "calculator_parameters": {}}
    return AtomsRow(row), data


def _plain(array: np.ndarray) -> Any:
    return array.item() if array.ndim == 0 else array
