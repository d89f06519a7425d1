"""Reading extended-XYZ files (format: https://github.com/libAtoms/extxyz) as plain arrays in the file's own
units and signs.

A reader of our own rather than ASE's: it renames nothing, moves no key into a calculator, applies no
constraint, needs no package, and when a line is wrong it says which frame of which file.

Keys that decide physics (Lattice, pbc, Properties, the columns pos and species) are taken in any case, since
other codes write them so. What could be the cell or the periodicity under another name, or twice, is refused:
unread, it would turn a crystal into an open cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import BROKEN, MOST_ATOMS, endings_told, open_text, taken

_QUOTED = r""""(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]"""
_PAIR = re.compile(rf"([^\s=]+)(?:=({_QUOTED}|\S+)|\s*=\s*({_QUOTED}|[^\s=]+(?=\s|$)(?!\s*=)))")
"""key=value, or with blanks around the sign; but in `a= b=c` the value of `a` is missing, and not `b=c`."""
_TYPES = {"R": np.float64, "I": np.int64, "S": np.str_, "L": np.str_}
_SPECIES_NAMES = {"species", "Z", "numbers"}
CELL_NAMES = {
    "lattice",
    "cell",
    "unitcell",
    "box",
    "simulationbox",
    "latticevectors",
    "cellvectors",
    "boxvectors",
    "latticematrix",
    "cellmatrix",
    "latticeparameters",
    "cellparameters",
    "celllengths",
    "boxlengths",
}
"""Keys (small letters alone) that hold a cell in some code; in which order and form, only that of Lattice is
known."""
PBC_NAMES = {
    "pbc",
    "pbcs",
    "periodic",
    "periodicity",
    "isperiodic",
    "boundary",
    "boundaryconditions",
    "periodicboundaryconditions",
}
"""The same for keys that say which directions are periodic."""
_CELL_WORD = re.compile(r"(?<![^\W_])(lattice|cell|pbc)(?![^\W_])", re.IGNORECASE)
_TRUTH = {
    "T": True,
    "True": True,
    "true": True,
    "1": True,
    "F": False,
    "False": False,
    "false": False,
    "0": False,
}


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


def read_extxyz(path: Path, *, wanted: slice = slice(None), skip: int = 0) -> Iterator[XyzFrame]:
    """The frames `wanted` of the file without the first `skip` of them, one by one. ValueError names file and
    frame of the first line that makes no sense."""
    for number, lines in islice(_frames(path, wanted), skip, None):
        yield _parse(lines, number, path)


def _frames(path: Path, wanted: slice) -> Iterator[tuple[int, list[str]]]:
    """(number, comment line and atom lines) of the frames `wanted`."""
    chosen = None if wanted == slice(None) else taken(count_frames(path), wanted, path)
    with _open(path) as f:
        for number, n_atoms in enumerate(_frame_starts(f, path)):
            lines = _lines(f, n_atoms + 1, path, number)
            if len(lines) < n_atoms + 1:
                raise ValueError(
                    f"{path}, frame {number}: the file ends after {max(len(lines) - 1, 0)} of {n_atoms} atoms"
                )
            if chosen is None or number in chosen:
                _refuse_cut_line(lines, number, path)
                yield number, _text(lines, number, path)


def _refuse_cut_line(lines: list[str], number: int, path: Path) -> None:
    """ValueError where the file ends within a number: without a line break, and with fewer decimals than any
    other line of the frame."""
    last = lines[-1]
    if last.endswith("\n") or len(lines) < 3 or not last.split():
        return
    decimals = [len(line.split()[-1].partition(".")[2]) for line in lines[1:] if line.split()]
    if decimals[-1] < min(decimals[:-1]):
        raise ValueError(
            f"{path}, frame {number}: the file ends within its last line, at {last.split()[-1]!r} (the other "
            f"lines have {min(decimals[:-1])} decimals or more there, and a line break); copy it again, or "
            "leave the frame out with a slice such as [:-1]"
        )


def count_frames(path: Path) -> int:
    """Frames in the file, by hopping from header to header."""
    with _open(path) as f:
        n = 0
        for n_atoms in _frame_starts(f, path):
            if len(_lines(f, n_atoms + 1, path, n)) == n_atoms + 1:
                n += 1
        return n


def _frame_starts(f: IO[str], path: Path) -> Iterator[int]:
    number = 0
    # readline, not iteration: the caller reads the frame's body from the same file in between.
    while line := "".join(_lines(f, 1, path, number)):
        if line.strip():
            try:
                n_atoms = int(line)
            except ValueError:
                # Not quoted: of a file that was named by mistake, or with intent, the first line may be a
                # secret.
                raise ValueError(
                    f"{path}, frame {number}: wanted a line with the number of atoms, got one of "
                    f"{len(line.strip())} characters "
                    f"that is no whole number; is the file extended XYZ? (known are {endings_told()})"
                ) from None
            if n_atoms < 1:
                raise ValueError(
                    f"{path}, frame {number}: got {n_atoms} atoms, wanted at least 1; remove the frame"
                )
            if n_atoms > MOST_ATOMS:
                raise ValueError(
                    f"{path}, frame {number}: got {n_atoms} atoms, wanted at most {MOST_ATOMS:,}; is the "
                    "file damaged?"
                )
            yield n_atoms
            number += 1


_open = open_text


def _lines(f: IO[str], n: int, path: Path, number: int) -> list[str]:
    try:
        return list(islice(f, n))
    except BROKEN as error:
        raise ValueError(
            f"{path}, frame {number}: the compressed file ends or is damaged here ({error}); copy it again"
        ) from None


def _text(lines: list[str], number: int, path: Path) -> list[str]:
    """`lines`; ValueError when they hold bytes that are not UTF-8."""
    if all(map(str.isascii, lines)):
        return lines
    for k, line in enumerate(lines):
        try:
            line.encode()
        except UnicodeEncodeError as error:
            what = "the comment line" if k == 0 else f"atom {k - 1}"
            got = line.encode(errors="surrogateescape")[:40]
            raise ValueError(
                f"{path}, frame {number}: {what} is not UTF-8 text (character {error.start} of {got!r}), "
                f"wanted extended XYZ; "
                "convert the file with iconv, or name its format"
            ) from None
    return lines


class _Property(NamedTuple):
    name: str
    kind: str
    columns: slice


def _properties(info: dict[str, str], place: str) -> list[_Property]:
    """The columns that `Properties` (removed from `info`) describes, under the names that are known here."""
    written = spelled(info, "Properties", place)
    text = "species:S:1:pos:R:3" if written is None else info.pop(written)
    if text not in _SEEN:
        if len(_SEEN) > 100:
            _SEEN.clear()
        _SEEN[text] = tuple(_described(text, place))
    return list(_SEEN[text])


_SEEN: dict[str, tuple[_Property, ...]] = {}
"""Columns by their description, which is the same for most frames of a file."""


