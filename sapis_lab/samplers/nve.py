"""Dynamics at constant energy by velocity Verlet, from momenta drawn at a temperature, with the centre of
mass at rest.

Velocity Verlet is BAOAB without friction (`integrators.langevin.baoab`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.integrators.langevin import State, baoab, thermal_momenta
from sapis_lab.samplers._base import Force, SamplerConfig


class NveConfig(SamplerConfig):
    """Dynamics at constant energy (velocity Verlet)."""

    kind: Literal["nve"] = "nve"
    temperature: float = Field(default=500.0, gt=0, le=1e5)
    """Temperature that momenta are drawn at, K; starting at a minimum, half of it stays in the motion."""

    def start(self, positions: np.ndarray, *, masses: np.ndarray, generator: np.random.Generator) -> State:
        momenta = thermal_momenta(masses, temperature=self.temperature, generator=generator)
        return State(positions, momenta - masses[:, None] * (momenta.sum(0) / masses.sum()))

    def advance(
        self, state: State, force: Force, *, masses: np.ndarray, n_steps: int, generator: np.random.Generator
    ) -> State:
        return baoab(
            state,
            force,
            masses=masses,
            temperature=self.temperature,
            friction=0.0,
            timestep=self.timestep,
            n_steps=n_steps,
            generator=generator,
        )
