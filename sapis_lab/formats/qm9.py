"""Files of QM9 as published (Ramakrishnan et al., Sci. Data 1 (2014) 140022): one molecule a file, a folder
of such files, or the archive dsgdb9nsd.xyz.tar.bz2, read without unpacking it.

Line 2 of a file is `gdb`, the number of the molecule, and 15 properties in Hartree, Bohr and Debye; then come
atoms with Mulliken charges, harmonic frequencies, SMILES and InChI. Numbers may be written `1.23*^-6`. Labels
are the properties under the names below (energies of molecules at 0 K are U0), gdb, smiles, and of atoms
charges. Positions are in Å.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._base import (
    BROKEN,
    Block,
    Reading,
    Single,
    first_bytes,
    joined,
    open_binary,
    picked,
    without_compression,
)

ENDINGS = (".xyz", ".xyz.tar")
FIXED = {"energy_unit": "Hartree", "length_unit": "Angstrom"}

PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""Properties of a molecule in their order: GHz, Debye, Bohr³, Hartree (homo, lumo, gap, zpve, U0, U, H, G),
Bohr² (r2), cal/mol/K (Cv)."""
_MOST = 1_000_000
"""Bytes of a molecule."""


def is_one(path: Path) -> bool:
    """Whether it is a molecule of QM9, a folder of them, or an archive."""
    if path.is_dir():
        return any(True for _ in path.glob("dsgdb9nsd_*.xyz"))
    if _is_archive(path):
        return True
    lines = first_bytes(path, 200).split(b"\n")
    return len(lines) > 1 and lines[1].startswith(b"gdb")


def _is_archive(path: Path) -> bool:
    return without_compression(path).suffix.lower() == ".tar"


def count(path: Path) -> int:
    """Molecules."""
    return sum(1 for _ in _members(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The molecules, in the order of the archive or of the names of files."""
    wanted = picked(_members(path), reading, path, lambda: count(path))
    return joined(_parsed(text, k, f"{path}, frame {k} ({name})", reading) for k, (name, text) in wanted)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, contents) of the files."""
    if path.is_dir():
        for file in sorted(path.glob("dsgdb9nsd_*.xyz")):
            yield file.name, _limited(file.read_bytes(), f"{path}, {file.name}")
    elif not _is_archive(path):
        with open_binary(path) as alone:
            yield path.name, _limited(alone.read(_MOST + 1), str(path))
    else:
        n = 0
        try:
            with open_binary(path) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".xyz"):
                        content = archive.extractfile(member)
                        assert content is not None
                        yield member.name, _limited(content.read(_MOST + 1), f"{path}, {member.name}")
                        n += 1
        except (tarfile.TarError, *BROKEN) as error:
            raise ValueError(
                f"{path}, frame {n}: the archive ends or is damaged here ({error}); copy it again"
            ) from None


def _limited(text: bytes, place: str) -> bytes:
    if len(text) > _MOST:
        raise ValueError(f"{place}: more than {_MOST} bytes, wanted one molecule of QM9")
    return text


def _parsed(text: bytes, number: int, place: str, reading: Reading) -> Single:
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{place}: is not UTF-8 text, wanted a molecule of QM9") from None
    words = lines[1].split() if len(lines) > 1 else []
    n = int(lines[0]) if lines and lines[0].strip().isdecimal() else 0
    if words[:1] != ["gdb"] or len(words) != 2 + len(PROPERTIES) or n < 1:
        raise ValueError(
            f"{place}: wanted the number of atoms, and a line `gdb NUMBER` with {len(PROPERTIES)} properties"
        )
    rows = [line.split() for line in lines[2 : 2 + n]]
    bad = next((k for k, row in enumerate(rows) if len(row) != 5 or row[0] not in ATOMIC_NUMBER), None)
    if len(rows) < n or bad is not None:
        what = (
            f"the file ends after {len(rows)} of {n} atoms" if bad is None else f"atom {bad} is no such line"
        )
        raise ValueError(f"{place}: {what}, wanted lines `symbol x y z charge`")
    columns = _numbers([word for row in rows for word in row[1:]], place).reshape(n, 4)
    info: dict[str, str | np.ndarray] = dict(zip(PROPERTIES, _numbers(words[2:], place), strict=True))
    info["gdb"] = np.array(int(words[1]) if words[1].isdecimal() else -1)
    if len(lines) > 3 + n:
        info["smiles"] = (lines[3 + n].split() or [""])[0]
    return Single(
        number,
        np.array([ATOMIC_NUMBER[row[0]] for row in rows]),
        columns[:, :3],
        np.zeros((3, 3)),
        np.zeros(3, bool),
        info,
        {"charges": columns[:, 3]} if reading.labels else {},
    )


def _numbers(words: list[str], place: str) -> np.ndarray:
    try:
        return np.array([float(word.replace("*^", "e")) for word in words])
    except ValueError as error:
        raise ValueError(f"{place}: {error}, wanted a number") from None
