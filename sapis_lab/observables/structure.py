"""Distances, angles, torsions and sizes in frames: F frames of A atoms, Å, angles in radians."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 36
"""Of a torsion: 10 degrees wide."""


class PairDistribution(NamedTuple):
    """How often two atoms are at a distance, in units of a gas of the same density."""

    r: np.ndarray
    """(n_bins,) middles of the bins, Å."""
    g: np.ndarray
    """(n_bins,) g(r); tends to 1."""
    coordination: np.ndarray
    """(n_bins,) mean number of atoms of the second kind nearer than the upper edge of the bin."""


def pair_distribution(
    positions: np.ndarray,
    cell: np.ndarray,
    species: np.ndarray,
    *,
    pair: tuple[int, int] | None = None,
    r_max: float | None = None,
    n_bins: int = 200,
) -> PairDistribution:
    """Radial distribution function of periodic frames (Allen & Tildesley, Computer Simulation of Liquids,
    sec. 2.6): of N_a atoms and the N_b others,

        g(r) = < V n(r) > / (N_a N_b (4π/3) ((r + dr/2)³ - (r - dr/2)³)),

    with N_a - 1 for N_b where both kinds are the same, so that a perfect gas has g = 1 whatever its size.

    Args:
        positions: (F, A, 3) Å, wrapped or not.   cell: (3, 3) or (F, 3, 3) Å.   species: (A,).
        pair: atomic numbers; all atoms where it is not given.   r_max: at most half of the smallest height of
            the cell, which is its default; beyond, images are missing.

    Raises:
        ValueError: r_max is beyond that, or the pair is not there.
    """
    x = np.asarray(positions, dtype=float)
    cells = np.broadcast_to(np.asarray(cell, dtype=float), (len(x), 3, 3))
    species = np.asarray(species)
    height = min(1 / np.linalg.norm(np.linalg.inv(c), axis=0).max() for c in cells)
    r_max = 0.5 * height if r_max is None else r_max
    if not 0 < r_max <= 0.5 * height * (1 + 1e-9):
        raise ValueError(
            f"r_max={r_max:.6g} Å, wanted at most half of the smallest height of the cell, "
            f"{0.5 * height:.6g} Å: beyond it images of atoms would be missing"
        )
    one, other = _kinds(species, pair)
    alike = pair is None or pair[0] == pair[1]
    n_pairs = len(one) * (len(other) - alike)
    if n_pairs <= 0:
        raise ValueError(f"pair {pair} has no two atoms in these frames, whose elements are {set(species)}")
    edges = np.linspace(0, r_max, n_bins + 1)
    total = np.zeros(n_bins)
    plain = np.zeros(n_bins)
    rows = max(1, 2_000_000 // len(other))
    for frame, box in zip(x, cells, strict=True):
        counts = np.zeros(n_bins)
        inverse = np.linalg.inv(box)
        for k in range(0, len(one), rows):
            v = frame[None, other] - frame[one[k : k + rows], None]
            v -= np.round(v @ inverse) @ box
            r = np.sqrt((v**2).sum(-1))
            if alike:
                r[one[k : k + rows, None] == other[None]] = np.inf
            counts += np.histogram(r[r < r_max], bins=edges)[0]
        plain += counts
        total += counts * abs(np.linalg.det(box))
    shell = 4 * np.pi / 3 * np.diff(edges**3)
    return PairDistribution(
        (edges[1:] + edges[:-1]) / 2,
        total / len(x) / (n_pairs * shell),
        np.cumsum(plain) / len(x) / len(one),
    )


def _kinds(species: np.ndarray, pair: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    every = np.arange(len(species))
    if pair is None:
        return every, every
    return every[species == pair[0]], every[species == pair[1]]


def first_peak(distribution: PairDistribution) -> tuple[float, float]:
    """Place (Å) and height of the largest value of g, by a parabola through it and its neighbours."""
    r, g = distribution.r, distribution.g
    k = int(np.clip(np.argmax(g), 1, len(g) - 2))
    return parabola_top(r[k - 1 : k + 2], g[k - 1 : k + 2])


def parabola_top(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Place and height of the extremum of the parabola through three equally spaced points; the middle one
    where they are on a line."""
    bend = y[0] - 2 * y[1] + y[2]
    if bend == 0:
        return float(x[1]), float(y[1])
    t = 0.5 * (y[0] - y[2]) / bend
    return float(x[1] + t * (x[1] - x[0])), float(y[1] - 0.25 * (y[0] - y[2]) * t)


def angles(positions: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """(F, n) angles i-j-k in radians, 0 to π.

    Args:
        positions: (F, A, 3), of whole molecules.   triples: (n, 3) atoms i, j, k.
    """
    i, j, k = (positions[:, atoms] for atoms in np.asarray(triples).T)
    a, b = i - j, k - j
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))


def torsions(positions: np.ndarray, quadruples: np.ndarray) -> np.ndarray:
    """(F, n) torsion angles in radians, -π to π: zero for cis, positive where l is turned clockwise against
    i, looking from j to k (IUPAC, Pure Appl. Chem. 45, 11, 1976).

    Args:
        positions: (F, A, 3), of whole molecules.   quadruples: (n, 4) atoms i, j, k, l.
    """
    i, j, k, l = (positions[:, atoms] for atoms in np.asarray(quadruples).T)
    a, b, c = j - i, k - j, l - k
    m, n = np.cross(a, b), np.cross(b, c)
    return np.arctan2((np.linalg.norm(b, axis=-1) * (a * n).sum(-1)), (m * n).sum(-1))


