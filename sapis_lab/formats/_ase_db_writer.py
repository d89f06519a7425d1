"""Writing databases of ASE: SQLite, or LMDB where the name ends in .aselmdb, or JSON. Float64 is kept bit for
bit (in JSON as its shortest text); a stress becomes six numbers, the symmetric part of its matrix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import Block, Written, package
from sapis_lab.formats._writing import OneFrame, frames_of, six_of

_RESULTS = ("energy", "free_energy", "dipole", "magmom")
_OF_ATOMS = ("forces", "charges", "magmoms")
_SET = ("tags", "initial_charges", "initial_magmoms", "momenta")


def write_ase_db(path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
    """Write the frames as rows; labels that are no results of a calculator go to `data`."""
    from ase.db import connect

    kind = name.suffix.lower().removeprefix(".")
    if kind == "aselmdb":
        package("ase_db_backends", name)
    n = 0
    with connect(str(path), type=kind, use_lock_file=False, append=True) as database:
        for block in blocks:
            for frame in frames_of(block):
                database.write(*_row(frame))
                n += 1
    if kind == "aselmdb":
        lock = path.with_name(f"{path.name}-lock")
        lock.unlink(missing_ok=True)
    return Written(n)


def _row(frame: OneFrame) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms(numbers=frame.species, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    results: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for key, value in frame.info.items():
        if key == "stress":
            results[key] = six_of(np.asarray(value, dtype=np.float64))
        elif key in _RESULTS:
            array = np.asarray(value, dtype=np.float64)
            results[key] = float(array) if array.ndim == 0 else array
        else:
            data[key] = value if isinstance(value, str) else _plain(np.asarray(value))
    for key, column in frame.columns.items():
        if key in _OF_ATOMS:
            results[key] = column.astype(np.float64)
        elif key in _SET:
            atoms.set_array(key, column)
        else:
            data[key] = column
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms, {}, data


def _plain(array: np.ndarray) -> Any:
    return array.item() if array.ndim == 0 else array
