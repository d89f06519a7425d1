"""Langevin dynamics at one temperature by BAOAB (`integrators.langevin`): the canonical distribution."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.integrators.langevin import State, baoab, thermal_momenta
from sapis_lab.samplers._base import Force, SamplerConfig


class LangevinConfig(SamplerConfig):
    """Langevin dynamics (BAOAB)."""

    kind: Literal["langevin"] = "langevin"
    temperature: float = Field(default=500.0, gt=0, le=1e5)
    """K."""
    friction: float = Field(default=0.01, gt=0, le=10)
    """1/fs: 0.01 lets momenta forget within 100 fs."""

    def start(self, positions: np.ndarray, *, masses: np.ndarray, generator: np.random.Generator) -> State:
        return State(positions, thermal_momenta(masses, temperature=self.temperature, generator=generator))

    def advance(
        self, state: State, force: Force, *, masses: np.ndarray, n_steps: int, generator: np.random.Generator
    ) -> State:
        return baoab(
            state,
            force,
            masses=masses,
            temperature=self.temperature,
            friction=self.friction,
            timestep=self.timestep,
            n_steps=n_steps,
            generator=generator,
        )
