"""Whether the uncertainty of the last layer has the size of the errors on test frames, and ranks them.

The last-layer prediction rigidity (`sapis_lab.uncertainty.LastLayer`, arXiv:2403.02251) is fitted on the
training frames of the point, scaled on validation frames, and compared with the errors on the first test set:
of energies by frames, of forces by components. `sapis_lab.uncertainty.calibration` says what the numbers are;
`gain` is what telling frames apart is worth over one standard deviation for all, in nats a number.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity

_OF = {"energy": "energy", "forces": "force"}


class UncertaintyConfig(Evaluation):
    """Standard deviations of the last layer against errors on test frames."""

    kind: Literal["uncertainty"] = "uncertainty"
    n_frames: int = Field(default=200, ge=3, le=10**6)
    """Frames of the first test set, from its start."""
    n_validation: int = Field(default=200, ge=3, le=10**6)
    """Validation frames on which the standard deviations are scaled, from their start."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def of(what: str) -> tuple[Quantity, ...]:
            def words(key: str, label: str, better: Literal["lower", "higher", "none"]) -> Quantity:
                return Quantity(f"{what}_{key}", f"{label} of {what} uncertainties", "", better=better)

            return (
                words("spearman", "rank correlation with errors", "higher"),
                words("nll", "negative log likelihood", "lower"),
                words("gain", "gain in likelihood", "higher"),
                words("covered", "share of errors within one deviation", "none"),
                words("scale", "errors over standard deviations", "none"),
            )

        return (*of("energy"), *of("force"))

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        subject.test_frames(1)
        return ("test",)

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Errors and standard deviations of energies (n_frames,) eV and forces (n_atoms of all, 3) eV/Å."""
        from sapis_lab.uncertainty import LastLayer

        known = LastLayer.fitted(subject.potential, subject.store, most=self.n_validation)
        ids = subject.test_frames(self.n_frames)
        frames = subject.store.frames(ids)
        judged = known.judge(subject.structures(ids))
        return {
            "energy_error": judged.predictions.energy - frames.energy,
            "energy_std": judged.energy_std,
            "forces_error": judged.predictions.forces - frames.forces.astype(np.float64),
            "forces_std": judged.forces_std,
        }

    def score(self, measured: Measured) -> dict[str, float]:
        from sapis_lab.uncertainty import calibration

        scores: dict[str, float] = {}
        for array, what in _OF.items():
            found = calibration(measured["test"][f"{array}_error"], measured["test"][f"{array}_std"])
            scores |= {
                f"{what}_{key}": float(getattr(found, key))
                for key in ("spearman", "nll", "gain", "covered", "scale")
                if np.isfinite(getattr(found, key))
            }
        return scores
