"""Writing .npz archives, in a stream: arrays grow in files of their own and are packed at the end.

Frames of the same atoms become the arrays of sGDML, z (n_atoms,), R, E and F; others are joined, with their
sizes in n_atoms. Numbers are float64; a label that a frame lacks is NaN, or empty text.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from sapis_lab.formats._base import Block, Written

_SAME = {"species": "z", "positions": "R", "energy": "E", "forces": "F"}
"""Names of arrays where all frames have the same atoms."""
_PIECE = 2**22


def write_npz(path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
    """Write the frames to the archive `path`."""
    with tempfile.TemporaryDirectory(prefix=".sapis-", dir=path.parent) as folder:
        growing = _Growing(Path(folder))
        for block in blocks:
            growing.add(block)
        growing.pack(path)
    return Written(growing.n_frames)


class _Array:
    """One array that grows in a file."""

    def __init__(self, file: Path, row: tuple[int, ...], *, dtype: str, per_atom: bool) -> None:
        self.file, self.row, self.dtype, self.per_atom, self.n = file, row, dtype, per_atom, 0

    def add(self, rows: np.ndarray) -> None:
        with self.file.open("ab") as f:
            f.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())
        self.n += len(rows)

    def add_lacking(self, n: int) -> None:
        for _ in range(0, n, _PIECE):
            self.add(np.full((min(n, _PIECE), *self.row), np.nan))


class _Growing:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrays: dict[str, _Array] = {}
        self._texts: dict[str, list[str]] = {}
        self.n_frames = self._n_atoms = 0
        self._first: np.ndarray | None = None
        self._same = True

    def add(self, block: Block) -> None:
        n, n_atoms = len(block), len(block.species)
        size = int(block.n_atoms[0])
        if self._first is None:
            self._first = block.species[:size].copy()
        self._same = (
            self._same
            and bool((block.n_atoms == len(self._first)).all())
            and bool((block.species.reshape(n, -1) == self._first).all())
        )
        self._put("n_atoms", block.n_atoms, per_atom=False, dtype="<i8")
        self._put("species", block.species, per_atom=True, dtype="<i8")
        self._put("positions", block.positions, per_atom=True)
        self._put("cell", block.cell, per_atom=False)
        self._put("pbc", block.pbc, per_atom=False, dtype="|b1")
        for key, value in block.frame_labels.items():
            if value.dtype.kind in "OU":
                held = self._texts.setdefault(key, [""] * self.n_frames)
                held += map(str, value)
            else:
                self._put(key, value, per_atom=False)
        for key, value in block.atom_labels.items():
            if value.dtype.kind in "biuf":
                self._put(key if key not in block.frame_labels else f"{key}_of_atoms", value, per_atom=True)
        self.n_frames += n
        self._n_atoms += n_atoms
        for array in self._arrays.values():
            array.add_lacking((self._n_atoms if array.per_atom else self.n_frames) - array.n)
        for held in self._texts.values():
            held += [""] * (self.n_frames - len(held))

    def _put(self, key: str, value: np.ndarray, *, per_atom: bool, dtype: str = "<f8") -> None:
        array = self._arrays.get(key)
        if array is None:
            file = self._folder / f"{len(self._arrays)}.raw"
            array = self._arrays[key] = _Array(file, value.shape[1:], dtype=dtype, per_atom=per_atom)
            array.add_lacking(self._n_atoms if per_atom else self.n_frames)
        if value.shape[1:] != array.row:
            raise ValueError(
                f"frame {self.n_frames}: {key} has shape {value.shape[1:]}, and {array.row} in frames "
                "before; an "
                "array of .npz has one shape, write extended XYZ or an ASE database"
            )
        array.add(value)

    def pack(self, path: Path) -> None:
        """Write the archive."""
        if self._first is None:
            raise ValueError("no frames to write")
        n, size = self.n_frames, len(self._first)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for key, array in self._arrays.items():
                name, shape = key, (array.n, *array.row)
                if self._same:
                    if key == "n_atoms":
                        continue
                    name = _SAME.get(key, key)
                    shape = (n, size, *array.row) if array.per_atom else shape
                if self._same and key == "species":
                    with archive.open("z.npy", "w") as out:
                        np.lib.format.write_array(out, self._first.astype(np.int64), allow_pickle=False)
                    continue
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out, array.file.open("rb") as raw:
                    header = {"descr": array.dtype, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(out, header)  # type: ignore[arg-type]
                    shutil.copyfileobj(raw, out, _PIECE)
            for key, held in self._texts.items():
                with archive.open(f"{key}.npy", "w") as out:
                    _write(out, np.array(held))


def _write(out: IO[bytes], array: np.ndarray) -> None:
    np.lib.format.write_array(out, array, allow_pickle=False)
