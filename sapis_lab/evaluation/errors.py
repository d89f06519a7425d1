"""Errors on the test frames by element, and how they are distributed.

With dF_i = F_i(model) - F_i(label), dE = E(model) - E(label) of a frame of n atoms:

    force_mae_Z, force_rmse_Z     mean |dF_ik| and sqrt of the mean of dF_ik^2 over the components k = x, y, z
                                  of all atoms of element Z
    force_error_q, force_error_max            quantiles over all atoms, and the largest, of the length |dF_i|
    energy_error_q, energy_error_max          the same over all frames, of |dE| / n

Means hide what dynamics meet: the rare frames and atoms whose forces are far off. Quantiles are numpy's,
linear between the sorted values. Frames and atoms without a label are left out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.data import SYMBOLS
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.targets import EnergyTarget, ForcesTarget

QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}


def _error(key: str, label: str, unit: str) -> Quantity:
    return Quantity(
        f"{{split}}_{key}",
        f"{{split}} {label}",
        unit,
        better="lower",
        display_unit=f"m{unit}",
        display_factor=1e3,
    )


def _quantile(key: str, what: str, unit: str, name: str) -> Quantity:
    which = "largest" if name == "max" else f"{QUANTILES[name]:.0%} quantile of the"
    return _error(f"{key}_{name}", f"{which} {what}".replace("%", " %"), unit)


class ErrorsConfig(Evaluation):
    """Errors by element and quantiles of errors, on every test set."""

    kind: Literal["errors"] = "errors"
    most_frames: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of each test set that are looked at, from its start; all when not given."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            _error("force_mae_{element}", "force MAE of {element}", ForcesTarget.unit),
            _error("force_rmse_{element}", "force RMSE of {element}", ForcesTarget.unit),
            *(_quantile("force_error", "force error of an atom", ForcesTarget.unit, q) for q in QUANTILES),
            *(_quantile("energy_error", "energy error per atom", EnergyTarget.unit, q) for q in QUANTILES),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """The test sets."""
        subject.want_energies()
        subject.test_frames(1)  # there are some
        return subject.test_splits

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Labels and predictions of all frames of a test set."""
        ids = np.asarray(subject.store.splits[part])[: self.most_frames]
        frames = subject.store.frames(ids)
        found = subject.potential.predict(subject.structures(ids))
        return {
            "n_atoms": frames.n_atoms.astype(np.int64),
            "species": frames.species,
            "energy": frames.energy,
            "forces": frames.forces,
            "energy_predicted": found.energy,
            "forces_predicted": found.forces,
        }

    def score(self, measured: Measured) -> dict[str, float]:
        return {
            f"{split}_{key}": value for split, arrays in measured.items() for key, value in _scores(**arrays)
        }


def _scores(
    *,
    n_atoms: np.ndarray,
    species: np.ndarray,
    energy: np.ndarray,
    forces: np.ndarray,
    energy_predicted: np.ndarray,
    forces_predicted: np.ndarray,
) -> list[tuple[str, float]]:
    of_forces = forces_predicted - forces.astype(np.float64)
    there = ~np.isnan(of_forces).any(1)
    of_forces, species = of_forces[there], species[there]
    scores: list[tuple[str, float]] = []
    for z in np.unique(species):
        error = of_forces[species == z]
        scores.append((f"force_mae_{SYMBOLS[z]}", np.abs(error).mean()))
        scores.append((f"force_rmse_{SYMBOLS[z]}", np.sqrt(np.square(error).mean())))
    of_atoms, of_frames = np.linalg.norm(of_forces, axis=1), np.abs(energy_predicted - energy) / n_atoms
    for key, errors in (("force_error", of_atoms), ("energy_error", of_frames[~np.isnan(of_frames)])):
        if len(errors):
            scores += [(f"{key}_{q}", np.quantile(errors, level)) for q, level in QUANTILES.items()]
    return [(key, float(value)) for key, value in scores]
