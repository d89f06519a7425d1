"""Conformers of molecules: whether the potential orders their energies as a reference does.

From test frames with the same atoms as the first, every torsion about a bond that turns is set to random
values (`n_starts` times), the molecule is relaxed on the reference, and those of one energy and one set of
distances are taken as one conformer. Each is then relaxed on the potential from there:

    n_conformers      that the reference has
    spearman          rank correlation of the energies, above the mean of each side (three conformers or more)
    energy_mae        mean absolute error of these energies, eV
    displacement      mean root mean square change of the distances between atoms, Å
    single_mae        energy_mae without relaxing on the potential
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.observables.statistics import spearman
from sapis_lab.observables.structure import rotatable_torsions, turned_torsion
from sapis_lab.oracles import OracleConfig
from sapis_lab.oracles.xtb import XtbConfig

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

ALIKE_EV, ALIKE = 2e-3, 0.05
"""Two relaxed structures are one conformer when energies (eV) and sorted distances (Å) differ by less."""
NEAREST = 0.8
"""Starts with two atoms nearer than this, Å, are drawn again."""


class ConformersConfig(Evaluation):
    """Energies of conformers, against a reference."""

    kind: Literal["conformers"] = "conformers"
    reference: composed_kind("oracles", OracleConfig) = XtbConfig()  # type: ignore[valid-type]
    """On which conformers are found, and whose energies are compared with."""
    n_starts: int = Field(default=12, ge=2, le=100_000)
    """Random sets of torsions."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the torsions."""
    max_force: float = Field(default=2e-3, gt=0, le=1)
    """Largest component of a force of a relaxed molecule, eV/Å."""
    most_steps: int = Field(default=300, ge=1, le=100_000)
    """Steps after which a relaxation ends."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def energy(key: str, label: str) -> Quantity:
            return Quantity(key, label, "eV", better="lower", display_unit="meV", display_factor=1e3)

        return (
            Quantity("n_conformers", "conformers of the reference", ""),
            Quantity("spearman", "Spearman's correlation of conformer energies", "", better="higher"),
            energy("energy_mae", "mean absolute error of conformer energies"),
            energy("single_mae", "mean absolute error of conformer energies, not relaxed"),
            Quantity("displacement", "change of distances on relaxing conformers", "Å", better="lower"),
            Quantity("converged", "share of relaxations that converge", "", better="higher"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """One for every start: each is relaxed on both surfaces."""
        subject.want_energies()
        start = self._first(subject)
        if start.pbc is not None and np.any(start.pbc):
            raise ValueError("conformers want molecules; the test frames are periodic")
        if not len(rotatable_torsions(start.species, start.positions)):
            raise ValueError("the first test frame has no bond that turns, and so no conformers to find")
        return tuple(f"start-{k}" for k in range(self.n_starts))

    def _first(self, subject: Subject) -> Structure:
        return subject.structures(subject.test_frames(1))[0]

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Of one start: reference, the energy on it, eV; potential and single, the potential's, relaxed and
        not; distances (n_pairs,) sorted, Å; displacement, Å; converged (0 or 1)."""
        from sapis_lab.observables.minima import relaxed
        from sapis_lab.observables.surfaces import of_oracle

        start = self._turned(self._first(subject), int(part.partition("-")[2]))
        settings = {"max_force": self.max_force, "most_steps": self.most_steps}
        least = relaxed(of_oracle(self.reference), start, **settings)  # type: ignore[arg-type]
        r = _distances(least.structure.positions)
        predict = subject.potential.predict
        single = float(predict([least.structure]).energy[0])
        try:
            ours = relaxed(predict, least.structure, **settings)  # type: ignore[arg-type]
            energy, converged = ours.energy, ours.converged and least.converged
            moved = float(np.sqrt(np.mean((_distances(ours.structure.positions) - r) ** 2)))
        except ValueError as error:  # two atoms have met: the surface has no minimum here
            print(f"{self.label}: {part} is lost: {error}", flush=True)
            energy, converged, moved = np.nan, False, np.nan
        return {
            "reference": np.array(least.energy),
            "potential": np.array(energy),
            "single": np.array(single),
            "distances": np.sort(r),
            "displacement": np.array(moved),
            "converged": np.array(float(converged)),
        }

    def _turned(self, frame: Structure, k: int) -> Structure:
        """The frame with random torsions; the first start is the frame itself."""
        if k == 0:
            return frame
        generator = np.random.default_rng([self.seed, k])
        torsions = rotatable_torsions(frame.species, frame.positions)
        x = np.asarray(frame.positions, dtype=float)
        for _ in range(1000):
            y = x
            for quad in torsions:
                y = turned_torsion(frame.species, x, y, quad, angle=generator.uniform(-np.pi, np.pi))
            if _distances(y).min() > NEAREST:
                return frame._replace(positions=y)
        raise ValueError(f"no set of torsions leaves all atoms {NEAREST} Å apart; this molecule is too tight")

    def score(self, measured: Measured) -> dict[str, float]:
        every = [measured[part] for part in sorted(measured, key=lambda name: int(name.split("-")[1]))]
        chosen: list[dict[str, np.ndarray]] = []
        for one in sorted(every, key=lambda one: float(one["reference"])):
            if not any(_alike(one, other) for other in chosen):
                chosen.append(dict(one))
        scores = {
            "n_conformers": float(len(chosen)),
            "converged": float(np.mean([one["converged"] for one in every])),
        }
        kept = [one for one in chosen if np.isfinite(one["potential"])]
        if len(kept) < 2:
            return scores
        reference, ours, single = (
            np.array([float(one[key]) for one in kept]) for key in ("reference", "potential", "single")
        )
        reference, ours, single = (e - e.mean() for e in (reference, ours, single))
        scores |= {
            "energy_mae": float(np.abs(ours - reference).mean()),
            "single_mae": float(np.abs(single - reference).mean()),
            "displacement": float(np.mean([one["displacement"] for one in kept])),
        }
        if len(kept) > 2 and np.isfinite(order := spearman(ours, reference)):
            scores["spearman"] = order
        return scores


def _distances(positions: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(positions), 1)
    return np.linalg.norm(positions[i] - positions[j], axis=1)


def _alike(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    energy = abs(float(one["reference"]) - float(other["reference"]))
    far = np.abs(one["distances"] - other["distances"]).max()
    return energy < ALIKE_EV and bool(far < ALIKE)
