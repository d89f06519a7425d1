"""Neighbour graphs of a batch, in the two layouts that models ask for, and what follows from dE/dv on them.

Every layout gives the displacement of its pairs, v_ij = r_j + image - r_i, and turns the gradient g_ij =
    dE/dv_ij into forces   F_i = sum_j g_ij - sum_j g_ji,        strain derivative   dE/deps = sum_ij v_ij (x)
    g_ij   (symmetrised).

`EdgeGraph`: a list of directed edges, centre i and neighbour j, as convolutions with scatter want it.
`PairGraph`: groups of I centres by K slots, so that sums over neighbours are batched matrix products without
scatter:
    block   molecules padded to n atoms, all pairs: B groups, I = K = n, nothing is gathered;
    table   one group an atom, a padded neighbour table: A groups, I = 1, K = 1 + largest number of
        neighbours.
In both the pair (i, i) is a slot of its own, `is_self`. Slots that hold no pair within the cutoff have the
vector (cutoff, 0, 0), where the envelope and its first two derivatives vanish, so that models need no other
mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class EdgeGraph(NamedTuple):
    """Directed edges, both directions present."""

    center: Tensor
    """(E,) int64, atom i"""
    neighbor: Tensor
    """(E,) int64, atom j"""
    shift: Tensor | None
    """(E, 3) image of j in units of the cell vectors; None without periodicity"""
    frame: Tensor
    """(A,) int64, the frame of every atom"""
    n_frames: int

    def vectors(self, positions: Tensor, cell: Tensor) -> Tensor:
        """v_ij, (E, 3), Å."""
        v = positions.index_select(0, self.neighbor) - positions.index_select(0, self.center)
        if self.shift is not None:
            v = v + torch.bmm(
                self.shift.to(v.dtype).unsqueeze(1), cell.index_select(0, self.frame[self.center])
            ).squeeze(1)
        return v

    def forces(self, gradient: Tensor) -> Tensor:
        """(A, 3) from dE/dv (E, 3)."""
        zero = gradient.new_zeros(len(self.frame), 3)
        return zero.index_add(0, self.center, gradient).index_add(0, self.neighbor, gradient, alpha=-1)

    def strain_gradient(self, vectors: Tensor, gradient: Tensor) -> Tensor:
        """dE/deps, (B, 3, 3), eV."""
        outer = vectors.unsqueeze(2) * gradient.unsqueeze(1)
        return _symmetrised(outer.new_zeros(self.n_frames, 3, 3).index_add(0, self.frame[self.center], outer))

    def as_edges(self) -> EdgeGraph:
        """This graph: its pairs are edges already."""
        return self

    def rows(self, per_pair: Tensor) -> Tensor:
        """(E, 3), the rows of the edges of `as_edges`, from what has the layout of `vectors`."""
        return per_pair

    @property
    def n_nodes(self) -> int:
        """Rows of node arrays: the atoms."""
        return len(self.frame)

    @property
    def n_pairs(self) -> int:
        """Number of directed pairs that the model computes with."""
        return len(self.center)


class PairGraph(NamedTuple):
    """Padded groups of pairs; exactly one of `block` and `neighbor` is set."""

    block: tuple[int, int] | None
    """(B, n): B molecules padded to n atoms"""
    slot: Tensor | None
    """block: (A,) int64, the padded position of every atom; None when no molecule is padded"""
    neighbor: Tensor | None
    """table: (A, K) int64, slot 0 is the atom itself; padding points to the atom itself"""
    mask: Tensor | None
    """table: (A, K) bool, true where the slot holds a neighbour; block: (B, n) bool, real atoms, or None"""
    shift: Tensor | None
    """table: (A, K, 3) images; None without periodicity"""
    frame: Tensor
    """(A,) int64, the frame of every atom"""
    n_frames: int
    cutoff: float

    @property
    def dims(self) -> tuple[int, int, int]:
        """(G, I, K): groups, centres of a group, slots of a centre."""
        if self.block is not None:
            return self.block[0], self.block[1], self.block[1]
        assert self.neighbor is not None
        return self.neighbor.shape[0], 1, self.neighbor.shape[1]

    @property
    def n_nodes(self) -> int:
        """Rows of node arrays, padding included: G I."""
        return self.dims[0] * self.dims[1]

    @property
    def n_pairs(self) -> int:
        """Number of slots that the model computes with, padding and self pairs included."""
        return self.n_nodes * self.dims[2]

    def pad(self, per_atom: Tensor, value: float = 0) -> Tensor:
        """(A, ...) -> (n_nodes, ...)."""
        if self.slot is None:
            return per_atom
        padded = per_atom.new_full((self.n_nodes, *per_atom.shape[1:]), value)
        return padded.index_copy(0, self.slot, per_atom)

    def unpad(self, per_node: Tensor) -> Tensor:
        """(n_nodes, ...) -> (A, ...)."""
        return per_node if self.slot is None else per_node.index_select(0, self.slot)

    def neighbors_of(self, per_node: Tensor) -> Tensor:
        """Rows of the neighbours: (F, n_nodes, C) -> (F G, K, C)."""
        _, _, k = self.dims
        if self.neighbor is not None:
            per_node = per_node.index_select(1, self.neighbor.reshape(-1))
        return per_node.reshape(-1, k, per_node.shape[-1])

    def centers_of(self, per_node: Tensor) -> Tensor:
        """Rows of the centres: (F, n_nodes, C) -> (F G, I, C)."""
        return per_node.reshape(-1, self.dims[1], per_node.shape[-1])

    def is_self(self) -> Tensor:
        """(1 or G, I, K) bool: the slots of the pairs (i, i)."""
        _, i, k = self.dims
        device = self.frame.device
        if self.block is not None:
            return torch.eye(i, dtype=torch.bool, device=device).unsqueeze(0)
        return (torch.arange(k, device=device) == 0).view(1, 1, k)

    def is_pair(self) -> Tensor:
        """(1 or G, I, K) bool: the slots that hold two different atoms (within the cutoff or not)."""
        g, i, k = self.dims
        if self.block is None:
            assert self.mask is not None
            return self.mask.view(g, 1, k)
        other = ~self.is_self()
        return other if self.mask is None else other & self.mask.view(g, 1, k) & self.mask.view(g, i, 1)

    def vectors(self, positions: Tensor, cell: Tensor) -> Tensor:
        """v_ij, (3, G, I, K), Å; (cutoff, 0, 0) in slots without a pair."""
        g, i, k = self.dims
        if self.block is not None:
            p = self.pad(positions).view(g, i, 3).permute(2, 0, 1)
            v = p.unsqueeze(2) - p.unsqueeze(3)
        else:
            assert self.neighbor is not None
            v = positions.index_select(0, self.neighbor.reshape(-1)).view(g, k, 3) - positions.unsqueeze(1)
            if self.shift is not None:
                v = v + torch.bmm(self.shift.to(v.dtype), cell.index_select(0, self.frame))
            v = v.permute(2, 0, 1).unsqueeze(2)
        away = v.new_tensor([self.cutoff, 0.0, 0.0]).view(3, 1, 1, 1)
        return torch.where(self.is_pair(), v, away)

    def forces(self, gradient: Tensor) -> Tensor:
        """(A, 3) from dE/dv (3, G, I, K)."""
        if self.block is not None:
            f = gradient.sum(-1) - gradient.sum(-2)
            return self.unpad(f.permute(1, 2, 0).reshape(-1, 3))
        assert self.neighbor is not None
        on_center = gradient.sum(-1).reshape(3, -1)
        on_neighbor = torch.zeros_like(on_center).index_add(
            1, self.neighbor.reshape(-1), gradient.reshape(3, -1)
        )
        return (on_center - on_neighbor).T

    def _pair_slots(self) -> Tensor:
        """(E,) int64: which of the G I K slots hold two atoms."""
        return self.is_pair().expand(self.dims).reshape(-1).nonzero().squeeze(1)

    def as_edges(self) -> EdgeGraph:
        """The slots that hold two atoms (in a block those beyond the cutoff too) as directed edges, sorted by
        centre."""
        (_, i, k), slots, shift = self.dims, self._pair_slots(), None
        if self.block is not None:
            center, neighbor = slots // k, slots // (i * k) * k + slots % k
            if self.slot is not None:  # places of the padded molecules -> atoms
                atom = slots.new_empty(self.n_nodes).index_copy(
                    0, self.slot, torch.arange(len(self.slot), device=slots.device)
                )
                center, neighbor = atom[center], atom[neighbor]
        else:
            assert self.neighbor is not None
            center, neighbor = slots // k, self.neighbor.reshape(-1)[slots]
            shift = None if self.shift is None else self.shift.reshape(-1, 3)[slots]
        return EdgeGraph(center, neighbor, shift, self.frame, self.n_frames)

    def rows(self, per_pair: Tensor) -> Tensor:
        """(E, 3), the rows of the edges of `as_edges`, from (3, G, I, K), the layout of `vectors`."""
        return per_pair.reshape(3, -1).index_select(1, self._pair_slots()).T

    def strain_gradient(self, vectors: Tensor, gradient: Tensor) -> Tensor:
        """dE/deps, (B, 3, 3), eV."""
        g = self.dims[0]
        v, d = (t.permute(1, 0, 2, 3).reshape(g, 3, -1) for t in (vectors, gradient))
        outer = torch.bmm(v, d.transpose(1, 2))
        if self.block is None:
            outer = outer.new_zeros(self.n_frames, 3, 3).index_add(0, self.frame, outer)
        return _symmetrised(outer)


Graph = EdgeGraph | PairGraph


def _symmetrised(t: Tensor) -> Tensor:
    return 0.5 * (t + t.transpose(1, 2))
