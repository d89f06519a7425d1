"""TensorNet (Simeon & De Fabritiis, arXiv:2306.06482), TensorNet2 (arXiv:2601.00581) and the Equivariant
Transformer (Thölke & De Fabritiis, arXiv:2202.02541) as packaged in torchmd-net.

    tensornet   2 layers
    tensornet2  2 layers, whose messages see 16 charges of every atom, equilibrated to a neutral frame; not
                the Coulomb energy of these charges, which the package has for molecules and large cells
    et          3 layers, 8 heads

Options: layers. Both take the edges of the task in place of their own neighbour search, so that its cost is
on no clock, as for the other codes; 32 radial functions of the package's kind "expnorm".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmdnet.models.model import create_model

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized

ARCHITECTURES = {"tensornet": "tensornet", "tensornet2": "tensornet2", "et": "equivariant-transformer"}
SHAPES: dict[str, dict[str, int]] = {
    "tensornet": {"layers": 2},
    "tensornet2": {"layers": 2},
    "et": {"layers": 3},
}


class Edges(NamedTuple):
    """Edges as the models take them, with a loop at every atom where the architecture wants one."""

    pairs: Tensor
    """(2, E) centre and neighbour"""
    translation: Tensor
    """(E, 3) Å"""
    is_loop: Tensor
    """(E,)"""


class Inputs(NamedTuple):
    """A prepared batch."""

    species: Tensor
    positions: Tensor
    frame: Tensor
    box: Tensor | None
    edges: Edges


class GivenEdges(nn.Module):
    """Takes the place of the model's neighbour search: distances and vectors (centre minus neighbour) of the
    edges it was given last."""

    def __init__(self, search: Any) -> None:
        super().__init__()
        self.loop, self.return_vecs = search.loop, search.return_vecs
        self.cutoff_upper, self.cutoff_lower, self.max_num_pairs = (
            search.cutoff_upper,
            search.cutoff_lower,
            search.max_num_pairs,
        )
        self.edges: Edges | None = None

    def forward(
        self, pos: Tensor, batch: Tensor | None = None, box: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert self.edges is not None, "edges are given before the model is called"
        pairs, translation, is_loop = self.edges
        vectors = pos.index_select(0, pairs[0]) - pos.index_select(0, pairs[1]) - translation
        squares = vectors.square().sum(-1)
        # a root at zero has no finite derivative, and loops are zero
        distances = torch.where(
            is_loop, torch.zeros_like(squares), torch.where(is_loop, torch.ones_like(squares), squares).sqrt()
        )
        # cloned: one of the models writes into it
        return (
            pairs,
            distances,
            vectors.clone() if self.return_vecs else None,
        )


class NoCharges(nn.Module):
    """Takes the place of TensorNet2's last prediction of charges, read by its Coulomb energy alone."""

    def forward(self, features: Tensor, frame: Tensor, total: Tensor) -> Tensor:
        return features.new_zeros(len(features), 0)


class TorchmdNet(Peer):
    """A model of the package with `derivative=True`."""

    note = "edges of the task in place of its own neighbour search"

    def __init__(self, module: nn.Module, width: int) -> None:
        self.module, self.width = module, width
        network: Any = module.representation_model
        network.distance = self._given = GivenEdges(network.distance)

    def prepare(self, task: Task) -> Inputs:
        center, neighbor, translation = task.center, task.neighbor, task.translation
        if self._given.loop:
            own = torch.arange(len(task.species))
            center, neighbor = torch.cat([center, own]), torch.cat([neighbor, own])
            translation = torch.cat([translation, translation.new_zeros(len(own), 3)])
        # an atom that sees its own image is no loop
        is_loop = (center == neighbor) & (translation == 0).all(1)
        edges = Edges(torch.stack([center, neighbor]), translation, is_loop)
        return Inputs(
            task.species, task.positions, task.frame, task.cell[0] if task.periodic else None, edges
        )

    def ef(self, inputs: Inputs, train: bool) -> EnergyForces:
        self._given.edges = inputs.edges
        positions = inputs.positions.detach().clone().requires_grad_(True)
        energy, forces = self.module(inputs.species, positions, inputs.frame, box=inputs.box)
        return EnergyForces(energy.reshape(-1), forces)


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name not in SHAPES:
        raise ValueError(f"model {spec.name!r} of torchmd-net: wanted one of {', '.join(SHAPES)}")
    shape = spec.take(**SHAPES[spec.name])
    step = 8 if spec.name == "et" else 4  # 8 heads
    widths = range(16, 520, step)
    return TorchmdNet(
        *make_sized(
            lambda w: _make(spec.name, w, info, shape),
            n_params,
            widths,
            key=f"torchmd-net:{model}",
            seed=info.seed,
        )
    )


def _make(name: str, width: int, info: Info, shape: dict[str, Any]) -> nn.Module:
    module: Any = create_model(
        {
            "model": ARCHITECTURES[name],
            "embedding_dimension": width,
            "num_layers": shape["layers"],
            "num_rbf": 32,
            "rbf_type": "expnorm",
            "trainable_rbf": False,
            "activation": "silu",
            "cutoff_lower": 0.0,
            "cutoff_upper": info.cutoff,
            "max_z": 100,
            "max_num_neighbors": int(max(64, 1.6 * info.mean_neighbors)),
            "precision": 32,
            "reduce_op": "add",
            "aggr": "add",
            "derivative": True,
            "atom_filter": -1,
            "prior_model": None,
            "output_model": "Scalar",
            "output_mlp_num_layers": 0,
            "neighbor_embedding": True,
            "attn_activation": "silu",
            "num_heads": 8,
            "distance_influence": "both",
            "vector_cutoff": False,
            "equivariance_invariance_group": "O(3)",
            "static_shapes": False,
            "q_dim": 16,
        }
    )
    if name == "tensornet2":
        module.representation_model.charge_predicts[-1] = NoCharges()
    network: nn.Module = module
    return network
