"""One batch of structures: a torch_geometric `Data` whose fields are named, shaped and in eV and Å.

`positions`, `species`, `cell`, `batch`, the targets and one neighbour graph in the layout that the model
declares. Being a `Data`, it moves between devices, pins and prints as PyTorch Geometric users expect, and PyG
models can be fed `edge_index`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from sapis_lab.graphs import EdgeGraph, Graph, PairGraph
from sapis_lab.neighbors import Edges

Layout = Literal["edges", "pairs"]


class AtomsBatch(Data):
    """A batch of B frames with A atoms in all.

    positions (A, 3) Å; species (A,) int64 atomic numbers; batch (A,) int64 frame of every atom; n_atoms (B,)
    int64; cell (B, 3, 3) Å, rows are lattice vectors, zero without periodicity; graph: `EdgeGraph` or
    `PairGraph`. Targets where known: energy (B,) eV minus reference energies, forces (A, 3) eV/Å, stress (B,
    3, 3) eV/Å^3, tension positive.
    """

    positions: Tensor
    species: Tensor
    batch: Tensor
    n_atoms: Tensor
    cell: Tensor
    graph: Graph
    energy: Tensor | None
    forces: Tensor | None
    stress: Tensor | None
    labels: dict[str, Tensor]
    """labels of further targets by key; the attribute is there where there are some"""
    present: dict[str, Tensor]
    """(B,) or (A,) bool by key: which labels there are; the attribute is there where some are missing, and
    those are zero"""

    def label(self, key: str) -> Tensor:
        """The labels of the target `key`."""
        found = self[key] if key in ("energy", "forces", "stress") else self.labels[key]
        assert isinstance(found, Tensor), f"the batch has no {key}"
        return found

    def labelled(self, key: str) -> Tensor | None:
        """(B,) or (A,) bool: which frames, or atoms, have a label of `key`; None where all have."""
        return self.present.get(key) if "present" in self else None  # type: ignore[operator]

    @property
    def num_nodes(self) -> int:
        """Number of atoms A."""
        return self.species.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of frames B."""
        return self.n_atoms.shape[0]

    @property
    def edge_index(self) -> Tensor:
        """(2, E) in PyG's order, neighbour (source) first; only in the edge layout."""
        if not isinstance(self.graph, EdgeGraph):
            raise ValueError("edge_index needs a batch in the layout 'edges', this one has 'pairs'")
        return torch.stack([self.graph.neighbor, self.graph.center])


def make_graph(
    *,
    layout: Layout,
    n_atoms: np.ndarray,
    edges: Edges | Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]] | None,
    periodic: bool,
    cutoff: float,
) -> Graph:
    """The neighbour graph of a batch.

    Args:
        layout: what the model declares. `pairs` becomes a block when nothing is periodic and most pairs are
        neighbours, else a table. n_atoms: (B,) atoms of every frame.   periodic: any frame has periodic
        boundaries.   cutoff: Å.
        edges: per frame (center (e,), neighbor (e,), shift (e, 3)), indices within the frame, sorted by
            centre, or those of all frames joined. None is allowed where all pairs are neighbours anyway
            (block layout of molecules).
    """
    if edges is not None and not isinstance(edges, Edges):
        edges = _joined(edges)
    frame = torch.from_numpy(np.repeat(np.arange(len(n_atoms)), n_atoms))
    if layout == "pairs" and not periodic and (edges is None or _dense(n_atoms, edges)):
        return _block(n_atoms, frame, cutoff)
    if edges is None:
        raise ValueError("a neighbour table needs the edges of every frame, got none")
    first_atom = np.repeat(np.cumsum(n_atoms) - n_atoms, edges.n_edges)
    center, neighbor = ((k + first_atom).astype(np.int64, copy=False) for k in edges[1:3])
    shift = edges.shift if periodic else None
    if periodic and shift is None:
        raise ValueError("edges of periodic frames need their lattice translations, got none")
    if layout == "edges":
        images = None if shift is None else torch.from_numpy(shift.astype(np.float32))
        return EdgeGraph(torch.from_numpy(center), torch.from_numpy(neighbor), images, frame, len(n_atoms))
    return _table(center, neighbor, shift, frame, len(n_atoms), cutoff)


