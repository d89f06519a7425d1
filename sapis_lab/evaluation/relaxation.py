"""Where structures relax to on the surface of the trained potential: the tasks IS2RE and IS2RS by relaxation
(Chanussot et al., ACS Catal. 11, 6059, 2021).

From the frames of step 0 of every test set (data with a property `step`; otherwise from its first frames)
atoms move by FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201, 2006, as ASE has it) at fixed cell until no
free atom feels more than `force`, at most `most_steps` steps; atoms with the property `fixed` stay where they
are. Means over the structures of a set:

    share_converged         of all that were started
    share_lost              of all: two atoms met, or the energy was no number
    relaxation_steps        steps of FIRE
    relaxed_energy_mae      |E - E_ref|, with E of the last structure and the label `relaxed_energy`, eV
    relaxation_energy_mae   |(E - E_start) - (E_ref - E_ref,start)|, eV: reference energies cancel
    displacement            mean distance of the free atoms from the labelled relaxed structure, by the
                            nearest image, Å; labels `to_relaxed`
    ..._unrelaxed           relaxation_energy_mae and displacement of who does not relax at all

Errors are over the structures that have these labels and were not lost, converged or not. Below the
unrelaxed ones, a relaxation has helped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.structures import Structure


class RelaxationConfig(Evaluation):
    """Structures relaxed with the potential, against those of the labels, on every test set."""

    kind: Literal["relaxation"] = "relaxation"
    most_structures: int = Field(default=20, ge=1, le=10**6)
    """Structures of each test set that are relaxed, from its start."""
    most_steps: int = Field(default=200, ge=1, le=10**6)
    """Steps after which a relaxation that has not converged ends."""
    force: float = Field(default=0.05, gt=0, le=10)
    """Largest force on a free atom of a relaxed structure, eV/Å."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def shown(
            key: str, label: str, unit: str = "", better: Literal["lower", "higher", "none"] = "lower"
        ) -> Quantity:
            return Quantity(f"{{split}}_{key}", f"{{split}} {label}", unit, better=better)

        return (
            shown("share_converged", "share of relaxations that converge", better="higher"),
            shown("share_lost", "share of relaxations that are lost"),
            shown("relaxation_steps", "steps of a relaxation"),
            shown("relaxed_energy_mae", "relaxed energy MAE", "eV"),
            shown("relaxation_energy_mae", "relaxation energy MAE", "eV"),
            shown("relaxation_energy_mae_unrelaxed", "relaxation energy MAE without relaxing", "eV"),
            shown("displacement", "displacement from the relaxed structure", "Å"),
            shown("displacement_unrelaxed", "displacement without relaxing", "Å"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """The test sets."""
        subject.want_energies()
        subject.test_frames(1)  # there are some
        return tuple(split for split in subject.test_splits if len(self._starts(subject, split)))

    def _starts(self, subject: Subject, split: str) -> np.ndarray:
        ids = np.asarray(subject.store.splits[split])
        if "step" in subject.store.properties:
            ids = ids[subject.store.label_column("step")[ids] == 0]
        return ids[: self.most_structures]

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Of every structure, (n,) each: `steps`, `converged` and `lost`; `start` and `end`, energies of the
        potential, eV; `reference_start` and `reference_end`, those of the labels; `displacement` and
        `displacement_start`, Å. NaN where something is not known."""
        found = []
        for k in self._starts(subject, part):
            start = subject.structures(np.array([k]))[0]
            labels = _labels(subject, int(k))
            end = self._relaxed(subject, start, labels.fixed)
            found.append(
                {
                    "steps": float(end.steps),
                    "converged": float(end.converged),
                    "lost": float(end.lost),
                    "start": end.energy_start,
                    "end": end.energy,
                    "reference_start": labels.energy,
                    "reference_end": labels.relaxed_energy,
                    "displacement": np.nan if end.lost else _displacement(start, end.positions, labels),
                    "displacement_start": _displacement(start, start.positions, labels),
                }
            )
        return {key: np.array([one[key] for one in found], dtype=np.float64) for key in found[0]}

    def _relaxed(self, subject: Subject, start: Structure, fixed: np.ndarray) -> _End:
        """The end of one relaxation."""
        from ase import Atoms
        from ase.constraints import FixAtoms
        from ase.optimize import FIRE

        from sapis_lab.calculator import SapisCalculator

        atoms = Atoms(start.species, start.positions, cell=start.cell, pbc=start.pbc)
        atoms.set_constraint(FixAtoms(mask=fixed))
        atoms.calc = SapisCalculator(subject.potential)
        steps, converged, lost, energy_start = 0, False, False, float("nan")
        try:
            energy_start = float(atoms.get_potential_energy())
            optimizer = FIRE(atoms, logfile=None)
            converged = bool(optimizer.run(fmax=self.force, steps=self.most_steps))
            steps = int(optimizer.get_number_of_steps())
            energy = float(atoms.get_potential_energy())
        except ValueError as error:  # two atoms have met, or numbers are not finite: `Potential.predict`
            print(f"a relaxation is lost: {error}", flush=True)
            lost, energy = True, float("nan")
        return _End(np.asarray(atoms.positions), energy, energy_start, steps, converged and not lost, lost)

    def score(self, measured: Measured) -> dict[str, float]:
        scores = {}
        for split, a in measured.items():
            scores[f"{split}_share_converged"] = float(a["converged"].mean())
            scores[f"{split}_share_lost"] = float(a["lost"].mean())
            gain, wanted = a["end"] - a["start"], a["reference_end"] - a["reference_start"]
            means = {
                "relaxation_steps": np.where(a["lost"] > 0, np.nan, a["steps"]),
                "relaxed_energy_mae": np.abs(a["end"] - a["reference_end"]),
                "relaxation_energy_mae": np.abs(gain - wanted),
                "relaxation_energy_mae_unrelaxed": np.where(np.isnan(gain), np.nan, np.abs(wanted)),
                "displacement": a["displacement"],
                "displacement_unrelaxed": np.where(
                    np.isnan(a["displacement"]), np.nan, a["displacement_start"]
                ),
            }
            for key, values in means.items():
                if (there := values[~np.isnan(values)]).size:
                    scores[f"{split}_{key}"] = float(there.mean())
        return scores


class _End(NamedTuple):
    """How a relaxation ended."""

    positions: np.ndarray
    energy: float
    energy_start: float
    steps: int
    converged: bool
    lost: bool


class _Labels(NamedTuple):
    """What is known of a start."""

    energy: float
    """eV; NaN where it is not known, as the others."""
    relaxed_energy: float
    to_relaxed: np.ndarray
    """(n_atoms, 3) Å"""
    fixed: np.ndarray
    """(n_atoms,) bool"""


def _labels(subject: Subject, k: int) -> _Labels:
    frame: Any = subject.store.frames(np.array([k]))
    n = int(frame.n_atoms[0])
    fixed = np.asarray(frame.properties.get("fixed", np.zeros(n)))
    return _Labels(
        float(frame.energy[0]),
        float(np.asarray(frame.properties.get("relaxed_energy", [np.nan]))[0]),
        np.asarray(frame.properties.get("to_relaxed", np.full((n, 3), np.nan)), dtype=np.float64),
        fixed == 1,
    )


def _displacement(start: Structure, positions: np.ndarray, labels: _Labels) -> float:
    """Mean distance (Å) of the free atoms of `positions` from the labelled relaxed structure."""
    from ase.geometry import find_mic

    away = positions - (start.positions + labels.to_relaxed)
    away = away[~labels.fixed]
    if np.isnan(away).any() or not len(away):
        return float("nan")
    if start.pbc is not None and start.pbc.any():
        away = find_mic(away, start.cell, pbc=start.pbc)[0]
    return float(np.linalg.norm(away, axis=1).mean())
