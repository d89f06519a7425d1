"""Reading .npz archives of foreign data: never unpickles, and says which file and which array were wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np


def open_npz(path: Path) -> np.lib.npyio.NpzFile:
    """The archive at `path`; ValueError if it is not one (a pickle with the ending .npz, for example)."""
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"{path}: not a .npz archive of plain arrays ({error}); "
            "pickled files are refused because reading them runs code"
        ) from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: a single array, wanted a .npz archive")
    return archive


def read_numbers(
    archive: np.lib.npyio.NpzFile, key: str, path: Path, *, wanted: str = "numbers"
) -> np.ndarray:
    """The array `key`, of integers or floats; ValueError if it holds anything else, such as text."""
    array = read_member(archive, key, path)
    if array.dtype.kind not in "iuf":
        example = repr(array.reshape(-1)[0].item()) if array.size else "none"
        raise ValueError(
            f"{path}: array {key!r} is of type {array.dtype} (the first is {example}), wanted {wanted}"
        )
    return array


def read_member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    """The array `key`; ValueError if it is absent or pickled (an object array)."""
    if key not in archive.files:
        raise ValueError(f"{path}: no array {key!r}; it has {', '.join(archive.files)}")
    try:
        return archive[key]
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise ValueError(
                f"{path}: array {key!r} is pickled (an object array), which is refused because reading it "
                f"runs code; "
                "save it as plain numbers"
            ) from None
        raise ValueError(f"{path}: array {key!r} cannot be read: {error}") from None
