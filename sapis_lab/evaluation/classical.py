"""A force field, or any oracle, on the test frames: its errors beside those of the potential, and what a step
of dynamics costs with both.

Force fields have zeros of energy of their own: what is best removed from the differences of energies is
a number per element, by least squares over the frames of a test set (one number, where all have one
composition). Frames that the oracle cannot label are left out and counted.

    SPLIT_force_rmse_of_force_field        and mae, energy_rmse, energy_mae, energy_mae_per_atom; they stand
                                           in the report's table of baselines
    SPLIT_unlabelled                       share of the frames that the oracle could not label
    energy_spearman                        rank correlation of energies with the labels on the first test set
                                           if all frames have one composition
    seconds_per_step, seconds_per_step_of_model    one frame at a time: the time of one energy with its forces
    speed                                  of the force field over that of the potential
"""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.oracles import Failed, OracleConfig

NAME = "force_field"


class ClassicalConfig(Evaluation):
    """Errors and speed of a force field on the test frames."""

    kind: Literal["classical"] = "classical"
    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """The force field: kind openmm (AMBER, CHARMM) or mmff, or any other oracle."""
    most_frames: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of each test set that are labelled, from its start; all when not given."""
    repeats: int = Field(default=20, ge=1, le=10_000)
    """Steps that are timed; the median counts."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def seconds(key: str, label: str) -> Quantity:
            return Quantity(
                key, label, "s", better="lower", display_unit="ms", display_factor=1e3, is_time=True
            )

        return (
            Quantity(
                f"{{error}}_of_{NAME}", "{error} of a force field", "", better="lower", unit_of="{error}"
            ),
            Quantity("{split}_unlabelled", "share of {split} frames that are not labelled", "", "lower"),
            Quantity("energy_spearman", "rank correlation of the force field's energies", "", "higher"),
            seconds("seconds_per_step", "time per step of the force field"),
            seconds("seconds_per_step_of_model", "time per step of the potential"),
            Quantity("speed", "speed of the force field over the potential's", "", is_time=True),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """The test sets, and `times`."""
        subject.want_energies()
        subject.test_frames(1)
        return (*subject.test_splits, "times")

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Of a test set labels and what the oracle says, NaN where it fails; of `times` seconds (repeats,) of
        both."""
        if part == "times":
            return self._times(subject)
        ids = np.asarray(subject.store.splits[part])[: self.most_frames]
        frames = subject.store.frames(ids)
        energy, forces = np.full(len(ids), np.nan), np.full(frames.forces.shape, np.nan)
        first = 0
        for k, s in enumerate(subject.structures(ids)):
            found = self.oracle.label(s.species, s.positions, cell=s.cell, pbc=s.pbc)
            if not isinstance(found, Failed):
                energy[k], forces[first : first + len(s.species)] = found.energy, found.forces
            first += len(s.species)
        return {
            "n_atoms": frames.n_atoms.astype(np.int64),
            "composition": subject.store.composition(ids).astype(np.int64),
            "energy": frames.energy.astype(np.float64),
            "forces": frames.forces.astype(np.float64),
            "energy_predicted": energy,
            "forces_predicted": forces,
        }

    def _times(self, subject: Subject) -> dict[str, np.ndarray]:
        from sapis_lab.simulation import OracleSurface, PotentialSurface, replicas_of

        frame = subject.structures(subject.test_frames(1))[0]
        state = replicas_of([frame], masses=[np.ones(len(frame.species))], seed=0)
        seconds = {}
        for name, surface in {
            "force_field": OracleSurface(self.oracle),
            "model": PotentialSurface(subject.potential),
        }.items():
            surface(state)  # what is made once
            taken = []
            for _ in range(self.repeats):
                began = time.perf_counter()
                surface(state)
                taken.append(time.perf_counter() - began)
            seconds[name] = np.array(taken)
        return seconds

    def score(self, measured: Measured) -> dict[str, float]:
        scores: dict[str, float] = {}
        for part, arrays in measured.items():
            if part == "times":
                ours, model = (float(np.median(arrays[who])) for who in ("force_field", "model"))
                scores |= {
                    "seconds_per_step": ours,
                    "seconds_per_step_of_model": model,
                    "speed": model / ours,
                }
                continue
            scores |= _scores(part, **arrays)
            if "energy_spearman" not in scores and (rank := _rank(**arrays)) is not None:
                scores["energy_spearman"] = rank
        return scores


def _scores(
    split: str,
    *,
    n_atoms: np.ndarray,
    composition: np.ndarray,
    energy: np.ndarray,
    forces: np.ndarray,
    energy_predicted: np.ndarray,
    forces_predicted: np.ndarray,
) -> dict[str, float]:
    labelled = np.isfinite(energy_predicted)
    if not labelled.any():
        raise ValueError(f"the force field could not label any frame of {split}; wanted one that knows them")
    scores = {f"{split}_unlabelled": float(1 - labelled.mean())}
    apart = forces_predicted - forces
    apart = apart[np.isfinite(apart).all(1)]
    if len(apart):
        scores[f"{split}_force_rmse_of_{NAME}"] = float(np.sqrt(np.square(apart).mean()))
        scores[f"{split}_force_mae_of_{NAME}"] = float(np.abs(apart).mean())
    there = labelled & np.isfinite(energy)
    if there.any():
        error = (energy_predicted - energy)[there]
        counts = composition[there].astype(np.float64)
        error = error - counts @ np.linalg.lstsq(counts, error, rcond=None)[0]
        scores[f"{split}_energy_rmse_of_{NAME}"] = float(np.sqrt(np.square(error).mean()))
        scores[f"{split}_energy_mae_of_{NAME}"] = float(np.abs(error).mean())
        scores[f"{split}_energy_mae_per_atom_of_{NAME}"] = float(np.abs(error / n_atoms[there]).mean())
    return scores


def _rank(
    *, composition: np.ndarray, energy: np.ndarray, energy_predicted: np.ndarray, **_: np.ndarray
) -> float | None:
    """Spearman's correlation; None where compositions differ or there are too few frames."""
    from scipy.stats import spearmanr

    there = np.isfinite(energy) & np.isfinite(energy_predicted)
    if there.sum() < 3 or (composition[there] != composition[there][0]).any():
        return None
    found = float(spearmanr(energy[there], energy_predicted[there]).statistic)
    return found if np.isfinite(found) else None
