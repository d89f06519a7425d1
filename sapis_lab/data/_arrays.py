"""A folder of .npy files that only ever grow along their first axis, with a manifest that says how far they
are valid.

Appending writes behind the valid end of every file, then rewrites the .npy headers in place, then replaces
`manifest.json` in one step. The manifest alone decides what is there: a process killed at any moment leaves
bytes behind the valid end, which readers do not look at and the next writer cuts off. The files stay ordinary
.npy files, readable by `np.load` anywhere, and are memory mapped, so a folder of 10⁸ frames opens as fast as
one of ten.

The manifest also holds a CRC-32 of every array and of every shard of it (`_shards`), and a checksum of
itself: small folders are compared with them whenever they are opened, large ones on request (`damage`), so
that a bit that a disk has turned over is found, and its rows are named, before anything is trained on it.

An append that returns has reached the disk, which costs an fsync of every file. Many small ones are
`gathered`: kept in memory and written together, each with its facts still whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.data._shards import Shard, Sums, are_shards, as_bytes, extended, plain_shards, read_sums
from sapis_lab.errors import ConfigError
from sapis_lab.files import make_folder, read_json, with_checksum, without_checksum, write_bytes, write_text

MANIFEST = "manifest.json"
CHECKED_BYTES = 64_000_000
"""Folders up to this size are compared with their checksums whenever they are opened (0.05 s)."""
REMOVE = "delete its folder to make it again"
GATHERED_BYTES = 32_000_000
GATHERED_SECONDS = 10.0
"""How much, and for how long, appends that are gathered wait in memory."""
_READ_BYTES = 4_000_000
_HEADER = 128
"""Bytes of the .npy header. numpy pads headers to 64 bytes and leaves room for a growing first axis; 128 fits
every array here."""


class Column(NamedTuple):
    """One array: its type and the shape of one row."""

    dtype: str
    row: tuple[int, ...] = ()


class Damage(NamedTuple):
    """Rows first:end of an array are not those that were written."""

    name: str
    first: int
    end: int

    @property
    def rows(self) -> str:
        """Which, in words."""
        return f"rows {self.first} to {self.end - 1}"


def damaged(path: Path, where: str = "") -> str:
    """A sentence about a file whose checksum is of other bytes; `where` in it, such as 'rows 0 to 9'."""
    return (
        f"{path}: not what was written there{where and ' in '}{where} (its checksum is of other bytes): the "
        f"disk or somebody changed it; {REMOVE}"
    )


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
            and are_shards(column.get("shards", []), column["n"])
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
        self._waiting: _Waiting | None = None

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
        if arrays.n_bytes <= CHECKED_BYTES and (found := arrays.damage()):
            raise ValueError(damaged(arrays.path(found[0].name), found[0].rows))
        return arrays

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(self._end(name) - _HEADER for name in self.manifest["arrays"])

    def damage(self) -> list[Damage]:
        """Which valid rows are not those that were written, by shards; all of them are read, with little
        memory. Arrays of folders that older versions made have no checksum, and count as whole."""
        self.flush()
        found: list[Damage] = []
        for name in self.manifest["arrays"]:
            sums = self._sums(name)
            for shard in sums.shards if sums else ():
                if self._crc32_on_disk(name, shard) == shard.crc32:
                    continue
                if found and found[-1].name == name and found[-1].end == shard.first:
                    found[-1] = found[-1]._replace(end=shard.end)
                else:
                    found.append(Damage(name, shard.first, shard.end))
        return found

    def _sums(self, name: str) -> Sums | None:
        return read_sums(self.manifest["arrays"][name], self._row_bytes(name))

    def _crc32_on_disk(self, name: str, shard: Shard) -> int:
        value, left = 0, (shard.end - shard.first) * self._row_bytes(name)
        # Read rather than mapped: pages of a mapped file stay with the process.
        with self.path(name).open("rb", buffering=0) as f:
            f.seek(_HEADER + shard.first * self._row_bytes(name))
            while left and (piece := f.read(min(_READ_BYTES, left))):
                value, left = zlib.crc32(piece, value), left - len(piece)
        return value

    def __getitem__(self, name: str) -> np.ndarray:
        """The valid rows of array `name`, memory mapped and read-only."""
        self.flush()
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

    def n(self, name: str) -> int:
        """Rows of array `name`, those that are gathered included."""
        waiting = self._waiting.n.get(name, 0) if self._waiting else 0
        return int(self.manifest["arrays"][name]["n"]) + waiting

    def fact(self, name: str, default: Any = None) -> Any:
        """What the manifest holds beside the arrays, that of gathered appends included."""
        waiting = self._waiting.facts if self._waiting else {}
        return waiting[name] if name in waiting else self.manifest.get(name, default)

    def append(self, rows: Mapping[str, np.ndarray], **facts: Any) -> None:
        """Add `rows` at the end of every array; all of them become visible together with the `facts` in the
        manifest, or none."""
        if not self.writable:
            raise ValueError(f"{self.folder} is open for reading; open it with writable=True to append")
        if set(rows) != set(self.manifest["arrays"]):
            raise ValueError(
                f"{self.folder}: got arrays {sorted(rows)}, wanted {sorted(self.manifest['arrays'])}"
            )
        typed = {name: self._typed(name, value) for name, value in rows.items()}
        if self._waiting is None:
            self._write(typed, facts)
        elif self._waiting.add(typed, facts):
            self.flush()

    def _typed(self, name: str, value: np.ndarray) -> np.ndarray:
        column = self.manifest["arrays"][name]
        value = np.ascontiguousarray(value, dtype=column["dtype"])
        if list(value.shape[1:]) != column["row"]:
            raise ValueError(
                f"{self.folder}: rows of {name!r} have shape {value.shape[1:]}, wanted {tuple(column['row'])}"
            )
        return value

    @contextmanager
    def gathered(self, *, n_bytes: int = GATHERED_BYTES, seconds: float = GATHERED_SECONDS) -> Iterator[None]:
        """Appends wait in memory and go to the disk together: as soon as they have `n_bytes` or the first of
        them is `seconds` old, when an array is read, and at the end, which may be an error.

        A process that is killed loses what waited, rows with their facts.
        """
        if self._waiting is not None:
            yield
            return
        self._waiting = _Waiting(n_bytes, seconds)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self.flush()
            raise
        else:
            self.flush()
        finally:
            self._waiting = None

    def flush(self) -> None:
        """Bring gathered appends to the disk."""
        waiting = self._waiting
        if waiting is None or not waiting.rows:
            return
        joined = {name: np.concatenate([rows[name] for rows in waiting.rows]) for name in waiting.rows[0]}
        before = [column["n"] for column in self.manifest["arrays"].values()]
        try:
            self._write(joined, waiting.facts)
        except BaseException:
            if [column["n"] for column in self.manifest["arrays"].values()] != before:
                waiting.clear()  # they are there all the same, and must not be written twice
            raise
        waiting.clear()

    def _write(self, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        try:
            for name, value in rows.items():
                with self.path(name).open("r+b", buffering=0) as f:
                    f.truncate(self._end(name))
                    f.seek(self._end(name))
                    _write_all(f, as_bytes(value))
                    os.fsync(f.fileno())
        except OSError as error:
            self._cut()
            error.filename = error.filename or str(self.path(name))
            raise
        before = self.manifest
        columns = {name: self._longer(name, value) for name, value in rows.items()}
        self.manifest = {**before, **facts, "arrays": {**before["arrays"], **columns}}
        try:
            for name in rows:
                self._rewrite_header(name)
            self.write_manifest()
        except BaseException:
            # The manifest on the disk says whether it happened: a folder may fail to be flushed after it.
            self.manifest = read_manifest(self.folder)
            self._mapped.clear()
            self._cut()
            for name in rows:
                with contextlib.suppress(OSError):
                    self._rewrite_header(name)
            raise
        self._mapped.clear()

    def _longer(self, name: str, value: np.ndarray) -> dict[str, Any]:
        """The manifest's entry of an array after the rows `value` were appended."""
        column = self.manifest["arrays"][name]
        more: dict[str, Any] = {"n": column["n"] + len(value)}
        if (sums := self._sums(name)) is not None:
            sums = extended(sums, value)
            more |= {"crc32": sums.whole, "shards": plain_shards(sums.shards)}
        return {**column, **more}

    def _cut(self) -> None:
        """Remove the bytes behind the valid ends: on a full disk they are room that is missed."""
        for name in self.manifest["arrays"]:
            with contextlib.suppress(OSError):
                os.truncate(self.path(name), self._end(name))

    def write_manifest(self) -> None:
        write_text(self.folder / MANIFEST, json.dumps(with_checksum(self.manifest), indent=1) + "\n")

    def _end(self, name: str) -> int:
        return _HEADER + self.manifest["arrays"][name]["n"] * self._row_bytes(name)

    def _row_bytes(self, name: str) -> int:
        column = self.manifest["arrays"][name]
        return int(np.prod(column["row"], dtype=int)) * np.dtype(column["dtype"]).itemsize

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


class _Waiting:
    """Rows and facts that were appended and are in memory only."""

    def __init__(self, n_bytes: int, seconds: float) -> None:
        self.n_bytes, self.seconds = n_bytes, seconds
        self.clear()

    def clear(self) -> None:
        self.rows: list[dict[str, np.ndarray]] = []
        self.facts: dict[str, Any] = {}
        self.n: dict[str, int] = {}
        self._held, self._since = 0, time.monotonic()

    def add(self, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bool:
        """Keep them; whether it is time to write."""
        if not self.rows:
            self._since = time.monotonic()
        # copies: the caller may fill its arrays anew
        self.rows.append({name: np.array(value) for name, value in rows.items()})
        self.facts.update(facts)
        for name, value in rows.items():
            self.n[name] = self.n.get(name, 0) + len(value)
            self._held += value.nbytes
        return self._held >= self.n_bytes or time.monotonic() - self._since >= self.seconds


def _write_all(file: FileIO, data: memoryview) -> None:
    while data:  # one call writes 2 GB at most
        data = data[file.write(data) :]


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
