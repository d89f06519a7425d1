"""Rattled structures: every coordinate displaced by a normal number, and of periodic ones the cell strained.

    cell' = cell (1 + e),      x' = x (1 + e) + σ ξ,      e = (a + aᵀ)/2,   a_ij ~ N(0, s²),   ξ ~ N(0, 1)

For first training sets of crystals and molecules, where no dynamics is needed or possible yet.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.generators._base import Configuration, GeneratorConfig, Start, Surface


class RattledConfig(GeneratorConfig):
    """Displaced atoms, and strained cells."""

    kind: Literal["rattled"] = "rattled"
    displacement: float = Field(default=0.05, ge=0, le=10)
    """Standard deviation of every coordinate, Å."""
    strain: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of the elements of the strain; of structures that are periodic in three
    directions."""

    @model_validator(mode="after")
    def _does_something(self) -> RattledConfig:
        if not (self.displacement or self.strain):
            raise ValueError("displacement and strain are both 0; all structures would be the same")
        return self

    def generate(
        self, start: Start, surface: Surface, *, n: int, generator: np.random.Generator
    ) -> list[Configuration]:
        if self.strain and not all(start.pbc):
            raise ValueError(
                f"generator 'rattled' with strain={self.strain} wants three periodic directions, got "
                f"pbc={list(start.pbc)}"
            )

        def draw() -> Configuration:
            x, cell = start.positions, start.cell
            if self.strain:
                assert cell is not None
                a = self.strain * generator.standard_normal((3, 3))
                deformed = np.eye(3) + (a + a.T) / 2
                x, cell = x @ deformed, cell @ deformed
            return Configuration(x + self.displacement * generator.standard_normal(x.shape), cell)

        return self.drawn(draw, start, n=n, what="displacement or strain")
