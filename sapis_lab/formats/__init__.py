"""File formats of structures and labels, one module per format, found by listing the folder.

A format gives the frames of a file in blocks, as the file has them: it converts no unit, turns no sign, and
leaves to the data set (`sapis_lab.data.files`) which key is the energy. What the format itself fixes, such as
ASE's units, stands in its FIXED. Every public module holds

    ENDINGS: endings of file names;   FIXED: settings of a data set that the format fixes
    count(path) -> int
    blocks(path, reading) -> Iterator[Block]

Nothing here unpickles: reading a file runs no code that is in it.
"""

from sapis_lab.formats._base import (
    BLOCK_ATOMS,
    BROKEN,
    Block,
    Format,
    Reading,
    Single,
    Written,
    format_of,
    joined,
    known,
    open_text,
    taken,
    without_compression,
)
from sapis_lab.formats._npy import npy_shape, read_npy
from sapis_lab.formats._npz_arrays import open_npz, read_member, read_numbers
from sapis_lab.formats._xyz_text import XyzFrame, count_frames, numbers_of, read_extxyz, spelled, written

__all__ = [
    "BLOCK_ATOMS",
    "BROKEN",
    "Block",
    "Format",
    "Reading",
    "Single",
    "Written",
    "XyzFrame",
    "count_frames",
    "format_of",
    "joined",
    "known",
    "npy_shape",
    "numbers_of",
    "open_npz",
    "open_text",
    "read_extxyz",
    "read_member",
    "read_npy",
    "read_numbers",
    "spelled",
    "taken",
    "without_compression",
    "written",
]
