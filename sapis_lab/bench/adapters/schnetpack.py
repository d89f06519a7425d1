"""PaiNN (Schütt et al., arXiv:2102.03150) as packaged in schnetpack: 3 interactions, 20 Gaussians, cosine
cutoff.

painn       options: layers
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch.utils.data.dataloader as dataloader
from torch import Tensor, arange, nn

if not hasattr(dataloader, "T_co"):  # schnetpack 2.1.1 imports this name, which torch 2.13 no longer has
    dataloader.T_co = TypeVar("T_co", covariant=True)  # type: ignore[attr-defined]

import schnetpack
from schnetpack import properties

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized


class Painn(Peer):
    """A model of the package with its own force module."""

    def __init__(self, module: nn.Module, width: int) -> None:
        self.module, self.width = module, width

    def prepare(self, task: Task) -> dict[str, Tensor]:
        return {
            properties.Z: task.species,
            properties.R: task.positions,
            properties.cell: task.cell,
            properties.pbc: task.pbc,
            properties.idx_i: task.center,
            properties.idx_j: task.neighbor,
            properties.offsets: task.translation,
            properties.idx_m: task.frame,
            properties.n_atoms: task.n_atoms,
            properties.idx: arange(task.n_frames),
        }

    def ef(self, inputs: dict[str, Tensor], train: bool) -> EnergyForces:
        # the model marks the positions it is given as needing a gradient, so it gets its own
        outputs = self.module({**inputs, properties.R: inputs[properties.R].detach().clone()})
        return EnergyForces(outputs["energy"].reshape(-1), outputs["forces"])


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name != "painn":
        raise ValueError(f"model {spec.name!r} of schnetpack: wanted painn")
    shape = spec.take(layers=3)
    key = f"schnetpack:{model}"
    return Painn(
        *make_sized(lambda w: _make(w, info, shape), n_params, range(16, 520, 2), key=key, seed=info.seed)
    )


def _make(width: int, info: Info, shape: dict[str, Any]) -> nn.Module:
    representation = schnetpack.representation.PaiNN(
        n_atom_basis=width,
        n_interactions=shape["layers"],
        radial_basis=schnetpack.nn.GaussianRBF(n_rbf=20, cutoff=info.cutoff),
        cutoff_fn=schnetpack.nn.CosineCutoff(info.cutoff),
    )
    return schnetpack.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[
            schnetpack.atomistic.Atomwise(n_in=width, output_key="energy"),
            schnetpack.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )
