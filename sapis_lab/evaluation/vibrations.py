"""Harmonic vibrations of molecules: each is relaxed on the potential, and its Hessian taken by differences of
forces (`observables.vibrations`), translations and rotations projected out.

The molecules are the first test frames of as many compositions. With a reference (`reference: {kind: xtb}`),
on which the same frames are relaxed and differentiated:

    mae, max_error    of the wavenumbers, in ascending order, cm⁻¹
    zero_point_error  mean absolute error of the zero-point energy, eV
    imaginary         modes beyond 20 i cm⁻¹ a molecule: of a minimum there are none
    asymmetry         largest ‖H - Hᵀ‖ / ‖H + Hᵀ‖: forces that are no slope
    converged         share of the molecules that relaxed; of those whose atoms met nothing else is known
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.oracles import OracleConfig

if TYPE_CHECKING:
    from sapis_lab.observables.surfaces import Predict

IMAGINARY = -20.0
"""cm⁻¹; what is between is rounding or a nearly free rotor."""


class VibrationsConfig(Evaluation):
    """Harmonic frequencies of molecules, against a reference."""

    kind: Literal["vibrations"] = "vibrations"
    n_molecules: int = Field(default=1, ge=1, le=10_000)
    """Molecules of different composition, from the first test set."""
    step: float = Field(default=0.01, gt=1e-4, le=0.2)
    """Of the differences, Å."""
    max_force: float = Field(default=1e-3, gt=0, le=1)
    """Largest component of a force that a relaxed molecule may have, eV/Å."""
    most_steps: int = Field(default=500, ge=1, le=100_000)
    """Steps after which a relaxation ends."""
    reference: composed_kind("oracles", OracleConfig) | None = None  # type: ignore[valid-type]
    """A source of labels of which the same is measured."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("mae", "mean absolute error of the harmonic wavenumbers", "cm⁻¹", better="lower"),
            Quantity("max_error", "largest error of a harmonic wavenumber", "cm⁻¹", better="lower"),
            Quantity("zero_point_error", "mean absolute error of the zero-point energy", "eV",
                     better="lower", display_unit="meV", display_factor=1e3),
            Quantity("highest", "highest harmonic wavenumber", "cm⁻¹"),
            Quantity("imaginary", "imaginary modes of a relaxed molecule", "", better="lower"),
            Quantity("asymmetry", "largest asymmetry of a Hessian", "", better="lower"),
            Quantity("converged", "share of relaxations that converge", "", better="higher"),
        )  # fmt: skip

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        n = len(self._molecules(subject))
        names = ("potential",) if self.reference is None else ("potential", "reference")
        return tuple(f"{name}-{k}" for name in names for k in range(n))

    def _molecules(self, subject: Subject) -> list[int]:
        """Ids of the first frames of the compositions."""
        found: dict[bytes, int] = {}
        for k in subject.test_frames(5000).tolist():
            z = subject.store.species[int(subject.store.offsets[k]) : int(subject.store.offsets[k + 1])]
            found.setdefault(np.sort(z).tobytes(), k)
            if len(found) == self.n_molecules:
                break
        frame = subject.structures(np.array([next(iter(found.values()))]))[0]
        if frame.pbc is not None and np.any(frame.pbc):
            raise ValueError("vibrations want molecules; the test frames are periodic (see kind phonons)")
        return list(found.values())

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """wavenumber (n_modes,) cm⁻¹ ascending; left_out, those of translations and rotations; asymmetry;
        converged (0 or 1); positions (n_atoms, 3) Å, relaxed."""
        from ase.data import atomic_masses

        from sapis_lab.observables import vibrations
        from sapis_lab.observables.minima import relaxed
        from sapis_lab.observables.surfaces import of_oracle

        name, k = part.split("-")
        start = subject.structures(np.array([self._molecules(subject)[int(k)]]))[0]
        predict: Predict = subject.potential.predict
        if name == "reference":
            assert self.reference is not None
            predict = of_oracle(self.reference)
        try:
            least = relaxed(predict, start, max_force=self.max_force, most_steps=self.most_steps)
            matrix = vibrations.jacobian(predict, least.structure, step=self.step)
        except ValueError as error:  # two atoms have met: the surface has no minimum here
            print(f"{self.label}: {part} is lost: {error}", flush=True)
            return {
                "wavenumber": np.zeros(0),
                "left_out": np.zeros(0),
                "asymmetry": np.array(0.0),
                "converged": np.array(0.0),
                "positions": np.asarray(start.positions),
            }
        masses = atomic_masses[np.asarray(start.species, dtype=int)]
        modes = vibrations.normal_modes((matrix + matrix.T) / 2, masses, least.structure.positions)
        return {
            "wavenumber": modes.wavenumber,
            "left_out": modes.left_out,
            "asymmetry": np.array(vibrations.antisymmetry(matrix)),
            "converged": np.array(float(least.converged)),
            "positions": np.asarray(least.structure.positions),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        from sapis_lab.observables.vibrations import zero_point_energy

        ours = [measured[part] for part in sorted(measured) if part.startswith("potential")]
        theirs = [measured[part] for part in sorted(measured) if part.startswith("reference")]
        scores = {
            "asymmetry": max(float(one["asymmetry"]) for one in ours),
            "converged": float(np.mean([one["converged"] for one in ours])),
        }
        there = [one["wavenumber"] for one in ours if len(one["wavenumber"])]
        if there:
            scores["highest"] = max(float(one.max()) for one in there)
            scores["imaginary"] = float(np.mean([(one < IMAGINARY).sum() for one in there]))
        pairs = [
            (a["wavenumber"], b["wavenumber"])
            for a, b in zip(ours, theirs, strict=False)
            if 0 < len(a["wavenumber"]) == len(b["wavenumber"])  # one may be lost, or have become linear
        ]
        if not pairs:
            return scores
        error = np.concatenate([np.abs(a - b) for a, b in pairs])
        zero = [abs(zero_point_energy(a) - zero_point_energy(b)) for a, b in pairs]
        return scores | {
            "mae": float(error.mean()),
            "max_error": float(error.max()),
            "zero_point_error": float(np.mean(zero)),
        }
