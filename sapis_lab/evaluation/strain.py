"""Stress of crystals against the labels, and the slope of the energy under strain.

A frame of volume V is strained by random symmetric matrices e of norm 1, cell and positions going to
x (1 + h e), and the energy is differentiated from central differences of fourth order at h = 0.002,

    s = (4 D(h) - D(2h)) / (3 V),       D(h) = (E(h) - E(-h)) / 2h,

which for a right potential is the work of the labelled stress, w = sum of stress_ij e_ij. Then

    slope             Σ s w / Σ w²: 1 where energies follow the labels, -1 where the sign of these is turned,
                      1/160 where they are GPa read as eV/Å³
    correlation       of s and w
    stress_mae, stress_rmse       of the potential's own stress, over all 9 components
    stress_mismatch   max |s - Σ stress_ij e_ij| with the potential's own stress: rounding, unless derivatives
                      are wrong

A potential that learnt forces alone knows the stress as far as its energies follow from them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.units import EV_PER_A3_TO_GPA

STEP = 2e-3
"""h of the central differences."""


class StrainConfig(Evaluation):
    """Stress errors, and the slope of the energy under strain."""

    kind: Literal["strain"] = "strain"
    n_frames: int = Field(default=20, ge=1, le=10_000)
    """Frames with a stress of the first test set, from its start."""
    n_strains: int = Field(default=3, ge=1, le=1000)
    """Random strains of each of them."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the strains."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def stress(key: str, label: str) -> Quantity:
            shown = {"display_unit": "GPa", "display_factor": EV_PER_A3_TO_GPA}
            return Quantity(key, label, "eV/Å³", better="lower", **shown)  # type: ignore[arg-type]

        return (
            Quantity("slope", "slope of the energy under strain against the labelled stress", ""),
            Quantity("correlation", "correlation of the energy under strain with the labelled stress", ""),
            stress("stress_mae", "stress MAE"),
            stress("stress_rmse", "stress RMSE"),
            stress("stress_mismatch", "largest mismatch of stress and differences of the energy"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        if "stress" not in subject.store.labels:
            raise ValueError(
                f"{subject.store.folder.name} has no stress; wanted crystals with one (the data set says "
                "where it is read from)"
            )
        return ("frames",)

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """stress and stress_predicted (n_frames, 3, 3) eV/Å³; strains (n_frames, n_strains, 3, 3); energy
        (n_frames, n_strains, 4) eV at -2h, -h, h, 2h; volume (n_frames,) Å³."""
        ids = subject.test_frames()
        labelled = ~np.isnan(np.asarray(subject.store.label_column("stress")[ids])).any((1, 2))
        ids = ids[labelled][: self.n_frames]
        if not len(ids):
            raise ValueError("no frame of the first test set has a stress; wanted at least one")
        generator = np.random.default_rng(self.seed)
        frames = subject.structures(ids)
        found = subject.potential.predict(frames, stress=True)
        assert found.stress is not None
        strains, energy, volume = [], [], []
        for frame in frames:
            cell = np.asarray(frame.cell, dtype=float)
            some = generator.normal(size=(self.n_strains, 3, 3))
            some = some + some.transpose(0, 2, 1)
            some /= np.linalg.norm(some, axis=(1, 2), keepdims=True)
            moved = [
                frame._replace(cell=cell @ turn, positions=frame.positions @ turn)
                for e in some
                for k in (-2, -1, 1, 2)
                for turn in (np.eye(3) + k * STEP * e,)
            ]
            energy.append(subject.potential.predict(moved).energy.reshape(self.n_strains, 4))
            strains.append(some)
            volume.append(abs(np.linalg.det(cell)))
        return {
            "stress": np.asarray(subject.store.label_column("stress")[ids]),
            "stress_predicted": np.asarray(found.stress, dtype=np.float64),
            "strains": np.array(strains),
            "energy": np.array(energy, dtype=np.float64),
            "volume": np.array(volume),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        found = measured["frames"]
        e, strains = found["energy"], found["strains"]
        near, far = (e[..., 2] - e[..., 1]) / (2 * STEP), (e[..., 3] - e[..., 0]) / (4 * STEP)
        slope = (4 * near - far) / 3 / found["volume"][:, None]
        work, own = (
            np.einsum("fij,fsij->fs", found[name], strains) for name in ("stress", "stress_predicted")
        )
        error = found["stress_predicted"] - found["stress"]
        scores = {
            "stress_mae": float(np.abs(error).mean()),
            "stress_rmse": float(np.sqrt(np.square(error).mean())),
            "stress_mismatch": float(np.abs(slope - own).max()),
        }
        if np.any(work):
            scores["slope"] = float((slope * work).sum() / np.square(work).sum())
        if np.ptp(slope) and np.ptp(work):
            scores["correlation"] = float(np.corrcoef(slope.ravel(), work.ravel())[0, 1])
        return scores
