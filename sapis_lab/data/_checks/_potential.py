"""Fits of the few-body potential of `_few_body` to forces, and to energies with them, on frames of a
store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sapis_lab.data._checks._few_body import MOST_ELEMENTS, Features, FewBody, Structure, solved
from sapis_lab.data._store import FrameStore


class Surveyor:
    """Features of frames of a store, each computed once.

    Raises:
        ValueError: more elements than MOST_ELEMENTS.
    """

    def __init__(self, store: FrameStore, ids: np.ndarray, *, strain: bool = False) -> None:
        self.store, self.strain = store, strain
        elements = np.unique(
            np.concatenate([store.species[store.offsets[k] : store.offsets[k + 1]] for k in ids])
        )
        if len(elements) > MOST_ELEMENTS:
            raise ValueError(f"{len(elements)} elements are too many for the cheap potential")
        self.potential = FewBody([int(z) for z in elements])
        self._known: dict[int, Features] = {}

    def features(self, frame: int) -> Features:
        if frame not in self._known:
            s, atoms = self.store, slice(self.store.offsets[frame], self.store.offsets[frame + 1])
            structure = Structure(s.species[atoms], s.positions[atoms], s.cell[frame], s.pbc[frame])
            self._known[frame] = self.potential(structure, strain=self.strain)
        return self._known[frame]

    def forces(self, frame: int) -> np.ndarray:
        """Labels, (3 n_atoms,), float64."""
        atoms = slice(self.store.offsets[frame], self.store.offsets[frame + 1])
        return self.store.forces[atoms].astype(np.float64).ravel()

    def composition(self, frame: int) -> np.ndarray:
        """(n_elements,)"""
        atoms = self.store.species[self.store.offsets[frame] : self.store.offsets[frame + 1]]
        return np.bincount(
            np.searchsorted(self.potential.elements, atoms), minlength=len(self.potential.elements)
        ).astype(float)


class ForceFit(NamedTuple):
    coefficients: np.ndarray
    left: float
    """RMS of what it leaves of the forces of held-out frames over their RMS."""


def fit_to_forces(surveyor: Surveyor, frames: Sequence[int]) -> ForceFit:
    """Coefficients by least squares on four fifths of `frames`, with the ridge that is best on the others."""
    cut = max(1, (4 * len(frames)) // 5)
    size = surveyor.potential.size
    normal, right = np.zeros((size, size)), np.zeros(size)
    for k in frames[:cut]:
        g = surveyor.features(k).gradient
        normal += g.T @ g
        right -= g.T @ surveyor.forces(k)
    rest = list(frames[cut:]) or list(frames)
    found = []
    for c in solved(normal, right):
        left = sum(float(np.sum((surveyor.forces(k) + surveyor.features(k).gradient @ c) ** 2)) for k in rest)
        found.append((left, c))
    left, best = min(found, key=lambda pair: pair[0])
    whole = sum(float(np.sum(surveyor.forces(k) ** 2)) for k in rest)
    return ForceFit(best, float(np.sqrt(left / whole)) if whole else np.inf)


class JointFit:
    """Fits to energies and forces together, on two thirds of the frames, judged on the last third, in turn.

    Energies are per sqrt(n_atoms) and without what the composition explains.
    """

    def __init__(self, surveyor: Surveyor, frames: Sequence[int]) -> None:
        self.frames = np.asarray(frames)
        self._part = np.arange(len(frames)) % 3
        every = [surveyor.features(k) for k in frames]
        n_atoms = np.array([len(f.gradient) / 3 for f in every])
        scale = 1 / np.sqrt(n_atoms)
        self._x = np.array([surveyor.composition(k) for k in frames]) * scale[:, None]
        self._b = np.array([f.energy for f in every]) * scale[:, None]
        self._e = surveyor.store.energy[self.frames] * scale
        self._g = [f.gradient for f in every]
        self._f = [surveyor.forces(k) for k in frames]
        parts = [np.nonzero(self._part == part)[0] for part in range(3)]
        self._squares = [sum(self._g[k].T @ self._g[k] for k in part) for part in parts]
        self._products = [sum(self._g[k].T @ self._f[k] for k in part) for part in parts]
        self._force2 = float(np.mean(np.concatenate(self._f) ** 2))
        self._thirds = [self._prepared(part) for part in range(3)]

    def _prepared(self, part: int) -> tuple[np.ndarray, ...]:
        train = np.nonzero(self._part != part)[0]
        x = self._x[train]
        e = self._e - self._x @ np.linalg.lstsq(x, self._e[train], rcond=None)[0]
        b = self._b - self._x @ np.linalg.lstsq(x, self._b[train], rcond=None)[0]
        e2 = float(np.mean(e[train] ** 2)) or 1.0
        n_f = sum(len(self._f[k]) for k in train) * self._force2
        return (
            b[train].T @ b[train] / (len(train) * e2),
            b[train].T @ e[train] / (len(train) * e2),
            np.sum([self._squares[k] for k in range(3) if k != part], axis=0) / n_f,
            -np.sum([self._products[k] for k in range(3) if k != part], axis=0) / n_f,
            b,
            e / np.sqrt(e2),
            np.array(np.sqrt(e2)),
        )

    def misses(self, factor: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """What is left, (n_frames, 2), of energies and of forces, each over its mean square, of fits in which
        energies belong to `factor` times the forces; and the coefficients of each third."""
        out, coefficients = np.zeros((len(self.frames), 2)), []
        for part, (n_e, y_e, n_f, y_f, b, e, e_scale) in enumerate(self._thirds):
            test = np.nonzero(self._part == part)[0]
            best = None
            for c in solved(n_e + n_f / factor**2, y_e + y_f / factor):
                of_e = (e[test] - b[test] @ c / e_scale) ** 2
                of_f = np.array([np.mean((self._f[k] + self._g[k] @ c / factor) ** 2) for k in test])
                of_f = of_f / self._force2
                if best is None or of_e.mean() + of_f.mean() < best[0]:
                    best = (of_e.mean() + of_f.mean(), of_e, of_f, c)
            assert best is not None
            out[test, 0], out[test, 1] = best[1], best[2]
            coefficients.append(best[3])
        return out, coefficients

    def coefficients_for(self, place: int, coefficients: Sequence[np.ndarray]) -> np.ndarray:
        """Those that were fitted without the frame at `place`."""
        return coefficients[self._part[place]]
