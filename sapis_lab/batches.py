"""Batches of a frame store: which frames a step sees is a pure function of (seed, step), so that a resumed
run sees the same.

The order is the concatenation of one random permutation of the D frames per epoch, cut into batches; no frame
is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sapis_lab.atoms import AtomsBatch, Layout, block_is_cheaper, collate, make_graph
from sapis_lab.augmentation import (
    Augmentation,
    augmentation,
    energy_change,
    random_displacements,
    random_rotations,
    rotated,
)
from sapis_lab.data import Edges, Frames, FrameStore
from sapis_lab.graphs import Graph
from sapis_lab.neighbors import neighbor_list
from sapis_lab.targets import EnergyTarget, ForcesTarget, Per, Target

LARGEST_DRAWN = 1 << 22
"""Frames up to which the order of an epoch is drawn as a whole and kept (32 MB). Of more, where 10⁷ would
take 80 MB and half a second in every process, positions are computed as they are wanted."""
_PIECE = 1 << 12
"""Positions that are computed together."""


def frames_of_step(step: int, *, n_frames: int, batch_size: int, seed: int) -> np.ndarray:
    """Positions in 0..n_frames-1 of the frames that optimiser step `step` (from 0) sees, (batch_size,)
    int64."""
    size = n_frames if n_frames <= LARGEST_DRAWN else _PIECE
    parts, k, last = [], step * batch_size, (step + 1) * batch_size
    while k < last:
        epoch, place = divmod(k, n_frames)
        piece, start = divmod(place, size)
        part = _order(seed, epoch, n_frames, piece, size)[start : start + last - k]
        parts.append(part)
        k += len(part)
    return np.concatenate(parts)


@lru_cache(maxsize=2)  # a batch seldom spans more than two
def _order(seed: int, epoch: int, n_frames: int, piece: int, size: int) -> np.ndarray:
    """The order of an epoch from position `piece` * `size` on, (size,) int64 or what is left of it; kept,
    since making it anew in every step costs as much as making the batch."""
    if size == n_frames:
        return np.random.default_rng([seed, epoch]).permutation(n_frames)
    positions = np.arange(piece * size, min((piece + 1) * size, n_frames))
    return permuted(positions, n=n_frames, key=(seed, epoch))


def permuted(positions: np.ndarray, *, n: int, key: tuple[int, ...]) -> np.ndarray:
    """Where a random permutation of 0..n-1, chosen by `key`, takes `positions`, of the same shape, int64; in
    memory that does not grow with n.

    A Feistel network of eight rounds permutes 0..4^h - 1 for any functions f_k of its rounds (Luby & Rackoff,
    SIAM J. Comput. 17, 373, 1988), with left and right halves of h bits:

        L, R  ->  R, L xor f_k(R).

    4^h is the first power of 4 from n on; what falls outside of 0..n-1 goes through it again until it does
    not (cycle walking: Black & Rogaway, CT-RSA 2002). f_k is the mixing of splitmix64.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence(key).generate_state(8, np.uint64)

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for of_round in keys:
            left, right = right, left ^ (_mixed(right + of_round) & mask)
        return (left << half) | right

    x = once(np.asarray(positions).astype(np.uint64))
    while (outside := x >= n).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_OF_BATCH = ("energy", "forces", "stress")
"""Labels that a batch has attributes of."""
HELD = 1 << 26
"""Bytes of positions up to which a store of molecules of one size is held as tensors."""
ENERGIES = 1 << 20
"""Frames up to which all energies minus references are kept; of more, those of every batch are computed."""
_GRAPHS = 64
"""Blocks that are kept: batches of one size need one or two, those of several sizes a new one every time."""


