"""The class that torch-sim wants; importing it needs torch-sim."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from sapis_lab.potential import Potential
from sapis_lab.structures import Structure


class TorchSimModel(ModelInterface):
    """Energies (B,) eV, forces (A, 3) eV/Å and stress (B, 3, 3) eV/Å³ of a state of torch-sim.

    The stress of systems that are not periodic is zero: torch-sim gives every system a cell.
    """

    def __init__(self, potential: Potential, *, dtype: str) -> None:
        super().__init__()
        self.potential = potential
        self._device = potential.model.energy_scale.device
        self._dtype = getattr(torch, dtype)
        self._compute_stress = self._compute_forces = True

    # torch-sim switches these off where it does not read them
    @property
    def compute_stress(self) -> bool:
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        self._compute_stress = compute_stress

    @property
    def compute_forces(self) -> bool:
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, compute_forces: bool) -> None:
        self._compute_forces = compute_forces

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        if isinstance(state, dict):
            from torch_sim.state import SimState

            state = SimState(**state)
        structures = _structures(state)
        stress = self._compute_stress and bool(np.any(structures[0].pbc))
        found = self.potential.predict(structures, stress=stress)
        energy, forces = found.energy, found.forces
        tension = np.zeros((len(structures), 3, 3)) if found.stress is None else found.stress
        given = {"energy": energy}
        given |= {"forces": forces} if self._compute_forces else {}
        given |= {"stress": tension} if self._compute_stress else {}
        return {
            key: torch.as_tensor(value, dtype=self._dtype, device=self._device)
            for key, value in given.items()
        }


def _structures(state: Any) -> list[Structure]:
    """The systems of a state, which are all periodic or all open."""
    positions = state.positions.detach().cpu().double().numpy()
    species, of = state.atomic_numbers.cpu().numpy(), state.system_idx.cpu().numpy()
    cells = state.row_vector_cell.detach().cpu().double().numpy()
    pbc = np.broadcast_to(np.asarray(state.pbc, dtype=bool), (3,))
    ends = np.cumsum(np.bincount(of, minlength=len(cells)))
    return [
        Structure(species[a:b], positions[a:b], cell, pbc)
        for a, b, cell in zip([0, *ends[:-1]], ends, cells, strict=True)
    ]
