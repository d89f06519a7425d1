"""What every file format offers: its frames in blocks, as the file has them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from sapis_lab import config

COMPRESSED = {".gz": gzip, ".xz": lzma, ".lzma": lzma, ".bz2": bz2}
"""Endings of compressed files, and what opens them."""
BLOCK_ATOMS = 50_000
"""Atoms of a block, about: 10 MB with the text they are read from."""


@dataclass(frozen=True)
class Block:
    """Several frames with the same keys, in the units and signs of their file, their atoms joined in
    order."""

    numbers: np.ndarray
    """(n_frames,) number of each frame in the file, from 0."""
    n_atoms: np.ndarray
    """(n_frames,)."""
    species: np.ndarray
    """(n_atoms_total,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms_total, 3)."""
    cell: np.ndarray
    """(n_frames, 3, 3), lattice vectors as rows; zeros without one."""
    pbc: np.ndarray
    """(n_frames, 3) bool."""
    frame_labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the frames have by key, (n_frames, ...): numbers, or text (type object), which may be of numbers
    that the format does not understand."""
    atom_labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the atoms have by key, (n_atoms_total, ...)."""

    def __len__(self) -> int:
        return len(self.numbers)

    def chosen(self, keep: np.ndarray) -> Block:
        """The frames `keep`, (n_frames,) bool."""
        if keep.all():
            return self
        atoms = np.repeat(keep, self.n_atoms)
        return replace(
            self,
            numbers=self.numbers[keep],
            n_atoms=self.n_atoms[keep],
            species=self.species[atoms],
            positions=self.positions[atoms],
            cell=self.cell[keep],
            pbc=self.pbc[keep],
            frame_labels={name: value[keep] for name, value in self.frame_labels.items()},
            atom_labels={name: value[atoms] for name, value in self.atom_labels.items()},
        )


class Reading(NamedTuple):
    """How a file is to be read."""

    wanted: slice = slice(None)
    """Which of its frames."""
    skip: int = 0
    """How many of these to leave out at the start: what is there already of a conversion."""
    labels: bool = True
    """Whether labels of atoms are wanted; labels of frames are always given."""
    names: Mapping[str, str | None] = {}
    """What the file calls species, positions, energy, forces, cell, pbc where its format leaves that open;
    None for a label that is not wanted."""
    keys: tuple[str, ...] = ()
    """Further labels that are wanted, by key: formats that read what they are asked for need no more."""


class Format(NamedTuple):
    """One file format: what its module says."""

    name: str
    endings: tuple[str, ...]
    """Of file names, in small letters, without those of compression."""
    fixed: Mapping[str, Any]
    """Settings of a data set that the format fixes, such as units."""
    module: Any

    def blocks(self, path: Path, reading: Reading | None = None) -> Iterator[Block]:
        """The wanted frames in their order, with the same keys within a block. ValueError names file and
        frame of what makes no sense."""
        return self.module.blocks(path, reading or Reading())

    def count(self, path: Path) -> int:
        """Frames of the file."""
        return int(self.module.count(path))


def known() -> dict[str, Format]:
    """All formats by name: the public modules of `sapis_lab/formats` and of `formats/` in folders of kinds
    from outside. Each holds ENDINGS, perhaps FIXED, and the functions count and blocks."""
    return {name: _format(name) for name in config.kinds("formats")}


def _format(name: str) -> Format:
    module = config.kind_module("formats", name)
    return Format(name, tuple(module.ENDINGS), dict(getattr(module, "FIXED", {})), module)


def format_of(path: Path, name: str = "auto") -> Format:
    """The format called `name`, or with auto the one that the ending of `path` belongs to; extended XYZ where
    none does.

    Raises:
        ValueError: files with such an ending are pickled, or there is no format of that name.
    """
    if name != "auto":
        return _format(name)
    plain = without_compression(path).name.lower()
    if plain.endswith((".pkl", ".pickle", ".pt", ".pth", ".lmdb")):
        raise ValueError(
            f"{path}: pickled formats are refused because reading them runs code; convert it to extended XYZ "
            f"or .npz"
        )
    fits = [(len(end), f.name) for f in known().values() for end in f.endings if plain.endswith(end)]
    return _format(max(fits)[1]) if fits else _format("extxyz")


def without_compression(path: Path) -> Path:
    """`path` without an ending such as .gz."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def open_text(path: Path) -> IO[str]:
    """A text file, compressed or not, for reading. Bytes that are not UTF-8 become surrogates instead of an
    error, which would come from a read-ahead of unknown frame."""
    module = COMPRESSED.get(path.suffix.lower())
    binary: Any = path.open("rb") if module is None else module.open(path, "rb")  # type: ignore[attr-defined]
    return io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape")


BROKEN = (EOFError, lzma.LZMAError, gzip.BadGzipFile, OSError)
"""What reading a damaged compressed file raises."""


def taken(n_frames: int, wanted: slice, path: Path, *, skip: int = 0) -> range:
    """Numbers of the frames to read of a file of `n_frames`, without the first `skip` of the wanted ones.
    ValueError for a slice that runs backwards."""
    numbers = range(n_frames)[wanted]
    if numbers.step < 0:
        raise ValueError(
            f"{path}: a slice that runs backwards, [{wanted.start}:{wanted.stop}:{wanted.step}]; frames are "
            f"read forwards"
        )
    return numbers[skip:]


class Single(NamedTuple):
    """One frame, in the units and signs of its file."""

    number: int
    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3)."""
    cell: np.ndarray
    """(3, 3), lattice vectors as rows; zeros without one."""
    pbc: np.ndarray
    """(3,) bool."""
    info: Mapping[str, Any]
    """What the frame has by key: text, numbers or arrays of numbers."""
    columns: Mapping[str, np.ndarray]
    """What the atoms have by key, (n_atoms, ...)."""


def joined(frames: Iterable[Single], *, most_atoms: int = BLOCK_ATOMS) -> Iterator[Block]:
    """Frames that follow each other with the same keys and shapes, as blocks."""
    held: list[Single] = []
    n_atoms, form = 0, None
    for frame in frames:
        this = _form(frame)
        if held and (this != form or n_atoms + len(frame.species) > most_atoms):
            yield _block(held)
            held, n_atoms = [], 0
        held.append(frame)
        n_atoms, form = n_atoms + len(frame.species), this
    if held:
        yield _block(held)


def _form(frame: Single) -> tuple[Any, ...]:
    info = sorted((key, _is_text(value), np.shape(value)) for key, value in frame.info.items())
    columns = sorted((key, value.dtype.kind, value.shape[1:]) for key, value in frame.columns.items())
    return tuple(info), tuple(columns)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _block(frames: list[Single]) -> Block:
    first = frames[0]
    info = {}
    for key, value in first.info.items():
        values = [frame.info[key] for frame in frames]
        info[key] = np.array(values, dtype=object) if _is_text(value) else np.array(values)
    return Block(
        numbers=np.array([frame.number for frame in frames]),
        n_atoms=np.array([len(frame.species) for frame in frames]),
        species=np.concatenate([frame.species for frame in frames]),
        positions=np.concatenate([frame.positions for frame in frames]),
        cell=np.array([frame.cell for frame in frames]),
        pbc=np.array([frame.pbc for frame in frames]),
        frame_labels=info,
        atom_labels={key: np.concatenate([frame.columns[key] for frame in frames]) for key in first.columns},
    )
