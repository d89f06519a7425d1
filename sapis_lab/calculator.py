"""A trained potential as an ASE calculator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from sapis_lab.potential import Potential, load_potential


class SapisCalculator(Calculator):
    """Energy (eV), forces (eV/Å) and, with a cell, stress (eV/Å^3, Voigt, tension positive) of a trained
    potential."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.potential = potential

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        periodic = bool(np.any(self.atoms.pbc)) and self.atoms.cell.rank == 3
        energy, forces, stress = self.potential.evaluate(
            species=self.atoms.numbers,
            positions=self.atoms.positions,
            cell=self.atoms.cell.array,
            pbc=self.atoms.pbc,
            stress=periodic and "stress" in properties,
        )
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)


def load_model(path: str | Path, *, device: str = "cpu") -> SapisCalculator:
    """The finished point in `path` as an ASE calculator.

    Example:
        atoms.calc = sapis_lab.load_model("results/quickstart/points/geat-l2-n3.0e4-d400-s0")
    """
    return SapisCalculator(load_potential(path, device=device))
