"""NequIP and Allegro (Batzner et al., arXiv:2101.03164; Musaelian et al., arXiv:2204.05249) as packaged in
nequip and nequip-allegro.

    nequip      the package's full preset: lmax 2, 3 layers, no odd parity, widths 4:2:1 from l = 0 to 2
    nequip-S    its preset S: lmax 1, 2 layers, widths 2:1
    allegro     its tutorial's: lmax 2, 2 layers, twice as many scalar as tensor features

Options: layers, lmax. Positions go in as float64, as the package's own data pipeline hands them over; the
model is float32.
"""

from __future__ import annotations

from typing import Any

import torch
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state
from torch import Tensor, nn

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized

SHAPES: dict[str, dict[str, int]] = {
    "nequip": {"lmax": 2, "layers": 3},
    "nequip-S": {"lmax": 1, "layers": 2},
    "allegro": {"lmax": 2, "layers": 2},
}


class Nequip(Peer):
    """A model of the package; `forward` takes and returns a dictionary and computes forces itself."""

    def __init__(self, module: nn.Module, width: int, info: Info) -> None:
        self.module, self.width = module, width
        self._type_of = torch.zeros(119, dtype=torch.int64)
        self._type_of[torch.tensor(info.elements)] = torch.arange(len(info.elements))

    def prepare(self, task: Task) -> dict[str, Tensor]:
        inputs = {
            "pos": task.positions.double(),
            "edge_index": torch.stack([task.center, task.neighbor]),
            "atom_types": self._type_of[task.species],
            "batch": task.frame,
            "num_atoms": task.n_atoms,
        }
        if task.periodic:
            inputs |= {"cell": task.cell.double(), "edge_cell_shift": task.shift.double()}
        return inputs

    def ef(self, inputs: dict[str, Tensor], train: bool) -> EnergyForces:
        outputs = self.module(dict(inputs))
        return EnergyForces(outputs["total_energy"].float().reshape(-1), outputs["forces"].float())


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name not in SHAPES:
        raise ValueError(f"model {spec.name!r} of nequip: wanted one of {', '.join(SHAPES)}")
    shape = spec.take(**SHAPES[spec.name])
    set_global_state()
    step = {"nequip": 2, "nequip-S": 2, "allegro": 4}[spec.name]
    module, width = make_sized(
        lambda w: _make(spec.name, w, info, shape),
        n_params,
        range(step, 130 * step, step),
        key=f"nequip:{model}:{len(info.elements)}",
        seed=info.seed,
    )
    return Nequip(module, width, info)


def _make(name: str, width: int, info: Info, shape: dict[str, Any]) -> nn.Module:
    types = [f"Z{z}" for z in info.elements]
    common = {
        "seed": info.seed,
        "model_dtype": "float32",
        "compile_mode": "eager",
        "type_names": types,
        "r_max": info.cutoff,
        "avg_num_neighbors": info.mean_neighbors,
        "per_type_energy_shifts": dict.fromkeys(types, 0.0),
        "per_type_energy_scales": dict.fromkeys(types, 1.0),
        "l_max": shape["lmax"],
        "num_layers": shape["layers"],
    }
    if name == "allegro":
        from allegro.model import AllegroModel

        return AllegroModel(
            parity=True,
            num_scalar_features=2 * width,
            num_tensor_features=width,
            allegro_mlp_hidden_layers_depth=1,
            allegro_mlp_hidden_layers_width=2 * width,
            scalar_embed_mlp_hidden_layers_depth=1,
            scalar_embed_mlp_hidden_layers_width=2 * width,
            readout_mlp_hidden_layers_depth=1,
            readout_mlp_hidden_layers_width=width,
            radial_chemical_embed={
                "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                "num_bessels": 8,
                "bessel_trainable": False,
                "polynomial_cutoff_p": 6,
            },
            **common,
        )
    return NequIPGNNModel(
        parity=False,
        num_features=[2 ** (shape["lmax"] - l) * width for l in range(shape["lmax"] + 1)],
        type_embed_num_features=32,
        radial_mlp_depth=1,
        radial_mlp_width=128,
        **common,
    )
