"""Radial distribution functions of dynamics on the potential.

Of every pair of elements (`pairs`), of periodic systems: place and height of the largest value of g(r), and,
with a reference that moves with the same settings or the test frames themselves (`frames: true`, where these
are of one trajectory at this temperature), the mean absolute difference of g up to `r_max`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from sapis_lab.elements import SYMBOLS
from sapis_lab.evaluation import Measured, Subject
from sapis_lab.evaluation._trajectories import POTENTIAL, TrajectoryEvaluation, of_reference
from sapis_lab.measures import Quantity
from sapis_lab.observables.structure import PairDistribution, first_peak, pair_distribution

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

FRAMES = "frames"


class RdfConfig(TrajectoryEvaluation):
    """Radial distribution functions, against those of a reference."""

    kind: Literal["rdf"] = "rdf"
    r_max: float | None = Field(default=None, gt=0, le=1000)
    """Å; half of the smallest height of the cell by default, and at most."""
    n_bins: int = Field(default=150, ge=8, le=10_000)
    """Up to r_max."""
    frames: bool = False
    """Whether the frames of the first test set are the reference."""
    every: float = Field(default=20.0, gt=0, le=1e6)
    """fs between frames."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("mae_{pair}", "mean absolute error of g(r) of {pair}", "", better="lower"),
            Quantity("peak_position_{pair}", "place of the highest peak of g(r) of {pair}", "Å"),
            Quantity("peak_height_{pair}", "highest peak of g(r) of {pair}", ""),
            Quantity("reference_position_{pair}", "place of the reference's peak of g(r) of {pair}", "Å"),
            Quantity("reference_height_{pair}", "highest peak of the reference's g(r) of {pair}", ""),
            Quantity("failures", "share of replicas that failed", "", better="lower"),
        )

    def refuse(self, frame: Structure) -> None:
        if frame.pbc is None or not np.all(frame.pbc):
            raise ValueError(
                "radial distributions want a system that is periodic in three directions; its test frames "
                "are not"
            )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        return (*super().parts(subject), *((FRAMES,) if self.frames else ()))

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """As of every trajectory; of the test frames positions (1, F, A, 3), cell and species."""
        if part != FRAMES:
            return super().measure(subject, part)
        first = self.starts(subject)[0]
        some = [s for s in subject.structures(subject.test_frames()) if len(s.species) == len(first.species)]
        some = [s for s in some if np.array_equal(s.species, first.species)]
        return {
            "positions": np.array([s.positions for s in some])[None],
            "cell": np.array([s.cell for s in some])[None],
            "species": np.asarray(first.species),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        scores = {"failures": float(measured[POTENTIAL]["failed"]) / self.n_replicas}
        references = [measured[FRAMES]] if FRAMES in measured else of_reference(measured)
        every = [measured[POTENTIAL], *references]
        r_max = self.r_max or min(_half_height(part["cell"]) for part in every)
        species = np.unique(measured[POTENTIAL]["species"]).tolist()
        for k, a in enumerate(species):
            for b in species[k:]:
                if a == b and (measured[POTENTIAL]["species"] == a).sum() < 2:
                    continue
                name = f"{SYMBOLS[a]}_{SYMBOLS[b]}"
                ours = self._distribution([measured[POTENTIAL]], (a, b), r_max)
                if not ours.g.any():
                    continue
                at, height = first_peak(ours)
                scores |= {f"peak_position_{name}": at, f"peak_height_{name}": height}
                if references:
                    theirs = self._distribution(references, (a, b), r_max)
                    at, height = first_peak(theirs)
                    scores[f"mae_{name}"] = float(np.abs(ours.g - theirs.g).mean())
                    scores |= {f"reference_position_{name}": at, f"reference_height_{name}": height}
        return scores

    def _distribution(self, parts: list[Any], pair: tuple[int, int], r_max: float) -> PairDistribution:
        x = np.concatenate([np.concatenate(list(part["positions"])) for part in parts])
        cell = np.concatenate([np.concatenate(list(part["cell"])) for part in parts])
        return pair_distribution(x, cell, parts[0]["species"], pair=pair, r_max=r_max, n_bins=self.n_bins)


def _half_height(cell: np.ndarray) -> float:
    inverse = np.linalg.inv(cell.reshape(-1, 3, 3))
    return float(0.5 / np.linalg.norm(inverse, axis=1).max())
