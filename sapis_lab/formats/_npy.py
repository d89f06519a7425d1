"""Reading .npy files of foreign data: never unpickles, and says which file was wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_npy(path: Path) -> np.ndarray:
    """The array of integers or floats in `path`; ValueError if the file is cut off, pickled, or holds
    anything else."""
    return np.asarray(_open(path))


def map_npy(path: Path) -> np.ndarray:
    """The array in `path`, mapped and not read; ValueError as for `read_npy`."""
    return _open(path)


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array in `path`, whose numbers are not read; ValueError as for `read_npy`."""
    return tuple(_open(path).shape)


def _open(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            start = file.read(len(np.lib.format.MAGIC_PREFIX))
        if start != np.lib.format.MAGIC_PREFIX:
            # np.load would take it for a pickle, or for an archive.
            raise ValueError("it does not begin as one")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: not a whole .npy array of numbers ({error}), wanted one as numpy.save writes it; "
            "copy it again (pickled files are refused because reading them runs code)"
        ) from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: array of type {array.dtype}, wanted numbers")
    return array
