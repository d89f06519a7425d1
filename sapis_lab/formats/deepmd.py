"""Systems of DeePMD-kit: a folder with `type.raw`, `type_map.raw` and folders `set.*` of .npy arrays, mixed
or not; or a folder of such systems, at any depth (the format:
https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html). The format fixes eV and Å.

Labels have DeePMD's names: energy, virial (9 numbers, eV; -volume times tension) and others with one row a
frame; forces are called forces, and every array of n_atoms times one, three or nine numbers a frame is one of
atoms (atom_ener, atom_dipole, ...). Arrays are mapped, not loaded. The data set kind `deepmd` reads the same
folders with one precision of energies in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.errors import ConfigError
from sapis_lab.files import read_text
from sapis_lab.formats._base import BLOCK_ATOMS, MOST_ATOMS, Block, Reading, taken
from sapis_lab.formats._deepmd_writer import write_deepmd
from sapis_lab.formats._npy import map_npy

ENDINGS: tuple[str, ...] = ()
FIXED = {"energy_unit": "eV", "length_unit": "Angstrom"}
write = write_deepmd

_OWN = ("coord", "box", "real_atom_types", "type")
_NAMES = {"force": "forces"}


def is_one(path: Path) -> bool:
    """Whether it is a system, or a folder of systems."""
    return path.is_dir() and next(path.rglob("type.raw"), None) is not None


def count(path: Path) -> int:
    """Frames of all sets, as their headers say."""
    return sum(part.n_frames for part in _sets(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames of all systems and sets in the order of their names."""
    parts = list(_sets(path))
    if not parts:
        raise ValueError(f"{path}: no folder set.* beside a type.raw, wanted a system of DeePMD-kit")
    numbers = taken(sum(part.n_frames for part in parts), reading.wanted, path, skip=reading.skip)
    start = 0
    for part in parts:
        step = max(1, BLOCK_ATOMS // len(part.types))
        for k in range(0, part.n_frames, step):
            ids = np.arange(k, min(k + step, part.n_frames))
            inside = (start + ids >= numbers.start) & (start + ids < numbers.stop)
            ids = ids[inside & ((start + ids - numbers.start) % numbers.step == 0)]
            if len(ids):
                yield _block(part, ids, start, labels=reading.labels)
        start += part.n_frames


class _Set(NamedTuple):
    folder: Path
    types: np.ndarray
    """(n_atoms,) as in type.raw."""
    elements: np.ndarray
    """(n_types + 1,) atomic numbers by type, and 0 for -1."""
    periodic: bool
    arrays: dict[str, np.ndarray]
    """Mapped, by name."""
    n_frames: int


def _sets(path: Path) -> Iterator[_Set]:
    for types_file in sorted(path.rglob("type.raw")):
        system = types_file.parent
        types = _types(types_file)
        elements = _elements(system / "type_map.raw")
        periodic = not (system / "nopbc").is_file()
        for folder in sorted(f for f in system.glob("set.*") if f.is_dir()):
            arrays = {file.stem: map_npy(file) for file in sorted(folder.glob("*.npy"))}
            yield _set(folder, types, elements, periodic, arrays)


def _set(
    folder: Path, types: np.ndarray, elements: np.ndarray, periodic: bool, arrays: dict[str, np.ndarray]
) -> _Set:
    wanted = ["coord", *(["box"] if periodic else [])]
    for name in wanted:
        if name not in arrays:
            hint = "; or an empty file nopbc beside type.raw if the frames are open" if name == "box" else ""
            raise ValueError(f"missing file: wanted {folder / name}.npy{hint}")
    n_frames, n = len(arrays["coord"]) if arrays["coord"].ndim else 0, len(types)
    rows = {"coord": 3 * n, "box": 9, "force": 3 * n, "virial": 9, "real_atom_types": n, "energy": 1}
    for name, array in arrays.items():
        size = rows.get(name, array[:1].size)
        if array.ndim == 0 or len(array) != n_frames or array.size != n_frames * size:
            raise ValueError(
                f"{folder / name}.npy: has shape {array.shape}, wanted {(n_frames, size)} for {n_frames} "
                "frames "
                f"of {n} atoms"
            )
    return _Set(folder, types, elements, periodic, arrays, n_frames)


def _types(path: Path) -> np.ndarray:
    words = _text(path).split()
    bad = next((k for k, word in enumerate(words) if not word.isdecimal() or len(word) > 9), None)
    if bad is not None or not 1 <= len(words) <= MOST_ATOMS:
        got = f"type of atom {bad} is {words[bad][:20]!r}" if bad is not None else f"{len(words)} types"
        raise ValueError(f"{path}: {got}, wanted one whole number from 0 for each atom")
    return np.array([int(word) for word in words])


def _elements(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"missing file: wanted {path}, which names the elements of the types; put it there")
    symbols = _text(path).split()
    unknown = [s for s in symbols if s not in ATOMIC_NUMBER]
    if unknown:
        raise ValueError(f"{path}: names {unknown[0][:20]!r}, wanted chemical symbols such as H or Cl")
    return np.array([*(ATOMIC_NUMBER[s] for s in symbols), 0])


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _block(part: _Set, ids: np.ndarray, start: int, *, labels: bool) -> Block:
    n = len(part.types)
    types = np.broadcast_to(part.types, (len(ids), n))
    if "real_atom_types" in part.arrays:
        types = np.asarray(part.arrays["real_atom_types"][ids]).reshape(len(ids), n)
    bad = (types < -1) | (types >= len(part.elements) - 1) | (types != np.round(types))
    if bad.any():
        frame, atom = np.argwhere(bad)[0]
        raise ValueError(
            f"{part.folder}, frame {ids[frame]}: atom {atom} has type {types[frame, atom]:g}, wanted 0 to "
            f"{len(part.elements) - 2}, those that type_map.raw names"
        )
    z = part.elements[types.astype(np.int64)]
    real = z > 0
    if not real.any(1).all():
        frame = int(np.argmin(real.any(1)))
        raise ValueError(f"{part.folder}, frame {ids[frame]}: every type is -1, wanted an atom")
    frame_labels: dict[str, np.ndarray] = {}
    atom_labels: dict[str, np.ndarray] = {}
    system = part.folder.parent.name
    frame_labels["system"] = np.array([system] * len(ids), dtype=object)
    for name, array in part.arrays.items():
        if name in _OWN:
            continue
        value = np.asarray(array[ids]).reshape(len(ids), -1)
        width = value.shape[1]
        if width in (n, 3 * n, 9 * n) and name not in ("energy", "virial"):
            if labels:
                of_atoms = value.reshape(len(ids), n, width // n)[real]
                atom_labels[_NAMES.get(name, name)] = of_atoms[:, 0] if width == n else of_atoms
            if name == "force" or width not in (1, 3, 6, 9):
                continue
        frame_labels[name] = value[:, 0] if width == 1 else value
    cell = np.zeros((len(ids), 3, 3))
    if part.periodic:
        cell = np.asarray(part.arrays["box"][ids], dtype=np.float64).reshape(-1, 3, 3)
    return Block(
        numbers=start + ids,
        n_atoms=real.sum(1),
        species=z[real],
        positions=np.asarray(part.arrays["coord"][ids], dtype=np.float64).reshape(len(ids), n, 3)[real],
        cell=cell,
        pbc=np.full((len(ids), 3), part.periodic),
        frame_labels=frame_labels,
        atom_labels=atom_labels,
    )
