"""Relaxed molecules and crystals: atoms alone, or atoms and cell together, by BFGS (Nocedal & Wright,
Numerical Optimization, ch. 6)."""

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


def _minimize(
    value: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, most: float, steps: int
) -> tuple[np.ndarray, float, np.ndarray]:
    """Where BFGS ends, from slopes that are at most `most`; begun again where its line search gives up, which
    it does at the rounding of float32 energies."""
    from scipy.optimize import minimize

    energy, gradient = value(x)
    scale = 0.02  # a first step of 0.02 Å per eV/Å: BFGS's own first is of length 1
    for _ in range(3):
        if np.abs(gradient).max() <= most:
            break
        found = minimize(
            value,
            x,
            jac=True,
            method="BFGS",
            options={"gtol": most, "maxiter": steps, "hess_inv0": scale * np.eye(len(x))},
        )
        x, (energy, gradient) = found.x, value(found.x)
    return x, energy, gradient
