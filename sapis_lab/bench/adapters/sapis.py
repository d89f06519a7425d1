"""The models of this package, in its own environment: any kind by name, its settings as options.

    geat    geat,lmax=1    transformer    nequip,layers=2

Widths follow from `ModelConfig.at_size`, forces from `derivatives.predict`, as everywhere in this package.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sapis_lab.atoms import AtomsBatch, make_graph
from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task
from sapis_lab.config import kind_class
from sapis_lab.derivatives import predict
from sapis_lab.models import Model, ModelConfig


class Sapis(Peer):
    """A model of this package."""

    module: Model

    def __init__(self, config: ModelConfig, info: Info) -> None:
        self.module = config.build(species=info.elements, mean_neighbors=info.mean_neighbors, seed=info.seed)
        self.width = getattr(config, "channels", None)

    def prepare(self, task: Task) -> AtomsBatch:
        cuts = np.cumsum(np.bincount(task.edge_frame.numpy(), minlength=task.n_frames))[:-1]
        starts = task.offsets[task.edge_frame]
        columns = (
            _split(task.center - starts, cuts),
            _split(task.neighbor - starts, cuts),
            _split(task.shift, cuts),
        )
        graph = make_graph(
            layout=self.module.layout,
            n_atoms=task.n_atoms.numpy(),
            edges=list(zip(*columns, strict=True)),
            periodic=task.periodic,
            cutoff=task.cutoff,
        )
        return AtomsBatch(
            positions=task.positions,
            species=task.species,
            batch=graph.frame,
            n_atoms=task.n_atoms,
            cell=task.cell,
            graph=graph,
            energy=None,
            forces=None,
            stress=None,
        )

    def ef(self, inputs: AtomsBatch, train: bool) -> EnergyForces:
        energy, forces, *_ = predict(self.module, inputs, differentiable=train)
        return EnergyForces(energy, forces)


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a kind of this package with about `n_params` parameters."""
    spec = Spec.parse(model)
    plain = kind_class("models", spec.name).model_validate(
        {"kind": spec.name, "cutoff": info.cutoff, **spec.options}
    )
    assert isinstance(plain, ModelConfig)
    return Sapis(plain.at_size(n_params, n_species=len(info.elements)), info)


def _split(rows: Tensor, cuts: np.ndarray) -> list[np.ndarray]:
    return np.split(rows.numpy(), cuts)
