"""Files `input.data` of RuNNer and n2p2 (Behler, Int. J. Quantum Chem. 115 (2015) 1032; the format:
https://compphysvienna.github.io/n2p2/topics/cfg_file.html): Bohr and Hartree, unless the settings say others.

A structure stands between `begin` and `end`: lines `comment ...`, three of `lattice x y z` for a periodic
one, `atom x y z symbol charge energy fx fy fz`, `energy E` and `charge Q`. Labels are energy, total_charge
(Q) and comment; of atoms forces, charges and atomic_energy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import (
    BROKEN,
    MOST_ATOMS,
    Block,
    Reading,
    Single,
    first_bytes,
    joined,
    open_text,
    picked,
)

ENDINGS = ("input.data", ".runner")
FIXED = {"energy_unit": "Hartree", "length_unit": "Bohr", "stress_unit": "Hartree/Bohr^3"}

_WORDS = ("begin", "comment", "lattice", "atom", "energy", "charge", "end")
_MOST_LINE = 100_000


def is_one(path: Path) -> bool:
    """Whether its first word is `begin`."""
    return first_bytes(path).split(None, 1)[:1] == [b"begin"]


def count(path: Path) -> int:
    """Structures that are whole."""
    with open_text(path) as file:
        return sum(1 for _ in _structures(file, path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The structures."""
    with open_text(path) as file:
        wanted = picked(_structures(file, path), reading, path, lambda: count(path))
        yield from joined(_parsed(lines, k, path, labels=reading.labels) for k, lines in wanted)


def _structures(file: IO[str], path: Path) -> Iterator[list[str]]:
    """The lines between begin and end."""
    lines: list[str] | None = None
    n = 0
    while line := _line(file, path, n):
        word = line.split(None, 1)[0].lower() if line.strip() else ""
        if word == "begin":
            if lines is not None:
                raise ValueError(f"{path}, frame {n}: a second begin, wanted end before it")
            lines = []
        elif word == "end":
            if lines is None:
                raise ValueError(f"{path}, frame {n}: end without begin")
            yield lines
            lines, n = None, n + 1
        elif lines is not None:
            lines.append(line)
            if len(lines) > MOST_ATOMS:
                raise ValueError(f"{path}, frame {n}: more than {MOST_ATOMS:,} lines, wanted end before that")
        elif word:
            raise ValueError(
                f"{path}, frame {n}: a line of {len(line.strip())} characters before begin, wanted a file of "
                "RuNNer or n2p2, whose structures stand between begin and end"
            )
    if lines is not None:
        raise ValueError(
            f"{path}, frame {n}: the file ends after {len(lines)} lines, wanted end; copy it again"
        )


def _line(file: IO[str], path: Path, n: int) -> str:
    try:
        line = file.readline(_MOST_LINE)
    except BROKEN as error:
        raise ValueError(
            f"{path}, frame {n}: the compressed file ends or is damaged here ({error}); copy it again"
        ) from None
    if len(line) >= _MOST_LINE:
        raise ValueError(f"{path}, frame {n}: a line of {_MOST_LINE} characters or more, wanted text")
    return line


def _parsed(lines: list[str], number: int, path: Path, *, labels: bool) -> Single:
    place = f"{path}, frame {number}"
    lattice: list[list[str]] = []
    atoms: list[list[str]] = []
    comments: list[str] = []
    scalars: dict[str, str] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        parts = rest.split()
        match word.lower():
            case "atom":
                atoms.append(parts)
            case "lattice":
                lattice.append(parts)
            case "comment":
                comments.append(_text(rest.strip(), place))
            case "energy" | "charge":
                if len(parts) != 1 or word.lower() in scalars:
                    raise ValueError(f"{place}: wanted one line `{word.lower()} NUMBER`")
                scalars[word.lower()] = parts[0]
            case "":
                pass
            case _:
                raise ValueError(f"{place}: a line begins with {word[:20]!r}, wanted {', '.join(_WORDS)}")
    if not atoms or len(lattice) not in (0, 3):
        raise ValueError(
            f"{place}: {len(atoms)} lines of atoms and {len(lattice)} of lattice, wanted one atom at least "
            "and "
            "three lattice vectors or none"
        )
    short = next((k for k, parts in enumerate(atoms) if len(parts) != 9), None)
    if short is not None:
        raise ValueError(
            f"{place}: atom {short} has {len(atoms[short])} columns, wanted 9: x y z symbol charge energy fx "
            "fy fz"
        )
    unknown = next((k for k, parts in enumerate(atoms) if parts[3] not in ATOMIC_NUMBER), None)
    if unknown is not None:
        raise ValueError(
            f"{place}: atom {unknown} has species {atoms[unknown][3][:20]!r}, wanted a chemical symbol"
        )
    columns = _numbers([parts[:3] + parts[4:] for parts in atoms], (len(atoms), 8), "atom", place)
    cell = _numbers(lattice, (3, 3), "lattice", place) if lattice else np.zeros((3, 3))
    info: dict[str, str | np.ndarray] = {"comment": " ".join(comments)}
    for word, key in (("energy", "energy"), ("charge", "total_charge")):
        if word in scalars:
            info[key] = _numbers(scalars[word], (), word, place)
    of_atoms = {"forces": columns[:, 5:], "charges": columns[:, 3], "atomic_energy": columns[:, 4]}
    return Single(
        number,
        np.array([ATOMIC_NUMBER[parts[3]] for parts in atoms]),
        columns[:, :3],
        cell,
        np.full(3, bool(lattice)),
        info,
        of_atoms if labels else {},
    )


def _numbers(text: object, shape: tuple[int, ...], what: str, place: str) -> np.ndarray:
    try:
        return np.array(text, dtype=np.float64).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{place}: {what} cannot be read as numbers ({str(error)[:80]})") from None


def _text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place}: a comment is not UTF-8 text; convert the file with iconv") from None
    return text
