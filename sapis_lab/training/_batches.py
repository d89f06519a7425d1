"""Batches of a frame store: which frames a step sees is a pure function of (seed, step), so that a resumed run sees the same.

The order is the concatenation of one random permutation of the D frames per epoch, cut into batches; no frame is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sapis_lab.atoms import AtomsBatch, Layout, block_is_cheaper, collate, make_graph
from sapis_lab.data import Frames, FrameStore
from sapis_lab.graphs import Graph

_AUGMENT = 0x0A
"""Keeps the random streams of order and augmentation apart."""


def frames_of_step(step: int, *, n_frames: int, batch_size: int, seed: int) -> np.ndarray:
    """Positions in 0..n_frames-1 of the frames that optimiser step `step` (from 0) sees, (batch_size,) int64."""
    first = step * batch_size
    wanted = np.arange(first, first + batch_size)
    epochs = np.unique(wanted // n_frames)
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(n_frames) for e in epochs}
    return np.array([orders[int(k // n_frames)][k % n_frames] for k in wanted])


def random_rotations(n: int, *, seed: int, step: int) -> np.ndarray:
    """(n, 3, 3) float64, uniform on O(3): half of them with a reflection."""
    rng = np.random.default_rng([seed, step, _AUGMENT])
    q = rng.normal(size=(n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    return np.moveaxis(np.array(rows), -1, 0) * sign[:, None, None]


@dataclass
class BatchMaker:
    """Turns frame numbers of a store into batches for one model.

    Energies are targets: total energy minus the reference energies of the species, taken in float64 before rounding.
    """

    store: FrameStore
    references: np.ndarray
    """(n_species of the store,) eV"""
    layout: Layout
    cutoff: float
    dtype: torch.dtype = torch.float32
    _graphs: dict[bytes, Graph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._table = self.store.neighbors(self.cutoff)
        self._periodic = bool(self.store.pbc.any())
        self.n_atoms = sizes = np.diff(self.store.offsets)
        slots = len(sizes) * float(sizes.max()) ** 2
        cheaper = block_is_cheaper(n_slots=slots, n_edges=float(self._table.offsets[-1]), n_atoms=float(sizes.sum()))
        # blocks for every batch, whose graphs need no edges; otherwise each batch takes what is cheaper for it
        self._all_pairs = self.layout == "pairs" and not self._periodic and cheaper
        self._targets = self.store.energy - self.store.composition(np.arange(len(sizes))) @ self.references

    def __call__(self, ids: np.ndarray, rotations: np.ndarray | None = None) -> AtomsBatch:
        """The batch of the frames `ids` (b,), rotated frame by frame by `rotations` (b, 3, 3) if given."""
        frames = self.store.frames(ids)
        positions, forces, cell, stress = frames.positions, frames.forces, frames.cell, frames.stress
        if rotations is not None:
            per_atom = np.repeat(rotations, frames.n_atoms, axis=0)
            positions, forces = (np.einsum("aij,aj->ai", per_atom, x) for x in (positions, forces))
            cell = cell @ rotations.transpose(0, 2, 1)
            stress = None if stress is None else rotations @ stress @ rotations.transpose(0, 2, 1)
        return collate(
            n_atoms=frames.n_atoms,
            species=frames.species,
            positions=positions,
            cell=cell,
            graph=self._graph(ids, frames),
            energy=self._targets[ids],
            forces=forces,
            stress=stress,
            dtype=self.dtype,
        )

    def _graph(self, ids: np.ndarray, frames: Frames) -> Graph:
        if self._all_pairs:  # the graph of a block follows from the sizes alone
            key = frames.n_atoms.tobytes()
            if key not in self._graphs:
                self._graphs[key] = make_graph(layout="pairs", n_atoms=frames.n_atoms, edges=None, periodic=False, cutoff=self.cutoff)
            return self._graphs[key]
        edges = self._table.edges(ids)
        cuts = np.cumsum(edges.n_edges)[:-1]
        split = list(zip(*(np.split(a, cuts) for a in (edges.center, edges.neighbor, edges.shift)), strict=True))
        return make_graph(layout=self.layout, n_atoms=frames.n_atoms, edges=split, periodic=self._periodic, cutoff=self.cutoff)


class Share(NamedTuple):
    """What one rank has of a global batch."""

    batch: AtomsBatch | None
    """its frames; None where there are fewer frames than ranks"""
    counts: Tensor
    """(2,) frames and atoms of the whole global batch, by which sums over frames and over atoms are divided"""


class TrainingStream(IterableDataset):
    """The shares of the steps from `first_step()` on, on one rank; endless, since the trainer counts steps.

    The shares of the ranks differ by one frame at most and make up the global batch, which depends on neither their number nor sizes.
    """

    def __init__(
        self,
        make: BatchMaker,
        ids: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        augment: bool,
        first_step: Callable[[], int],
        rank: int,
        world: int,
    ) -> None:
        self.make, self.ids, self.batch_size, self.seed, self.augment = make, ids, batch_size, seed, augment
        self.first_step, self.rank, self.world = first_step, rank, world

    def __iter__(self) -> Iterator[Share]:
        step = self.first_step()
        while True:
            yield self.share(step)
            step += 1

    def share(self, step: int) -> Share:
        """What this rank has of the global batch of `step`."""
        whole = self.ids[self._chosen(step)]
        counts = torch.tensor([len(whole), int(self.make.n_atoms[whole].sum())], dtype=self.make.dtype)
        return Share(self.batch(step) if self.rank < len(whole) else None, counts)

    def batch(self, step: int) -> AtomsBatch:
        """The frames of this rank at `step`, with the rotations that they have in the global batch."""
        mine = slice(self.rank, None, self.world)
        rotations = random_rotations(self.batch_size, seed=self.seed, step=step)[mine] if self.augment else None
        return self.make(self.ids[self._chosen(step)[mine]], rotations)

    def _chosen(self, step: int) -> np.ndarray:
        return frames_of_step(step, n_frames=len(self.ids), batch_size=self.batch_size, seed=self.seed)


class FixedBatches(torch.utils.data.Dataset):
    """A split in batches of fixed order, as scoring wants it."""

    def __init__(self, make: BatchMaker, ids: np.ndarray, *, batch_size: int) -> None:
        self.make, self.parts = make, [ids[k : k + batch_size] for k in range(0, len(ids), batch_size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int) -> AtomsBatch:
        return self.make(self.parts[k])

    def __iter__(self) -> Iterator[AtomsBatch]:
        return (self[k] for k in range(len(self)))
