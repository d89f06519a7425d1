"""Dipole moments of molecules."""

from __future__ import annotations

from typing import ClassVar, Literal

from sapis_lab.targets._base import HeadTarget, Measure, Per, usual_measures


class DipoleTarget(HeadTarget):
    """The dipole moment of a neutral frame, e Å: per frame, a vector. Errors are per component."""

    kind: Literal["dipole"] = "dipole"

    per: ClassVar[Per] = "frame"
    rank: ClassVar[int] = 1
    unit: ClassVar[str] = "e Å"
    place: ClassVar[int] = 3
    head: ClassVar[str] = "charges"

    def measures(self) -> tuple[Measure, ...]:
        return usual_measures("dipole", "dipole", self.unit, display_unit="me Å", display_factor=1e3)
