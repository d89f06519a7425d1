"""Elastic constants of a crystal at rest, GPa, by finite strains with positions relaxed at each
(`observables.crystals.elastic_constants`).

`C11` to `C66` in Voigt's order and the axes of the cell as given, those that are not zero by more than 0.1
GPa; `bulk` and `shear` moduli (Hill); `stable` is 1 where Born's criterion holds. `mae` is the mean absolute
difference of the constants from those of the reference, or from the `published` ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.evaluation import Measured
from sapis_lab.evaluation._crystals import POTENTIAL, REFERENCE, CrystalEvaluation
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.observables.crystals import Elasticity
    from sapis_lab.observables.surfaces import Predict
    from sapis_lab.structures import Structure

NAMES = tuple(f"C{i + 1}{j + 1}" for i in range(6) for j in range(i, 6))


class ElasticConfig(CrystalEvaluation):
    """Elastic constants of a crystal."""

    kind: Literal["elastic"] = "elastic"
    strain: float = Field(default=2e-3, gt=1e-5, le=0.1)
    """Size of the strains."""
    published: dict[str, float] = {}
    """Constants to compare with, GPa, by their names, as C11."""

    @field_validator("published")
    @classmethod
    def _are_constants(cls, value: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name in value if name not in NAMES]:
            raise ValueError(f"published has {wrong[0]!r}, wanted names such as C11, C12, C44")
        return value

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            *(Quantity(name, f"elastic constant {name}", "GPa") for name in NAMES),
            Quantity("bulk", "bulk modulus", "GPa"),
            Quantity("shear", "shear modulus", "GPa"),
            Quantity("stable", "whether the crystal is elastically stable", ""),
            Quantity("stress_left", "largest stress of the crystal at rest", "GPa", better="lower"),
            Quantity("mae", "mean absolute error of the elastic constants", "GPa", better="lower"),
        )

    def of_crystal(self, predict: Predict, structure: Structure) -> dict[str, np.ndarray]:
        """constants (6, 6) GPa; asymmetry and stress, GPa."""
        from sapis_lab.observables.crystals import elastic_constants

        found = elastic_constants(
            predict,
            structure,
            step=self.strain,
            max_force=self.max_force,
            most_steps=self.most_steps,
        )
        return {
            "constants": found.constants,
            "asymmetry": np.array(found.asymmetry),
            "stress": np.array(found.stress),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        ours = _elasticity(measured, POTENTIAL)
        c = _by_name(ours.constants)
        scores = {name: value for name, value in c.items() if abs(value) > 0.1}
        scores |= {"stable": float(ours.stable), "stress_left": ours.stress}
        if np.linalg.cond(ours.constants) < 1e12:
            scores |= {"bulk": ours.bulk_modulus, "shear": ours.shear_modulus}
        if self.published:
            scores["mae"] = float(np.mean([abs(c[name] - value) for name, value in self.published.items()]))
        elif REFERENCE in measured:
            wanted = _by_name(_elasticity(measured, REFERENCE).constants)
            known = [name for name, value in wanted.items() if abs(value) > 0.1]
            scores["mae"] = float(np.mean([abs(c[name] - wanted[name]) for name in known]))
        return scores


def _elasticity(measured: Measured, part: str) -> Elasticity:
    from sapis_lab.observables.crystals import Elasticity

    there = measured[part]
    return Elasticity(there["constants"], float(there["asymmetry"]), float(there["stress"]))


def _by_name(constants: np.ndarray) -> dict[str, float]:
    return {f"C{i + 1}{j + 1}": float(constants[i, j]) for i in range(6) for j in range(i, 6)}
