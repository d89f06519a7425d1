"""What evaluations of crystals at rest share: which crystal, relaxed in cell and positions on the trained
potential and, where a reference is named, on that."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation._base import Evaluation, Subject
from sapis_lab.oracles import OracleConfig

if TYPE_CHECKING:
    from sapis_lab.observables.surfaces import Predict
    from sapis_lab.structures import Structure

POTENTIAL, REFERENCE = "potential", "reference"
Lattice = Literal["fcc", "bcc", "sc", "hcp", "diamond", "zincblende", "rocksalt", "cesiumchloride"]


class CrystalEvaluation(Evaluation):
    """Settings of a crystal; subclasses say what is measured of it."""

    crystal: str | None = Field(default=None, pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=40)
    """A formula, such as Si; by default the crystal is the first test frame."""
    lattice: Lattice = "diamond"
    """Of a crystal that is named by its formula."""
    a: float = Field(default=5.43, gt=0.5, le=1000)
    """Its lattice constant before it is relaxed, Å."""
    reference: composed_kind("oracles", OracleConfig) | None = None  # type: ignore[valid-type]
    """A source of labels with stress, of which the same is measured."""
    max_force: float = Field(default=5e-4, gt=0, le=1)
    """Largest component of a force that a relaxed crystal may have, eV/Å; below 1e-4 float32 is noise."""
    most_steps: int = Field(default=300, ge=1, le=100_000)
    """Steps after which a relaxation ends."""

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        start = self.start(subject)
        if start.pbc is None or not np.all(start.pbc):
            raise ValueError(
                f"{self.kind} wants a crystal; the first test frame is not periodic in three directions "
                "(name one with `crystal`, `lattice` and `a`)"
            )
        unknown = sorted({int(z) for z in start.species} - set(subject.potential.model.species))
        if unknown:
            raise ValueError(
                f"crystal {self.crystal} has atomic numbers {unknown}, which the potential does not know"
            )
        return (POTENTIAL, *((REFERENCE,) if self.reference is not None else ()))

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """What the kind measures of the relaxed crystal, and of that: energy (eV an atom), volume (Å³ an
        atom), cell (3, 3) Å, converged (0 or 1)."""
        from sapis_lab.observables.minima import relaxed_crystal
        from sapis_lab.observables.surfaces import of_oracle

        if part == POTENTIAL:
            predict: Predict = subject.potential.predict
        else:
            assert self.reference is not None
            predict = of_oracle(self.reference)
        least = relaxed_crystal(
            predict, self.start(subject), max_force=self.max_force, most_steps=self.most_steps
        )
        at, n = least.structure, len(least.structure.species)
        assert at.cell is not None
        return {
            "energy": np.array(least.energy / n),
            "volume": np.array(abs(np.linalg.det(at.cell)) / n),
            "cell": np.asarray(at.cell),
            "converged": np.array(float(least.converged)),
        } | self.of_crystal(predict, at)

    @abstractmethod
    def of_crystal(self, predict: Predict, structure: Structure) -> dict[str, np.ndarray]:
        """Raw arrays of the relaxed crystal."""

    def start(self, subject: Subject) -> Structure:
        """The crystal before it is relaxed."""
        from sapis_lab.structures import Structure

        if self.crystal is None:
            return subject.structures(subject.test_frames(1))[0]
        from ase.build import bulk

        atoms = bulk(self.crystal, self.lattice, a=self.a, cubic=self.lattice not in ("hcp",))
        return Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))
