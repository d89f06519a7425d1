"""Crystals from files without forces: a cell, elements and fractional coordinates as a frame, with numbers
that are checked one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sapis_lab.data._labelled_frames import LabelledFrame
from sapis_lab.elements import ATOMIC_NUMBER

_LEAST_VOLUME = 1e-3
"""Å³; a cell below it has no volume."""


def crystal(
    place: str,
    *,
    cell: np.ndarray,
    symbols: Sequence[object],
    fractional: np.ndarray,
    labels: dict[str, float],
) -> LabelledFrame:
    """The frame of a crystal.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.   symbols: chemical symbols.   fractional: (n_atoms, 3).

    Raises:
        ValueError: no atoms, symbols of no element, a cell without volume, numbers that are not finite.
    """
    if not symbols or fractional.shape != (len(symbols), 3):
        raise ValueError(
            f"{place}: {len(symbols)} elements and fractional coordinates of shape {fractional.shape}, "
            f"wanted (n_atoms, 3) with at least one atom"
        )
    for k, symbol in enumerate(symbols):
        if symbol not in ATOMIC_NUMBER or symbol == "X":
            raise ValueError(f"{place}: atom {k} is {str(symbol)[:20]!r}, wanted a chemical symbol")
    if not np.isfinite(fractional).all():
        raise ValueError(f"{place}: fractional coordinates are not finite, wanted numbers")
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < _LEAST_VOLUME:
        raise ValueError(f"{place}: the cell is {cell.tolist()}, wanted three vectors that span a volume, Å")
    species = np.array([ATOMIC_NUMBER[str(symbol)] for symbol in symbols])
    return LabelledFrame(place, species, fractional @ cell, cell=cell, labels=labels)


def cell_of(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """(3, 3) Å, rows are lattice vectors: a along x, b in the plane of x and y.

    Args:
        a, b, c: lengths, Å.   alpha, beta, gamma: angles between b and c, a and c, a and b, degrees.
    """
    cos_a, cos_b, cos_c = (math.cos(math.radians(x)) for x in (alpha, beta, gamma))
    sin_c = math.sin(math.radians(gamma))
    along_y = (cos_a - cos_b * cos_c) / sin_c if sin_c else math.nan
    along_z = 1 - cos_b**2 - along_y**2
    return np.array(
        [
            [a, 0.0, 0.0],
            [b * cos_c, b * sin_c, 0.0],
            [c * cos_b, c * along_y, c * math.sqrt(along_z) if along_z > 0 else math.nan],
        ]
    )
