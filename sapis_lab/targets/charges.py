"""Partial charges of atoms."""

from __future__ import annotations

from typing import ClassVar, Literal

from sapis_lab.targets._base import HeadTarget, Measure, Per, usual_measures


class ChargesTarget(HeadTarget):
    """The partial charge of an atom, e: per atom, a scalar."""

    kind: Literal["charges"] = "charges"

    per: ClassVar[Per] = "atom"
    rank: ClassVar[int] = 0
    unit: ClassVar[str] = "e"
    place: ClassVar[int] = 4
    head: ClassVar[str] = "scalar"

    def measures(self) -> tuple[Measure, ...]:
        return usual_measures("charge", "charge", self.unit, display_unit="me", display_factor=1e3)
