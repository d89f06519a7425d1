"""HDF5 files of data sets: ANI-1x and ANI-1ccx (groups by formula), ANI-2x and others of torchani (by number
of atoms), COMP6, SPICE (by molecule), Transition1x, and others of this shape: every group with positions
(n, n_atoms, 3) or (n_atoms, 3) and elements beside them is a piece of n frames.

Frames are counted through the groups in the order of their names. Every dataset of the group with n rows is a
label under its own name, so that `energy_key: wb97x_dz.energy` and `forces_key: dft_total_gradient` read it;
`energies` also answers to energy where there is no dataset of that name. Text such as smiles and subset is a
label of all frames of the group, and `group` is its name. NaN is a label that is missing. The total charge
follows from smiles whose atoms are written out, as `smiles_charge`.

The layout fixes no units: SPICE has Bohr and Hartree, ANI Å and Hartree. Where a dataset states its unit in
an attribute, one that contradicts the settings is refused by whoever knows these (`units_told`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import BLOCK_ATOMS, MOST_ATOMS, Block, Reading, taken
from sapis_lab.formats._h5 import Datasets, check_stored, groups, is_hdf5, is_text, opened, rows, texts

ENDINGS = (".h5", ".hdf5", ".hdf")
FIXED: dict[str, str] = {}

_NAMES = {
    "species": ("atomic_numbers", "species", "numbers", "z", "Z", "nuclear_charges"),
    "positions": ("coordinates", "conformations", "positions", "coords", "R", "geometries"),
    "energy": ("energy", "energies", "E"),
    "forces": ("forces", "F"),
    "cell": ("cell", "lattice"),
    "pbc": ("pbc",),
}
"""Names of datasets looked for where the settings give none."""
_CHARGES = ("charge", "total_charge", "formal_charge", "multiplicity", "spin", "spin_multiplicity")
"""Labels that are always read: frames of several charges are not one surface."""


def is_one(path: Path) -> bool:
    """Whether it is HDF5, and no trajectory with its topology."""
    if not is_hdf5(path):
        return False
    with opened(path) as file:
        return "topology" not in file


def count(path: Path) -> int:
    """Frames of all groups."""
    with opened(path) as file:
        return sum(piece.n_frames for piece in _pieces(file, path, Reading()))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames, group by group, in pieces of about BLOCK_ATOMS atoms; of labels only what is asked for is
    read."""
    with opened(path) as file:
        wanted = reading.wanted
        plain = (wanted.start or 0) >= 0 and (wanted.stop is None or wanted.stop >= 0)
        if wanted == slice(None):
            chosen: range | None = None
        else:
            n = sum(p.n_frames for p in _pieces(file, path, reading))
            chosen = taken(n, wanted, path, skip=reading.skip)
        start, n_skip, n_pieces = 0, reading.skip, 0
        for piece in _pieces(file, path, reading):
            n_pieces += 1
            step = max(1, BLOCK_ATOMS // piece.n_atoms)
            for k in range(0, piece.n_frames, step):
                stop = min(k + step, piece.n_frames)
                numbers = np.arange(start + k, start + stop)
                keep = np.ones(len(numbers), bool) if chosen is None else _within(numbers, chosen)
                if chosen is None and n_skip:
                    keep[:n_skip] = False
                    n_skip -= min(n_skip, len(numbers))
                if keep.any():
                    yield _block(piece, slice(k, stop), numbers, reading).chosen(keep)
            start += piece.n_frames
            if plain and chosen is not None and wanted.stop is not None and start >= wanted.stop:
                return
        if not n_pieces:
            raise ValueError(
                f"{path}: no group with positions (one of {', '.join(_NAMES['positions'])}) and elements "
                "(one "
                f"of {', '.join(_NAMES['species'])}); set npz_keys: {{positions: ..., species: ...}}"
            )


def units_told(path: Path, reading: Reading) -> dict[str, str]:
    """Units of positions, energy and forces that attributes of the first group with positions state, by what
    they belong to."""
    with opened(path) as file:
        for piece in _pieces(file, path, reading):
            told, wanted = {}, _wanted(piece, reading)
            own = {"energy": wanted.get(str(reading.energy)), "forces": wanted.get(str(reading.forces))}
            for what, name in {"positions": piece.names["positions"], **own}.items():
                here = name is not None and name in piece.datasets
                unit = piece.datasets[str(name)].attrs.get("units") if here else None
                if isinstance(unit, bytes | str):
                    told[what] = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit
            return told
    return {}


def _within(numbers: np.ndarray, chosen: range) -> np.ndarray:
    inside = (numbers >= chosen.start) & (numbers < chosen.stop)
    return inside & ((numbers - chosen.start) % chosen.step == 0)


class _Piece(NamedTuple):
    """One group with frames."""

    name: str
    place: str
    datasets: Datasets
    names: dict[str, str]
    """Datasets that hold species, positions, and perhaps cell, pbc, energy and forces."""
    n_frames: int
    n_atoms: int
    alone: bool
    """Whether positions are those of one frame, (n_atoms, 3)."""


def _pieces(file: Any, path: Path, reading: Reading) -> Iterator[_Piece]:
    for name, datasets in groups(file, path):
        place = f"{path}, group {name or '/'}"
        names = {}
        for what in _NAMES:
            given = reading.names.get(what, "")
            if given is None:
                continue
            found = next((n for n in ((given,) if given else _NAMES[what]) if n in datasets), None)
            if found is not None:
                names[what] = found
        if "positions" not in names:
            continue
        x = datasets[names["positions"]]
        if x.ndim not in (2, 3) or x.shape[-1] != 3:
            raise ValueError(
                f"{place}: {names['positions']} has shape {x.shape}, wanted (n_frames, n_atoms, 3)"
            )
        check_stored(x, f"{place}: {names['positions']}")
        if "species" not in names:
            raise ValueError(
                f"{place}: no elements beside {names['positions']}, wanted one of "
                f"{', '.join(_NAMES['species'])}; it has {', '.join(datasets)}; set npz_keys: "
                f"{{species: ...}}"
            )
        alone = x.ndim == 2
        n_frames, n_atoms = (1, x.shape[0]) if alone else x.shape[:2]
        if not 1 <= n_atoms <= MOST_ATOMS:
            raise ValueError(f"{place}: frames of {n_atoms} atoms, wanted 1 to {MOST_ATOMS:,}")
        if n_frames:
            yield _Piece(name, place, datasets, names, n_frames, n_atoms, alone)


def _block(piece: _Piece, some: slice, numbers: np.ndarray, reading: Reading) -> Block:
    n, n_atoms = len(numbers), piece.n_atoms
    x = _rows(piece, piece.names["positions"], some, (n, n_atoms, 3))
    frame_labels: dict[str, np.ndarray] = {"group": np.array([piece.name] * n, dtype=object)}
    atom_labels: dict[str, np.ndarray] = {}
    wanted = _wanted(piece, reading)
    for key, name in wanted.items():
        dataset = piece.datasets[name]
        if is_text(dataset):
            _add_texts(frame_labels, key, dataset, piece, some, n)
            continue
        value = _labels(piece, name, some, n)
        if value.ndim > 1 and value.shape[1] == n_atoms:
            if reading.labels:
                atom_labels[key] = value.reshape(n * n_atoms, *value.shape[2:])
            if key != reading.forces and value.shape[1:] in ((3,), (6,), (9,), (3, 3)):
                frame_labels[key] = value
        else:
            frame_labels[key] = value
    if "smiles" in frame_labels:
        charges = [smiles_charge(str(text)) for text in frame_labels["smiles"]]
        if all(charge is not None for charge in charges):
            frame_labels["smiles_charge"] = np.array(charges)
    cell = np.zeros((n, 3, 3))
    if "cell" in piece.names:
        cell = _of_frames(piece, piece.names["cell"], some, n, (3, 3)).astype(np.float64)
    pbc = np.repeat(cell.any((1, 2)).reshape(-1, 1), 3, axis=1)
    if "pbc" in piece.names:
        pbc = _of_frames(piece, piece.names["pbc"], some, n, (3,)).astype(bool)
    return Block(
        numbers=numbers,
        n_atoms=np.full(n, n_atoms),
        species=_species(piece, some, n),
        positions=x.reshape(n * n_atoms, 3).astype(np.float64),
        cell=cell,
        pbc=pbc,
        frame_labels=frame_labels,
        atom_labels=atom_labels,
        unread=tuple(sorted(set(piece.datasets) - set(wanted.values()) - set(piece.names.values()))),
    )


def _wanted(piece: _Piece, reading: Reading) -> dict[str, str]:
    """Datasets to read, by the key of the label."""
    found = {}
    for what, key in (("energy", reading.energy), ("forces", reading.forces)):
        if key is None or (what == "forces" and not reading.labels):
            continue
        if key in piece.datasets:
            found[key] = key
        elif what in piece.names:
            found[key] = piece.names[what]
    every = [key for key in piece.datasets if reading.every and _fits(piece, key)]
    for key in (*reading.keys, *_CHARGES, "smiles", "subset", *every):
        if key in piece.datasets and key not in piece.names.values():
            found.setdefault(key, key)
    return found


def _fits(piece: _Piece, key: str) -> bool:
    """Whether a dataset has a row for each frame."""
    dataset = piece.datasets[key]
    known = dataset.dtype.kind in "biuf"
    return known and (piece.alone or (dataset.ndim > 0 and dataset.shape[0] == piece.n_frames))


def _rows(piece: _Piece, name: str, some: slice, shape: tuple[int, ...]) -> np.ndarray:
    dataset = piece.datasets[name]
    place = f"{piece.place}: {name}"
    value = rows(dataset, slice(None) if piece.alone else some, place)
    if value.size != int(np.prod(shape)):
        raise ValueError(f"{place} has shape {dataset.shape}, wanted {(piece.n_frames, *shape[1:])}")
    return value.reshape(shape)


def _labels(piece: _Piece, name: str, some: slice, n: int) -> np.ndarray:
    """Rows of a label, (n, ...)."""
    dataset, place = piece.datasets[name], f"{piece.place}: {name}"
    check_stored(dataset, place)
    if piece.alone:
        return rows(dataset, slice(None) if dataset.ndim else (), place)[None]  # type: ignore[arg-type]
    if dataset.ndim == 0 or (dataset.shape[0] != piece.n_frames and dataset.size == 1):
        return np.repeat(rows(dataset, (), place).reshape(1), n)  # type: ignore[arg-type]
    if dataset.shape[0] != piece.n_frames:
        raise ValueError(
            f"{place} has {dataset.shape[0]} rows, wanted {piece.n_frames}, as {piece.names['positions']} has"
        )
    value = rows(dataset, some, place)
    while value.ndim > 1 and value.shape[-1] == 1:  # (n, 1), and charges (n, n_atoms, 1) of SPICE
        value = value[..., 0]
    return value


def _of_frames(piece: _Piece, name: str, some: slice, n: int, row: tuple[int, ...]) -> np.ndarray:
    """A dataset of all frames, or one for each."""
    dataset, place = piece.datasets[name], f"{piece.place}: {name}"
    check_stored(dataset, place)
    if dataset.size == int(np.prod(row)):
        value = rows(dataset, slice(None), place).reshape(1, *row)
        return np.repeat(value, n, axis=0)
    return _rows(piece, name, some, (n, *row))


def _add_texts(
    labels: dict[str, np.ndarray], key: str, dataset: Any, piece: _Piece, some: slice, n: int
) -> None:
    values = texts(dataset, f"{piece.place}: {key}")
    if len(values) == piece.n_frames and not piece.alone:
        labels[key] = np.array(values[some], dtype=object)
    elif len(values) == 1 or all(len(v) == 1 for v in values):  # one text, or its characters (ANI-1)
        labels[key] = np.array(["".join(values)] * n, dtype=object)


def _species(piece: _Piece, some: slice, n: int) -> np.ndarray:
    name = piece.names["species"]
    dataset, place = piece.datasets[name], f"{piece.place}: {name}"
    check_stored(dataset, place)
    of_all = dataset.shape in ((piece.n_atoms,), (1, piece.n_atoms))
    if not of_all and dataset.shape != (piece.n_frames, piece.n_atoms):
        raise ValueError(
            f"{place} has shape {dataset.shape}, wanted {(piece.n_atoms,)} or "
            f"{(piece.n_frames, piece.n_atoms)}"
        )
    if is_text(dataset):
        symbols = np.array(texts(dataset, place)).reshape(dataset.shape)
        unknown = [str(s) for s in np.unique(symbols) if str(s) not in ATOMIC_NUMBER]
        if unknown:
            raise ValueError(f"{place} names {unknown[0][:20]!r}, wanted chemical symbols such as H or Cl")
        z = np.array([ATOMIC_NUMBER[str(s)] for s in symbols.reshape(-1)]).reshape(symbols.shape)
        z = z if of_all else z[some]
    else:
        z = rows(dataset, slice(None) if of_all else some, place)
    return np.tile(z.reshape(-1), n) if of_all else z.reshape(-1)


_BRACKET = re.compile(r"\[[^\[\]]*\]")
_SIGN = re.compile(r"(\+\d+|-\d+|\++|-+)(?::\d+)?\]$")


def smiles_charge(smiles: str) -> int | None:
    """The total charge that a SMILES says, e: the sum over its atoms in brackets; None for text that is
    none."""
    if not smiles or smiles.count("[") != smiles.count("]"):
        return None
    total = 0
    for atom in _BRACKET.findall(smiles):
        sign = _SIGN.search(atom)
        if sign is not None:
            text = sign[1]
            size = int(text[1:]) if text[1:].isdecimal() else len(text)
            total += size if text[0] == "+" else -size
    return total
