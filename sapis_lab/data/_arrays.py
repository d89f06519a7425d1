"""A folder of .npy files that only ever grow along their first axis, with a manifest that says how far they
are valid.

Appending writes behind the valid end of every file, then rewrites the .npy headers in place, then replaces
`manifest.json` in one step. The manifest alone decides what is there: a process killed at any moment leaves
bytes behind the valid end, which readers do not look at and the next writer cuts off. The files stay ordinary
.npy files, readable by `np.load` anywhere, and are memory mapped, so a folder of 10⁸ frames opens as fast as
one of ten.

The manifest also holds a running CRC-32 of every array, and a checksum of itself: small folders are compared
with them whenever they are opened, large ones on request (`damaged`), so that a bit that a disk has turned
over is found before anything is trained on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.errors import ConfigError
from sapis_lab.files import make_folder, read_json, with_checksum, without_checksum, write_bytes, write_text

MANIFEST = "manifest.json"
CHECKED_BYTES = 64_000_000
"""Folders up to this size are compared with their checksums whenever they are opened (0.05 s)."""
REMOVE = "delete its folder to make it again"
DAMAGED = (
    f"not what was written there (its checksum is of other bytes): the disk or somebody changed it; {REMOVE}"
)
_HEADER = 128
"""Bytes of the .npy header. numpy pads headers to 64 bytes and leaves room for a growing first axis; 128 fits
every array here."""


class Column(NamedTuple):
    """One array: its type and the shape of one row."""

    dtype: str
    row: tuple[int, ...] = ()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of arrays. MissingFile when there is none; ConfigError when it is damaged, or
    was changed after it was written."""
    path = Path(folder) / MANIFEST
    manifest = without_checksum(
        read_json(path, then=REMOVE, keys=["arrays"]), source=str(path), advice=REMOVE
    )
    columns = manifest["arrays"]
    if not isinstance(columns, dict) or not all(_is_column(column) for column in columns.values()):
        raise ConfigError(
            f"{path}: arrays: wanted dtype, row and n of every array, got {str(columns)[:80]}; {REMOVE}"
        )
    return manifest


def _is_column(column: Any) -> bool:
    try:
        if np.dtype(column["dtype"]).kind not in "biuf":  # no objects, which would have to be unpickled
            return False
        return (
            all(isinstance(k, int) and 0 <= k < 2**31 for k in column["row"])
            and isinstance(column["n"], int)
            and column["n"] >= 0
        )
    except (KeyError, TypeError, ValueError, SyntaxError):
        return False


