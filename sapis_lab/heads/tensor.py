"""Vectors and symmetric matrices from the displacements to the neighbours, weighted by both atoms.

    v_i = sum_j f(r_ij) w_ij u_ij,      M_i = sum_j f(r_ij) w_ij u_ij u_ij^T + s_i 1,      u = r_ij / |r_ij|,

with w_ij = MLP(x_i, x_j, R(r_ij)) and f the cutoff envelope; by atom, or summed over the atoms of a frame.
The result turns with the frame whatever the trunk, whose features need only be invariant.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from sapis_lab.atoms import AtomsBatch
from sapis_lab.geometry.radial import envelope, exp_normal_centers
from sapis_lab.graphs import EdgeGraph
from sapis_lab.heads._base import Head, HeadConfig, Perceptron
from sapis_lab.targets import Target

_RADIAL = 16
"""Functions of the distance that the weights depend on."""


class TensorConfig(HeadConfig):
    """A vector or a symmetric matrix, per atom or per frame."""

    kind: Literal["tensor"] = "tensor"

    def build(self, target: Target, *, n_features: int, cutoff: float) -> Head:
        if target.rank not in (1, 2):
            raise ValueError(
                f"train.heads.{target.key}: a tensor head predicts vectors and matrices, the target is a "
                "scalar; use kind: scalar"
            )
        return TensorHead(self, n_features, cutoff, rank=target.rank, per_atom=target.per == "atom")


class TensorHead(Head):
    """Sums over neighbours of directions (rank 1) or their outer products (rank 2)."""

    centers: Tensor

    def __init__(
        self, config: TensorConfig, n_features: int, cutoff: float, *, rank: int, per_atom: bool
    ) -> None:
        super().__init__()
        self.rank, self.per_atom, self.cutoff = rank, per_atom, cutoff
        centers, self.width = exp_normal_centers(_RADIAL)
        self.register_buffer("centers", centers.float(), persistent=False)
        self.of_center = nn.Linear(n_features, config.hidden)
        self.of_neighbor = nn.Linear(n_features, config.hidden, bias=False)
        self.of_distance = nn.Linear(_RADIAL, config.hidden, bias=False)
        self.weight = nn.Linear(config.hidden, 1)
        nn.init.normal_(self.weight.weight, std=0.1 / config.hidden**0.5)
        self.trace = Perceptron(n_features, config.hidden) if rank == 2 else None

    def forward(self, node_features: Tensor, batch: AtomsBatch) -> Tensor:
        own = self.atom_scale * self._sums(node_features, batch)
        if self.trace is not None:
            diagonal = self.atom_scale * self.trace(node_features).squeeze(1)
            diagonal = diagonal + self.offset.index_select(0, batch.species)
            own = own + diagonal.view(-1, 1, 1) * torch.eye(3, dtype=own.dtype, device=own.device)
        return own if self.per_atom else self.summed(own, batch)

    def _sums(self, x: Tensor, batch: AtomsBatch) -> Tensor:
        """(A, 3) or (A, 3, 3)."""
        graph = batch.graph
        with torch.no_grad():
            vectors = graph.vectors(batch.positions, batch.cell).to(x.dtype)
        center, neighbor = self.of_center(x), self.of_neighbor(x)
        if isinstance(graph, EdgeGraph):
            pairs = center.index_select(0, graph.center) + neighbor.index_select(0, graph.neighbor)
            moments = self._moments(pairs, vectors)
            return moments.new_zeros(len(x), *moments.shape[1:]).index_add(0, graph.center, moments)
        g, i, k = graph.dims
        of_i = graph.centers_of(graph.pad(center).unsqueeze(0)).view(g, i, 1, -1)
        of_j = graph.neighbors_of(graph.pad(neighbor).unsqueeze(0)).view(g, 1, k, -1)
        moments = self._moments(of_i + of_j, vectors.permute(1, 2, 3, 0))
        return graph.unpad(moments.sum(2).flatten(0, 1))

    def _moments(self, pairs: Tensor, vectors: Tensor) -> Tensor:
        """Weighted directions, or their outer products, of pairs (..., hidden) with vectors (..., 3); nothing
        of slots without a pair, whose vectors have the length of the cutoff."""
        r = vectors.norm(dim=-1)
        radial = torch.exp(-self.width * (torch.exp(-5 * r / self.cutoff).unsqueeze(-1) - self.centers) ** 2)
        weight = self.weight(silu(pairs + self.of_distance(radial))).squeeze(-1) * envelope(r / self.cutoff)
        u = vectors / r.clamp_min(1e-6).unsqueeze(-1)
        outer = u if self.rank == 1 else u.unsqueeze(-1) * u.unsqueeze(-2)
        return weight.view(*weight.shape, *(1,) * self.rank) * outer
