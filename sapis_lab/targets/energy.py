"""Energies of frames, minus the reference energies of their atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sapis_lab.targets._base import Labelled, Measure, Per, Predicted, Target

if TYPE_CHECKING:
    from torch import Tensor


class EnergyTarget(Target):
    """The energy of a frame, eV: per frame, a scalar, the model's own output."""

    kind: Literal["energy"] = "energy"
    weight: float = Field(default=30.0, ge=0, le=1e6)
    """lambda_E."""
    of: Literal["per_atom", "total"] = "per_atom"
    """Mean squared error of the energy per atom, or of the energy of the frame."""

    per: ClassVar[Per] = "frame"
    rank: ClassVar[int] = 0
    from_energy: ClassVar[bool] = True
    unit: ClassVar[str] = "eV"
    place: ClassVar[int] = 1
    n_sums: ClassVar[int] = 4

    def measures(self) -> tuple[Measure, ...]:
        return (
            Measure("energy_rmse", "energy RMSE", "eV", "meV", 1e3),
            Measure("energy_mae", "energy MAE", "eV", "meV", 1e3),
            Measure("energy_mae_per_atom", "energy MAE per atom", "eV", "meV", 1e3),
        )

    def prediction(self, found: Predicted) -> Tensor:
        assert found.energy is not None
        return found.energy

    def loss_sum(self, found: Predicted, batch: Labelled, scale: Tensor) -> Tensor:
        error = self.error(found, batch) / scale
        if self.of == "per_atom":
            error = error / batch.n_atoms
        return self.weight * error.square().sum()

    def sums(self, found: Predicted, batch: Labelled) -> list[Tensor | int]:
        error = self.error(found, batch).double()
        mask = batch.labelled(self.key)
        return [
            error.abs().sum(),
            error.square().sum(),
            (error.abs() / batch.n_atoms).sum(),
            batch.n_frames if mask is None else int(mask.sum()),
        ]

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        absolute, squared, per_atom, n = sums
        return {
            "energy_rmse": math.sqrt(squared / n),
            "energy_mae": absolute / n,
            "energy_mae_per_atom": per_atom / n,
        }
