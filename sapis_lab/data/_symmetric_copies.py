"""Crystals that are one another turned, reflected, moved or renumbered: they have the same energy and, up to
that turn, the same forces, so a model with these symmetries learns nothing new from the second.

Two frames of one element count as copies when all their interatomic distances up to a length, periodic images
included, agree one by one after sorting. Distances alone do not fix every structure, but here the two cases
lie far apart: between the test and the training frames of mlearn the largest difference is either rounding
(10⁻¹⁵ Å) or above 0.03 Å.
"""

from __future__ import annotations

import numpy as np

from sapis_lab.data._store import Frames
from sapis_lab.neighbors import neighbor_list

WITHIN = 6.0
"""Å"""
TOLERANCE = 1e-4
"""Å"""


def first_copies(frames: Frames) -> np.ndarray:
    """For every frame the first that it is a copy of, (n_frames,) int; itself where there is none before it.

    Raises:
        ValueError: several elements, whose exchange distances do not see.
    """
    if len(elements := np.unique(frames.species)) > 1:
        raise ValueError(f"got elements {elements.tolist()}, wanted frames of one")
    ends = np.cumsum(frames.n_atoms)
    first = np.arange(len(frames))
    known: dict[int, list[tuple[int, np.ndarray]]] = {}
    for k, (n, end) in enumerate(zip(frames.n_atoms.tolist(), ends.tolist(), strict=True)):
        r = _distances(frames.positions[end - n : end], frames.cell[k], frames.pbc[k])
        of_its_size = known.setdefault(n, [])
        for other, r_other in of_its_size:
            if _agree(r, r_other):
                first[k] = other
                break
        else:
            of_its_size.append((k, r))
    return first


def _distances(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Sorted, (n_pairs,), Å."""
    i, j, shift = neighbor_list(positions, cell, pbc, WITHIN)
    return np.sort(np.linalg.norm(positions[j] + shift @ cell - positions[i], axis=1))


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    # Distances near the limit may lie on either side of it.
    n = max(int(np.searchsorted(r, WITHIN - 2 * TOLERANCE)) for r in (a, b))
    return min(len(a), len(b)) >= n and bool(np.abs(a[:n] - b[:n]).max(initial=0.0) < TOLERANCE)
