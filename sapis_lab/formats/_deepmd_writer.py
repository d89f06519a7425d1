"""Writing systems of DeePMD-kit: one folder for each sequence of elements, named after its formula; where
there is one alone, the target is that system. The order of frames is kept within a system.

Arrays are float64. The virial is -volume times stress, which is the one number that is not kept bit for bit.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sapis_lab.elements import SYMBOLS
from sapis_lab.formats._base import Block, Written
from sapis_lab.formats._writing import is_lacking

_SET_ATOMS = 2_000_000
"""Atoms of a set, about: 100 MB."""
_NAMES = {"forces": "force"}


def write_deepmd(path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
    """Write the frames to the folder `path`, which is made."""
    path.mkdir()
    systems: dict[bytes, _System] = {}
    notes: dict[str, None] = {}
    names: Counter[str] = Counter()
    n = 0
    for block in blocks:
        ends = np.cumsum(block.n_atoms)
        for k in range(len(block)):
            rows = slice(int(ends[k] - block.n_atoms[k]), int(ends[k]))
            z, pbc = block.species[rows], block.pbc[k]
            if pbc.any() and not pbc.all():
                raise ValueError(
                    f"frame {n}: is periodic in {pbc.tolist()}, and DeePMD knows all three directions or none"
                )
            key = pbc.tobytes() + z.astype(np.uint8).tobytes()
            if key not in systems:
                formula = _formula(z)
                names[formula] += 1
                label = formula if names[formula] == 1 else f"{formula}_{names[formula]}"
                systems[key] = _System(path / label, z, periodic=bool(pbc.all()))
            systems[key].add(block, k, rows, notes, n)
            n += 1
    for system in systems.values():
        system.flush()
    if len(systems) == 1:
        only = next(iter(systems.values())).folder
        for inner in only.iterdir():
            shutil.move(str(inner), path / inner.name)
        only.rmdir()
    return Written(n, tuple(notes))


def _formula(z: np.ndarray) -> str:
    numbers, counts = np.unique(z, return_counts=True)
    return "".join(f"{SYMBOLS[int(a)]}{c}" for a, c in zip(numbers, counts, strict=True))[:100]


class _System:
    def __init__(self, folder: Path, z: np.ndarray, *, periodic: bool) -> None:
        self.folder, self._periodic, self._n_sets = folder, periodic, 0
        self._held: list[dict[str, np.ndarray]] = []
        self._keys: frozenset[str] | None = None
        self._n_atoms = len(z)
        folder.mkdir()
        symbols = list(dict.fromkeys(SYMBOLS[int(a)] for a in z))
        types = [symbols.index(SYMBOLS[int(a)]) for a in z]
        (folder / "type_map.raw").write_text("\n".join(symbols) + "\n")
        (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
        if not periodic:
            (folder / "nopbc").write_text("")

    def add(self, block: Block, k: int, rows: slice, notes: dict[str, None], number: int) -> None:
        arrays = {"coord": block.positions[rows].reshape(-1), "box": block.cell[k].reshape(-1)}
        for key, value in block.frame_labels.items():
            if value.dtype.kind not in "biuf":
                notes[f"text is left out, which DeePMD has no place for: {key}"] = None
            elif is_lacking(value[k]):
                continue
            elif key == "stress":
                volume = abs(np.linalg.det(block.cell[k]))
                arrays["virial"] = -volume * value[k].reshape(-1)
            else:
                arrays[key] = np.asarray(value[k], dtype=np.float64).reshape(-1)
        for key, value in block.atom_labels.items():
            if value.dtype.kind in "biuf" and not is_lacking(value[rows]):
                arrays[_NAMES.get(key, key)] = value[rows].reshape(-1)
        if self._keys is None:
            self._keys = frozenset(arrays)
        if self._keys != frozenset(arrays):
            odd = sorted(self._keys ^ frozenset(arrays))
            raise ValueError(
                f"frame {number}: some frames of {self.folder.name} have {', '.join(odd)} and others not, "
                "which "
                "DeePMD cannot hold; leave them out with --set missing=drop"
            )
        self._held.append(arrays)
        if len(self._held) * self._n_atoms >= _SET_ATOMS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one set."""
        if not self._held:
            return
        folder = self.folder / f"set.{self._n_sets:03d}"
        folder.mkdir()
        for key in self._held[0]:
            rows = np.array([arrays[key] for arrays in self._held], dtype=np.float64)
            np.save(folder / f"{key}.npy", rows[:, 0] if key == "energy" else rows, allow_pickle=False)
        self._held, self._n_sets = [], self._n_sets + 1
