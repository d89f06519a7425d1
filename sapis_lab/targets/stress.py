"""Stress of periodic frames: the derivative of the energy in a strain, over the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sapis_lab.targets._base import Labelled, Measure, Per, Predicted, Target, usual_measures
from sapis_lab.units import EV_PER_A3_TO_GPA

if TYPE_CHECKING:
    from torch import Tensor


class StressTarget(Target):
    """The stress of a frame, eV/Å³, tension positive: per frame, a symmetric matrix.

    The loss is the mean over frames of the squared virial error per atom, |V dσ|² / n² over all nine
    components, in units of the training force RMS times 1 Å: the same scale as the energy's, whatever the
    volume. Frames without three lattice vectors have no stress. Errors are per component, means over 9.
    """

    kind: Literal["stress"] = "stress"

    per: ClassVar[Per] = "frame"
    rank: ClassVar[int] = 2
    from_energy: ClassVar[bool] = True
    unit: ClassVar[str] = "eV/Å³"
    place: ClassVar[int] = 2

    def measures(self) -> tuple[Measure, ...]:
        return usual_measures(
            "stress", "stress", "eV/Å³", display_unit="GPa", display_factor=EV_PER_A3_TO_GPA
        )

    def prediction(self, found: Predicted) -> Tensor:
        assert found.stress is not None
        return found.stress

    def loss_sum(self, found: Predicted, batch: Labelled, scale: Tensor) -> Tensor:
        volume = batch.cell.det().abs()
        error = self.error(found, batch) * (volume / batch.n_atoms / scale).view(-1, 1, 1)
        return self.weight * error.square().sum()
