"""Phonons of a crystal at rest, THz, by finite displacements through phonopy (`observables.phonons`).

highest           highest frequency of the mesh
lowest            lowest one, negative where it is imaginary: a crystal that would fall apart
heat_capacity     J/mol/K an atom at `temperature`, harmonic
mae, max_error    of the frequencies at all points of the mesh and at `points`, against the reference
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Measured
from sapis_lab.evaluation._crystals import POTENTIAL, REFERENCE, CrystalEvaluation
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.observables.surfaces import Predict
    from sapis_lab.structures import Structure


class PhononsConfig(CrystalEvaluation):
    """Phonons of a crystal."""

    kind: Literal["phonons"] = "phonons"
    supercell: tuple[int, int, int] = (2, 2, 2)
    """Repeats of the crystal; forces on a displaced atom should have died away over half of it."""
    displacement: float = Field(default=0.01, gt=1e-4, le=0.5)
    """Å."""
    mesh: tuple[int, int, int] = (6, 6, 6)
    """Wavevectors along the reciprocal lattice vectors of the primitive cell."""
    points: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5))
    """Further wavevectors, in units of the primitive reciprocal lattice; Γ, X and L of face-centred cubic
    ones by default."""
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """Of the heat capacity, K."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("highest", "highest phonon frequency", "THz"),
            Quantity("lowest", "lowest phonon frequency", "THz"),
            Quantity("heat_capacity", "harmonic heat capacity per atom", "J/mol/K"),
            Quantity("mae", "mean absolute error of the phonon frequencies", "THz", better="lower"),
            Quantity("max_error", "largest error of a phonon frequency", "THz", better="lower"),
        )

    def of_crystal(self, predict: Predict, structure: Structure) -> dict[str, np.ndarray]:
        """frequencies (n_points, n_bands) and mesh (n_mesh, n_bands), THz; weights (n_mesh,);
        heat_capacity."""
        from sapis_lab.observables.phonons import phonons

        found = phonons(
            predict,
            structure,
            supercell=self.supercell,
            displacement=self.displacement,
            mesh=self.mesh,
            points=np.array(self.points),
            temperature=self.temperature,
        )
        return {
            "frequencies": found.frequencies,
            "mesh": found.mesh,
            "weights": found.weights,
            "heat_capacity": np.array(3 * found.heat_capacity / found.mesh.shape[1]),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        ours = measured[POTENTIAL]
        every = np.concatenate([ours["mesh"].ravel(), ours["frequencies"].ravel()])
        scores = {
            "highest": float(every.max()),
            "lowest": float(every.min()),
            "heat_capacity": float(ours["heat_capacity"]),
        }
        if REFERENCE not in measured:
            return scores
        theirs = measured[REFERENCE]
        if theirs["mesh"].shape != ours["mesh"].shape:
            raise ValueError(
                f"the relaxed crystal has {ours['mesh'].shape} frequencies and that of the reference "
                f"{theirs['mesh'].shape}: they have different symmetries, and no frequencies to compare"
            )
        error = np.abs(ours["mesh"] - theirs["mesh"])
        at_points = np.abs(ours["frequencies"] - theirs["frequencies"])
        mean = np.average(error.mean(1), weights=theirs["weights"])
        return scores | {"mae": float(mean), "max_error": float(max(error.max(), at_points.max()))}
