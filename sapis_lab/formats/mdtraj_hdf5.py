"""HDF5 trajectories of MDTraj (https://mdtraj.org/latest/hdf5_format.html), in nm, with their topology
inside: positions, cells and time alone, so energy_key and forces_key are null.

The file is read by its datasets and not through mdtraj, whose reader unpickles attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import BLOCK_ATOMS, Block, Reading, taken
from sapis_lab.formats._h5 import Datasets, check_stored, groups, is_hdf5, opened, rows, texts
from sapis_lab.formats._trajectory import cell_of, positions_alone

ENDINGS = (".h5", ".hdf5")
FIXED = {"length_unit": "nm"}


def is_one(path: Path) -> bool:
    """Whether it is HDF5 with a topology."""
    if not is_hdf5(path):
        return False
    with opened(path) as file:
        return "topology" in file and "coordinates" in file


def count(path: Path) -> int:
    """Frames of the trajectory."""
    with opened(path) as file:
        return int(_arrays(file, path)["coordinates"].shape[0])


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames."""
    with opened(path) as file:
        arrays = _arrays(file, path)
        z, x = _elements(arrays["topology"], path), arrays["coordinates"]
        if x.ndim != 3 or x.shape[1:] != (len(z), 3):
            raise ValueError(f"{path}: coordinates have shape {x.shape}, wanted (n_frames, {len(z)}, 3)")
        numbers = taken(x.shape[0], reading.wanted, path, skip=reading.skip)
        step = max(1, BLOCK_ATOMS // len(z)) * numbers.step
        for k in range(numbers.start, numbers.stop, step):
            some = slice(k, min(k + step, numbers.stop), numbers.step)
            found = rows(x, some, f"{path}, frame {k}: coordinates")
            cell = np.zeros((len(found), 3, 3))
            if "cell_lengths" in arrays and "cell_angles" in arrays:
                lengths, angles = (
                    rows(arrays[name], some, f"{path}, frame {k}: {name}")
                    for name in ("cell_lengths", "cell_angles")
                )
                cell = cell_of(lengths, angles)
            yield positions_alone(np.arange(some.start, some.stop, some.step), z, found, cell)


def _arrays(file: Any, path: Path) -> Datasets:
    """The datasets of the root."""
    _, found = next(groups(file, path))
    for name in ("coordinates", "topology"):
        if name not in found:
            raise ValueError(f"{path}: no {name}, wanted a trajectory as MDTraj writes it")
    for name, dataset in found.items():
        check_stored(dataset, f"{path}: {name}")
    return found


def _elements(topology: Any, path: Path) -> np.ndarray:
    """Atomic numbers, (n_atoms,)."""
    text = "".join(texts(topology, f"{path}: topology"))
    try:
        chains = json.loads(text)["chains"]
        atoms = [atom for chain in chains for res in chain["residues"] for atom in res["atoms"]]
        atoms.sort(key=lambda atom: atom["index"])
        symbols = [str(atom["element"]) for atom in atoms]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: its topology cannot be read, wanted JSON as MDTraj writes it") from None
    unknown = next((k for k, symbol in enumerate(symbols) if symbol not in ATOMIC_NUMBER), None)
    if unknown is not None or not symbols:
        got = symbols[unknown][:20] if unknown is not None else "no atom"
        raise ValueError(f"{path}: the topology has {got!r} for atom {unknown}, wanted chemical symbols")
    return np.array([ATOMIC_NUMBER[symbol] for symbol in symbols])
