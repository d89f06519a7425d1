"""Neighbour lists of the frames of a store, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from sapis_lab.neighbors import ALL_PAIRS_ATOMS, neighbor_list, open_pairs

CHUNK_ATOMS = 40_000


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


def chunk_bounds(store: StoredFrames, first: int) -> Iterator[tuple[int, int]]:
    """(first, last) of the chunks over the frames of `store` from number `first` on."""
    while first < store.n_frames:
        last = int(np.searchsorted(store.offsets, store.offsets[first] + CHUNK_ATOMS))
        last = min(max(last, first + 1), store.n_frames)
        yield first, last
        first = last


def edge_chunk(store: StoredFrames, first: int, last: int, cutoff: float) -> dict[str, np.ndarray]:
    """Numbers of edges, and the edges, of the frames first:last."""
    n_atoms = np.diff(store.offsets[first : last + 1])
    same_size = (n_atoms == n_atoms[0]).all()
    if same_size and n_atoms[0] <= ALL_PAIRS_ATOMS and not store.pbc[first:last].any():
        return _open_chunk(store, first, last, cutoff)
    return _any_chunk(store, first, last, cutoff)


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
