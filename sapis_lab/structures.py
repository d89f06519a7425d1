"""Structures as people have them, checked, and cut into passes that a model's memory holds.

An atom may lie anywhere along a periodic direction: it is moved into the cell by whole lattice vectors s_i,
positions = given - s_i @ cell, and a pair (i, j, S) of the moved atoms is the pair (i, j, S + s_i - s_j) of
the given ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch, Layout, block_is_cheaper, collate, make_graph
from sapis_lab.neighbors import MIN_DISTANCE, Closest, Pairs, cells_away, closest, neighbor_list


class Structure(NamedTuple):
    """One configuration of atoms."""

    species: np.ndarray
    """(n_atoms,) atomic numbers"""
    positions: np.ndarray
    """(n_atoms, 3) Å; along periodic directions they may lie anywhere"""
    cell: np.ndarray | None = None
    """(3, 3) Å, rows are lattice vectors; None without periodicity"""
    pbc: np.ndarray | None = None
    """(3,) bool, the periodic directions; None: no direction is"""


@runtime_checkable
class AtomsLike(Protocol):
    """What is read of ASE's `Atoms`."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: Any
    pbc: np.ndarray


class Prepared(NamedTuple):
    """A structure that has passed the checks, its atoms moved into the cell."""

    species: np.ndarray
    """(n_atoms,) int"""
    positions: np.ndarray
    """(n_atoms, 3) Å"""
    cell: np.ndarray
    """(3, 3) Å; zero without periodicity"""
    pbc: np.ndarray
    """(3,) bool"""
    moved: np.ndarray
    """(n_atoms, 3) int64, s_i: the whole lattice vectors that were taken from the given positions"""
    edges: Pairs
    """All pairs within the cutoff."""
    closest: Closest | None
    """The closest of them, described by the positions as they were given; None where there is none."""


def as_structures(given: Structure | AtomsLike | Iterable[Structure | AtomsLike]) -> list[Structure]:
    """One structure, or several, as a list; of ASE's atoms no calculators and no constraints are read."""
    if isinstance(given, Structure | AtomsLike):
        given = [given]
    return [
        s if isinstance(s, Structure) else Structure(s.numbers, s.positions, np.asarray(s.cell), s.pbc)
        for s in given
    ]


def prepared(structure: Structure, *, cutoff: float, known: Collection[int]) -> Prepared:
    """`structure`, checked, with its pairs within `cutoff` (Å).

    Args:
        known: atomic numbers that the model knows, ascending.

    Raises:
        ValueError: no atoms, elements the model does not know, numbers that are not finite, or two atoms
            (images included) closer than `neighbors.MIN_DISTANCE`; the message names them and their distance.
    """
    species = np.asarray(structure.species)
    if not len(species):
        raise ValueError("a structure needs at least one atom, got none")
    unknown = sorted({int(z) for z in species} - set(known))
    if unknown:
        raise ValueError(
            f"the potential knows the elements {list(known)}, got atomic numbers {unknown} as well"
        )
    given = np.asarray(structure.positions, dtype=float)
    if given.shape != (len(species), 3):
        raise ValueError(
            f"positions have shape {given.shape}, wanted {(len(species), 3)} for {len(species)} species"
        )
    cell = np.zeros((3, 3)) if structure.cell is None else np.asarray(structure.cell, dtype=float)
    pbc = np.zeros(3, dtype=bool) if structure.pbc is None else np.asarray(structure.pbc, dtype=bool)
    moved = cells_away(given, cell, pbc)
    positions = given - moved @ cell if pbc.any() else given
    edges = neighbor_list(positions, cell, pbc, cutoff)
    pair = closest(positions, cell, edges)
    if pair is not None:  # which pairs cross a boundary is said of the positions as they were given
        plain = np.linalg.norm(given[pair.neighbor] - given[pair.center])
        pair = pair._replace(across=not np.isclose(plain, pair.distance, atol=1e-6))
        if pair.distance < MIN_DISTANCE:
            raise ValueError(
                f"{pair}, wanted at least {MIN_DISTANCE} Å; no model has learnt from such a structure"
            )
    return Prepared(species, positions, cell, pbc, moved.astype(np.int64), edges, pair)


class _Sizes(NamedTuple):
    """What decides how much a batch takes."""

    n_frames: int
    n_atoms: int
    n_edges: int
    largest: int
    """Atoms of the largest structure."""
    widest: int
    """Slots of the atom with the most neighbours, that of the atom itself included."""
    periodic: bool

    @classmethod
    def of(cls, structure: Prepared) -> Self:
        n, center = len(structure.species), structure.edges.center
        widest = 1 + int(np.bincount(center, minlength=1).max())
        return cls(1, n, len(center), n, widest, bool(structure.pbc.any()))

    def plus(self, other: _Sizes) -> _Sizes:
        n_frames, n_atoms = self.n_frames + other.n_frames, self.n_atoms + other.n_atoms
        largest, widest = max(self.largest, other.largest), max(self.widest, other.widest)
        n_edges, periodic = self.n_edges + other.n_edges, self.periodic or other.periodic
        return _Sizes(n_frames, n_atoms, n_edges, largest, widest, periodic)

    @property
    def n_slots(self) -> int:
        """Slots of pairs, padding included; a list of edges has no more."""
        block = self.n_frames * self.largest**2
        cheaper = block_is_cheaper(n_slots=block, n_edges=self.n_edges, n_atoms=self.n_atoms)
        return block if cheaper and not self.periodic else self.n_atoms * self.widest


def passes(structures: Iterable[Prepared], *, batch_pairs: int) -> Iterator[list[Prepared]]:
    """The structures in order, as many at a time as have at most `batch_pairs` slots of pairs together; a
    larger one comes alone."""
    chosen: list[Prepared] = []
    sizes = _Sizes(0, 0, 0, 0, 0, False)
    for structure in structures:
        alone = _Sizes.of(structure)
        sizes = sizes.plus(alone)
        if chosen and sizes.n_slots > batch_pairs:
            yield chosen
            chosen, sizes = [], alone
        chosen.append(structure)
    if chosen:
        yield chosen


def batch_in_double(structures: Sequence[Prepared], *, layout: Layout, cutoff: float) -> AtomsBatch:
    """The structures as a batch in float64, for `derivatives.predict_in_double`."""
    n_atoms = np.array([len(s.species) for s in structures])
    graph = make_graph(
        layout=layout,
        n_atoms=n_atoms,
        edges=[s.edges for s in structures],
        periodic=any(s.pbc.any() for s in structures),
        cutoff=cutoff,
    )
    return collate(
        n_atoms=n_atoms,
        species=np.concatenate([s.species for s in structures]),
        positions=np.concatenate([s.positions for s in structures]),
        cell=np.stack([s.cell for s in structures]),
        graph=graph,
        dtype=torch.float64,
    )
