"""A few numbers for every frame, which say what the surroundings of its atoms are like: for choosing frames,
not for learning from them.

For an atom i, its neighbours of element b at distances r_ij < r_c make a histogram

    rho_ibk = sum_j f(r_ij) hat((r_ij - r_k) / d),        f(r) = (1 + cos(pi r / r_c)) / 2

whose bins, at r_k = k d, share a neighbour between the two nearest (hat is 1 at 0 and falls to 0 at -1 and
1); with a Gaussian in the place of the hat it is the radial symmetry function of Behler & Parrinello (Phys.
Rev. Lett. 98, 146401, 2007). A frame has, for every element a, mean and root mean square of rho over its
atoms of a (in proportion to how many there are), and its composition. All of it is invariant under
rotations, reflections, permutations and translations; angles are felt through the distances between
neighbours alone. Beyond the `_MOST_ELEMENTS` most frequent elements, all others share one place, but in the
composition.

These numbers are divided by their standard deviations (those that hardly vary by no less than a tenth of the
usual one) and projected on the `N_FEATURES` directions of largest variance, both from a sample of frames.
The result is rounded to whole numbers, in which squared distances are exact: ties are ties, and no choice
hangs on the order in which a library adds up (but for what lies on the edge of being rounded up or down).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._neighbor_table import edge_chunks
from sapis_lab.data._store import Frames

CUTOFF = 5.0
"""Å. What is farther away than two shells of neighbours hardly tells frames apart."""
N_FEATURES = 32
_N_BINS = 16
_MOST_ELEMENTS = 8
_SAMPLE = 4000
"""Frames from which standard deviations and directions are taken."""
_CHUNK_ATOMS = 40_000
_CHUNK_FRAMES = 2000
_UNIT = 1 << 14
"""Whole numbers to the spread of all frames, which is the root of the mean squared distance from their
mean."""
_LARGEST = 1 << 20
"""With 32 features below it, sums of squares stay below 2^53, within which float64 has all whole numbers."""


class StoredFrames(Protocol):
    """What is read of a frame store, sealed or not."""

    @property
    def folder(self) -> Path: ...
    @property
    def n_frames(self) -> int: ...
    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def species(self) -> np.ndarray: ...
    @property
    def energy(self) -> np.ndarray: ...

    def frames(self, ids: np.ndarray) -> Frames: ...


@dataclass
class _Some:
    """Frames as `edge_chunks` reads them."""

    folder: Path
    offsets: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @property
    def n_frames(self) -> int:
        return len(self.offsets) - 1


def chunks(store: StoredFrames, ids: np.ndarray) -> Iterator[np.ndarray]:
    """Positions in `ids` (n,), in pieces of limited size that are read from neighbouring places of the
    store."""
    by_place = np.argsort(ids, kind="stable")
    n_atoms = np.diff(store.offsets)[ids[by_place]]
    start, upto = 0, np.cumsum(n_atoms)
    while start < len(ids):
        before = upto[start] - n_atoms[start]
        stop = int(np.searchsorted(upto, before + _CHUNK_ATOMS, side="right"))
        stop = min(max(stop, start + 1), start + _CHUNK_FRAMES)
        yield by_place[start:stop]
        start = stop


def compositions(store: StoredFrames, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_elements,) atomic numbers, and the atoms of each in the frames `ids`, (n, n_elements) int64."""
    counts = np.zeros((len(ids), 256), dtype=np.int64)
    for some in chunks(store, ids):
        rows, n_atoms = segments(store.offsets, ids[some])
        frame = np.repeat(np.arange(len(some)), n_atoms)
        flat = np.bincount(frame * 256 + store.species[rows], minlength=256 * len(some))
        counts[some] = flat.reshape(len(some), 256)
    elements = np.nonzero(counts.any(0))[0]
    return elements, counts[:, elements]


