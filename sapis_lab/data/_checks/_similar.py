"""Pairs of similar frames of a store, and what forces do on the way from one to the other.

Frames are paired within groups of one order of elements, one periodicity and one cell, pooled over all
groups. Frames of molecules are superposed (Kabsch, Acta Cryst. A 32, 922, 1976) and their forces turned with
them, because molecular dynamics lets molecules rotate; periodic frames are compared by the nearest image of
every atom.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab.data._store import FrameStore

_WINDOW = 25
"""Frames that follow one another in a large store and are looked at together: of a trajectory, they are
similar."""
_ATOMS = 24
"""Of a frame, how many are compared when its nearest is looked for."""


class Step(NamedTuple):
    """The way from frame a to frame b."""

    a: int
    b: int
    turn: np.ndarray
    """(3, 3): vectors of b, as rows, times this are vectors in the pose of a."""
    change: np.ndarray
    """(n_atoms, 3), Å: how the atoms move, in the pose of a."""

    def work(self, forces_a: np.ndarray, forces_b: np.ndarray) -> float:
        """-½ (F_a + F_b) · Δx, eV: the change of energy to third order in Δx."""
        return float(-0.5 * np.sum((forces_a + forces_b @ self.turn) * self.change))

    def doubt(self, forces_a: np.ndarray, forces_b: np.ndarray) -> float:
        """How wrong `work` may be, in eV: it is exact where forces change linearly."""
        return float(np.linalg.norm(forces_b @ self.turn - forces_a) * np.linalg.norm(self.change))


def sampled(ids: np.ndarray, n: int) -> np.ndarray:
    """About `n` of the frames `ids`, sorted: all, or windows of frames that follow one another."""
    ids = np.sort(np.asarray(ids))
    if len(ids) <= n:
        return ids
    starts = np.linspace(0, len(ids) - _WINDOW, max(1, n // _WINDOW)).astype(int)
    return ids[np.unique((starts[:, None] + np.arange(_WINDOW)).ravel())]


def similar(store: FrameStore, ids: np.ndarray, *, n_pairs: int) -> list[Step]:
    """The most similar pairs among the frames `ids`, each frame with its nearest other; copies are left
    out."""
    groups: dict[bytes, list[int]] = {}
    for k in ids.tolist():
        key = store.pbc[k].tobytes() + store.species[store.offsets[k] : store.offsets[k + 1]].tobytes()
        if store.pbc[k].any():
            key += np.round(store.cell[k], 3).tobytes()
        groups.setdefault(key, []).append(k)
    found: set[tuple[float, int, int]] = set()
    for group in groups.values():
        if len(group) > 1:
            found |= _nearest(store, group)
    return [step(store, a, b) for d, a, b in sorted(found)[:n_pairs] if d > 1e-5]


def _nearest(store: FrameStore, group: list[int]) -> set[tuple[float, int, int]]:
    """(rms displacement, a, b) of each frame of a group with its nearest."""
    n = int(store.offsets[group[0] + 1] - store.offsets[group[0]])
    some = np.unique(np.linspace(0, n - 1, _ATOMS).astype(int))
    x = store.positions[store.offsets[group][:, None] + some]
    periodic = bool(store.pbc[group[0]].any())
    if not periodic:
        i, j = np.triu_indices(len(some), 1)
        x = np.linalg.norm(x[:, i] - x[:, j], axis=-1) / np.sqrt(max(1, len(some)))
    found = set()
    for k in range(len(group)):
        if periodic:
            dx = nearest_image(x - x[k], store.cell[group[k]], store.pbc[group[k]])
            d2 = ((dx - dx.mean(1, keepdims=True)) ** 2).sum((1, 2)) / len(some)
        else:
            d2 = ((x - x[k]) ** 2).sum(1) / len(some)
        d2[k] = np.inf
        near = int(d2.argmin())
        a, b = sorted((group[k], group[near]))
        found.add((round(float(np.sqrt(d2[near])), 9), a, b))
    return found


def step(store: FrameStore, a: int, b: int) -> Step:
    """From frame a to frame b of the same atoms in the same order (and cell)."""
    xa, xb = (store.positions[store.offsets[k] : store.offsets[k + 1]] for k in (a, b))
    if store.pbc[a].any():
        dx = nearest_image(xb - xa, store.cell[a], store.pbc[a])
        return Step(a, b, np.eye(3), dx - dx.mean(0))
    xa, xb = xa - xa.mean(0), xb - xb.mean(0)
    turn = superposition(xb, xa)
    return Step(a, b, turn, xb @ turn - xa)


def superposition(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The proper rotation R, (3, 3), for which `moving @ R` comes closest to `fixed`; both (n_atoms, 3) and
    centred."""
    u, _, vt = np.linalg.svd(moving.T @ fixed)
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def nearest_image(dx: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Vectors (..., 3), Å, less the lattice vectors of the periodic directions nearest to them."""
    if abs(np.linalg.det(cell)) < 1e-9:
        return dx
    return dx - (np.round(dx @ np.linalg.inv(cell)) * pbc) @ cell
