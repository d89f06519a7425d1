"""Any further property of frames or atoms, by declaration: a scalar, a vector or a matrix, predicted by a
head.

train:
  targets:
    - {kind: property, name: gap, unit: eV}
  heads:
    gap: {kind: scalar, pool: mean}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sapis_lab.targets._base import HeadTarget, Measure, Per, PropertyName, usual_measures

FROM_ENERGY = ("energy", "forces", "stress")


class PropertyTarget(HeadTarget):
    """A property that the data have a column of, in its own unit. Errors are per component."""

    kind: Literal["property"] = "property"
    name: PropertyName
    """Its column in the data; its errors are `val_NAME_rmse`, `test_NAME_mae`, ..."""
    per: Per = "frame"  # type: ignore[misc]
    """What a label belongs to: a frame or an atom."""
    rank: Literal[0, 1, 2] = 0  # type: ignore[misc]
    """Cartesian indices: 0 scalar, 1 vector, 2 symmetric matrix."""
    unit: str = Field(default="", max_length=20)  # type: ignore[misc]
    """Of the labels, for people; numbers are as the data have them."""
    label: str = Field(default="", max_length=60)
    """Its name in figures and reports; by default `name`."""

    @field_validator("name")
    @classmethod
    def _is_no_derivative(cls, name: str) -> str:
        if name in FROM_ENERGY:
            raise ValueError(f"{name!r} comes from the energy; wanted a property that a head predicts")
        return name

    @property
    def key(self) -> str:
        return self.name

    def measures(self) -> tuple[Measure, ...]:
        return usual_measures(self.name, self.label or self.name.replace("_", " "), self.unit)
