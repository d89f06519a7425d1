"""Fixed batches for measurements of speed, made by code from a seed: no file is read, and every machine gets
the same numbers.

    eth16               16 molecules of ethanol, 9 atoms each, all of them neighbours

    mol27x8, mol27x16   8 and 16 molecules of 3BPA, 3-(benzyloxy)pyridin-2-amine, C12H12N2O, 27 atoms with
                        about 17 neighbours

    water192            64 molecules of water in a periodic box of 1 g/cm^3

    silicon1000         5 x 5 x 5 periodic cubic cells of silicon, 1,000 atoms with 28 neighbours

The molecules are minima of GFN2-xTB (Bannwarth, Ehlert & Grimme, doi:10.1021/acs.jctc.8b01176), each copy
turned at random, and every atom is displaced by a normal distribution. Energies and forces are those of a
pair repulsion: smooth, of the right shapes, no chemistry.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch, Layout, collate, make_graph
from sapis_lab.neighbors import Pairs, neighbor_list

CUTOFF = 5.0
"""Å."""
THERMAL = 0.03
"""Standard deviation of every coordinate about its minimum, Å: a little more than a stiff bond has at room
temperature."""
STRENGTH = 5.0
"""eV, of the pair repulsion."""

_SEED = 20
_WATER_SPACING = (18.01528 / 0.602214076) ** (1 / 3)
"""Edge of the cube that one molecule has at 1 g/cm^3, Å: molar mass over Avogadro's number."""

_SILICON_EDGE = 5.431
"""Edge of the cubic cell of silicon, Å."""

# Atomic number, x, y, z in Å.
_ETHANOL = (
    (8, 1.031, -0.524, 0.0),
    (6, -1.292, -0.005, 0.0),
    (6, 0.121, 0.557, 0.0),
    (1, 1.931, -0.183, 0.0),
    (1, 0.274, 1.183, -0.891),
    (1, 0.274, 1.183, 0.891),
    (1, -2.017, 0.804, 0.0),
    (1, -1.441, -0.622, -0.881),
    (1, -1.441, -0.622, 0.881),
)
_ACETYLACETONE = (
    (8, -1.201, -1.252, 0.266),
    (8, -1.097, 1.306, 0.392),
    (6, 0.087, 1.236, 0.051),
    (6, 0.740, -0.018, -0.212),
    (6, 0.068, -1.197, -0.093),
    (6, 0.710, -2.522, -0.359),
    (6, 0.928, 2.476, -0.109),
    (1, 1.775, -0.017, -0.507),
    (1, 1.556, -2.671, 0.308),
    (1, 1.075, -2.565, -1.382),
    (1, -0.018, -3.313, -0.202),
    (1, -1.510, -0.310, 0.411),
    (1, 0.333, 3.359, 0.107),
    (1, 1.309, 2.533, -1.127),
    (1, 1.778, 2.433, 0.569),
)
_BPA = (
    (8, -0.609, -1.460, -0.569),
    (7, -3.032, -1.557, 0.596),
    (7, -3.263, 0.730, 0.480),
    (6, -0.829, 0.972, -0.835),
    (6, -1.271, -0.266, -0.423),
    (6, -1.627, 2.090, -0.587),
    (6, -2.527, -0.340, 0.236),
    (6, -2.822, 1.915, 0.073),
    (6, 0.669, -1.439, -1.164),
    (6, 1.712, -0.696, -0.364),
    (6, 2.813, -0.136, -1.000),
    (6, 1.590, -0.572, 1.013),
    (6, 3.773, 0.539, -0.269),
    (6, 3.638, 0.671, 1.103),
    (6, 2.545, 0.114, 1.742),
    (1, 0.122, 1.093, -1.331),
    (1, -2.379, -2.319, 0.661),
    (1, -3.803, -1.540, 1.242),
    (1, -3.470, 2.749, 0.304),
    (1, -1.301, 3.069, -0.899),
    (1, 0.611, -1.032, -2.183),
    (1, 0.948, -2.497, -1.237),
    (1, 2.915, -0.230, -2.072),
    (1, 4.626, 0.970, -0.773),
    (1, 4.384, 1.207, 1.671),
    (1, 2.433, 0.214, 2.812),
    (1, 0.738, -1.011, 1.513),
)
_WATER = ((8, 0.0, -0.064, 0.0), (1, 0.772, 0.505, 0.0), (1, -0.772, 0.505, 0.0))