def _joined(edges: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Edges:
    center, neighbor, shift = (np.concatenate([e[k] for e in edges]) for k in range(3))
    return Edges(np.array([len(e[0]) for e in edges]), center, neighbor, shift)


def block_is_cheaper(*, n_slots: float, n_edges: float, n_atoms: float) -> bool:
    """True where blocks of all pairs, `n_slots` in all, cost less than tables of the `n_edges` neighbours and
    the atoms themselves.

    A slot of a block needs no gather; below 2.5 slots a real pair it wins (16 x 9 atoms, all pairs: 108
    against 154 ms a step).
    """
    return n_slots < 2.5 * (n_edges + n_atoms)


def _dense(n_atoms: np.ndarray, edges: Edges) -> bool:
    slots = len(n_atoms) * int(n_atoms.max()) ** 2
    return block_is_cheaper(n_slots=slots, n_edges=len(edges.center), n_atoms=int(n_atoms.sum()))


def _block(n_atoms: np.ndarray, frame: Tensor, cutoff: float) -> PairGraph:
    b, n = len(n_atoms), int(n_atoms.max())
    if (n_atoms == n).all():
        return PairGraph((b, n), None, None, None, None, frame, b, cutoff)
    real = torch.from_numpy(np.arange(n)[None] < n_atoms[:, None])
    slot = real.reshape(-1).nonzero().squeeze(1)
    return PairGraph((b, n), slot, None, real, None, frame, b, cutoff)


def _table(
    center: np.ndarray,
    neighbor: np.ndarray,
    shift: np.ndarray | None,
    frame: Tensor,
    n_frames: int,
    cutoff: float,
) -> PairGraph:
    n = len(frame)
    count = np.bincount(center, minlength=n)
    width = 1 + int(count.max(initial=0))
    start = np.cumsum(count) - count
    column = 1 + np.arange(len(center)) - start[center]
    table = np.repeat(np.arange(n)[:, None], width, 1)
    mask = np.zeros((n, width), dtype=bool)
    table[center, column], mask[center, column] = neighbor, True
    images: Tensor | None = None
    if shift is not None:
        padded = np.zeros((n, width, 3), dtype=np.float32)
        padded[center, column] = shift
        images = torch.from_numpy(padded)
    return PairGraph(
        None, None, torch.from_numpy(table), torch.from_numpy(mask), images, frame, n_frames, cutoff
    )


FAR = 50.0
"""Distance of a frame's centre from the origin, Å, beyond which it is moved; float32 resolves 4e-6 Å
there."""


def _near_origin(positions: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    if len(positions) and np.abs(positions).max() < FAR / 2:
        return positions  # the usual case: no centre is farther than sqrt(3) times the largest coordinate
    frame = np.repeat(np.arange(len(n_atoms)), n_atoms)
    center = (
        np.stack([np.bincount(frame, positions[:, k], minlength=len(n_atoms)) for k in range(3)], 1)
        / n_atoms[:, None]
    )
    far = np.linalg.norm(center, axis=1) > FAR
    return positions - (center * far[:, None])[frame] if far.any() else positions


def collate(
    *,
    n_atoms: np.ndarray,
    species: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    graph: Graph,
    energy: np.ndarray | None = None,
    forces: np.ndarray | None = None,
    stress: np.ndarray | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    incomplete: Collection[str] = (),
    dtype: torch.dtype = torch.float32,
) -> AtomsBatch:
    """The batch of flat arrays (see `AtomsBatch` for shapes and units); labels of the keys `incomplete` may
    be missing (NaN).

    Frames whose centre is far from the origin are moved there in float64 before positions are rounded to
    `dtype`: at 1000 Å float32 resolves 6e-5 Å, which moves forces by 2e-3 eV/Å.
    """
    positions = _near_origin(positions, np.asarray(n_atoms))

    def tensor(a: np.ndarray | None) -> Tensor | None:
        return None if a is None else torch.from_numpy(np.ascontiguousarray(a)).to(dtype)

    given = {"energy": energy, "forces": forces, "stress": stress, **(labels or {})}
    present: dict[str, Tensor] = {}
    for key in incomplete:
        if (values := given.get(key)) is not None:
            there = ~np.isnan(values.reshape(len(values), -1)).any(1)
            present[key] = torch.from_numpy(there)
            given[key] = np.where(there.reshape(-1, *(1,) * (values.ndim - 1)), values, 0.0)
    more: dict[str, Any] = {"labels": {key: tensor(given[key]) for key in labels}} if labels else {}
    if present:
        more["present"] = present
    return AtomsBatch(
        positions=tensor(positions),
        species=torch.from_numpy(species.astype(np.int64)),
        batch=graph.frame,
        n_atoms=torch.from_numpy(np.asarray(n_atoms, dtype=np.int64)),
        cell=tensor(cell),
        graph=graph,
        energy=tensor(given["energy"]),
        forces=tensor(given["forces"]),
        stress=tensor(given["stress"]),
        **more,
    )
