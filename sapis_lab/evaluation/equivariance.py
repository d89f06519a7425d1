"""How far the trained potential is from turning with its frames.

Frames of the first test set are turned by random matrices R of O(3), half of them with a reflection, and

    force_deviation  = RMS over components of R^T F(R x) - F(x)
    energy_deviation = RMS over frames of (E(R x) - E(x)) / n

for n atoms. Both vanish to rounding for an equivariant model; a model that learns the symmetry from data has
them among its errors, and its dynamics heat or turn a molecule that should do neither.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.augmentation import random_rotations
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity


class EquivarianceConfig(Evaluation):
    """Forces and energies of turned frames against those of the frames."""

    kind: Literal["equivariance"] = "equivariance"
    n_frames: int = Field(default=50, ge=1, le=10_000)
    """Frames of the first test set, from its start."""
    n_rotations: int = Field(default=4, ge=1, le=1_000)
    """Random rotations and reflections of each of them."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the rotations."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def shown(key: str, label: str, unit: str) -> Quantity:
            return Quantity(key, label, unit, better="lower", display_unit=f"m{unit}", display_factor=1e3)

        return (
            shown("force_deviation", "deviation of forces from turning with the frame", "eV/Å"),
            shown("energy_deviation", "change of the energy per atom when the frame is turned", "eV"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        return ("turned",)

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """n_atoms (n_frames,); energy (n_rotations + 1, n_frames) eV and forces (n_rotations + 1,
        n_atoms_total, 3) eV/Å, turned back; the first of each are those of the frames as they are."""
        frames = subject.structures(subject.test_frames(self.n_frames))
        n_atoms = np.array([len(f.species) for f in frames])
        plain = subject.potential.predict(frames)
        energy, forces = [plain.energy], [plain.forces]
        for k in range(self.n_rotations):
            turns = random_rotations(len(frames), seed=self.seed, step=k)
            found = subject.potential.predict(
                [
                    f._replace(positions=f.positions @ r.T, cell=None if f.cell is None else f.cell @ r.T)
                    for f, r in zip(frames, turns, strict=True)
                ]
            )
            energy.append(found.energy)
            forces.append(np.einsum("aji,aj->ai", np.repeat(turns, n_atoms, axis=0), found.forces))
        return {"n_atoms": n_atoms, "energy": np.array(energy), "forces": np.array(forces)}

    def score(self, measured: Measured) -> dict[str, float]:
        there = measured["turned"]
        of_energy = (there["energy"][1:] - there["energy"][0]) / there["n_atoms"]
        of_forces = there["forces"][1:] - there["forces"][0]
        return {
            "force_deviation": float(np.sqrt(np.square(of_forces).mean())),
            "energy_deviation": float(np.sqrt(np.square(of_energy).mean())),
        }
