"""Forces on atoms, minus the derivative of the energy in their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Added
from sapis_lab.targets._base import Labelled, Measure, Per, Predicted, Target, usual_measures

if TYPE_CHECKING:
    from torch import Tensor


class ForcesTarget(Target):
    """The force on an atom, eV/Å: per atom, a vector, -dE/dr. Errors are per component: means over 3N."""

    kind: Literal["forces"] = "forces"
    weight: float = Field(default=1.0, ge=0, le=1e6)
    """lambda_F."""
    huber: Annotated[float | None, Field(ge=1e-9, le=1e6), Added(before=None)] = None
    """eV/Å: an error of an atom far beyond it counts by its length, far below it by its square, as with no
    such setting."""

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
        squares = (self.error(found, batch) / scale).square().sum(-1)
        if self.huber is not None:
            squares = pseudo_huber(squares, (self.huber / scale).square())
        return self.weight * squares.sum()


def pseudo_huber(squares: Tensor, square: Tensor) -> Tensor:
    """2 d^2 (sqrt(1 + e^2 / d^2) - 1) from e^2 (any shape) and d^2 (), in one unit: e^2 for small e, 2 d e
    for large ones (Charbonnier et al., IEEE Trans. Image Process. 6 (1997) 298); in a form that keeps its
    digits for small e."""
    return 2 * squares / (1 + (1 + squares / square).sqrt())