def _described(text: str, place: str) -> list[_Property]:
    """The columns that the text of `Properties` describes."""
    parts = text.split(":")
    triples = list(zip(parts[::3], parts[1::3], parts[2::3], strict=False))
    if len(parts) % 3 or not all(
        kind in _TYPES and count.isdecimal() and int(count) > 0 for _, kind, count in triples
    ):
        raise ValueError(
            f"{place}: got Properties={text}, wanted triples name:type:columns with type R, I, S or L, "
            "as in species:S:1:pos:R:3:forces:R:3"
        )
    found, start = [], 0
    for name, kind, count in triples:
        found.append(_Property(name, kind, slice(start, start + int(count))))
        start += int(count)
    names = [p.name for p in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{place}: Properties has the column {twice[0]} twice; rename one of them")
    for known in ("pos", "species", "numbers"):  # not Z, whose small letter may be a coordinate
        written = spelled(names, known, place)
        if written is not None:
            names[names.index(written)] = known
    return [p._replace(name=name) for p, name in zip(found, names, strict=True)]


def spelled(keys: Iterable[str], name: str, place: str) -> str | None:
    """How `name` is written among `keys`, in any case; None where it is absent.

    Raises:
        ValueError: it is there in more than one spelling.
    """
    found = [key for key in keys if key.casefold() == name.casefold()]
    if len(found) > 1:
        raise ValueError(
            f"{place}: has {' and '.join(found)}, wanted one {name}; remove or rename the others"
        )
    return found[0] if found else None


def _rows(lines: list[str], properties: list[_Property], place: str) -> list[list[str]]:
    rows = [line.split() for line in lines]
    width = properties[-1].columns.stop
    for k, row in enumerate(rows):
        if len(row) != width:
            text = ":".join(f"{p.name}:{p.kind}:{p.columns.stop - p.columns.start}" for p in properties)
            raise ValueError(
                f"{place}: atom {k} has {len(row)} columns, wanted the {width} of Properties={text}"
            )
    return rows


def _column(rows: list[list[str]], column: _Property, place: str) -> np.ndarray:
    n = column.columns.stop - column.columns.start
    words = [row[column.columns] for row in rows]
    try:
        if column.kind in "RI" and "_" in "".join(chain.from_iterable(words)):
            raise ValueError("a number with '_'")  # which python reads over
        if column.kind == "R":  # twice as fast as an array of words
            value = np.fromiter(map(float, chain.from_iterable(words)), np.float64, n * len(words))
        else:
            value = np.array(words, dtype=_TYPES[column.kind])
    except ValueError as error:
        raise ValueError(
            f"{place}: column {column.name}:{column.kind}:{n} cannot be read as numbers ({error})"
        ) from None
    return value.reshape(len(rows)) if n == 1 else value.reshape(len(rows), n)


def _info(line: str, place: str) -> dict[str, str]:
    """The keys of a comment line; ValueError for a key of cell, periodicity or columns that is there
    twice."""
    info: dict[str, str] = {}
    for written, value, apart in _PAIR.findall(line):
        key, text = written.strip("\"'"), (value or apart).strip("\"'{}")
        if key in info and info[key] != text:
            raise ValueError(
                f"{place}: the comment line has the key {key} twice, with different values; remove one of "
                f"them"
            )
        info[key] = text
    return info


def _cell_and_pbc(info: dict[str, str], line: str, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Cell (3, 3) and periodicity (3,) of one frame; their keys are removed from `info`. A cell without `pbc`
    means periodic.

    Raises:
        ValueError: a key that looks like the cell or the periodicity and is none that is known, unless the
            frame says that it is open.
    """
    lattice, pbc = spelled(info, "Lattice", place), spelled(info, "pbc", place)
    cell = (
        np.zeros((3, 3)) if lattice is None else numbers_of(info.pop(lattice), (3, 3), f"{place}: {lattice}")
    )
    text = info.pop(pbc) if pbc is not None else "T T T" if cell.any() else "F F F"
    words = text.replace(",", " ").strip("[] ").split()
    if len(words) != 3 or not set(words) <= set(_TRUTH):
        raise ValueError(f'{place}: {pbc} is {text!r}, wanted three of T and F, as in "T T F"')
    periodic = np.array([_TRUTH[word] for word in words])
    if pbc is None:
        problem = 'says what is periodic, in a form that is not known; write pbc="T T T", "F F F" or as it is'
        _refuse_unread(info, PBC_NAMES, problem, place)
    if lattice is None and (periodic.any() or pbc is None):
        remedy = (
            'write Lattice="…" with nine numbers, vector after vector, or pbc="F F F" for an open structure'
        )
        _refuse_unread(info, CELL_NAMES, f"seems to be a cell, in a form that is not known; {remedy}", place)
        word = _CELL_WORD.search(_PAIR.sub(" ", line))
        if word:
            raise ValueError(
                f"{place}: the comment line has {word[0]!r} without a value of its own, which may mean a "
                f"cell; {remedy}"
            )
    if lattice is not None and periodic.any():
        problem = f"stands beside {lattice}, and which of them is the cell is not known; remove one"
        _refuse_unread(info, CELL_NAMES, problem, place)
    return cell, periodic


def _refuse_unread(info: dict[str, str], names: set[str], problem: str, place: str) -> None:
    for key in info:
        if re.sub(r"[\W_\d]", "", key.casefold()) in names:
            raise ValueError(f"{place}: the key {key} {problem}")


def _parse(lines: list[str], number: int, path: Path) -> XyzFrame:
    place = f"{path}, frame {number}"
    info = _info(lines[0], place)
    properties = _properties(info, place)
    rows = _rows(lines[1:], properties, place)
    columns = {p.name: _column(rows, p, place) for p in properties}
    if "pos" not in columns or not _SPECIES_NAMES & set(columns):
        raise ValueError(f"{place}: Properties has {', '.join(columns)}; wanted pos and species (or Z)")
    cell, pbc = _cell_and_pbc(info, lines[0], place)
    if columns["pos"].shape != (len(rows), 3) or columns["pos"].dtype.kind not in "if":
        raise ValueError(
            f"{place}: pos has shape {columns['pos'].shape} and type {columns['pos'].dtype}, wanted pos:R:3"
        )
    return XyzFrame(
        number=number,
        species=_atomic_numbers(columns, place),
        positions=columns.pop("pos"),
        cell=cell,
        pbc=pbc,
        info=info,
        columns=columns,
    )


def numbers_of(text: str, shape: tuple[int, ...], place: str) -> np.ndarray:
    """The numbers in `text` in `shape`; ValueError begins with `place`."""
    try:
        if "_" in text:  # python takes 1_0 for ten; a file that has it is damaged
            raise ValueError
        return np.array([float(x) for x in re.split(r"[\s,\[\]]+", text.strip()) if x]).reshape(shape)
    except ValueError:
        raise ValueError(f"{place} is {text[:80]!r}, wanted {int(np.prod(shape))} numbers") from None


def _atomic_numbers(columns: dict[str, np.ndarray], place: str) -> np.ndarray:
    """The atomic numbers by the columns Z, numbers or species (all removed), which must not contradict each
    other."""
    found: dict[str, np.ndarray] = {
        key: _read_numbers(columns.pop(key), key, place) for key in ("Z", "numbers") if key in columns
    }
    symbols = columns.pop("species", None)
    if symbols is not None and not found:
        return _read_symbols(symbols, place)
    key = next(iter(found))
    if symbols is not None:  # beside numbers it may hold labels such as H1, which say nothing
        named = [ATOMIC_NUMBER.get(str(symbol)) for symbol in symbols.reshape(len(found[key]), -1)[:, 0]]
        found["species"] = np.array(
            [own if z is None else z for own, z in zip(found[key], named, strict=True)]
        )
    for other in found:
        if (found[key] != found[other]).any():
            atom = int(np.argmax(found[key] != found[other]))
            raise ValueError(
                f"{place}: atom {atom} is of element {found[key][atom]} by {key} and {found[other][atom]} by "
                f"{other}; "
                "correct or remove one of the columns"
            )
    return found[key]


def _read_numbers(numbers: np.ndarray, key: str, place: str) -> np.ndarray:
    if numbers.ndim != 1 or numbers.dtype.kind not in "if":
        raise ValueError(
            f"{place}: {key} has shape {numbers.shape} and type {numbers.dtype}, wanted {key}:I:1, atomic "
            f"numbers"
        )
    if (numbers != np.round(numbers)).any():
        atom = int(np.argmax(numbers != np.round(numbers)))
        raise ValueError(f"{place}: atom {atom} has atomic number {numbers[atom]:g}, wanted a whole number")
    return numbers.astype(np.int64)


def _read_symbols(symbols: np.ndarray, place: str) -> np.ndarray:
    if symbols.ndim != 1 or symbols.dtype.kind != "U":
        raise ValueError(
            f"{place}: species has shape {symbols.shape} and type {symbols.dtype}, wanted species:S:1, "
            f"chemical symbols"
        )
    unknown = [(k, str(s)) for k, s in enumerate(symbols) if s not in ATOMIC_NUMBER]
    if unknown:
        raise ValueError(
            f"{place}: atom {unknown[0][0]} has species {unknown[0][1]!r}, wanted a chemical symbol such as "
            f"H or Cl"
        )
    return np.array([ATOMIC_NUMBER[s] for s in symbols], dtype=np.int64)


def written(keys: Iterable[str], name: str, place: str) -> str | None:
    """How the frame spells the key `name` (in any case); None where it is absent.

    Raises:
        ValueError: it is there in more than one spelling.
    """
    return spelled(keys, name, place)
