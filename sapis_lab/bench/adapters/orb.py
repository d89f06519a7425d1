"""Orb-v3 (Rhodes et al., arXiv:2504.06231) as packaged in orb-models: message passing without equivariance,
in its conservative form, forces by the gradient of the energy.

    orb         the package's conservative architecture: 5 steps, hidden layers 4 times as wide as the
                latents, harmonics up to degree 3 of the edges, 8 Bessel functions

Options: layers. Trained with random rotations, like every model without the symmetry. Without what belongs to
the package's own data: reference energies, normalisation, pair repulsion, the confidence head and the
regulariser of rotations. Its cutoff functions are written for 6 Å, so lengths are in units of a sixth of the
task's cutoff.
"""

from __future__ import annotations

from typing import Any

import torch
from orb_models.forcefield.base import AtomGraphs
from orb_models.forcefield.pretrained import orb_v3_conservative_architecture
from torch import Tensor, nn

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized

CUTOFF = 6.0
"""Of the package, Å; it is no argument of its envelopes."""


class Energy(nn.Module):
    """The network and the energy head of the package's model; nothing else of it acts on energies.

    The head gives the energy per atom from the mean of the features of all atoms.
    """

    def __init__(self, regressor: Any) -> None:
        super().__init__()
        self.network, self.head = regressor.model, regressor.heads["energy"]
        self.network._decoder = nn.Identity()  # its predictions go nowhere

    def forward(self, graphs: AtomGraphs) -> Tensor:
        per_atom: Tensor = self.head(self.network(graphs)["node_features"], graphs)
        return per_atom * graphs.n_node


class Orb(Peer):
    """A model of the package on the edges of the task, from the neighbour to the centre."""

    note = "without pair repulsion and the regulariser of rotations"

    def __init__(self, module: nn.Module, width: int) -> None:
        self.module, self.width = module, width

    def prepare(self, task: Task) -> AtomGraphs:
        scale = CUTOFF / task.cutoff
        return AtomGraphs(
            senders=task.neighbor,
            receivers=task.center,
            n_node=task.n_atoms,
            n_edge=torch.bincount(task.edge_frame, minlength=task.n_frames),
            node_features={
                "positions": task.positions,
                "atomic_numbers": task.species,
                "atomic_numbers_embedding": nn.functional.one_hot(task.species, 118).float(),
            },
            edge_features={"translation": scale * task.translation},
            system_features={"scale": torch.tensor(scale)},
            node_targets=None,
            edge_targets=None,
            system_targets=None,
            system_id=None,
            fix_atoms=None,
            tags=None,
            radius=CUTOFF,
            max_num_neighbors=torch.full((task.n_frames,), 120),
        )

    def ef(self, inputs: AtomGraphs, train: bool) -> EnergyForces:
        positions = inputs.positions.detach().clone().requires_grad_(True)
        scaled = inputs.system_features["scale"] * positions
        vectors = scaled[inputs.receivers] - scaled[inputs.senders] - inputs.edge_features["translation"]
        energy = self.module(inputs._replace(edge_features={"vectors": vectors}))
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=train)
        return EnergyForces(energy, -gradient)


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name != "orb":
        raise ValueError(f"model {spec.name!r} of orb-models: wanted orb")
    shape = spec.take(layers=5)
    return Orb(
        *make_sized(
            lambda w: _make(w, shape), n_params, range(8, 260), key=f"orb-models:{model}", seed=info.seed
        )
    )


def _make(width: int, shape: dict[str, Any]) -> nn.Module:
    return Energy(
        orb_v3_conservative_architecture(
            latent_dim=width,
            base_mlp_hidden_dim=4 * width,
            head_mlp_hidden_dim=width,
            num_message_passing_steps=shape["layers"],
            has_stress=False,
            device="cpu",
        )
    )