class GrowingArrays:
    """Named arrays that grow by appending, `open` for reading and `create` or `open(writable=True)` for
    writing."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, writable: bool) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self.writable = writable
        self._mapped: dict[str, np.ndarray] = {}

    @classmethod
    def create(cls, folder: Path, columns: Mapping[str, Column], **facts: Any) -> GrowingArrays:
        """An empty folder of arrays; what an unfinished attempt left there is replaced. `facts` go into the
        manifest."""
        folder = Path(folder)
        make_folder(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        schema = {
            name: {"dtype": np.dtype(c.dtype).str, "row": list(c.row), "n": 0, "crc32": 0}
            for name, c in columns.items()
        }
        arrays = cls(folder, {"arrays": schema, **facts}, writable=True)
        for name in columns:
            write_bytes(arrays.path(name), arrays._header(name, 0))
        arrays.write_manifest()
        return arrays

    @classmethod
    def open(cls, folder: Path, *, writable: bool = False) -> GrowingArrays:
        """The arrays in `folder`, which are compared with their checksums if they are small.

        Raises:
            ValueError: it holds none, files are shorter than its manifest says, or something was changed
            after it was written.
        """
        folder = Path(folder)
        try:
            manifest = read_manifest(folder)
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no {MANIFEST}: it is not a store, or its making was interrupted at the start"
            ) from None
        arrays = cls(folder, manifest, writable=writable)
        for name in manifest["arrays"]:
            wanted = arrays._end(name)
            got = arrays.path(name).stat().st_size if arrays.path(name).exists() else 0
            if got < wanted:
                raise ValueError(
                    f"{arrays.path(name)} has {got} bytes, its manifest promises {wanted}; it was damaged, "
                    f"make it again"
                )
            if writable and got > wanted:
                os.truncate(arrays.path(name), wanted)
            if writable:
                arrays._rewrite_header(name)
        if arrays.n_bytes <= CHECKED_BYTES and (damaged := arrays.damaged()):
            raise ValueError(f"{arrays.path(damaged[0])}: {DAMAGED}")
        return arrays

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(self._end(name) - _HEADER for name in self.manifest["arrays"])

    def damaged(self) -> list[str]:
        """Names of the arrays whose valid rows are not those that were written; all of them are read. Arrays
        of folders that older versions made have no checksum, and count as whole."""
        return [
            name
            for name, column in self.manifest["arrays"].items()
            if column.get("crc32") not in (None, crc32(self[name]))
        ]

    def __getitem__(self, name: str) -> np.ndarray:
        """The valid rows of array `name`, memory mapped and read-only."""
        if name not in self._mapped:
            column = self.manifest["arrays"][name]
            shape = (column["n"], *column["row"])
            if 0 in shape:
                value = np.zeros(shape, column["dtype"])
            else:
                # A plain view: indexing the np.memmap subclass is five times slower.
                value = np.memmap(
                    self.path(name), dtype=column["dtype"], mode="r", offset=_HEADER, shape=shape
                ).view(np.ndarray)
            value.flags.writeable = False
            self._mapped[name] = value
        return self._mapped[name]

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["arrays"]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def append(self, rows: Mapping[str, np.ndarray], **facts: Any) -> None:
        """Add `rows` at the end of every array; all of them become visible together, or none."""
        if not self.writable:
            raise ValueError(f"{self.folder} is open for reading; open it with writable=True to append")
        if set(rows) != set(self.manifest["arrays"]):
            raise ValueError(
                f"{self.folder}: got arrays {sorted(rows)}, wanted {sorted(self.manifest['arrays'])}"
            )
        sums: dict[str, int] = {}
        for name, value in rows.items():
            column = self.manifest["arrays"][name]
            value = np.ascontiguousarray(value, dtype=column["dtype"])
            if list(value.shape[1:]) != column["row"]:
                raise ValueError(
                    f"{self.folder}: rows of {name!r} have shape {value.shape[1:]}, wanted "
                    f"{tuple(column['row'])}"
                )
            try:
                with self.path(name).open("r+b") as f:
                    f.truncate(self._end(name))
                    f.seek(self._end(name))
                    f.write(value.tobytes())
                    f.flush()
                    os.fsync(f.fileno())
            except OSError as error:
                self._cut()
                error.filename = error.filename or str(self.path(name))
                raise
            if "crc32" in column:
                sums[name] = crc32(value, column["crc32"])
        for name, value in rows.items():
            self.manifest["arrays"][name]["n"] += len(value)
            if name in sums:
                self.manifest["arrays"][name]["crc32"] = sums[name]
            self._rewrite_header(name)
        self.manifest.update(facts)
        self._mapped.clear()
        self.write_manifest()

    def _cut(self) -> None:
        """Remove the bytes behind the valid ends: on a full disk they are room that is missed."""
        for name in self.manifest["arrays"]:
            with contextlib.suppress(OSError):
                os.truncate(self.path(name), self._end(name))

    def write_manifest(self) -> None:
        write_text(self.folder / MANIFEST, json.dumps(with_checksum(self.manifest), indent=1) + "\n")

    def _end(self, name: str) -> int:
        column = self.manifest["arrays"][name]
        return (
            _HEADER
            + column["n"] * int(np.prod(column["row"], dtype=int)) * np.dtype(column["dtype"]).itemsize
        )

    def _header(self, name: str, n: int) -> bytes:
        column = self.manifest["arrays"][name]
        out = io.BytesIO()
        shape = (n, *column["row"])
        np.lib.format.write_array_header_1_0(
            out, {"descr": column["dtype"], "fortran_order": False, "shape": shape}
        )
        header = out.getvalue()
        assert len(header) == _HEADER, f"numpy wrote a header of {len(header)} bytes for {column}"
        return header

    def _rewrite_header(self, name: str) -> None:
        with self.path(name).open("r+b") as f:
            f.write(self._header(name, self.manifest["arrays"][name]["n"]))


def crc32(values: np.ndarray, before: int = 0) -> int:
    """Running CRC-32 of the bytes of an array, after rows whose sum is `before`."""
    return (
        zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, before)
        if values.size
        else before
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if needed); the system releases it when the holder
    ends, however it ends."""
    make_folder(path.parent)
    with path.open("a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def segments(offsets: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and lengths of the segments `ids` of a ragged array: rows offsets[k]:offsets[k+1] for each
    k, joined in order.

    Args:
        offsets: (n_segments + 1,).   ids: (n_ids,) int, each in [0, n_segments).
    """
    start, n = offsets[ids], offsets[ids + 1] - offsets[ids]
    before = np.cumsum(n) - n
    return np.repeat(start - before, n) + np.arange(n.sum()), n
