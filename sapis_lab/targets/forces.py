"""Forces on atoms, minus the derivative of the energy in their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sapis_lab.targets._base import Labelled, Measure, Per, Predicted, Target, usual_measures

if TYPE_CHECKING:
    from torch import Tensor


class ForcesTarget(Target):
    """The force on an atom, eV/Å: per atom, a vector, -dE/dr. Errors are per component: means over 3N."""

    kind: Literal["forces"] = "forces"
    weight: float = Field(default=1.0, ge=0, le=1e6)
    """lambda_F."""

    per: ClassVar[Per] = "atom"
    rank: ClassVar[int] = 1
    from_energy: ClassVar[bool] = True
    unit: ClassVar[str] = "eV/Å"
    place: ClassVar[int] = 0

    def measures(self) -> tuple[Measure, ...]:
        return usual_measures("force", "force", "eV/Å", display_unit="meV/Å", display_factor=1e3)

    def prediction(self, found: Predicted) -> Tensor:
        assert found.forces is not None
        return found.forces

    def loss_sum(self, found: Predicted, batch: Labelled, scale: Tensor) -> Tensor:
        error = self.error(found, batch) / scale
        return self.weight * error.square().sum()
