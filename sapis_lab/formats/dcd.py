"""Trajectories of CHARMM, NAMD and OpenMM (.dcd), in Å: positions and cells alone, so energy_key and
forces_key are null. Elements come from a topology: the setting `topology`, or the one PDB file beside the
trajectory.

A file is Fortran records, each between two copies of its length: a header of 84 bytes (CORD, numbers of
frames and fixed atoms, ...), a title, the number of atoms, and for each frame perhaps a cell (six float64:
a, gamma, b, beta, alpha, c, with angles in degrees or as cosines), then x, y and z of all atoms as float32.
How many frames there are follows from the length of the file, since writers that are stopped leave the
header as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sapis_lab.formats._base import BLOCK_ATOMS, MOST_ATOMS, Block, Reading, taken, uncompressed
from sapis_lab.formats._trajectory import cell_of, elements, positions_alone, topology_of

ENDINGS = (".dcd",)
FIXED = {"length_unit": "Angstrom"}


def count(path: Path) -> int:
    """Whole frames of the trajectory."""
    with uncompressed(path) as plain:
        return _layout(plain, path).n_frames


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames."""
    topology = topology_of(path, reading.topology)
    z = elements(topology)
    with uncompressed(path) as plain:
        layout = _layout(plain, path)
        if layout.n_atoms != len(z):
            raise ValueError(f"{path}: {layout.n_atoms} atoms, wanted the {len(z)} of {topology}")
        numbers = taken(layout.n_frames, reading.wanted, path, skip=reading.skip)
        frames = np.memmap(plain, np.uint8, "r", layout.start, (layout.n_frames, layout.n_bytes))
        step = max(1, BLOCK_ATOMS // len(z))
        for k in range(0, len(numbers), step):
            ids = np.array(numbers[k : k + step])
            yield positions_alone(ids, z, *_frames(np.asarray(frames[ids]), ids, layout, path))


class _Layout(NamedTuple):
    start: int
    """Byte at which the first frame begins."""
    n_bytes: int
    """Of a frame."""
    n_frames: int
    n_atoms: int
    has_cell: bool
    order: str
    """Of bytes: < or >."""


def _layout(plain: Path, path: Path) -> _Layout:
    """How the file is laid out. ValueError where it is none, or cut off before its first frame."""
    size = plain.stat().st_size
    with plain.open("rb") as file:
        start = file.read(2**16)
    order = next((o for o in "<>" if start[:4] == np.array(84, f"{o}i4").tobytes()), None)
    if order is None or start[4:8] not in (b"CORD", b"VELD"):
        raise ValueError(f"{path}: not a DCD trajectory (its first bytes are others), wanted one")

    def integer(at: int) -> int:
        if not 0 <= at <= len(start) - 4:
            raise ValueError(f"{path}: its header is cut off or damaged; copy it again")
        return int(np.frombuffer(start, f"{order}i4", 1, at)[0])

    n_fixed, has_cell, four = integer(8 + 4 * 8), bool(integer(8 + 4 * 10)), bool(integer(8 + 4 * 11))
    if start[4:8] == b"VELD" or n_fixed or (four and integer(8 + 4 * 19)):
        raise ValueError(
            f"{path}: holds velocities, fixed atoms or a fourth coordinate, wanted positions of all atoms in "
            "every frame"
        )
    title = integer(92)
    at = 92 + 8 + title
    n_atoms = integer(at + 4) if title >= 0 else 0
    if integer(at) != 4 or not 1 <= n_atoms <= MOST_ATOMS:
        raise ValueError(f"{path}: its header promises {n_atoms} atoms, wanted 1 to {MOST_ATOMS:,}")
    n_bytes = 3 * (4 * n_atoms + 8) + (56 if has_cell else 0)
    n_frames = (size - at - 12) // n_bytes
    promised = integer(8)
    if n_frames < max(promised, 1):
        raise ValueError(
            f"{path}: its header promises {promised} frames of {n_atoms} atoms, and the file holds "
            f"{n_frames}; "
            "it is cut off, copy it again"
        )
    return _Layout(at + 12, n_bytes, n_frames, n_atoms, has_cell, order)


def _frames(raw: np.ndarray, ids: np.ndarray, layout: _Layout, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, n_atoms, 3) and cells (n, 3, 3) of the frames whose bytes are `raw` (n, n_bytes)."""
    at, cell = 0, np.zeros((len(raw), 3, 3))
    if layout.has_cell:
        six = _record(raw, at, 48, ids, layout, path).view(f"{layout.order}f8")
        angles = six[:, [4, 3, 1]]
        angles = np.where(np.abs(angles) <= 1, np.degrees(np.arccos(np.clip(angles, -1, 1))), angles)
        cell = cell_of(six[:, [0, 2, 5]], angles)
        at += 56
    x = np.empty((len(raw), layout.n_atoms, 3), np.float32)
    for axis in range(3):
        n = 4 * layout.n_atoms
        x[:, :, axis] = _record(raw, at, n, ids, layout, path).view(f"{layout.order}f4")
        at += n + 8
    return x, cell


def _record(raw: np.ndarray, at: int, n: int, ids: np.ndarray, layout: _Layout, path: Path) -> np.ndarray:
    """The record of `n` bytes at byte `at` of all frames, whose lengths stand before and behind it."""
    for mark in (at, at + 4 + n):
        said = np.ascontiguousarray(raw[:, mark : mark + 4]).view(f"{layout.order}i4")[:, 0]
        if (said != n).any():
            k = int(np.argmax(said != n))
            raise ValueError(
                f"{path}, frame {ids[k]}: a record of {said[k]} bytes, wanted {n}; the file is damaged, "
                "copy it "
                "again"
            )
    return np.ascontiguousarray(raw[:, at + 4 : at + 4 + n])
