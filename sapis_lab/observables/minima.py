"""Relaxed molecules and crystals: atoms alone, or atoms and cell together, by BFGS with short steps (Nocedal
& Wright, Numerical Optimization, ch. 6; the steps are those of ASE's BFGS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sapis_lab.observables.surfaces import Predict, Whole, whole
from sapis_lab.structures import Structure


class Minimum(NamedTuple):
    """Where a relaxation ended."""

    structure: Structure
    energy: float
    """eV."""
    max_force: float
    """Largest component of a force that is left, eV/Å."""
    converged: bool
    """Whether that, and the stress times the cube of 1 Å where it was relaxed, is below what was wanted."""


def relaxed(
    predict: Predict, structure: Structure, *, max_force: float = 1e-4, most_steps: int = 500
) -> Minimum:
    """The minimum near a structure, at fixed cell.

    Args:
        max_force: largest component that may be left, eV/Å.   most_steps: of BFGS.
    """
    start = whole(structure)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = predict([start.at(x.reshape(-1, 3))])
        return float(found.energy[0]), -np.asarray(found.forces, dtype=float).ravel()

    x, energy, gradient = _minimize(value, start.positions.ravel(), max_force, most_steps)
    left = float(np.abs(gradient).max())
    return Minimum(start.at(x.reshape(-1, 3)), energy, left, left <= max_force)


def relaxed_crystal(
    predict: Predict, structure: Structure, *, max_force: float = 1e-4, most_steps: int = 500
) -> Minimum:
    """The minimum of a crystal in positions and cell, at no pressure.

    The cell is cell₀ (1 + e) with a symmetric e, positions are u (1 + e); with the stress σ and volume V,
    dE/de = V (1 + e)⁻¹ σ, symmetrised, and dE/du = -F (1 + e). e counts as a length of the size of the cell,
    so that both are of one unit.
    """
    start = whole(structure)
    if not start.pbc.all():
        raise ValueError(f"pbc is {start.pbc.tolist()}, wanted a crystal to relax the cell of")
    length = start.volume ** (1 / 3) * max(1.0, len(start.species) ** (1 / 3))

    def moved(x: np.ndarray) -> tuple[Whole, np.ndarray]:
        turn = np.eye(3) + _symmetric(x[:6] / length)
        return start._replace(positions=x[6:].reshape(-1, 3)).turned(turn), turn

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        now, turn = moved(x)
        found = predict([now.structure], stress=True)
        strain = now.volume * np.linalg.solve(turn, np.asarray(found.stress[0], dtype=float))
        strain = strain + strain.T
        of_strain = np.array([strain[i, j] * (0.5 if i == j else 1.0) for i, j in VOIGT]) / length
        forces = -np.asarray(found.forces, dtype=float) @ turn
        return float(found.energy[0]), np.concatenate([of_strain, forces.ravel()])

    begin = np.concatenate([np.zeros(6), start.positions.ravel()])
    x, energy, gradient = _minimize(value, begin, max_force, most_steps)
    left = float(np.abs(gradient[6:]).max())
    return Minimum(moved(x)[0].structure, energy, left, float(np.abs(gradient).max()) <= max_force)


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric matrix in Voigt's order."""


def _symmetric(e: np.ndarray) -> np.ndarray:
    """(3, 3) of six components, those off the diagonal as they are."""
    matrix = np.zeros((3, 3))
    for (i, j), value in zip(VOIGT, e, strict=True):
        matrix[i, j] = matrix[j, i] = value
    return matrix


CURVATURE = 70.0
"""eV/Å², before anything is known of the surface: that of a bond (as ASE's BFGS)."""
LONGEST = 0.15
"""Å, of a step of any atom: far from a minimum a quadratic surface is no guide, and atoms must not meet."""


def _minimize(
    value: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, most: float, steps: int
) -> tuple[np.ndarray, float, np.ndarray]:
    """Where BFGS ends, from slopes that are at most `most`, or after so many steps.

    Steps are -Σ v (v.g)/|λ| over the eigenvectors v of the Hessian that is learnt, so that they go downhill
    where it is not positive, and no line search compares energies, which in float32 are coarser than forces.
    """
    matrix = CURVATURE * np.eye(len(x))
    energy, gradient = value(x)
    for _ in range(steps):
        if np.abs(gradient).max() <= most:
            break
        size, axes = np.linalg.eigh(matrix)
        move = -axes @ ((axes.T @ gradient) / np.maximum(np.abs(size), 1e-3))
        move *= min(1.0, LONGEST / np.abs(move).max())
        there, slope = value(x + move)
        change = slope - gradient
        curvature, bent = change @ move, matrix @ move
        if abs(curvature) > 1e-14:
            matrix = matrix + np.outer(change, change) / curvature - np.outer(bent, bent) / (move @ bent)
        x, energy, gradient = x + move, there, slope
    return x, energy, gradient
