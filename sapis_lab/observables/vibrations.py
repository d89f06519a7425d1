"""Hessians by finite differences of forces, and harmonic vibrations: Å, eV, amu, cm⁻¹."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab import units
from sapis_lab.observables.spectra import CM_PER_FS
from sapis_lab.observables.surfaces import Predict, whole
from sapis_lab.structures import Structure

STENCILS = {
    2: (1 / 2,),
    4: (2 / 3, -1 / 12),
    6: (3 / 4, -3 / 20, 1 / 60),
    8: (4 / 5, -1 / 5, 4 / 105, -1 / 280),
}
"""Weights of f(kh) - f(-kh), k = 1, 2, ..., over h, by the order of the error (Fornberg, Math. Comp. 51, 699,
1988)."""


def jacobian(
    predict: Predict,
    structure: Structure,
    *,
    step: float = 0.01,
    order: int = 4,
    coordinates: np.ndarray | None = None,
    at_a_time: int = 64,
) -> np.ndarray:
    """(3n, m) eV/Å², -dF/dx: its columns by central differences of the forces along `coordinates`, not made
    symmetric.

    Args:
        step: h, Å.   order: of the error in h, 2 to 8; 2 takes two structures for a column, 8 takes eight.
        coordinates: (m,) which of the 3n; all by default.   at_a_time: most structures that are predicted at
            once, which bounds the memory.
    """
    at = whole(structure)
    n = at.positions.size
    chosen = np.arange(n) if coordinates is None else np.asarray(coordinates)
    weights = STENCILS[order]
    moves = [(c, sign * k) for c in chosen.tolist() for k in range(1, len(weights) + 1) for sign in (1, -1)]
    columns = {int(c): np.zeros(n) for c in chosen}
    for first in range(0, len(moves), at_a_time):
        some = moves[first : first + at_a_time]
        structures = []
        for c, k in some:
            x = at.positions.copy()
            x.flat[c] += k * step
            structures.append(at.at(x))
        forces = np.asarray(predict(structures).forces, dtype=float).reshape(len(some), n)
        for (c, k), f in zip(some, forces, strict=True):
            columns[c] -= np.sign(k) * weights[abs(k) - 1] / step * f
    return np.stack([columns[int(c)] for c in chosen], axis=1)


def hessian(predict: Predict, structure: Structure, *, step: float = 0.01, order: int = 4) -> np.ndarray:
    """(3n, 3n) eV/Å², the symmetric part of `jacobian`."""
    found = jacobian(predict, structure, step=step, order=order)
    return 0.5 * (found + found.T)


def antisymmetry(matrix: np.ndarray) -> float:
    """‖J - Jᵀ‖ / ‖J + Jᵀ‖ (Frobenius): zero where forces are the slope of an energy, 1 where nothing is."""
    whole_ = np.linalg.norm(matrix + matrix.T)
    return float(np.linalg.norm(matrix - matrix.T) / whole_) if whole_ else 0.0


class Modes(NamedTuple):
    """Harmonic vibrations, ascending."""

    wavenumber: np.ndarray
    """(n_modes,) cm⁻¹; imaginary ones are negative."""
    vectors: np.ndarray
    """(n_modes, n_atoms, 3) mass-weighted displacements of norm 1."""
    left_out: np.ndarray
    """(k,) cm⁻¹, of the translations and rotations before they were projected out: how flat the surface is
    along them."""


def normal_modes(
    matrix: np.ndarray, masses: np.ndarray, positions: np.ndarray | None, *, rotations: bool = True
) -> Modes:
    """Modes of a Hessian, without the translations and rotations of the whole (Eckart, Phys. Rev. 47, 552,
    1935): with M the masses, ω² are the eigenvalues of P M^-1/2 H M^-1/2 P, P the projection on what is left.

    Args:
        matrix: (3n, 3n) eV/Å².   masses: (n,) amu.   positions: (n, 3) Å, of the molecule; None: nothing is
            projected out.   rotations: not of a crystal. Linear molecules and atoms have fewer.
    """
    m = np.sqrt(np.repeat(np.asarray(masses, dtype=float), 3))
    weighted = np.asarray(matrix) / np.outer(m, m)
    n = len(m)
    if positions is None:
        basis = np.eye(n)
        rigid = np.zeros((n, 0))
    else:
        every = rigid_motions(positions, masses, rotations=rotations)
        u, size, _ = np.linalg.svd(every, full_matrices=True)
        k = int((size > 1e-6 * size[0]).sum())
        rigid, basis = u[:, :k], u[:, k:]
    squared, vectors = np.linalg.eigh(basis.T @ weighted @ basis)
    flat = np.linalg.eigvalsh(rigid.T @ weighted @ rigid) if rigid.shape[1] else np.zeros(0)
    shown = (basis @ vectors).T.reshape(len(squared), -1, 3)
    return Modes(_wavenumbers(squared), shown, _wavenumbers(flat))


def rigid_motions(positions: np.ndarray, masses: np.ndarray, *, rotations: bool = True) -> np.ndarray:
    """(3n, 3 or 6) translations and infinitesimal rotations in mass-weighted coordinates, not normalised
    alike."""
    root = np.sqrt(np.asarray(masses, dtype=float))
    x = np.asarray(positions, dtype=float) - np.average(positions, axis=0, weights=masses)
    axes = np.eye(3)
    columns = [(root[:, None] * axis).ravel() for axis in axes]
    if rotations:
        columns += [(root[:, None] * np.cross(axis, x)).ravel() for axis in axes]
    found = np.stack(columns, axis=1)
    size = np.linalg.norm(found, axis=0)
    return found / np.where(size > 1e-9 * size.max(), size, np.inf)


def _wavenumbers(squared: np.ndarray) -> np.ndarray:
    """cm⁻¹ of ω² in eV/Å²/amu."""
    omega = np.sqrt(np.abs(squared) * units.ACCELERATION)
    return np.sign(squared) * omega / (2 * np.pi * CM_PER_FS)


def zero_point_energy(wavenumber: np.ndarray) -> float:
    """Σ hν/2 of the real modes, eV."""
    ev_per_cm = 6.62607015e-34 * 2.99792458e10 / units.ELEMENTARY_CHARGE
    return float(0.5 * ev_per_cm * wavenumber[wavenumber > 0].sum())
