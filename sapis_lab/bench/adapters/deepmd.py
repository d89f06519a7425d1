"""DPA4 (arXiv:2606.02419) as packaged in deepmd-kit with its PyTorch backend, where it is also called SeZM.

    dpa4        the shape of the package's example "DPA4-Mini": 2 blocks, degrees up to 2 with orders up to 1,
                one focus, three mixing layers

Options: lmax, layers, focus. Hidden widths are 8/3 of the channels, as the package chooses, without its
rounding to multiples of 32, which leaves no model of about 1e5 parameters. Edges of the task in place of the
model's own neighbour search; float64 edge vectors and float32 models, as the package hands them over; eager
mode (its compiled mode is bound to torch 2.11).
"""

from __future__ import annotations

import sys
import types
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

if "deepmd.pt.cxx_op" not in sys.modules:
    # The package's C++ operators, of which DPA4 uses none, are bound to torch 2.11; where they do not load,
    # the package starts only if it believes that they were left out.
    sys.modules["deepmd.pt.cxx_op"] = types.ModuleType("deepmd.pt.cxx_op")
    sys.modules["deepmd.pt.cxx_op"].ENABLE_CUSTOMIZED_OP = False  # type: ignore[attr-defined]

from deepmd.pt.model.model import get_model

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized

SHAPES: dict[str, dict[str, int]] = {"dpa4": {"lmax": 2, "layers": 2, "focus": 1}}


class Inputs(NamedTuple):
    """A prepared batch: all atoms as one frame, since frames share no edges."""

    positions: Tensor
    """(1, A, 3), which the model asks for its shape alone"""
    types: Tensor
    """(1, A)"""
    pairs: Tensor
    """(2, E) neighbour and centre"""
    vectors: Tensor
    """(E, 3) Å"""
    every: Tensor
    """(E,) true"""
    frame: Tensor
    """(A,)"""
    n_frames: int


class Deepmd(Peer):
    """A model of the package, which differentiates by the edge vectors it is given."""

    note = "edges of the task in place of its own neighbour search"

    def __init__(self, module: nn.Module, width: int, info: Info) -> None:
        self.module, self.width = module, width
        self._type_of = torch.zeros(119, dtype=torch.int64)
        self._type_of[torch.tensor(info.elements)] = torch.arange(len(info.elements))

    def prepare(self, task: Task) -> Inputs:
        positions = task.positions.double()
        vectors = positions[task.neighbor] + task.translation.double() - positions[task.center]
        return Inputs(
            positions[None],
            self._type_of[task.species][None],
            torch.stack([task.neighbor, task.center]),
            vectors,
            torch.ones(task.n_edges, dtype=torch.bool),
            task.frame,
            task.n_frames,
        )

    def ef(self, inputs: Inputs, train: bool) -> EnergyForces:
        module: Any = self.module
        outputs = module.core_compute(
            inputs.positions, inputs.types, inputs.pairs, inputs.vectors, inputs.pairs, inputs.every
        )
        atoms = outputs["energy"].reshape(-1)
        energy = atoms.new_zeros(inputs.n_frames).index_add(0, inputs.frame, atoms)
        return EnergyForces(energy.float(), outputs["energy_derv_r"].reshape(-1, 3).float())


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model of a name above with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name not in SHAPES:
        raise ValueError(f"model {spec.name!r} of deepmd-kit: wanted one of {', '.join(SHAPES)}")
    shape = spec.take(**SHAPES[spec.name])
    module, width = make_sized(
        lambda w: _make(w, info, shape),
        n_params,
        range(4, 130),
        key=f"deepmd:{model}:{len(info.elements)}",
        seed=info.seed,
    )
    return Deepmd(module, width, info)


def _make(width: int, info: Info, shape: dict[str, Any]) -> nn.Module:
    common = {"precision": "float32", "seed": info.seed}
    model: nn.Module = get_model(
        {
            "type": "dpa4",
            "type_map": [f"Z{z}" for z in info.elements],
            "descriptor": {
                "sel": 120,
                "rcut": info.cutoff,
                "channels": width,
                "n_radial": 16,
                "lmax": shape["lmax"],
                "mmax": 1,
                "n_blocks": shape["layers"],
                "mixing_layers": 3,
                "n_focus": shape["focus"],
                "ffn_neurons": 2 * round(4 * width / 3),
                "ffn_so3_grid": True,
                "ffn_blocks": 2,
                "so3_readout": "mlp",
                "grid_branch": [1, 1, 1],
                "message_node_so3": True,
                "use_amp": False,
                **common,
            },
            "fitting_net": {"neuron": [0], **common},
        }
    )
    return model
