"""ASE trajectories (.traj), such as those of relaxations: eV and Å, forces without constraints, stress in
Voigt order with positive tension.

Labels are the results of the calculator (energy, free_energy, forces, stress, dipole, charges, magmoms, ...),
the columns tags, momenta (ASE's units), initial_charges and initial_magmoms, and what stands in atoms.info.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import Block, Reading, Single, check_n_atoms, joined, taken, uncompressed
from sapis_lab.formats._ulm import Ulm
from sapis_lab.formats._values import sorted_labels

ENDINGS = (".traj",)
FIXED = {"energy_unit": "eV", "length_unit": "Angstrom", "stress_unit": "eV/Angstrom^3"}

_TAG = "ASE-Trajectory"
_COLUMNS = {"charges": "initial_charges", "magmoms": "initial_magmoms", "tags": "tags", "momenta": "momenta"}
"""Arrays of atoms by their names in a frame, and as labels."""


def count(path: Path) -> int:
    """Frames of the trajectory, as its header says."""
    with uncompressed(path) as plain, Ulm(plain, tag=_TAG, name=path) as file:
        return len(file)


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames; where elements do not change they stand in the first frame only."""
    with uncompressed(path) as plain, Ulm(plain, tag=_TAG, name=path) as file:
        header = file.item(0) if len(file) else {}
        numbers = taken(len(file), reading.wanted, path, skip=reading.skip)
        yield from joined(
            _single(file.item(k), header, k, f"{path}, frame {k}", labels=reading.labels) for k in numbers
        )


def _single(
    item: Mapping[str, Any], header: Mapping[str, Any], k: int, place: str, *, labels: bool
) -> Single:
    same = item if "numbers" in item else header
    z, x = _array(same, "numbers", place), _array(item, "positions", place)
    n = check_n_atoms(len(z) if z.ndim == 1 else 0, place)
    cell, pbc = _array(item, "cell", place), _array(same, "pbc", place)
    if x.shape != (n, 3) or cell.shape != (3, 3) or pbc.shape != (3,):
        raise ValueError(
            f"{place}: positions of shape {x.shape}, a cell of {cell.shape} and pbc of {pbc.shape}, wanted "
            f"{(n, 3)}, (3, 3) and (3,)"
        )
    info, columns = sorted_labels(_mapping(item.get("info")), n)
    results = {k: v for k, v in _mapping(item.get("calculator")).items() if k not in ("name", "parameters")}
    given, of_atoms = sorted_labels(results, n)
    info, columns = {**info, **given}, {**columns, **of_atoms}
    for name, label in _COLUMNS.items():
        if name in item:
            columns[label] = _array(item, name, place)
    for key, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{place}: {key} has shape {column.shape}, wanted a row for each of {n} atoms")
    return Single(k, z.astype(np.int64), x, cell, pbc.astype(bool), info, columns if labels else {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _array(item: Mapping[str, Any], name: str, place: str) -> np.ndarray:
    try:
        found = np.asarray(item[name])
    except KeyError:
        raise ValueError(f"{place}: no {name}, wanted a frame as ASE writes it") from None
    except ValueError:
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{place}: {name} holds {found.dtype}, wanted numbers")
    return found
