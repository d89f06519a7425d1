"""Whether a molecule in motion is still the one that it was: the rule of Fu et al., arXiv:2210.07237, by
which a bond that is 0.5 Å longer or shorter than usual is a failure."""

from __future__ import annotations

from typing import Any

import numpy as np

from sapis_lab.elements import COVALENT_RADII
from sapis_lab.evaluation._base import Subject

BOND = 1.25
"""Longest bond, in units of the sum of the covalent radii."""
STRETCH = 0.5
"""Å."""


class Bonds:
    """Pairs of bound atoms of all replicas, counted over all, and their usual lengths."""

    def __init__(self, subject: Subject, frames: list[Any]) -> None:
        known: dict[bytes, np.ndarray] = {}
        first, pairs, lengths, replica, shifts = 0, [], [], [], []
        for k, frame in enumerate(frames):
            i, j, shift, r = _bonds(frame)
            if frame.pbc is None or not np.any(frame.pbc):
                key = np.asarray(frame.species).tobytes()
                if key not in known:
                    known[key] = _examples(subject, np.asarray(frame.species))
                if len(x := known[key]):
                    r = np.linalg.norm(x[:, i] - x[:, j], axis=-1).mean(0)
            pairs.append(np.stack([i, j], 1) + first)
            shifts.append(shift)
            lengths.append(r)
            replica.append(np.full(len(i), k))
            first += len(frame.species)
        self.pairs, self.lengths = np.concatenate(pairs), np.concatenate(lengths)
        self.replica, self.shifts = np.concatenate(replica), np.concatenate(shifts)
        sizes = np.array([len(frame.species) for frame in frames])
        self.first = np.cumsum(sizes) - sizes

    def broken(self, state: Any, which: np.ndarray) -> np.ndarray:
        """(n,) bool: of a state of the replicas `which` (n,), those with a bond that is too long or too short
        by `STRETCH`."""
        bad = np.zeros(len(which), dtype=bool)
        for k, (replica, first) in enumerate(zip(which.tolist(), state.starts.tolist(), strict=True)):
            of_it = slice(*np.searchsorted(self.replica, (replica, replica + 1)))
            x = state.positions[first : first + state.n_atoms[k]]
            i, j = (self.pairs[of_it] - self.first[replica]).T
            v = x[j] - x[i] + self.shifts[of_it] @ state.cell[k]
            bad[k] = (np.abs(np.linalg.norm(v, axis=1) - self.lengths[of_it]) > STRETCH).any()
        return bad


def _bonds(frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Atoms i, j of the bonds of a frame, the lattice translation of j, and their lengths, Å. Positions are
    as given."""
    from sapis_lab.neighbors import neighbor_list

    x = np.asarray(frame.positions, dtype=float)
    cell = np.zeros((3, 3)) if frame.cell is None else np.asarray(frame.cell, dtype=float)
    pbc = np.zeros(3, dtype=bool) if frame.pbc is None else np.asarray(frame.pbc, dtype=bool)
    radii = np.array(COVALENT_RADII)[np.asarray(frame.species, dtype=int)]
    pairs = neighbor_list(x, cell, pbc, 2 * BOND * float(radii.max()))
    i, j, shift = pairs.center.astype(int), pairs.neighbor.astype(int), pairs.shift.astype(float)
    r = np.linalg.norm(x[j] + shift @ cell - x[i], axis=1)
    near = (r < BOND * (radii[i] + radii[j])) & (i <= j)
    return i[near], j[near], shift[near], r[near]


def _examples(subject: Subject, species: np.ndarray, *, most: int = 200) -> np.ndarray:
    """(n_frames, n_atoms, 3) positions of training frames with these atoms in this order."""
    store = subject.store
    ids = np.asarray(store.splits["train"])[:2000]
    ids = ids[np.diff(store.offsets)[ids] == len(species)]
    found = []
    for k in ids:
        atoms = slice(int(store.offsets[k]), int(store.offsets[k + 1]))
        if np.array_equal(store.species[atoms], species):
            found.append(store.positions[atoms])
        if len(found) == most:
            break
    return np.array(found).reshape(-1, len(species), 3)
