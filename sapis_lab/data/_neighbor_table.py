"""Neighbour lists of all frames of a store, computed once per cutoff and kept beside it.

The table is a folder `neighbors-<cutoff>/` of growing arrays: it is written in chunks, an interrupted one
continues where it stopped, and one made before frames were appended to the store is extended. Chunks may be
made by several processes (`_neighbor_workers`); they are written in the order of the frames, so that the
bytes are those of one process, and no more of them wait than there are processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sapis_lab.data._arrays import MANIFEST, Column, GrowingArrays, lock, segments
from sapis_lab.data._edge_chunks import CHUNK_ATOMS, StoredFrames, chunk_bounds, edge_chunk
from sapis_lab.data._neighbor_workers import edge_chunks_of_workers
from sapis_lab.neighbors import Edges

_COLUMNS = {
    "offsets": Column("<i8"),
    "center": Column("<i4"),
    "neighbor": Column("<i4"),
    "shift": Column("|i1", (3,)),
}
_WORTH_WORKERS = 8 * CHUNK_ATOMS
"""Atoms from which on more processes are started: importing numpy takes each of them longer than a chunk."""
Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total)."""


@dataclass(frozen=True)
class NeighborTable:
    """Edges of every frame of a store: r_ij = positions[neighbor] + shift @ cell - positions[center], |r_ij|
    < cutoff.

    Both directions of a pair are present; within a frame, edges are sorted by center, then neighbour, then
    shift.
    """

    cutoff: float
    """Å."""
    offsets: np.ndarray
    """(n_frames + 1,) int64: the edges of frame k are offsets[k]:offsets[k+1]."""
    center: np.ndarray
    """(n_edges,) int32, numbers of atoms within their frame."""
    neighbor: np.ndarray
    """(n_edges,) int32, numbers of atoms within their frame."""
    shift: np.ndarray
    """(n_edges, 3) int8, lattice translations of the neighbour."""

    def n_edges(self, ids: np.ndarray) -> np.ndarray:
        """(n_ids,) int64, how many edges each of the frames `ids` has."""
        ids = np.asarray(ids)
        return self.offsets[ids + 1] - self.offsets[ids]

    def edges(self, ids: np.ndarray, *, shifts: bool = True) -> Edges:
        """The edges of frames `ids` (n_ids,), joined in that order; without lattice translations where these
        are not wanted."""
        rows, n = segments(self.offsets, np.asarray(ids))
        shift = self.shift.take(rows, axis=0) if shifts else None
        return Edges(n, self.center.take(rows), self.neighbor.take(rows), shift)


def neighbor_table(
    store: StoredFrames, cutoff: float, *, n_workers: int = 1, progress: Progress | None = None
) -> NeighborTable:
    """The neighbour table of `store` for `cutoff` (Å), read if it is there and complete, otherwise computed
    and saved.

    Args:
        n_workers: processes that may compute it (no influence on the result).
        progress: called with the frames that are done, and at the end with what a frame took; not at all
            where one chunk is all.
    """
    folder = store.folder / f"neighbors-{cutoff!r}"
    table = _complete(folder, cutoff, store.n_frames)
    if table is None:
        with lock(store.folder / f".neighbors-{cutoff!r}.lock"):
            table = _complete(folder, cutoff, store.n_frames)
            if table is None:
                _extend(store, folder, cutoff, n_workers=n_workers, progress=progress)
                table = _complete(folder, cutoff, store.n_frames)
    assert table is not None
    return table


def _complete(folder: Path, cutoff: float, n_frames: int) -> NeighborTable | None:
    if not (folder / MANIFEST).exists():
        return None
    arrays = GrowingArrays.open(folder)
    if arrays.manifest["arrays"]["offsets"]["n"] <= n_frames:
        return None
    return NeighborTable(
        cutoff, arrays["offsets"][: n_frames + 1], arrays["center"], arrays["neighbor"], arrays["shift"]
    )


def _extend(
    store: StoredFrames, folder: Path, cutoff: float, *, n_workers: int, progress: Progress | None
) -> None:
    arrays = (
        GrowingArrays.open(folder, writable=True) if (folder / MANIFEST).exists() else _empty(folder, cutoff)
    )
    if not len(arrays["offsets"]):  # Interrupted between its creation and its first offset.
        arrays = _empty(folder, cutoff)
    start, end = len(arrays["offsets"]) - 1, int(arrays["offsets"][-1])
    atoms_left = int(store.offsets[-1] - store.offsets[start])
    if n_workers > 1 and atoms_left >= _WORTH_WORKERS:
        chunks = edge_chunks_of_workers(store, cutoff, first=start, n_workers=n_workers)
    else:
        chunks = edge_chunks(store, cutoff, first=start)
    what, begin, total = f"neighbours within {cutoff:g} Å", time.perf_counter(), store.n_frames
    with closing(chunks), arrays.gathered():
        for _, last, rows in chunks:
            offsets = end + np.cumsum(rows.pop("n_edges"), dtype=np.int64)
            arrays.append({"offsets": offsets, **rows})
            end = int(offsets[-1])
            if progress is not None and atoms_left > CHUNK_ATOMS:
                each = f", {_spelled((time.perf_counter() - begin) / (last - start))} a frame"
                progress(what + (each if last == total else ""), last, total)


def _spelled(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def _empty(folder: Path, cutoff: float) -> GrowingArrays:
    arrays = GrowingArrays.create(folder, _COLUMNS, cutoff=cutoff)
    arrays.append(
        {name: np.zeros((int(name == "offsets"), *column.row)) for name, column in _COLUMNS.items()}
    )
    return arrays


def edge_chunks(
    store: StoredFrames, cutoff: float, *, first: int = 0
) -> Generator[tuple[int, int, dict[str, np.ndarray]]]:
    """(first, last, arrays of the frames first:last) in chunks over the frames of `store` from number `first`
    on."""
    for begin, end in chunk_bounds(store, first):
        yield begin, end, edge_chunk(store, begin, end, cutoff)
