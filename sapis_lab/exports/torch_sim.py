"""A model for torch-sim (https://github.com/TorchSim/torch-sim, 0.3): batched energies, forces and stress.

torch-sim's state has columns for lattice vectors, and stress as we have it: (1/V) dE/dε, eV/Å³, tension
positive. Neighbour lists are ours: the model asks the state for positions, cell and periodicity alone.
Its state is periodic as a whole or not at all, and torch-sim takes a slab for open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sapis_lab.config import ConfigError
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.exports._python import write_python
from sapis_lab.potential import Potential

if TYPE_CHECKING:
    from torch_sim.models.interface import ModelInterface

_SCRIPT = '''\
"""The potential in this folder as a model of torch-sim; `python model.py FILE` runs NVE from FILE."""

import sys
from pathlib import Path

import ase.io
import torch
import torch_sim as ts
from sapis_lab.exports.torch_sim import torch_sim_model

model = torch_sim_model(Path(__file__).parent)

if __name__ == "__main__":
    start = ase.io.read(sys.argv[1], index=":")  # all structures of the file, at once
    end = ts.integrate(
        start, model, integrator=ts.integrators.nve, n_steps=100, timestep=0.0005, temperature=300
    )
    print("potential energies, eV:", end.energy.tolist())
'''


class TorchSimExport(Export):
    """torch-sim: weights, and a script that makes a model of its interface."""

    kind: Literal["torch_sim"] = "torch_sim"

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        return write_python(potential, folder, {"model.py": _SCRIPT})


def torch_sim_model(potential: Potential | str | Path, *, dtype: str = "float64") -> ModelInterface:
    """A trained potential as a model of torch-sim, on the device of the potential.

    Args:
        potential: or the folder that holds one.   dtype: of what it takes and gives, 'float64' or 'float32';
            the potential computes in its own precision, with sums in float64.

    Raises:
        ConfigError: torch-sim is not installed.
    """
    try:
        from sapis_lab.exports._torch_sim_model import TorchSimModel
    except ImportError as error:
        raise ConfigError(
            f"torch-sim cannot be imported ({error}); pip install 'sapis_lab[torch-sim]'"
        ) from None
    from sapis_lab.potential import load_potential

    given = potential if isinstance(potential, Potential) else load_potential(potential)
    return TorchSimModel(given, dtype=dtype)
