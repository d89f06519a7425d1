"""Collective coordinates of a configuration, with their gradients: distances, angles and torsions.

A torsion has IUPAC's sign, its gradient is that of Blondel & Karplus (J. Comput. Chem. 17, 1132, 1996): it
stays finite where the sine of the torsion is zero. Positions are taken as they are; nothing is wrapped.
"""

from __future__ import annotations

import numpy as np

N_ATOMS = {2: "distance", 3: "angle", 4: "torsion"}
"""What a coordinate of so many atoms is."""


def period(atoms: tuple[int, ...]) -> float | None:
    """The period of the coordinate of these atoms, rad; None where it has none."""
    return 2 * np.pi if len(atoms) == 4 else None


def difference(a: np.ndarray | float, b: np.ndarray | float, *, period: float | None) -> np.ndarray:
    """a - b, the shortest way around a circle of length `period`."""
    d = np.asarray(np.subtract(a, b))
    return d if period is None else d - period * np.round(d / period)


def values(positions: np.ndarray, atoms: tuple[int, ...]) -> np.ndarray:
    """The coordinate of `atoms` in every configuration, (...): Å of two atoms, rad of three, in (-π, π] of
    four.

    Args:
        positions: (..., n_atoms, 3) Å.   atoms: two, three or four, from 0.
    """
    x = positions[..., list(atoms), :]
    if len(atoms) == 2:
        return np.asarray(np.linalg.norm(x[..., 1, :] - x[..., 0, :], axis=-1))
    if len(atoms) == 3:
        a, b = x[..., 0, :] - x[..., 1, :], x[..., 2, :] - x[..., 1, :]
        return np.asarray(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), _dot(a, b)))
    if len(atoms) != 4:
        raise ValueError(f"a coordinate of {len(atoms)} atoms; wanted 2 (distance), 3 (angle) or 4 (torsion)")
    a, b, c = (x[..., k + 1, :] - x[..., k, :] for k in range(3))
    n = np.cross(b, c)
    return np.asarray(np.arctan2(np.linalg.norm(b, axis=-1) * _dot(a, n), _dot(np.cross(a, b), n)))


def with_gradient(positions: np.ndarray, atoms: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The coordinate, (...), and its gradient with respect to its atoms, (..., len(atoms), 3), per Å; see
    `values`."""
    value = values(positions, atoms)
    x = positions[..., list(atoms), :]
    if len(atoms) == 2:
        u = (x[..., 1, :] - x[..., 0, :]) / value[..., None]
        return value, np.stack([-u, u], axis=-2)
    if len(atoms) == 3:
        a, b = x[..., 0, :] - x[..., 1, :], x[..., 2, :] - x[..., 1, :]
        n = np.cross(a, b)
        n = n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-300)
        first = np.cross(a, n) / _dot(a, a)[..., None]
        last = -np.cross(b, n) / _dot(b, b)[..., None]
        return value, np.stack([first, -first - last, last], axis=-2)
    a, b, c = (x[..., k + 1, :] - x[..., k, :] for k in range(3))
    m, n, length = np.cross(a, b), np.cross(b, c), np.linalg.norm(b, axis=-1, keepdims=True)
    first = -length * m / _dot(m, m)[..., None]
    last = length * n / _dot(n, n)[..., None]
    s, t = (_dot(v, b)[..., None] / length**2 for v in (a, c))
    second = -(1 + s) * first + t * last
    return value, np.stack([first, second, -first - second - last, last], axis=-2)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(-1))
