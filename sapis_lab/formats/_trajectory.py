"""Trajectories of molecular dynamics that hold positions alone, read in pieces with mdtraj; elements
come from a topology, which another file names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import BLOCK_ATOMS, MOST_ATOMS, Block, Reading, package, taken, uncompressed

_TOPOLOGIES = (".pdb", ".pdb.gz", ".gro", ".mol2")


def count(path: Path, opener: str) -> int:
    """Frames of the trajectory."""
    with uncompressed(path) as plain, _opened(plain, path, opener) as file:
        return _length(file, path)


def blocks(path: Path, reading: Reading, opener: str) -> Iterator[Block]:
    """The frames, which have no labels.

    Args:
        opener: the class of mdtraj.formats that reads such files.
    """
    z = elements(topology_of(path, reading.topology))
    with uncompressed(path) as plain, _opened(plain, path, opener) as file:
        numbers = taken(_length(file, path), reading.wanted, path, skip=reading.skip)
        step = max(1, BLOCK_ATOMS // len(z))
        number, end = 0, numbers[-1] + 1 if len(numbers) else 0
        while number < end:
            x, cell = _piece(file, path, number, min(step, end - number))
            if x.shape[1] != len(z):
                raise ValueError(
                    f"{path}, frame {number}: {x.shape[1]} atoms, wanted the {len(z)} of "
                    f"{topology_of(path, reading.topology)}"
                )
            if not len(x):
                raise ValueError(f"{path}, frame {number}: the file ends here, wanted {end} frames")
            ids = np.arange(number, number + len(x))
            keep = (ids >= numbers.start) & ((ids - numbers.start) % numbers.step == 0)
            if keep.any():
                yield positions_alone(ids, z, x, cell).chosen(keep)
            number += len(x)


def positions_alone(numbers: np.ndarray, z: np.ndarray, x: np.ndarray, cell: np.ndarray) -> Block:
    """A block of frames of the same atoms; a cell of zeros means open."""
    n_frames = len(x)
    return Block(
        numbers=numbers,
        n_atoms=np.full(n_frames, len(z)),
        species=np.tile(z, n_frames),
        positions=x.reshape(-1, 3).astype(np.float64),
        cell=cell,
        pbc=np.repeat(cell.any((1, 2)).reshape(-1, 1), 3, axis=1),
    )


def cell_of(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(n, 3, 3) lattice vectors as rows from lengths (n, 3) and angles (n, 3) in degrees; zeros where a
    length
    is zero."""
    a, b, c = lengths.astype(np.float64).T
    cos = np.cos(np.radians(angles.astype(np.float64)))
    cos = np.where(angles == 90, 0.0, cos)
    sin_gamma = np.sqrt(1 - cos[:, 2] ** 2)
    cell = np.zeros((len(lengths), 3, 3))
    whole = np.asarray((lengths > 0).all(1) & (sin_gamma > 0))
    cx = cos[:, 1]
    cy = (cos[:, 0] - cos[:, 1] * cos[:, 2]) / np.where(whole, sin_gamma, 1.0)
    cz = np.sqrt(np.clip(1 - cx**2 - cy**2, 0, None))
    zero = np.zeros_like(a)
    cell[:, 0] = np.stack([a, zero, zero], 1)
    cell[:, 1] = np.stack([b * cos[:, 2], b * sin_gamma, zero], 1)
    cell[:, 2] = np.stack([c * cx, c * cy, c * cz], 1)
    cell[~whole] = 0.0
    return cell


def topology_of(path: Path, given: Path | None) -> Path:
    """The file with the elements of a trajectory: the one that the settings name, or the only PDB file beside
    it.

    Raises:
        ValueError: there is none, or there are several.
    """
    if given is not None:
        return given
    beside = sorted(f for f in path.parent.iterdir() if f.name.lower().endswith(".pdb"))
    if len(beside) != 1:
        got = f"{len(beside)} there: {', '.join(f.name for f in beside[:4])}" if beside else "none there"
        raise ValueError(
            f"{path}: a trajectory holds positions without elements, wanted one PDB file beside it, got "
            f"{got}; set topology to a file such as NAME.pdb"
        )
    return beside[0]


def elements(topology: Path) -> np.ndarray:
    """Atomic numbers by a topology file, (n_atoms,)."""
    mdtraj = package("mdtraj", topology)
    if not topology.name.lower().endswith(_TOPOLOGIES):
        raise ValueError(f"{topology}: a topology, wanted one of {', '.join(_TOPOLOGIES)}")
    try:
        atoms = list(mdtraj.load_topology(str(topology)).atoms)
    except Exception as error:  # readers raise whatever a line that they do not expect leads to
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ValueError(f"{topology}: cannot be read as a topology ({said})") from None
    z = np.array([atom.element.number if atom.element is not None else 0 for atom in atoms])
    if not len(z) or (z < 1).any():
        k = int(np.argmax(z < 1)) if len(z) else 0
        name = atoms[k].name if len(z) else "none"
        raise ValueError(
            f"{topology}: the element of atom {k} ({name}) is not known, wanted one for each atom"
        )
    return z


def _opened(plain: Path, path: Path, opener: str) -> Any:
    formats = package("mdtraj.formats", path)
    try:
        return getattr(formats, opener)(str(plain))
    except Exception as error:
        raise _unreadable(path, 0, error) from None


def _length(file: Any, path: Path) -> int:
    try:
        return len(file)
    except Exception as error:
        raise _unreadable(path, 0, error) from None


def _unreadable(path: Path, number: int, error: Exception) -> ValueError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ValueError(
        f"{path}, frame {number}: cannot be read as {path.suffix or 'a trajectory'} by mdtraj ({said}); is "
        "the "
        "file whole, and of that format?"
    )


def _piece(file: Any, path: Path, number: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(positions, cells) of the next `n` frames, in the file's unit."""
    try:
        found = file.read(n)
    except Exception as error:
        raise _unreadable(path, number, error) from None
    x, box = found[0], found[3]
    cell = np.zeros((len(x), 3, 3)) if box is None else np.asarray(box, dtype=np.float64)
    if x.shape[1] > MOST_ATOMS:
        raise ValueError(f"{path}, frame {number}: {x.shape[1]} atoms, wanted at most {MOST_ATOMS:,}")
    return np.asarray(x), cell
