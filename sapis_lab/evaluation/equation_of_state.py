"""Equation of state of a crystal: energy against volume, positions relaxed at every volume, and the fit of
Birch and Murnaghan's form (`observables.crystals`).

    has_minimum       1 where energies have a minimum among the volumes, else nothing below is known
    volume            of the minimum, Å³ an atom
    bulk_modulus      GPa, and its derivative with pressure
    residual          root mean square of what the fit leaves, eV an atom
    volume_error, bulk_modulus_error, energy_mae        against the reference: energies relative to the
    minimum
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Measured
from sapis_lab.evaluation._crystals import POTENTIAL, REFERENCE, CrystalEvaluation
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.observables.crystals import EquationOfState
    from sapis_lab.observables.surfaces import Predict
    from sapis_lab.structures import Structure


class EquationOfStateConfig(CrystalEvaluation):
    """Energy against volume of a crystal."""

    kind: Literal["equation_of_state"] = "equation_of_state"
    span: float = Field(default=0.06, gt=0.001, le=0.5)
    """Largest relative change of the volume."""
    n_volumes: int = Field(default=9, ge=5, le=1000)
    """Volumes, equally spaced about that of the relaxed crystal."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("has_minimum", "whether energies have a minimum among the volumes", ""),
            Quantity("volume", "equilibrium volume per atom", "Å³"),
            Quantity("bulk_modulus", "bulk modulus", "GPa"),
            Quantity("derivative", "derivative of the bulk modulus with pressure", ""),
            Quantity("residual", "residual of the equation of state per atom", "eV", better="lower",
                     display_unit="meV", display_factor=1e3),
            Quantity("volume_error", "relative error of the equilibrium volume", "", better="lower",
                     display_unit="%", display_factor=100.0),
            Quantity("bulk_modulus_error", "relative error of the bulk modulus", "", better="lower",
                     display_unit="%", display_factor=100.0),
            Quantity("energy_mae", "mean absolute error of the equation of state per atom", "eV",
                     better="lower", display_unit="meV", display_factor=1e3),
        )  # fmt: skip

    def of_crystal(self, predict: Predict, structure: Structure) -> dict[str, np.ndarray]:
        """volumes (n,) Å³ an atom and energies (n,) eV an atom."""
        from sapis_lab.observables.crystals import energies_of_volumes

        scales = np.linspace(1 - self.span, 1 + self.span, self.n_volumes)
        volume, energy = energies_of_volumes(
            predict,
            structure,
            scales=scales.tolist(),
            max_force=self.max_force,
            most_steps=self.most_steps,
        )
        n = len(structure.species)
        return {"volumes": volume / n, "energies": energy / n}

    def score(self, measured: Measured) -> dict[str, float]:
        ours = _fit(measured[POTENTIAL]["volumes"], measured[POTENTIAL]["energies"])
        scores = {"has_minimum": float(ours is not None)}
        if ours is None:
            return scores
        scores |= {
            "volume": ours.volume,
            "bulk_modulus": ours.bulk_modulus,
            "derivative": ours.derivative,
            "residual": ours.residual,
        }
        if REFERENCE not in measured:
            return scores
        there = measured[REFERENCE]
        theirs = _fit(there["volumes"], there["energies"])
        if theirs is None:
            return scores
        x = measured[POTENTIAL]["volumes"] / ours.volume
        relative = np.interp(x, there["volumes"] / theirs.volume, there["energies"] - theirs.energy)
        inside = (x >= there["volumes"].min() / theirs.volume) & (x <= there["volumes"].max() / theirs.volume)
        error = np.abs(measured[POTENTIAL]["energies"] - ours.energy - relative)[inside]
        if error.size:
            scores["energy_mae"] = float(error.mean())
        return scores | {
            "volume_error": abs(ours.volume / theirs.volume - 1),
            "bulk_modulus_error": abs(ours.bulk_modulus / theirs.bulk_modulus - 1),
        }


def _fit(volume: np.ndarray, energy: np.ndarray) -> EquationOfState | None:
    """None where there is no minimum."""
    from sapis_lab.observables.crystals import birch_murnaghan

    try:
        return birch_murnaghan(volume, energy)
    except ValueError:
        return None