def frame_features(store: StoredFrames, ids: np.ndarray) -> np.ndarray:
    """(n, at most N_FEATURES) int32: neighbouring frames of `ids` (n,) have neighbouring features."""
    ids = np.asarray(ids, dtype=np.int64)
    place_of, n_places = _places(store, ids)
    sample = np.sort(np.random.default_rng(0).permutation(len(ids))[:_SAMPLE])
    raw = np.concatenate(
        [
            _raw(store.frames(ids[sample[some]]), store.folder, place_of, n_places)
            for some in chunks(store, ids[sample])
        ]
    )
    mean, deviation = raw.mean(0), raw.std(0)
    usual = float(np.sqrt(np.square(deviation).mean()))
    if usual == 0.0:  # all are alike
        return np.zeros((len(ids), 1), dtype=np.int32)
    scale = 1 / (deviation + 0.1 * usual)
    scaled = (raw - mean) * scale
    value, vector = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    vector = vector[:, ::-1][:, :N_FEATURES]
    projection = scale[:, None] * vector * (_UNIT / np.sqrt(value.clip(min=0).sum()))
    features = np.empty((len(ids), vector.shape[1]), dtype=np.int32)
    for some in chunks(store, ids):
        rows = (_raw(store.frames(ids[some]), store.folder, place_of, n_places) - mean) @ projection
        features[some] = np.rint(rows).clip(-_LARGEST, _LARGEST)
    return features


def _places(store: StoredFrames, ids: np.ndarray) -> tuple[np.ndarray, int]:
    """For every atomic number its place among the elements, (256,); and how many places there are."""
    counts = np.zeros(256, dtype=np.int64)
    for some in chunks(store, ids):
        counts += np.bincount(store.species[segments(store.offsets, ids[some])[0]], minlength=256)
    frequent = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    place_of = np.full(256, _MOST_ELEMENTS - 1)
    place_of[frequent[:_MOST_ELEMENTS]] = np.arange(min(len(frequent), _MOST_ELEMENTS))
    return place_of, min(len(frequent), _MOST_ELEMENTS)


def _raw(frames: Frames, folder: Path, place_of: np.ndarray, n_places: int) -> np.ndarray:
    """The numbers of several frames before they are scaled, (n_frames, n)."""
    offsets = np.concatenate([[0], np.cumsum(frames.n_atoms)])
    rho = _histograms(
        _Some(folder, offsets, frames.positions, frames.cell, frames.pbc), place_of[frames.species], n_places
    )
    n, width = len(frames), n_places * _N_BINS
    slot = np.repeat(np.arange(n), frames.n_atoms) * n_places + place_of[frames.species]
    order = np.argsort(slot, kind="stable")
    there, starts = np.unique(slot[order], return_index=True)
    rho, moments = rho[order], []
    for values in (rho, np.square(rho)):
        sums = np.zeros((n * n_places, width))
        sums[there] = np.add.reduceat(values, starts, axis=0)
        moments.append(sums.reshape(n, -1) / frames.n_atoms[:, None])
    counts = np.bincount(np.repeat(np.arange(n), frames.n_atoms) * 256 + frames.species, minlength=n * 256)
    return np.hstack([moments[0], np.sqrt(moments[1]), counts.reshape(n, 256) / frames.n_atoms[:, None]])


def _histograms(frames: _Some, place: np.ndarray, n_places: int) -> np.ndarray:
    """rho of every atom, (n_atoms_total, n_places * _N_BINS)."""
    width = n_places * _N_BINS
    rho = np.empty((len(frames.positions), width))
    for first, last, rows in edge_chunks(frames, CUTOFF):
        begin, end = frames.offsets[first], frames.offsets[last]
        frame = np.repeat(np.arange(first, last), rows["n_edges"])
        i, j = (rows[name] + frames.offsets[frame] for name in ("center", "neighbor"))
        vector = frames.positions[j] - frames.positions[i]
        if frames.pbc[first:last].any():
            vector = vector + np.einsum("pk,pkl->pl", rows["shift"], frames.cell[frame])
        r = np.sqrt(np.square(vector).sum(1))
        weight = 0.5 * (1 + np.cos(np.pi / CUTOFF * r))
        k = r * (_N_BINS / CUTOFF)
        low = np.minimum(k.astype(np.int64), _N_BINS - 1)
        bin_of = (i - begin) * width + place[j] * _N_BINS + low
        n = int((end - begin) * width)
        # the share of a bin beyond the last one falls away, where the weight is near zero
        high = np.where(low + 1 < _N_BINS, bin_of + 1, n)
        sums = np.bincount(bin_of, weight * (1 - (k - low)), minlength=n + 1)
        sums += np.bincount(high, weight * (k - low), minlength=n + 1)
        rho[begin:end] = sums[:n].reshape(-1, width)
    return rho
