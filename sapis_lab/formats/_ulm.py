"""Reading .ulm files, ASE's container of JSON and arrays (ase/io/ulm.py), with every size checked against
the length of the file before anything is allocated. Nothing in it is code: no object of ASE is made.

A file is the magic, a tag of 16 bytes, three int64 (version, number of items, where their offsets stand), and
items: an int64 and that many bytes of JSON, in which `NAME.: {ndarray: [shape, dtype, offset]}` is an array.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sapis_lab.files import check_plain

_MAGIC = (b"- of Ulm", b"AFFormat")
_HEADER = 48
_MOST_JSON = 2**28


class Ulm:
    """An open file; `len` is the number of its items."""

    def __init__(self, path: Path, *, tag: str, name: Path) -> None:
        """Open `path`, which messages call `name`, and whose tag must be `tag`.

        Raises:
            ValueError: it is none, or is cut off.
        """
        self._name, self._size = name, path.stat().st_size
        self._file = path.open("rb")
        start = self._file.read(_HEADER)
        if start[:8] not in _MAGIC:
            raise ValueError(f"{name}: not an ASE trajectory (its first bytes are others), wanted one")
        found = start[8:24].decode("ascii", "replace").rstrip()
        if found != tag:
            raise ValueError(f"{name}: a file of ASE with the tag {found!r}, wanted {tag!r}")
        if len(start) < _HEADER:
            raise ValueError(f"{name}: ends in its header, after {len(start)} bytes; copy it again")
        _, self._n, where = (int(i) for i in np.frombuffer(start, "<i8", 3, 24))
        if not 0 <= self._n <= self._size // 8:
            raise ValueError(
                f"{name}: its header promises {self._n} frames, and the file has {self._size} bytes; copy "
                "it again"
            )
        self._offsets = np.frombuffer(self._bytes(where, 8 * self._n, "the offsets of its frames"), "<i8")

    def __len__(self) -> int:
        return self._n

    def __enter__(self) -> Ulm:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def item(self, k: int) -> dict[str, Any]:
        """Item `k` with its arrays. ValueError names it."""
        what = f"frame {k}"
        at = int(self._offsets[k])
        n = int(np.frombuffer(self._bytes(at, 8, what), "<i8")[0])
        if not 0 <= n <= _MOST_JSON:
            raise ValueError(f"{self._name}, {what}: its text has {n} bytes, wanted 0 to {_MOST_JSON}")
        try:
            value = json.loads(self._bytes(at + 8, n, what))
            check_plain(value, source=f"{self._name}, {what}")
        except (ValueError, RecursionError) as error:
            told = str(error)
            told = told if told.startswith(str(self._name)) else f"{self._name}, {what}: no JSON ({told})"
            raise ValueError(told) from None
        if not isinstance(value, dict):
            raise ValueError(f"{self._name}, {what}: wanted a JSON object")
        return self._filled(value, what, "<" if value.pop("_little_endian", True) else ">")

    def _filled(self, value: Mapping[str, Any], what: str, order: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            if key.endswith(".") and isinstance(inner, dict) and "ndarray" in inner:
                found[key[:-1]] = self._array(inner["ndarray"], f"{what}, {key[:-1]}", order)
            elif key.endswith(".") and isinstance(inner, dict):
                found[key[:-1]] = self._filled(inner, what, order)
            else:
                found[key] = inner
        return found

    def _array(self, said: Any, what: str, order: str) -> np.ndarray:
        try:
            shape, kind, at = said
            dtype = np.dtype(str(kind)).newbyteorder("<" if order == "<" else ">")
            shape = tuple(int(n) for n in shape)
            at = int(at)
        except (TypeError, ValueError):
            raise ValueError(f"{self._name}, {what}: an array described as {str(said)[:60]!r}") from None
        if dtype.kind not in "biufcSU" or any(n < 0 for n in shape):
            raise ValueError(f"{self._name}, {what}: an array of {kind} in shape {shape}, wanted numbers")
        n_bytes = dtype.itemsize
        for n in shape:
            n_bytes *= n
        return np.frombuffer(self._bytes(at, n_bytes, what), dtype).reshape(shape)

    def _bytes(self, at: int, n: int, what: str) -> bytes:
        if at < 0 or at + n > self._size:
            raise ValueError(
                f"{self._name}, {what}: wanted {n} bytes from byte {at}, and the file has {self._size}; it "
                "is cut off or damaged, copy it again"
            )
        self._file.seek(at)
        return self._file.read(n)
