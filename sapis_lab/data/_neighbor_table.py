"""Neighbour lists of all frames of a store, computed once per cutoff and kept beside it.

The table is a folder `neighbors-<cutoff>/` of growing arrays: it is written in chunks, an interrupted one
continues where it stopped, and one made before frames were appended to the store is extended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sapis_lab.data._arrays import MANIFEST, Column, GrowingArrays, lock, segments
from sapis_lab.neighbors import ALL_PAIRS_ATOMS, Edges, neighbor_list, open_pairs

_COLUMNS = {
    "offsets": Column("<i8"),
    "center": Column("<i4"),
    "neighbor": Column("<i4"),
    "shift": Column("|i1", (3,)),
}
_CHUNK_ATOMS = 40_000


class StoredFrames(Protocol):
    """What is read of a frame store."""

    folder: Path

    @property
    def n_frames(self) -> int: ...
    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def cell(self) -> np.ndarray: ...
    @property
    def pbc(self) -> np.ndarray: ...


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


def neighbor_table(store: StoredFrames, cutoff: float) -> NeighborTable:
    """The neighbour table of `store` for `cutoff` (Å), read if it is there and complete, otherwise computed
    and saved."""
    folder = store.folder / f"neighbors-{cutoff!r}"
    table = _complete(folder, cutoff, store.n_frames)
    if table is None:
        with lock(store.folder / f".neighbors-{cutoff!r}.lock"):
            table = _complete(folder, cutoff, store.n_frames)
            if table is None:
                _extend(store, folder, cutoff)
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


def _extend(store: StoredFrames, folder: Path, cutoff: float) -> None:
    arrays = (
        GrowingArrays.open(folder, writable=True) if (folder / MANIFEST).exists() else _empty(folder, cutoff)
    )
    if not len(arrays["offsets"]):  # Interrupted between its creation and its first offset.
        arrays = _empty(folder, cutoff)
    for _, _, rows in edge_chunks(store, cutoff, first=len(arrays["offsets"]) - 1):
        n_edges = rows.pop("n_edges")
        arrays.append({"offsets": arrays["offsets"][-1] + np.cumsum(n_edges), **rows})


def _empty(folder: Path, cutoff: float) -> GrowingArrays:
    arrays = GrowingArrays.create(folder, _COLUMNS, cutoff=cutoff)
    arrays.append(
        {name: np.zeros((int(name == "offsets"), *column.row)) for name, column in _COLUMNS.items()}
    )
    return arrays


def edge_chunks(
    store: StoredFrames, cutoff: float, *, first: int = 0
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """(first, last, arrays of the frames first:last) in chunks over the frames of `store` from number `first`
    on."""
    n_atoms = np.diff(store.offsets)
    while first < store.n_frames:
        last = int(np.searchsorted(store.offsets, store.offsets[first] + _CHUNK_ATOMS))
        last = min(max(last, first + 1), store.n_frames)
        same_size = (n_atoms[first:last] == n_atoms[first]).all()
        if same_size and n_atoms[first] <= ALL_PAIRS_ATOMS and not store.pbc[first:last].any():
            yield first, last, _open_chunk(store, first, last, cutoff)
        else:
            yield first, last, _any_chunk(store, first, last, cutoff)
        first = last


def _open_chunk(store: StoredFrames, first: int, last: int, cutoff: float) -> dict[str, np.ndarray]:
    n = int(store.offsets[first + 1] - store.offsets[first])
    x = store.positions[store.offsets[first] : store.offsets[last]].reshape(last - first, n, 3)
    # Blocks of about 2 million pairs: the table of squared distances stays near the cache and below 20 MB.
    step = max(1, 2_000_000 // n**2)
    blocks = [x[k : k + step] for k in range(0, len(x), step)]
    parts = [open_pairs(block, cutoff) for block in blocks]
    n_edges = np.concatenate(
        [np.bincount(frame, minlength=len(block)) for block, (frame, _, _) in zip(blocks, parts, strict=True)]
    )
    center, neighbor = np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])
    return {
        "n_edges": n_edges,
        "center": center,
        "neighbor": neighbor,
        "shift": np.zeros((len(center), 3), np.int8),
    }


def _any_chunk(store: StoredFrames, first: int, last: int, cutoff: float) -> dict[str, np.ndarray]:
    found = []
    for k in range(first, last):
        atoms = slice(store.offsets[k], store.offsets[k + 1])
        found.append(neighbor_list(store.positions[atoms], store.cell[k], store.pbc[k], cutoff))
    return {
        "n_edges": np.array([len(p.center) for p in found], dtype=np.int64),
        "center": np.concatenate([p.center for p in found]),
        "neighbor": np.concatenate([p.neighbor for p in found]),
        "shift": np.concatenate([p.shift for p in found]),
    }