class BenchInput(NamedTuple):
    """B frames of equal size with their neighbours and targets, A atoms in all."""

    name: str
    n_atoms: np.ndarray
    """(B,)"""
    species: np.ndarray
    """(A,) atomic numbers"""
    positions: np.ndarray
    """(A, 3) Å"""
    cell: np.ndarray
    """(B, 3, 3) Å, rows are lattice vectors; zero without periodicity"""
    periodic: bool
    edges: list[Pairs]
    """per frame: all directed pairs within the cutoff"""
    energy: np.ndarray
    """(B,) eV, minus the mean of the batch"""
    forces: np.ndarray
    """(A, 3) eV/Å"""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in np.unique(self.species))

    @property
    def n_edges(self) -> int:
        """Directed pairs within the cutoff, E."""
        return sum(len(e.center) for e in self.edges)

    @property
    def mean_neighbors(self) -> float:
        """Neighbours of an atom within the cutoff."""
        return self.n_edges / len(self.species)

    def batch(self, *, layout: Layout, dtype: torch.dtype = torch.float32) -> AtomsBatch:
        """The batch, with its neighbour graph as training would choose it for this layout."""
        edges = [(e.center, e.neighbor, e.shift) for e in self.edges]
        graph = make_graph(
            layout=layout, n_atoms=self.n_atoms, edges=edges, periodic=self.periodic, cutoff=CUTOFF
        )
        return collate(
            n_atoms=self.n_atoms,
            species=self.species,
            positions=self.positions,
            cell=self.cell,
            graph=graph,
            energy=self.energy,
            forces=self.forces,
            dtype=dtype,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as the arrays of a batch file, which `sapis_lab.bench.peer` describes."""
        starts = np.cumsum([0, *self.n_atoms])
        return {
            "z": self.species,
            "pos": self.positions,
            "F": self.forces,
            "E": self.energy,
            "cell": self.cell,
            "pbc": np.full((len(self.n_atoms), 3), self.periodic),
            "ptr": starts,
            "i": np.concatenate([e.center + s for e, s in zip(self.edges, starts, strict=False)]).astype(
                np.int64
            ),
            "j": np.concatenate([e.neighbor + s for e, s in zip(self.edges, starts, strict=False)]).astype(
                np.int64
            ),
            "S": np.concatenate([e.shift for e in self.edges]),
            "eptr": np.cumsum([0, *(len(e.center) for e in self.edges)]),
            "cutoff": np.array(CUTOFF),
        }


def make_input(name: str) -> BenchInput:
    """The input of this name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in INPUTS:
        raise ValueError(f"no input {name!r}; there are {', '.join(INPUTS)}")
    rng = np.random.default_rng(_SEED)
    if name == "water192":
        edge = 4 * _WATER_SPACING
        species, positions = _water_box(4, rng)
        frames, cell = [positions], edge * np.eye(3)[None]
    elif name == "silicon1000":
        positions, cell = silicon((5, 5, 5))
        species, frames, cell = np.full(len(positions), 14), [positions], cell[None]
    else:
        molecule, n_frames = _MOLECULES[name]
        table = np.array(molecule)
        frames = [table[:, 1:] @ _rotation(rng).T for _ in range(n_frames)]
        species, cell = np.tile(table[:, 0].astype(np.int64), n_frames), np.zeros((n_frames, 3, 3))
    frames = [x + rng.normal(scale=THERMAL, size=x.shape) for x in frames]
    periodic = bool(cell.any())
    edges = [neighbor_list(x, c, periodic, CUTOFF) for x, c in zip(frames, cell, strict=True)]
    targets = [pair_repulsion(x, c, e) for x, c, e in zip(frames, cell, edges, strict=True)]
    energy = np.array([energy for energy, _ in targets])
    return BenchInput(
        name,
        np.array([len(x) for x in frames]),
        species,
        np.concatenate(frames),
        cell,
        periodic,
        edges,
        energy - energy.mean(),
        np.concatenate([forces for _, forces in targets]),
    )


_MOLECULES = {
    "eth16": (_ETHANOL, 16),
    "mol15x5": (_ACETYLACETONE, 5),
    "mol27x8": (_BPA, 8),
    "mol27x16": (_BPA, 16),
}
INPUTS = {
    "eth16": "16 x 9 atoms, ethanol",
    "mol15x5": "5 x 15 atoms, acetylacetone",
    "mol27x8": "8 x 27 atoms, 3BPA",
    "mol27x16": "16 x 27 atoms, 3BPA",
    "water192": "192 atoms, periodic water",
    "silicon1000": "1,000 atoms, periodic silicon",
}
"""What `make_input` knows, in words."""


def thermal_ethanol(n_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Species (9,) and positions (n_frames, 9, 3), Å, of ethanol with every atom displaced."""
    table = np.array(_ETHANOL)
    return table[:, 0].astype(np.uint8), table[:, 1:] + rng.normal(scale=THERMAL, size=(n_frames, 9, 3))


def pair_repulsion(positions: np.ndarray, cell: np.ndarray, edges: Pairs) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (n, 3) of  E = sum over pairs of V(r),  V = STRENGTH exp(-r / Å) (1 - (r /
    r_c)^2)^3.

    F_i = sum_j V'(r_ij) v_ij / r_ij  with  v_ij = r_j - r_i  over the directed pairs.
    """
    v = positions[edges.neighbor] + edges.shift @ cell - positions[edges.center]
    r = np.linalg.norm(v, axis=1)
    inside = 1 - (r / CUTOFF) ** 2
    value = STRENGTH * np.exp(-r) * inside**3
    slope = -value - STRENGTH * np.exp(-r) * inside**2 * 6 * r / CUTOFF**2
    forces = np.zeros_like(positions)
    np.add.at(forces, edges.center, (slope / r)[:, None] * v)
    return 0.5 * float(value.sum()), forces


def silicon(
    repeats: tuple[int, int, int], unit: Literal["cubic", "primitive"] = "cubic"
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) and cell (3, 3), Å, of silicon with its atoms in their places: so many cubic cells of
    8 atoms, or primitive ones of 2."""
    half = np.array([(0, 1, 1), (1, 0, 1), (1, 1, 0)]) / 2
    vectors = np.eye(3) if unit == "cubic" else half
    lattice = np.concatenate([np.zeros((1, 3)), half]) if unit == "cubic" else np.zeros((1, 3))
    basis = np.concatenate([lattice, lattice + 0.25])
    places = np.argwhere(np.ones(repeats)) @ vectors
    positions = (places[:, None] + basis[None]).reshape(-1, 3)
    return _SILICON_EDGE * positions, _SILICON_EDGE * np.array(repeats)[:, None] * vectors


def _water_box(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Species and positions of n^3 molecules on a cubic grid, each turned so that it keeps away from those
    placed before."""
    table = np.array(_WATER)
    edge = n * _WATER_SPACING
    placed = np.zeros((0, 3))
    for site in np.argwhere(np.ones((n, n, n))):
        center = (site + 0.5) * _WATER_SPACING + rng.normal(scale=0.15, size=3)
        trials = [table[:, 1:] @ _rotation(rng).T + center for _ in range(24)]
        placed = np.concatenate([placed, max(trials, key=lambda x: _nearest(x, placed, edge))])
    return np.tile(table[:, 0].astype(np.int64), n**3), placed


def _nearest(x: np.ndarray, others: np.ndarray, edge: float) -> float:
    """Smallest distance between two sets of atoms in a periodic cube, Å."""
    if not len(others):
        return math.inf
    d = x[:, None] - others[None]
    return float(np.linalg.norm(d - edge * np.round(d / edge), axis=-1).min())


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """(3, 3), uniform over SO(3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))
