"""What every file format offers: its frames in blocks, as the file has them."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from sapis_lab import config

COMPRESSED = {".gz": gzip, ".xz": lzma, ".lzma": lzma, ".bz2": bz2}
"""Endings of compressed files, and what opens them."""
BLOCK_ATOMS = 50_000
"""Atoms of a block, about: 10 MB with the text they are read from."""
MOST_ATOMS = 10_000_000
"""Atoms of a frame: a header that promises more is damaged or hostile, and nothing is allocated for it."""
PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".lmdb", ".bundle")
"""Endings of files that are pickled, or may be."""
_EXTRAS = {"h5py": "data", "mdtraj": "data", "lmdb": "data", "ase_db_backends": "data"}
"""Outside packages that formats import on first use, and the extra of this package that brings them."""
T = TypeVar("T")


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
    unread: tuple[str, ...] = ()
    """Keys that the file has besides, and that nobody asked for."""

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


class Written(NamedTuple):
    """What a writer did."""

    n_frames: int
    notes: tuple[str, ...] = ()
    """What the format cannot hold, and what was done about it."""


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
    energy: str | None = "energy"
    """Key of the energy, for formats that read what they are asked for; None: it is not wanted."""
    forces: str | None = "forces"
    """Key of the forces."""
    every: bool = False
    """Whether all labels are wanted, by formats that read what they are asked for."""
    may_lack: bool = False
    """Whether energy and forces may be absent from the file."""
    topology: Path | None = None
    """File with the elements of a trajectory that has positions alone."""


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

    @property
    def can_write(self) -> bool:
        """Whether files of this format can be written."""
        return hasattr(self.module, "write")

    def write(self, path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
        """Write frames in eV and Å, whose labels have the names of `_writing`, to `path`, which will be
        called `name`. ValueError for what the format cannot hold."""
        found: Written = self.module.write(path, blocks, name=name)
        return found

    def units_told(self, path: Path, reading: Reading) -> dict[str, str]:
        """Units of positions, energy and forces that the file itself states, as far as it does."""
        told = getattr(self.module, "units_told", None)
        return {} if told is None else dict(told(path, reading))

    def is_one(self, path: Path) -> bool:
        """Whether the contents of `path` say that it is of this format, which not every format can tell."""
        return bool(getattr(self.module, "is_one", lambda path: False)(path))


def known() -> dict[str, Format]:
    """All formats by name: the public modules of `sapis_lab/formats` and of `formats/` in folders of kinds
    from outside. Each holds ENDINGS, perhaps FIXED, and the functions count and blocks."""
    return {name: _format(name) for name in config.kinds("formats")}


def _format(name: str) -> Format:
    module = config.kind_module("formats", name)
    return Format(name, tuple(module.ENDINGS), dict(getattr(module, "FIXED", {})), module)


def format_of(path: Path, name: str = "auto") -> Format:
    """The format called `name`, or with auto the one that the ending of `path` belongs to; extended XYZ where
    none does. Of several formats with the same ending it is the one whose `is_one(path)` says so, and a
    folder belongs to the format that knows it.

    Raises:
        ValueError: files with such an ending are pickled, there is no format of that name, or the file is
            binary and none is known for it.
    """
    if name != "auto":
        return _format(name)
    plain = without_compression(path).name.lower()
    if plain.endswith(PICKLED):
        raise ValueError(
            f"{path}: pickled formats are refused because reading them runs code; convert it to extended XYZ "
            f"or .npz"
        )
    formats = list(known().values())
    if path.is_dir():
        fits = [f for f in formats if f.is_one(path)]
        if not fits:
            raise ValueError(
                f"{path}: wanted a file, got a folder, and none of a known format (systems of DeePMD-kit, "
                "with "
                "type.raw and set.*); name the files in it"
            )
        return fits[0]
    lengths = {f.name: max((len(e) for e in f.endings if plain.endswith(e)), default=0) for f in formats}
    longest = max(lengths.values())
    fits = [f for f in formats if longest and lengths[f.name] == longest]
    if len(fits) > 1:
        fits = [f for f in fits if f.is_one(path)] or [f for f in fits if not hasattr(f.module, "is_one")]
        if not fits:
            several = ", ".join(name for name, length in lengths.items() if length == longest)
            raise ValueError(
                f"{path}: may be of the formats {several} by its name, and holds none of them; set format"
            )
    if not fits:
        _refuse_binary(path)
    return fits[0] if fits else _format("extxyz")


_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "HDF5: set format: hdf5",
    b"SQLite format 3\0": "an SQLite database: set format: ase_db",
    b"- of Ulm": "an ASE trajectory: set format: ase_traj",
    b"PK\x03\x04": "a zip archive: set format: npz if numpy wrote it",
    b"\x93NUMPY": "a single array, .npy: wanted .npz, or a folder of DeePMD-kit",
    b"\x1f\x8b": "compressed with gzip: give it the ending .gz",
    b"\xfd7zXZ": "compressed with xz: give it the ending .xz",
    b"BZh": "compressed with bzip2: give it the ending .bz2",
    b"\x80\x02": "a pickle, which is refused because reading it runs code",
    b"\x80\x03": "a pickle, which is refused because reading it runs code",
    b"\x80\x04": "a pickle, which is refused because reading it runs code",
    b"\x80\x05": "a pickle, which is refused because reading it runs code",
}


def _refuse_binary(path: Path) -> None:
    """ValueError for a file that is no text and whose ending says nothing."""
    if not path.is_file():
        return
    start = first_bytes(path)
    looks = next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)
    if looks is None and b"\0" not in start:
        return
    raise ValueError(
        f"{path}: a binary file whose ending belongs to no format ({looks or 'nor do its first bytes'}); "
        f"known are {endings_told()}"
    )


def endings_told() -> str:
    """The formats with their endings, for messages."""
    return ", ".join(f"{f.name} ({' '.join(f.endings)})" for f in known().values())


def first_bytes(path: Path, n: int = 4096) -> bytes:
    """The first `n` bytes of a file, unpacked if it is compressed; none of one that cannot be read."""
    try:
        with open_binary(path) as file:
            return file.read(n)
    except BROKEN:
        return b""


def without_compression(path: Path) -> Path:
    """`path` without an ending such as .gz."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def open_binary(path: Path) -> IO[bytes]:
    """A file, compressed or not, for reading bytes."""
    module: Any = COMPRESSED.get(path.suffix.lower())
    opened: IO[bytes] = path.open("rb") if module is None else module.open(path, "rb")
    return opened


