"""Which torsions a molecule has in dynamics on the potential, against a reference.

Torsions about all bonds that can turn (`observables.structure.rotatable_torsions`), or those that are named,
in 36 bins; the reference moves with the same settings (`reference: {kind: xtb}`), or is the test frames
(`frames: true`, where these sample the same temperature). Jensen-Shannon divergences in nats, errors by
drawing replicas again:

    js_mean, js_max    over the torsions
    js_error           standard error of js_mean
    js_floor           of the two halves of the reference's replicas, mean: what a finite time leaves
    js_ramachandran    of the first two torsions together, where `ramachandran` is set; js_ramachandran_error
    gyration           mean radius of gyration, gyration_reference beside it
    timescale          slowest of the first torsion, by TICA of its cosine and sine at `lag`;
    timescale_reference
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Measured, Subject
from sapis_lab.evaluation._trajectories import POTENTIAL, TrajectoryEvaluation, of_reference
from sapis_lab.measures import Quantity
from sapis_lab.observables.kinetics import circle, tica_timescales
from sapis_lab.observables.statistics import block_bootstrap, jensen_shannon
from sapis_lab.observables.structure import (
    radius_of_gyration,
    ramachandran_counts,
    rotatable_torsions,
    torsion_counts,
    torsions,
)

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

FRAMES = "frames"
Part = Mapping[str, np.ndarray]


class TorsionsConfig(TrajectoryEvaluation):
    """Torsion histograms of a molecule, against those of a reference."""

    kind: Literal["torsions"] = "torsions"
    atoms: tuple[tuple[int, int, int, int], ...] = ()
    """The torsions, by the numbers of their atoms from 0; by default those about all bonds that turn."""
    ramachandran: bool = False
    """Whether the first two torsions are compared together, as φ and ψ."""
    frames: bool = False
    """Whether the frames of the first test set are the reference."""
    lag: float = Field(default=1.0, gt=0, le=1e6)
    """ps, of the slowest time scale."""
    every: float = Field(default=10.0, gt=0, le=1e6)
    """fs between frames."""
    time: float = Field(default=20.0, gt=0, le=1e6)
    """ps that are recorded of every replica."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def js(key: str, label: str) -> Quantity:
            return Quantity(key, label, "nats", better="lower")

        return (
            js("js_mean", "mean Jensen-Shannon divergence of the torsions"),
            js("js_max", "largest Jensen-Shannon divergence of a torsion"),
            js("js_error", "standard error of the mean Jensen-Shannon divergence"),
            js("js_floor", "Jensen-Shannon divergence of two halves of the reference"),
            js("js_ramachandran", "Jensen-Shannon divergence of the Ramachandran maps"),
            js("js_ramachandran_error", "standard error of that of the Ramachandran maps"),
            Quantity("gyration", "mean radius of gyration", "Å"),
            Quantity("gyration_reference", "mean radius of gyration on the reference", "Å"),
            Quantity("timescale", "slowest time scale of the first torsion", "ps"),
            Quantity("timescale_reference", "that on the reference", "ps"),
            Quantity("failures", "share of replicas that failed", "", better="lower"),
        )

    def refuse(self, frame: Structure) -> None:
        if frame.pbc is not None and np.any(frame.pbc):
            raise ValueError("torsions want molecules; the test frames are periodic")
        n = len(self._torsions(frame.species, frame.positions))
        if n < 1 + self.ramachandran:
            raise ValueError(
                f"the first test frame has {n} torsions about bonds that turn, wanted at least "
                f"{1 + self.ramachandran}; name the atoms of some in `atoms`"
            )
        if self.atoms and np.max(self.atoms) >= len(frame.species):
            raise ValueError(
                f"atoms names atom {np.max(self.atoms)}, but the frames have {len(frame.species)}, from 0"
            )

    def _torsions(self, species: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return np.array(self.atoms) if self.atoms else rotatable_torsions(species, positions)

    def parts(self, subject: Subject) -> tuple[str, ...]:
        return (*super().parts(subject), *((FRAMES,) if self.frames else ()))

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """torsions (R, F, n) radians; gyration (R, F) Å; failed. Of the test frames, R = 1."""
        first = self.starts(subject)[0]
        quads = self._torsions(first.species, first.positions)
        if part == FRAMES:
            some = subject.structures(subject.test_frames())
            alike = [s.positions for s in some if np.array_equal(s.species, first.species)]
            x, failed = np.array(alike)[None], np.array(0)
        else:
            raw = super().measure(subject, part)
            x, failed = raw["positions"].astype(np.float64), raw["failed"]
        from ase.data import atomic_masses

        masses = atomic_masses[np.asarray(first.species, dtype=int)]
        return {
            "torsions": np.array([torsions(one, quads) for one in x]),
            "gyration": np.array([radius_of_gyration(one, masses) for one in x]),
            "failed": failed,
        }

    def score(self, measured: Measured) -> dict[str, float]:
        ours = measured[POTENTIAL]
        parts = [measured[FRAMES]] if FRAMES in measured else of_reference(measured)
        scores = {
            "failures": float(ours["failed"]) / self.n_replicas,
            "gyration": float(ours["gyration"].mean()),
        } | self._slowest([ours], "timescale")
        if not parts:
            return scores
        a, b = _histograms([ours]), _histograms(parts)
        each = [jensen_shannon(a.sum(0)[k], b.sum(0)[k]) for k in range(a.shape[1])]
        mean = block_bootstrap(list(a), list(b), _mean_divergence, seed=self.seed)
        scores |= {"js_mean": float(np.mean(each)), "js_max": float(np.max(each))}
        if np.isfinite(mean.error):
            scores["js_error"] = mean.error
        if len(b) > 1:
            scores["js_floor"] = _mean_divergence(b[::2].sum(0), b[1::2].sum(0))
        if self.ramachandran:
            maps = (_maps([ours]), _maps(parts))
            found = block_bootstrap(*maps, jensen_shannon, seed=self.seed)
            scores["js_ramachandran"] = found.value
            if np.isfinite(found.error):
                scores["js_ramachandran_error"] = found.error
        scores["gyration_reference"] = float(np.concatenate([p["gyration"].ravel() for p in parts]).mean())
        if FRAMES in measured:  # test frames are in no order of time
            return scores
        return scores | self._slowest(parts, "timescale_reference")

    def _slowest(self, parts: Sequence[Part], key: str) -> dict[str, float]:
        """Nothing where trajectories are too short for the lag, or nothing slow is seen."""
        lag = max(1, round(1e3 * self.lag / self.frame_fs()))
        runs = [circle(x[:, 0]) for part in parts for x in part["torsions"] if len(x) > 3 * lag]
        if not runs:
            return {}
        found = tica_timescales(runs, lag=lag)
        return {key: float(found[0] * self.frame_fs() * 1e-3)} if len(found) else {}


def _histograms(parts: Sequence[Part]) -> np.ndarray:
    """(n_replicas, n_torsions, n_bins) counts."""
    return np.array(
        [[torsion_counts(x[:, k]) for k in range(x.shape[1])] for part in parts for x in part["torsions"]]
    )


def _maps(parts: Sequence[Part]) -> list[np.ndarray]:
    return [ramachandran_counts(x[:, 0], x[:, 1]) for part in parts for x in part["torsions"]]


def _mean_divergence(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([jensen_shannon(p, q) for p, q in zip(a, b, strict=True)]))
