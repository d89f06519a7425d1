"""Reading extended-XYZ files (format: https://github.com/libAtoms/extxyz) as plain arrays in the file's own units and signs.

A reader of our own rather than ASE's: it renames nothing, moves no key into a calculator, applies no constraint, needs no package, and when
a line is wrong it says which frame of which file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from sapis_lab.data._elements import ATOMIC_NUMBER

_PAIR = re.compile(r"""([^\s=]+)=("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+)""")
_TYPES = {"R": np.float64, "I": np.int64, "S": np.str_, "L": np.str_}


class XyzFrame(NamedTuple):
    """One frame as the file says it."""

    number: int
    """Number in the file, from 0."""
    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3), in the file's unit."""
    cell: np.ndarray
    """(3, 3), lattice vectors as rows, zeros without a Lattice."""
    pbc: np.ndarray
    """(3,) bool; a file that gives a Lattice and no pbc means periodic."""
    info: dict[str, str]
    """The other keys of the comment line, as text."""
    columns: dict[str, np.ndarray]
    """The other per-atom columns, (n_atoms,) or (n_atoms, k)."""


def read_extxyz(path: Path, *, wanted: slice = slice(None)) -> Iterator[XyzFrame]:
    """The frames `wanted` of the file, one by one. ValueError names file and frame of the first line that makes no sense."""
    numbers = range(count_frames(path))[wanted] if wanted != slice(None) else None
    chosen = None if numbers is None else set(numbers)
    if numbers is not None and numbers.step < 0:
        raise ValueError(f"{path}: a slice that runs backwards, [{wanted.start}:{wanted.stop}:{wanted.step}]; frames are read forwards")
    with path.open() as f:
        for number, n_atoms in enumerate(_frame_starts(f, path)):
            lines = list(islice(f, n_atoms + 1))
            if len(lines) < n_atoms + 1:
                raise ValueError(f"{path}, frame {number}: the file ends after {max(len(lines) - 1, 0)} of {n_atoms} atoms")
            if chosen is None or number in chosen:
                yield _parse(lines, number, path)


def count_frames(path: Path) -> int:
    """Frames in the file, by hopping from header to header."""
    with path.open() as f:
        n = 0
        for n_atoms in _frame_starts(f, path):
            if sum(1 for _ in islice(f, n_atoms + 1)) == n_atoms + 1:
                n += 1
        return n


def _frame_starts(f: IO[str], path: Path) -> Iterator[int]:
    number = 0
    # readline, not iteration: the caller reads the frame's body from the same file in between.
    while line := f.readline():
        if line.strip():
            try:
                n_atoms = int(line)
            except ValueError:
                raise ValueError(f"{path}, frame {number}: wanted a line with the number of atoms, got {line.strip()[:60]!r}") from None
            yield n_atoms
            number += 1


def _parse(lines: list[str], number: int, path: Path) -> XyzFrame:
    place = f"{path}, frame {number}"
    info = {key: value.strip("\"'{}") for key, value in _PAIR.findall(lines[0])}
    rows = [line.split() for line in lines[1:]]
    columns = {}
    start = 0
    properties = info.pop("Properties", "species:S:1:pos:R:3").split(":")
    width = sum(int(k) for k in properties[2::3])
    for k, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(f"{place}: atom {k} has {len(row)} columns, wanted the {width} of Properties={':'.join(properties)}")
    for name, kind, count in zip(properties[::3], properties[1::3], properties[2::3], strict=True):
        cells = [row[start : start + int(count)] for row in rows]
        try:
            value: np.ndarray = np.array(cells, dtype=_TYPES[kind])
        except (ValueError, KeyError) as error:
            raise ValueError(f"{place}: column {name}:{kind}:{count} cannot be read as numbers ({error})") from None
        columns[name] = value.reshape(len(rows)) if int(count) == 1 else value.reshape(len(rows), int(count))
        start += int(count)
    if "pos" not in columns or not {"species", "Z", "numbers"} & set(columns):
        raise ValueError(f"{place}: Properties has {', '.join(columns)}; wanted pos and species (or Z)")
    cell = numbers_of(info.pop("Lattice"), (3, 3), f"{place}: Lattice") if "Lattice" in info else np.zeros((3, 3))
    pbc = info.pop("pbc", "T T T" if cell.any() else "F F F").replace(",", " ").strip("[]").split()
    return XyzFrame(
        number=number,
        species=_atomic_numbers(columns, place),
        positions=columns.pop("pos"),
        cell=cell,
        pbc=np.array([p in ("T", "True", "true", "1") for p in pbc]),
        info=info,
        columns=columns,
    )


def numbers_of(text: str, shape: tuple[int, ...], place: str) -> np.ndarray:
    """The numbers in `text` in `shape`; ValueError begins with `place`."""
    try:
        return np.array([float(x) for x in re.split(r"[\s,\[\]]+", text.strip()) if x]).reshape(shape)
    except ValueError:
        raise ValueError(f"{place} is {text[:80]!r}, wanted {int(np.prod(shape))} numbers") from None


def _atomic_numbers(columns: dict[str, np.ndarray], place: str) -> np.ndarray:
    for key in ("Z", "numbers"):
        if key in columns:
            columns.pop("species", None)
            return columns.pop(key).astype(np.int64)
    symbols = columns.pop("species")
    unknown = [(k, str(s)) for k, s in enumerate(symbols) if s not in ATOMIC_NUMBER]
    if unknown:
        raise ValueError(f"{place}: atom {unknown[0][0]} has species {unknown[0][1]!r}, wanted a chemical symbol such as H or Cl")
    return np.array([ATOMIC_NUMBER[s] for s in symbols], dtype=np.int64)