def torsion_counts(angle: np.ndarray, *, n_bins: int = BINS) -> np.ndarray:
    """(n_bins,) how many of the angles (radians) lie in equal bins from -π to π."""
    return np.histogram(np.asarray(angle).ravel(), bins=n_bins, range=(-np.pi, np.pi))[0]


def angle_density(angle: np.ndarray, *, n_bins: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """(n_bins,) middles, radians, and the density per solid angle of bond angles, 0 to π: counts over sin θ,
    normalised to ∫ p sin θ dθ = 1, which is flat for directions that know nothing of each other."""
    counts, edges = np.histogram(np.asarray(angle).ravel(), bins=n_bins, range=(0, np.pi))
    solid = np.cos(edges[:-1]) - np.cos(edges[1:])
    return (edges[1:] + edges[:-1]) / 2, counts / max(counts.sum(), 1) / solid


def ramachandran_counts(phi: np.ndarray, psi: np.ndarray, *, n_bins: int = BINS) -> np.ndarray:
    """(n_bins, n_bins) how many frames have φ and ψ (radians) in equal bins from -π to π; rows are φ."""
    span = (-np.pi, np.pi)
    return np.histogram2d(np.ravel(phi), np.ravel(psi), bins=n_bins, range=(span, span))[0]


def radius_of_gyration(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """(F,) sqrt(Σ m |x - x_com|² / Σ m), Å.

    Args:
        positions: (F, A, 3), of whole molecules.   masses: (A,).
    """
    share = np.asarray(masses) / np.sum(masses)
    x = positions - np.einsum("a,fai->fi", share, positions)[:, None]
    return np.sqrt(np.einsum("a,fai,fai->f", share, x, x))


def bonded_pairs(species: np.ndarray, positions: np.ndarray, *, longest: float = 1.25) -> np.ndarray:
    """(n, 2) atoms i < j of an open molecule (A, 3) nearer than `longest` times the sum of their covalent
    radii."""
    from sapis_lab.elements import COVALENT_RADII

    radii = np.array(COVALENT_RADII)[np.asarray(species, dtype=int)]
    r = np.linalg.norm(positions[None] - positions[:, None], axis=-1)
    i, j = np.nonzero(np.triu(r < longest * (radii[:, None] + radii), 1))
    return np.stack([i, j], axis=1)


def rotatable_torsions(species: np.ndarray, positions: np.ndarray, *, hydrogens: bool = True) -> np.ndarray:
    """(n, 4) one torsion for every bond that is in no ring and whose two atoms have further neighbours; its
    ends are the heaviest, then first, of these.

    Args:
        hydrogens: whether torsions that turn hydrogens alone (methyl, hydroxyl) count.
    """
    species = np.asarray(species)
    bonds = bonded_pairs(species, positions)
    near: dict[int, set[int]] = {k: set() for k in range(len(species))}
    for i, j in bonds.tolist():
        near[i].add(j)
        near[j].add(i)
    found = []
    for j, k in bonds.tolist():
        left, right = near[j] - {k}, near[k] - {j}
        if not left or not right or _joined(near, j, k):
            continue
        i, l = (min(side, key=lambda a: (-int(species[a]), a)) for side in (left, right))
        if hydrogens or (species[i] > 1 and species[l] > 1):
            found.append((i, j, k, l))
    return np.array(found, dtype=int).reshape(-1, 4)


def turned_torsion(
    species: np.ndarray, bonded: np.ndarray, positions: np.ndarray, quadruple: np.ndarray, *, angle: float
) -> np.ndarray:
    """(A, 3) positions with the torsion at `angle`, radians: all that hangs on k is turned about the bond of
    j and k, which is in no ring.

    Args:
        bonded: (A, 3) Å, where bonds are read from; after some turns atoms may be near that are not bound.
    """
    i, j, k, l = (int(a) for a in quadruple)
    bonds = bonded_pairs(species, bonded)
    part = np.array(sorted(hanging(bonds, j, k)))
    axis = positions[k] - positions[j]
    axis = axis / np.linalg.norm(axis)
    now = torsions(positions[None], np.array([[i, j, k, l]]))[0, 0]
    turn = angle - now
    v = positions[part] - positions[k]
    along = (v @ axis)[:, None] * axis
    across = np.cross(axis, v)
    moved = positions.copy()
    moved[part] = positions[k] + along + np.cos(turn) * (v - along) + np.sin(turn) * across
    return moved


def hanging(bonds: np.ndarray, i: int, j: int) -> set[int]:
    """The atoms that hang on j when its bond with i is cut; i among them where both are in a ring.

    Args:
        bonds: (n, 2), see `bonded_pairs`.
    """
    seen, todo = {j}, [j]
    while todo:
        atom = todo.pop()
        for a, b in bonds.tolist():
            if {a, b} == {i, j}:
                continue
            other = b if a == atom else a if b == atom else None
            if other is not None and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def _joined(near: dict[int, set[int]], j: int, k: int) -> bool:
    """Whether atoms j and k are joined by another way than their bond."""
    seen, todo = {j}, list(near[j] - {k})
    while todo:
        atom = todo.pop()
        if atom == k:
            return True
        if atom not in seen:
            seen.add(atom)
            todo += near[atom]
    return False
