"""Neighbour lists: all ordered pairs of atoms, periodic images included, closer than a cutoff.

For a pair (i, j, S) the vector is  r_ij = x_j + S @ cell - x_i  (rows of `cell` are lattice vectors). Both
(i, j) and (j, i) are present, an atom is a neighbour of its own images but not of itself, and pairs are
sorted by center, then neighbour, then shift.

Frames without periodicity and of moderate size are done here by comparing all pairs, which needs numpy only.
Everything else goes to vesin (Fraux et al., https://github.com/Luthaf/vesin), or to ASE where vesin is not
installed. Every backend's candidates pass the same distance test in float64, so the answer does not depend on
who found them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ALL_PAIRS_ATOMS = 200
"""Largest open frame compared pair by pair; the n² table of vectors then takes 1 MB."""


MIN_DISTANCE = 0.3
"""Å. No two nuclei come closer in any data we know (H2 compressed in extreme sampling reaches 0.5, scans of
dimers 0.35). No frame below it is accepted for training, so no model knows anything there: its answer would
be a number without meaning."""


class Pairs(NamedTuple):
    """Ordered pairs within a cutoff, sorted by center."""

    center: np.ndarray
    """(n_pairs,) int32, the atom i that looks."""
    neighbor: np.ndarray
    """(n_pairs,) int32, the atom j that is seen."""
    shift: np.ndarray
    """(n_pairs, 3) int8, the lattice translation S of j."""


class Edges(NamedTuple):
    """The edges of several frames, joined in order."""

    n_edges: np.ndarray
    """(n_frames,) int, how many belong to each frame."""
    center: np.ndarray
    """(n_edges_total,) int32, within the frame, ascending."""
    neighbor: np.ndarray
    """(n_edges_total,) int32, within the frame."""
    shift: np.ndarray | None
    """(n_edges_total, 3) int8; None where it was not asked for."""


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray | None, pbc: np.ndarray | bool, cutoff: float
) -> Pairs:
    """All ordered pairs closer than `cutoff` (strictly).

    Args:
        positions: (n_atoms, 3), Å; atoms may lie outside the cell.
        cell: (3, 3), Å, lattice vectors as rows; may be zero or None along directions that are not periodic.
        pbc: (3,) bool or one bool for all three.
        cutoff: Å, > 0; may exceed the cell, in which case several images of one atom are neighbours.
    """
    positions = np.asarray(positions, dtype=np.float64)
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions have shape {positions.shape}, wanted (n_atoms, 3)")
    if not cutoff > 0:
        raise ValueError(f"cutoff={cutoff} Å, wanted a positive length")
    if not np.isfinite(positions).all():
        raise ValueError(
            f"positions of atom {int(np.nonzero(~np.isfinite(positions).all(1))[0][0])} are not finite"
        )
    if not pbc.any() and len(positions) <= ALL_PAIRS_ATOMS:
        _, i, j = open_pairs(positions[None], cutoff)
        return Pairs(i, j, np.zeros((len(i), 3), dtype=np.int8))
    full_cell = complete_cell(np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64), pbc)
    i, j, shift = _candidates(positions, full_cell, pbc, cutoff)
    r_ij = positions[j] + shift @ full_cell - positions[i]
    near = (r_ij**2).sum(1) < cutoff**2
    i, j, shift = i[near], j[near], shift[near]
    if len(shift) and np.abs(shift).max() > 127:
        raise ValueError(
            f"a pair spans {np.abs(shift).max()} cells, at most 127 are stored; cutoff={cutoff} Å is too "
            f"long for the cell "
            f"{np.array2string(full_cell, precision=3)}, or atoms lie far outside it (wrap them)"
        )
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
    return Pairs(i[order].astype(np.int32), j[order].astype(np.int32), shift[order].astype(np.int8))


class Closest(NamedTuple):
    """Two atoms (or an atom and an image) and their distance."""

    center: int
    neighbor: int
    distance: float
    """Å"""
    across: bool
    """Whether the neighbour is a periodic image."""

    def __str__(self) -> str:
        image = "its own image" if self.center == self.neighbor else f"{self.neighbor}"
        through = " across the periodic boundary" if self.across and self.center != self.neighbor else ""
        return f"atoms {self.center} and {image} are {self.distance:.3f} Å apart{through}"


def closest(positions: np.ndarray, cell: np.ndarray | None, pairs: Pairs) -> Closest | None:
    """The closest of `pairs`, images included, in float64; None where there are none.

    Args:
        positions: (n_atoms, 3), Å.   cell: (3, 3), Å, as for `neighbor_list`; not used where no pair is of an
            image.
    """
    if not len(pairs.center):
        return None
    r = positions[pairs.neighbor] - positions[pairs.center]
    if cell is not None and pairs.shift.any():
        r = r + pairs.shift @ np.asarray(cell, dtype=np.float64)
    k = int(np.argmin((r**2).sum(1)))
    return Closest(
        int(pairs.center[k]), int(pairs.neighbor[k]), float(np.linalg.norm(r[k])), bool(pairs.shift[k].any())
    )


def cells_away(positions: np.ndarray, cell: np.ndarray | None, pbc: np.ndarray | bool) -> np.ndarray:
    """How many whole lattice vectors each of `positions` (n_atoms, 3), Å, lies beyond the cell, (n_atoms, 3);
    zero along directions that are not periodic."""
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    if not pbc.any():
        return np.zeros(positions.shape)
    full_cell = complete_cell(np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64), pbc)
    return np.floor(positions @ np.linalg.inv(full_cell)) * pbc


def wrapped(positions: np.ndarray, cell: np.ndarray | None, pbc: np.ndarray | bool) -> np.ndarray:
    """`positions` (n_atoms, 3), Å, moved by whole lattice vectors into the cell, along the periodic
    directions only."""
    if not np.any(pbc):
        return positions
    away = cells_away(positions, cell, pbc)
    assert cell is not None, "periodic directions without a cell"
    return positions - away @ np.asarray(cell, dtype=np.float64)


def open_pairs(positions: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frame, center, neighbour) of all ordered pairs closer than `cutoff` in several non-periodic frames of
    equal size.

    Args:
        positions: (n_frames, n_atoms, 3), Å.   cutoff: Å.
    """
    # One component at a time: the (frames, n, n, 3) array of vectors would be three times slower and larger.
    r2 = sum((positions[:, :, None, k] - positions[:, None, :, k]) ** 2 for k in range(3))
    near = r2 < cutoff**2
    n = positions.shape[1]
    near[:, np.arange(n), np.arange(n)] = False
    frame, i, j = np.nonzero(near)
    return frame, i.astype(np.int32), j.astype(np.int32)


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """`cell` with unit vectors put in place of zero lattice vectors along directions that are not periodic,
    (3, 3), Å."""
    cell = np.array(cell, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell is {cell.tolist()}, wanted finite numbers")
    missing = ~cell.any(axis=1)
    if (missing & pbc).any():
        raise ValueError(
            f"pbc={pbc.tolist()} but lattice vector {int(np.argmax(missing & pbc))} is zero; give the cell "
            f"or switch pbc off"
        )
    if missing.any():
        # Rows of the null space of the given vectors: orthogonal to all of them and to each other.
        _, _, v = np.linalg.svd(np.vstack([cell[~missing], np.zeros((1, 3))]))
        cell[missing] = v[3 - missing.sum() :]
    if abs(np.linalg.det(cell)) < 1e-9:
        raise ValueError(f"the cell has no volume: {cell.tolist()}")
    return cell


def _candidates(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # A hair more than the cutoff, so that rounding inside the backend cannot lose a pair that our own test
    # would keep. Nor far below the spacing of the atoms: vesin's grid of boxes one reach wide took 10 ms for
    # 3 atoms in a 10 Å cell at 0.3 Å.
    reach = max(cutoff * (1 + 1e-9), (abs(np.linalg.det(cell)) / max(len(positions), 4096)) ** (1 / 3))
    try:
        from vesin import NeighborList
    except ImportError:
        try:
            from ase.neighborlist import primitive_neighbor_list
        except ImportError:
            raise ImportError(
                "neighbour lists of periodic or large frames need vesin or ase: pip install vesin"
            ) from None
        i, j, shift = primitive_neighbor_list("ijS", pbc, cell, positions, reach, self_interaction=False)
        return i, j, shift
    i, j, shift = NeighborList(cutoff=reach, full_list=True, n_threads=1).compute(
        positions, cell, pbc, quantities="ijS"
    )
    return i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64)
