"""What every target says of itself."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from sapis_lab.config import KindConfig
from sapis_lab.measures import Measure

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Per = Literal["frame", "atom"]
PropertyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
"""Name of a property, its column in a data set and the beginning of its errors' names."""


class Predicted(Protocol):
    """What a task predicts of a batch, as far as targets look at it."""

    @property
    def energy(self) -> Tensor | None:
        """(B,), eV."""

    @property
    def forces(self) -> Tensor | None:
        """(A, 3), eV/Å."""

    @property
    def stress(self) -> Tensor | None:
        """(B, 3, 3), eV/Å³."""

    @property
    def properties(self) -> dict[str, Tensor]:
        """Outputs of the heads by the keys of their targets."""

    @property
    def scales(self) -> dict[str, Tensor]:
        """Spread of the training labels of the same, (), in their units."""


class Labelled(Protocol):
    """What targets look at of a batch (`atoms.AtomsBatch`)."""

    @property
    def n_frames(self) -> int:
        """B."""

    n_atoms: Tensor
    """(B,)"""
    cell: Tensor
    """(B, 3, 3) Å"""

    def label(self, key: str) -> Tensor:
        """The labels of the target `key`; zero where one is missing."""

    def labelled(self, key: str) -> Tensor | None:
        """(B,) or (A,) bool: where there is one; None where all have one."""


class Rows(Protocol):
    """What a target must know of the frames that a sum runs over."""

    def n_labelled(self, column: str, per: Per, ids: np.ndarray) -> int:
        """Frames (or atoms of frames) of `ids` that have a label in `column`."""


class Target(KindConfig):
    """One thing that is learnt and scored; subclasses are the kinds.

    Its loss is `weight` times the mean over the frames, or over the atoms, that have a label; its errors are
    sums over a split, so that any number of ranks gives the same means.
    """

    weight: float = Field(default=1.0, ge=0, le=1e6)
    """Of its term in the loss."""

    per: ClassVar[Per]
    """What a label belongs to."""
    rank: ClassVar[int]
    """Number of Cartesian indices of a label: 0 scalar, 1 vector, 2 matrix. Labels turn with the frame, and
    those of odd rank change sign under inversion (polar tensors)."""
    unit: ClassVar[str]
    """Of labels and predictions."""
    from_energy: ClassVar[bool]
    """Whether it is the energy or a derivative of it; otherwise a head of its own predicts it."""
    place: ClassVar[int] = 100
    """Among the targets in tables, in ascending order."""
    head: ClassVar[str] = ""
    """The kind of head that predicts it where the settings name no other."""
    n_sums: ClassVar[int] = 3
    """How many `sums` there are."""

    @property
    def key(self) -> str:
        """What it is called in settings, in the frame store and among the predictions."""
        return self.kind

    @abstractmethod
    def measures(self) -> tuple[Measure, ...]:
        """The errors by which it is scored, in the order of tables."""

    @abstractmethod
    def prediction(self, found: Predicted) -> Tensor:
        """What was predicted of this target."""

    def error(self, found: Predicted, batch: Labelled) -> Tensor:
        """Prediction minus label; zero where there is no label."""
        difference = self.prediction(found) - batch.label(self.key)
        mask = batch.labelled(self.key)
        if mask is None:
            return difference
        shape = (-1, *(1,) * (difference.dim() - 1))
        return difference.where(mask.view(shape), difference.new_zeros(()))

    @abstractmethod
    def loss_sum(self, found: Predicted, batch: Labelled, scale: Tensor) -> Tensor:
        """`weight` times the sum over the frames, or atoms, of the batch of squared errors, or of what a
        target counts in their place, ().

        Args:
            scale: the training force RMS, eV/Å, by which energies and their derivatives are divided; heads
            have a scale of their own.
        """

    def n_labelled(self, rows: Rows, ids: np.ndarray) -> int:
        """By what a sum over the frames `ids` is divided: the frames, or atoms, that have a label."""
        return rows.n_labelled(self.key, self.per, ids)

    def sums(self, found: Predicted, batch: Labelled) -> list[Tensor | int]:
        """Sums over a batch from which `scores` follow: by default of |error| and error² over all components,
        and the number of components."""
        error = self.error(found, batch).double()
        mask = batch.labelled(self.key)
        rows = len(error) if mask is None else int(mask.sum())
        return [error.abs().sum(), error.square().sum(), rows * math.prod(error.shape[1:])]

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """The errors by the keys of `measures`, from sums over a split."""
        absolute, squared, n = sums
        key = self.measures()[0].key.rpartition("_")[0]
        return {f"{key}_rmse": math.sqrt(squared / n), f"{key}_mae": absolute / n}


class HeadTarget(Target):
    """What a head predicts from the features of the atoms.

    The loss is in units of the spread of the training labels, which the head knows: it is of order 1 for
    every property, whatever its unit.
    """

    from_energy: ClassVar[bool] = False

    def prediction(self, found: Predicted) -> Tensor:
        return found.properties[self.key]

    def loss_sum(self, found: Predicted, batch: Labelled, scale: Tensor) -> Tensor:
        error = self.error(found, batch) / found.scales[self.key]
        return self.weight * error.square().sum()


def usual_measures(
    key: str, label: str, unit: str, *, display_unit: str = "", display_factor: float = 1.0
) -> tuple[Measure, ...]:
    """RMSE and MAE per component."""
    return tuple(
        Measure(f"{key}_{short.lower()}", f"{label} {short}", unit, display_unit, display_factor)
        for short in ("RMSE", "MAE")
    )
