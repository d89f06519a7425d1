"""MACE (Batatia et al., arXiv:2206.07697) as packaged in mace-torch, ScaleShiftMACE with two layers of
correlation 3.

    mace        the package's defaults: max_ell 3, max_L 1
    mace-inv    invariant messages: max_ell 2, max_L 0

Options: max_L, max_ell, correlation, layers.
"""

from __future__ import annotations

from typing import Any

import mace  # noqa: F401 -- before e3nn: it sets the switch of torch.load that the e3nn it is bound to needs
import numpy as np
import torch
from e3nn import o3
from mace import modules
from torch import Tensor, nn

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized

SHAPES: dict[str, dict[str, int]] = {
    "mace": {"max_L": 1, "max_ell": 3, "correlation": 3, "layers": 2},
    "mace-inv": {"max_L": 0, "max_ell": 2, "correlation": 3, "layers": 2},
}


class Mace(Peer):
    """A model of the package; its edges point from the neighbour to the centre and its shifts belong to the
    latter."""

    def __init__(self, module: nn.Module, width: int, info: Info) -> None:
        self.module, self.width = module, width
        self._elements = torch.tensor(info.elements)

    def prepare(self, task: Task) -> dict[str, Tensor]:
        return {
            "positions": task.positions.clone(),
            "node_attrs": (task.species[:, None] == self._elements).float(),
            "edge_index": torch.stack([task.neighbor, task.center]),
            "shifts": -task.translation,
            "unit_shifts": -task.shift,
            "cell": task.cell.reshape(-1, 3),
            "batch": task.frame,
            "ptr": task.offsets,
            "head": torch.zeros(task.n_frames, dtype=torch.int64),
        }

    def ef(self, inputs: dict[str, Tensor], train: bool) -> EnergyForces:
        outputs = self.module(dict(inputs), training=train, compute_force=True)
        return EnergyForces(outputs["energy"], outputs["forces"])


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name not in SHAPES:
        raise ValueError(f"model {spec.name!r} of mace: wanted one of {', '.join(SHAPES)}")
    shape = spec.take(**SHAPES[spec.name])
    torch.set_default_dtype(torch.float32)
    key = f"mace:{model}:{len(info.elements)}"
    module, width = make_sized(
        lambda w: _make(w, info, shape), n_params, range(8, 260, 4), key=key, seed=info.seed
    )
    return Mace(module, width, info)


def _make(width: int, info: Info, shape: dict[str, Any]) -> nn.Module:
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=info.cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=shape["max_ell"],
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=shape["layers"],
        num_elements=len(info.elements),
        hidden_irreps=o3.Irreps([(width, (l, (-1) ** l)) for l in range(shape["max_L"] + 1)]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(info.elements)),
        avg_num_neighbors=info.mean_neighbors,
        atomic_numbers=list(info.elements),
        correlation=shape["correlation"],
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
