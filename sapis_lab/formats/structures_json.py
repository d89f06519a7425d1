"""JSON files of structures with labels: a list of entries, an object of them, or an object of such objects
(MPtrj): those of pymatgen (mlearn, Materials Project, MPtrj), of JARVIS, and plain ones.

In every entry the structure stands by itself or under a key (structure, atoms, molecule, ...), as
- pymatgen: `lattice.matrix` and `sites` with `species` and `abc` or `xyz`;
- JARVIS: `lattice_mat`, `coords`, `elements` and `cartesian`;
- plain: `species` (symbols), `elements` or `atomic_numbers`, with `frac_coords`, `coords`, `cart_coords` or
  `positions`, and perhaps `lattice` or `cell`.

All else that is a number, an array or a text is a label whose key is its path, `outputs.energy`. Lengths are
Å; which unit energies have depends on where the file is from and is for the settings to say. Entries are read
one at a time: a file may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import Block, Reading, Single, check_n_atoms, joined, picked
from sapis_lab.formats._json_stream import json_entries, json_start
from sapis_lab.formats._values import sorted_labels

ENDINGS = (".json",)
FIXED = {"length_unit": "Angstrom"}

_UNDER = ("structure", "atoms", "molecule", "final_structure", "initial_structure")
_SPECIES = ("species", "elements", "atomic_numbers", "numbers", "symbols")
_COORDS = ("frac_coords", "cart_coords", "coords", "positions", "abc", "xyz")


def is_one(path: Path) -> bool:
    """Whether it is a JSON list or object."""
    from sapis_lab.formats import ase_db

    return json_start(path) in ("[", "{") and not ase_db.is_one(path)


def count(path: Path) -> int:
    """Structures in the file."""
    return sum(1 for _ in _entries(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The structures with their labels."""
    wanted = picked(_entries(path), reading, path, lambda: count(path))
    return joined(_single(entry, k, f"{path}, frame {k}", reading) for k, entry in wanted)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Entries with a structure; those of an object, and of objects in it, with its keys as `key`."""
    for key, value in json_entries(path):
        if isinstance(value, dict) and _structure(value) is None:
            inner = [(k, v) for k, v in value.items() if isinstance(v, dict) and _structure(v) is not None]
            for k, v in inner:
                yield {"key": f"{key}.{k}", "group": key, **v}
            if inner:
                continue
        if not isinstance(value, dict):
            raise ValueError(
                f"{path}, entry {key}: wanted an object with a structure, got {type(value).__name__}"
            )
        yield value if key.isdecimal() else {"key": key, **value}


class _Structure(NamedTuple):
    under: str | None
    """Key of the entry that holds it; None: the entry is one."""
    kind: str


def _structure(entry: Mapping[str, Any]) -> _Structure | None:
    """Where in an entry its structure is."""
    for under in (None, *_UNDER):
        value = entry if under is None else entry.get(under)
        if isinstance(value, dict):
            if isinstance(value.get("sites"), list):
                return _Structure(under, "sites")
            if "lattice_mat" in value and "coords" in value:
                return _Structure(under, "jarvis")
            if any(key in value for key in _SPECIES) and any(key in value for key in _COORDS):
                return _Structure(under, "plain")
    return None


def _single(entry: dict[str, Any], number: int, place: str, reading: Reading) -> Single:
    where = _structure(entry)
    if where is None:
        raise ValueError(
            f"{place}: no structure (of pymatgen, with sites; of JARVIS, with lattice_mat; or elements and "
            f"coordinates); it has {', '.join(map(str, entry))[:80]}"
        )
    value = entry if where.under is None else entry[where.under]
    read = {"sites": _of_pymatgen, "jarvis": _of_jarvis, "plain": _of_plain}[where.kind]
    z, x, cell, pbc, further = read(value, place)
    n = len(z)
    rest = dict(entry) if where.under is None else {k: v for k, v in entry.items() if k != where.under}
    for key in (
        ("sites", "lattice", "@module", "@class", "@version", *_SPECIES, *_COORDS)
        if where.under is None
        else ()
    ):
        rest.pop(key, None)
    info, columns = sorted_labels({**further, **rest}, n)
    return Single(number, z, x, cell, pbc, info, columns if reading.labels else {})


_Read = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def _of_pymatgen(value: dict[str, Any], place: str) -> _Read:
    sites, lattice = value["sites"], value.get("lattice")
    check_n_atoms(len(sites), place)
    cell, pbc = np.zeros((3, 3)), np.zeros(3, bool)
    if isinstance(lattice, dict):
        cell = _numbers(lattice.get("matrix"), (3, 3), "lattice.matrix", place)
        pbc = _numbers(lattice.get("pbc", [1, 1, 1]), (3,), "lattice.pbc", place).astype(bool)
    elif lattice is not None:
        cell, pbc = _numbers(lattice, (3, 3), "lattice", place), np.ones(3, bool)
    z = np.array([_of_site(site, k, place) for k, site in enumerate(sites)])
    if all("xyz" in site for site in sites) and not all("abc" in site for site in sites):
        x = _numbers([site["xyz"] for site in sites], (len(z), 3), "sites.xyz", place)
    else:
        x = _numbers([site.get("abc") for site in sites], (len(z), 3), "sites.abc", place) @ cell
    charge, spin = value.get("charge"), value.get("spin_multiplicity")
    further = {"charge": charge} if charge is not None else {}
    further |= {"spin_multiplicity": spin} if spin is not None else {}
    for key in _shared(sites):
        further[key] = [site["properties"][key] for site in sites]
    return z, x, cell, pbc, further


def _shared(sites: list[dict[str, Any]]) -> list[str]:
    """Properties that all sites have."""
    own = [site.get("properties") for site in sites]
    if not all(isinstance(one, dict) for one in own):
        return []
    return [key for key in own[0] if all(key in one for one in own)]  # type: ignore[union-attr, operator]


def _of_site(site: Any, k: int, place: str) -> int:
    species = site.get("species") if isinstance(site, dict) else None
    one = species[0] if isinstance(species, list) and len(species) == 1 else None
    symbol = one.get("element") if isinstance(one, dict) and one.get("occu", 1) == 1 else None
    if not isinstance(symbol, str) or symbol not in ATOMIC_NUMBER:
        raise ValueError(
            f"{place}: species of atom {k} is {str(species)[:60]}, wanted one element with occupancy 1"
        )
    return ATOMIC_NUMBER[symbol]


def _of_jarvis(value: dict[str, Any], place: str) -> _Read:
    z = _elements(value.get("elements"), "elements", place)
    cell = _numbers(value["lattice_mat"], (3, 3), "lattice_mat", place)
    coords = _numbers(value["coords"], (len(z), 3), "coords", place)
    cartesian = value.get("cartesian")
    if not isinstance(cartesian, bool):
        raise ValueError(f"{place}: cartesian is {str(cartesian)[:40]}, wanted true or false")
    return z, coords if cartesian else coords @ cell, cell, np.ones(3, bool), {}


def _of_plain(value: dict[str, Any], place: str) -> _Read:
    name = next(key for key in _SPECIES if key in value)
    z = _elements(value[name], name, place)
    lattice = next((key for key in ("lattice", "cell", "lattice_mat") if value.get(key) is not None), None)
    cell = np.zeros((3, 3))
    if lattice is not None:
        given = value[lattice]
        cell = _numbers(given.get("matrix") if isinstance(given, dict) else given, (3, 3), lattice, place)
    pbc = np.full(3, lattice is not None)
    if value.get("pbc") is not None:
        pbc = _numbers(value["pbc"], (3,), "pbc", place).astype(bool)
    coords = next(key for key in _COORDS if key in value)
    if coords == "coords":
        raise ValueError(
            f"{place}: coords may be fractions of the cell or Å; rename them to frac_coords or cart_coords"
        )
    x = _numbers(value[coords], (len(z), 3), coords, place)
    if coords in ("frac_coords", "abc"):
        if lattice is None:
            raise ValueError(f"{place}: {coords} without a lattice, wanted both, or positions")
        x = x @ cell
    return z, x, cell, pbc, {}


def _elements(value: Any, name: str, place: str) -> np.ndarray:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place}: {name} is {str(value)[:60]}, wanted a list with an element for each atom")
    check_n_atoms(len(value), place)
    for k, one in enumerate(value):
        if one not in ATOMIC_NUMBER if isinstance(one, str) else not isinstance(one, int) or one < 1:
            raise ValueError(
                f"{place}: {name} of atom {k} is {str(one)[:20]!r}, wanted a chemical symbol or atomic number"
            )
    return np.array([ATOMIC_NUMBER[one] if isinstance(one, str) else one for one in value])


def _numbers(value: Any, shape: tuple[int, ...], name: str, place: str) -> np.ndarray:
    try:
        found = np.array(value)
    except ValueError:  # rows of different lengths
        found = np.array(None)
    if found.dtype.kind not in "biuf" or found.size != int(np.prod(shape)):
        raise ValueError(f"{place}: {name} is {str(value)[:60]}, wanted numbers of shape {shape}")
    return found.astype(np.float64).reshape(shape)