def open_text(path: Path) -> IO[str]:
    """A text file, compressed or not, for reading. Bytes that are not UTF-8 become surrogates instead of an
    error, which would come from a read-ahead of unknown frame."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="surrogateescape")


@contextmanager
def uncompressed(path: Path) -> Iterator[Path]:
    """`path`, or while the block runs an unpacked copy of a compressed file, for what is not read in order.

    Raises:
        ValueError: the compressed file ends or is damaged.
    """
    if path.suffix.lower() not in COMPRESSED:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sapis-") as folder:
        copy = Path(folder) / path.stem
        with open_binary(path) as packed, copy.open("wb") as plain:
            try:
                shutil.copyfileobj(packed, plain, 2**20)
            except BROKEN as error:
                raise ValueError(
                    f"{path}: the compressed file ends or is damaged ({error}); copy it again"
                ) from None
        yield copy


def package(name: str, path: Path) -> Any:
    """An outside package that the format of `path` needs, imported on first use.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        extra = _EXTRAS[name.split(".")[0]]
        raise ImportError(
            f"{path}: reading it needs the package {name.split('.')[0].replace('_', '-')}, which is not "
            f"installed: pip install 'sapis-lab[{extra}]'",
            name=name,
        ) from None


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


def picked(
    frames: Iterable[T], reading: Reading, path: Path, count: Callable[[], int]
) -> Iterator[tuple[int, T]]:
    """(number, frame) of the wanted ones of `frames`, which are all frames of a file from its start. They are
    counted only where the slice needs it."""
    wanted = reading.wanted
    ends = (wanted.start or 0, 0 if wanted.stop is None else wanted.stop)
    if min(ends) < 0:
        numbers = taken(count(), wanted, path, skip=reading.skip)
        start, stop, step = numbers.start, numbers.stop, numbers.step
    else:
        taken(0, wanted, path)
        step = wanted.step or 1
        start, stop = (wanted.start or 0) + reading.skip * step, wanted.stop
    for number, frame in enumerate(frames):
        if stop is not None and number >= stop:
            return
        if number >= start and (number - start) % step == 0:
            yield number, frame


def check_n_atoms(n_atoms: int, place: str) -> int:
    """`n_atoms`; ValueError where a frame can not have so many atoms."""
    if not 1 <= n_atoms <= MOST_ATOMS:
        raise ValueError(f"{place}: {n_atoms} atoms, wanted 1 to {MOST_ATOMS:,}; is the file damaged?")
    return n_atoms


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


def joined(frames: Iterable[Single], *, most_atoms: int | None = None) -> Iterator[Block]:
    """Frames that follow each other with the same keys and shapes, as blocks."""
    held: list[Single] = []
    n_atoms, form, most_atoms = 0, None, most_atoms or BLOCK_ATOMS
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
