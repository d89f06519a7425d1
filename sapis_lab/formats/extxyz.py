"""Extended XYZ (https://github.com/libAtoms/extxyz), compressed or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sapis_lab.formats._base import Block, Reading, Single, joined
from sapis_lab.formats._extxyz_writer import write_extxyz
from sapis_lab.formats._xyz_text import count_frames, read_extxyz

ENDINGS = (".xyz", ".extxyz", ".exyz")
write = write_extxyz


def count(path: Path) -> int:
    """Frames in the file, by hopping from header to header."""
    return count_frames(path)


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames; what stands in comment lines is text, and columns are named as in the file."""
    frames = read_extxyz(path, wanted=reading.wanted, skip=reading.skip)
    return joined(
        Single(f.number, f.species, f.positions, f.cell, f.pbc, f.info, f.columns if reading.labels else {})
        for f in frames
    )
