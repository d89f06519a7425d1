"""HDF5 files of foreign data: opened for reading, with nothing followed that leads out of the file, and no
number believed that the file does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import first_bytes, package, uncompressed

MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_DEPTH = 8
_MOST_RATIO = 2000
"""Bytes of a dataset for each that is stored: what gzip can do at most is 1032."""


def is_hdf5(path: Path) -> bool:
    """Whether the file begins as HDF5."""
    return first_bytes(path, 8) == MAGIC


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for reading.

    Raises:
        ValueError: it is none, or cut off.
    """
    h5py = package("h5py", path)
    with uncompressed(path) as plain:
        if not is_hdf5(plain):
            raise ValueError(f"{path}: not an HDF5 file (its first bytes are others), wanted one")
        try:
            file = h5py.File(plain, "r", locking=False)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read as HDF5 ({_short(error)}); copy it again") from None
        with file:
            yield file


class Datasets(Mapping[str, Any]):
    """Datasets of a group by name, each opened when it is asked for: files may have millions."""

    def __init__(self, group: Any, names: list[str]) -> None:
        self._group, self._names = group, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._group[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def groups(file: Any, path: Path) -> Iterator[tuple[str, Datasets]]:
    """(name, datasets by name) of every group, in the order of names; links to other places are refused."""
    yield from _groups(file, path, "", 0)


def _groups(group: Any, path: Path, name: str, depth: int) -> Iterator[tuple[str, Datasets]]:
    h5py = package("h5py", path)
    place = f"{path}, group {name or '/'}"
    if depth > _MOST_DEPTH:
        raise ValueError(f"{path}, group {name[:80]}: groups nested more than {_MOST_DEPTH} deep")
    names: list[str] = []
    inner: list[str] = []
    try:
        for key in group:
            encoded = key.encode("utf-8", "surrogateescape")
            if group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
                raise ValueError(
                    f"{place}: {key[:80]} is a link to another place, wanted the data themselves"
                )
            kind = h5py.h5o.get_info(group.id, encoded).type
            if kind == h5py.h5o.TYPE_GROUP:
                inner.append(key)
            elif kind == h5py.h5o.TYPE_DATASET:
                names.append(key)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{place}: cannot be read ({_short(error)}); copy it again") from None
    yield name, Datasets(group, names)
    for key in inner:
        try:
            one = group[key]
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"{place}: cannot be read ({_short(error)}); copy it again") from None
        yield from _groups(one, path, f"{name}/{key}" if name else key, depth + 1)


def check_stored(dataset: Any, place: str) -> None:
    """ValueError where a dataset lies in another file, or promises far more numbers than it holds."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{place} lies in another file, wanted the numbers themselves")
    stored, promised = dataset.id.get_storage_size(), dataset.dtype.itemsize * _product(dataset.shape)
    if promised > _MOST_RATIO * stored + 2**20:
        raise ValueError(
            f"{place} has shape {dataset.shape}, {promised} bytes, and holds {stored}; is the file damaged?"
        )


def _product(shape: tuple[int, ...]) -> int:
    n = 1
    for k in shape:
        n *= int(k)
    return n


def rows(dataset: Any, some: slice, place: str) -> np.ndarray:
    """Rows of a dataset of numbers.

    Raises:
        ValueError: they cannot be read, or are no numbers.
    """
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{place} is of type {dataset.dtype}, wanted numbers")
    try:
        return np.asarray(dataset[some])
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{place} cannot be read ({_short(error)}); is the file cut off? copy it again"
        ) from None


def texts(dataset: Any, place: str, *, most: int = 10_000_000) -> list[str]:
    """A dataset of text, flat."""
    check_stored(dataset, place)
    if dataset.size > most:
        raise ValueError(f"{place} has {dataset.size} texts, wanted at most {most}")
    try:
        values = np.asarray(dataset[()]).reshape(-1)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{place} cannot be read ({_short(error)}); copy it again") from None
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]


def is_text(dataset: Any) -> bool:
    """Whether a dataset holds text."""
    h5py = package("h5py", Path(str(dataset.file.filename)))
    return dataset.dtype.kind in "SU" or h5py.check_string_dtype(dataset.dtype) is not None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