@dataclass
class BatchMaker:
    """Turns frame numbers of a store into batches for one model.

    Energies are targets: total energy minus the reference energies of the species, taken in float64 before
    rounding.
    """

    store: FrameStore
    references: np.ndarray
    """(n_species of the store,) eV"""
    layout: Layout
    cutoff: float
    dtype: torch.dtype = torch.float32
    targets: tuple[Target, ...] = (EnergyTarget(), ForcesTarget())
    """What the batches carry labels of."""
    _graphs: dict[bytes, Graph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._table = self.store.neighbors(self.cutoff)
        sizes = self.store.sizes
        self._periodic = sizes.periodic
        slots = self.store.n_frames * float(sizes.largest) ** 2
        n_edges, n_atoms = float(self._table.offsets[-1]), float(self.store.offsets[-1])
        cheaper = block_is_cheaper(n_slots=slots, n_edges=n_edges, n_atoms=n_atoms)
        # blocks for every batch, whose graphs need no edges; otherwise each batch takes what is cheaper for
        # it
        self._all_pairs = self.layout == "pairs" and not self._periodic and cheaper
        self._energies = (
            self.store.energy - self.store.composition() @ self.references
            if self.store.n_frames <= ENERGIES
            else None
        )
        keys = {target.key: target for target in self.targets}
        lacking = [key for key in keys if key not in self.store.labels]
        if lacking:
            raise ValueError(
                f"train.targets: {lacking[0]} is to be learnt, but {self.store.folder} has no such labels; "
                f"it has {', '.join(self.store.labels)}"
            )
        for target in self.targets:
            self._refuse_other_shape(target)
        self._incomplete = tuple(key for key in self.store.incomplete if key in keys)
        self._further = {key: target for key, target in keys.items() if key not in _OF_BATCH}
        self._is_held = (
            self._all_pairs and sizes.smallest == sizes.largest and self.store.positions.nbytes <= HELD
        )

    @property
    def n_atoms(self) -> np.ndarray:
        """(n_frames,) int64, atoms of every frame of the store, made when it is asked for."""
        return np.diff(self.store.offsets)

    def _refuse_other_shape(self, target: Target) -> None:
        """ValueError unless the store's labels are what the target says: numbers of other frames, atoms or
        components would broadcast."""
        key, store = target.key, self.store
        per = "atom" if store.is_per_atom(key) else "frame"
        rank = store.label_column(key).ndim - 1
        if (per, rank) != (target.per, target.rank):
            raise ValueError(
                f"train.targets: {key} is of rank {target.rank} per {target.per}, but {store.folder} has "
                f"labels of rank {rank} per {per}; make them agree"
            )
        declared = store.properties.get(key)
        if declared is not None and declared.unit and target.unit and declared.unit != target.unit:
            raise ValueError(
                f"train.targets: {key} has the unit {target.unit!r}, but {store.folder} has labels in "
                f"{declared.unit!r}; set one of them, or the data's factor"
            )

    @cached_property
    def _held(self) -> AtomsBatch:
        """All frames as one batch: of molecules of one size, a batch is then a few rows of each of its
        tensors."""
        ids = np.arange(self.store.n_frames)
        frames = self.store.frames(ids)
        graph = make_graph(
            layout="pairs", n_atoms=frames.n_atoms, edges=None, periodic=False, cutoff=self.cutoff
        )
        return collate(
            n_atoms=frames.n_atoms,
            species=frames.species,
            positions=frames.positions,
            cell=frames.cell,
            graph=graph,
            energy=self._energy(ids),
            forces=frames.forces,
            stress=frames.stress,
            labels={key: frames.label(key) for key in self._further},
            incomplete=self._incomplete,
            dtype=self.dtype,
        )

    def _rows(self, ids: np.ndarray) -> AtomsBatch:
        """The batch of `ids` out of the held one, with the same bits as when it is gathered from the
        store."""
        held, chosen, n = self._held, torch.from_numpy(ids), self.store.sizes.largest
        assert held.energy is not None and held.forces is not None

        def atoms(x: Tensor) -> Tensor:
            return x.view(-1, n, *x.shape[1:]).index_select(0, chosen).flatten(0, 1)

        def rows(key: str, x: Tensor) -> Tensor:
            return atoms(x) if self.store.is_per_atom(key) else x.index_select(0, chosen)

        graph = self._block(self.store.n_atoms(ids))
        more: dict[str, dict[str, Tensor]] = {}
        for name in ("labels", "present"):
            if name in held:  # type: ignore[operator]
                more[name] = {key: rows(key, x) for key, x in held[name].items()}
        return AtomsBatch(
            positions=atoms(held.positions),
            species=atoms(held.species),
            batch=graph.frame,
            n_atoms=held.n_atoms[: len(ids)],
            cell=held.cell.index_select(0, chosen),
            graph=graph,
            energy=held.energy.index_select(0, chosen),
            forces=atoms(held.forces),
            stress=held.stress.index_select(0, chosen) if "stress" in held else None,  # type: ignore[union-attr]
            **more,
        )

    def __call__(
        self,
        ids: np.ndarray,
        rotations: np.ndarray | None = None,
        displacements: np.ndarray | None = None,
    ) -> AtomsBatch:
        """The batch of the frames `ids` (b,), if given with atoms moved by `displacements` (n_atoms_total, 3)
        Å, which energies follow to first order, and then rotated frame by frame by `rotations` (b, 3, 3)."""
        if self._is_held and rotations is None and displacements is None:
            # a copy: ids of a split lie in a file that cannot be written
            return self._rows(np.array(ids, dtype=np.int64))
        frames = self.store.frames(ids)
        energy = self._energy(ids)
        if displacements is None:
            graph = self._graph(ids, frames)
        else:
            frames = replace(frames, positions=frames.positions + displacements)
            energy = energy + energy_change(frames.forces, displacements, frames.n_atoms)
            graph = self._graph_of(frames)
        positions, forces, cell, stress = frames.positions, frames.forces, frames.cell, frames.stress
        labels = {key: frames.label(key) for key in self._further}
        if rotations is not None:
            per_atom = np.repeat(rotations, frames.n_atoms, axis=0)
            positions, forces = (np.einsum("aij,aj->ai", per_atom, x) for x in (positions, forces))
            cell = cell @ rotations.transpose(0, 2, 1)
            stress = None if stress is None else rotations @ stress @ rotations.transpose(0, 2, 1)
            labels = {
                key: rotated(
                    x, per_atom if self.store.is_per_atom(key) else rotations, self._further[key].rank
                )
                for key, x in labels.items()
            }
        return collate(
            n_atoms=frames.n_atoms,
            species=frames.species,
            positions=positions,
            cell=cell,
            graph=graph,
            energy=energy,
            forces=forces,
            stress=stress,
            labels=labels,
            incomplete=self._incomplete,
            dtype=self.dtype,
        )

    def counts(self, ids: np.ndarray) -> Tensor:
        """(n_targets,) by what the sums of the loss over the frames `ids` are divided: the frames, or their
        atoms, that have a label, and at least 1."""
        return torch.tensor([max(1, t.n_labelled(self, ids)) for t in self.targets], dtype=self.dtype)

    def n_labelled(self, key: str, per: Per, ids: np.ndarray) -> int:
        """Frames, or atoms of frames, of `ids` that have a label of `key`."""
        if key not in self._incomplete:
            return len(ids) if per == "frame" else int(self.store.n_atoms(ids).sum())
        labels = self.store.label_rows(key, ids)
        return int((~np.isnan(labels.reshape(len(labels), -1)).any(1)).sum())

    def _energy(self, ids: np.ndarray) -> np.ndarray:
        """(b,) float64 eV, energies minus references."""
        if self._energies is not None:
            return self._energies[ids]
        return self.store.energy[ids] - self.store.composition(ids) @ self.references

    def _graph(self, ids: np.ndarray, frames: Frames) -> Graph:
        if self._all_pairs:
            return self._block(frames.n_atoms)
        return self._of_edges(self._table.edges(ids, shifts=self._periodic), frames.n_atoms)

    def _graph_of(self, frames: Frames) -> Graph:
        """The graph of frames whose atoms are not where the table has them."""
        if self._all_pairs:
            return self._block(frames.n_atoms)
        ends = np.cumsum(frames.n_atoms)
        pairs = [
            neighbor_list(frames.positions[end - n : end], cell, pbc, self.cutoff)
            for n, end, cell, pbc in zip(frames.n_atoms, ends, frames.cell, frames.pbc, strict=True)
        ]
        n_edges = np.array([len(p.center) for p in pairs], dtype=np.int64)
        return self._of_edges(
            Edges(n_edges, *(np.concatenate(c) for c in zip(*pairs, strict=True))), frames.n_atoms
        )

    def _of_edges(self, edges: Edges, n_atoms: np.ndarray) -> Graph:
        return make_graph(
            layout=self.layout,
            n_atoms=n_atoms,
            edges=edges,
            periodic=self._periodic,
            cutoff=self.cutoff,
        )

    def _block(self, n_atoms: np.ndarray) -> Graph:
        """The graph of a block, which follows from the sizes alone."""
        key = n_atoms.tobytes()
        if key not in self._graphs:
            if len(self._graphs) >= _GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = make_graph(
                layout="pairs", n_atoms=n_atoms, edges=None, periodic=False, cutoff=self.cutoff
            )
        return self._graphs[key]


class Share(NamedTuple):
    """What one rank has of a global batch."""

    batches: tuple[AtomsBatch, ...]
    """its frames, in the micro batches that go through the model one after the other; none where there are
    fewer frames than ranks"""
    counts: Tensor
    """(n_targets,) labelled frames, or atoms, of the whole global batch, by which the sums of the loss are
    divided"""


class TrainingStream(IterableDataset):
    """The shares of the steps from `first_step()` on, on one rank; endless, since the trainer counts steps.

    The shares of the ranks differ by one frame at most and make up the global batch, which depends on neither
    their number nor sizes; nor does a share depend on how many frames of it at most are a `micro_batch`.
    """

    def __init__(
        self,
        make: BatchMaker,
        ids: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        augment: bool | Augmentation,
        first_step: Callable[[], int],
        rank: int,
        world: int,
        micro_batch: int | None = None,
    ) -> None:
        self.make, self.ids, self.batch_size, self.seed = make, ids, batch_size, seed
        self.augment = augmentation(augment)
        self.first_step, self.rank, self.world = first_step, rank, world
        self.micro_batch = micro_batch

    def __iter__(self) -> Iterator[Share]:
        step = self.first_step()
        while True:
            yield self.share(step)
            step += 1

    def share(self, step: int) -> Share:
        """What this rank has of the global batch of `step`."""
        whole = self._chosen(step)
        size = self.micro_batch or len(whole)
        places = np.arange(len(whole))[self.rank :: self.world]
        cuts = [places[start : start + size] for start in range(0, len(places), size)]
        return Share(tuple(self._made(step, whole, cut) for cut in cuts), self.make.counts(whole))

    def batch(self, step: int) -> AtomsBatch:
        """The frames of this rank at `step`, changed as they are in the global batch."""
        whole = self._chosen(step)
        return self._made(step, whole, np.arange(len(whole))[self.rank :: self.world])

    def _made(self, step: int, whole: np.ndarray, places: np.ndarray) -> AtomsBatch:
        """The batch of the frames at these places of the global batch `whole`."""
        ids, group, noise = whole[places], self.augment.rotations, self.augment.noise
        rotations = (
            None
            if group == "none"
            else random_rotations(self.batch_size, seed=self.seed, step=step, group=group)[places]
        )
        if not noise:
            return self.make(ids, rotations)
        moves = [
            random_displacements(int(n), noise=noise, seed=self.seed, step=step, place=int(place))
            for n, place in zip(self.make.n_atoms[ids], places, strict=True)
        ]
        return self.make(ids, rotations, np.concatenate(moves))

    def _chosen(self, step: int) -> np.ndarray:
        """Ids of the frames of the global batch."""
        return self.ids[
            frames_of_step(step, n_frames=len(self.ids), batch_size=self.batch_size, seed=self.seed)
        ]


class FixedBatches(torch.utils.data.Dataset):
    """A split in batches of fixed order, as scoring wants it."""

    def __init__(self, make: BatchMaker, ids: np.ndarray, *, batch_size: int) -> None:
        self.make, self.ids, self.batch_size = make, ids, batch_size

    def __len__(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    def __getitem__(self, k: int) -> AtomsBatch:
        return self.make(self.ids[k * self.batch_size : (k + 1) * self.batch_size])

    def __iter__(self) -> Iterator[AtomsBatch]:
        return (self[k] for k in range(len(self)))
