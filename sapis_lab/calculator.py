"""A trained potential as an ASE calculator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from sapis_lab.potential import Potential, load_potential


class SapisCalculator(Calculator):
    """Energy and its parts by atoms (eV, reference energies included in both), forces (eV/Å) and, with a
    cell, stress (eV/Å^3, Voigt, tension positive) of a trained potential; what its heads have learnt besides,
    such as `dipole` (e Å) and `charges` (e), by the keys of the targets."""

    implemented_properties = ["energy", "energies", "free_energy", "forces", "stress"]

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.potential = potential
        energies = self.implemented_properties if potential.model.gives_energy else []
        self.implemented_properties = [*energies, *potential.heads]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        periodic = bool(np.any(self.atoms.pbc)) and self.atoms.cell.rank == 3
        found = self.potential.predict(self.atoms, stress=periodic and "stress" in properties)
        own = frozenset(found.properties) - found.per_atom
        self.results = {key: value[0] if key in own else value for key, value in found.properties.items()}
        if not self.potential.model.gives_energy:
            return
        energy = float(found.energy[0])
        self.results |= {
            "energy": energy,
            "energies": found.atomic_energies,
            "free_energy": energy,
            "forces": found.forces,
        }
        if found.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress[0])


def load_model(path: str | Path, *, device: str = "cpu") -> SapisCalculator:
    """The finished point in `path` as an ASE calculator.

    Example:
        atoms.calc = sapis_lab.load_model("results/quickstart/points/geat-l2-n3.0e4-d400-s0")
    """
    return SapisCalculator(load_potential(path, device=device))
