"""What every sampler offers: a chain of phase-space points whose random numbers come from the caller
alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from pydantic import Field

from sapis_lab.config import KindConfig
from sapis_lab.integrators.langevin import State

Force = Callable[[np.ndarray], np.ndarray]
"""Positions (n_atoms, 3) in Å to forces (n_atoms, 3) in eV/Å."""


class SamplerConfig(KindConfig):
    """Settings of a sampler; subclasses are the sampler kinds."""

    timestep: float = Field(default=1.0, gt=0, le=2.0)
    """fs."""

    @abstractmethod
    def start(self, positions: np.ndarray, *, masses: np.ndarray, generator: np.random.Generator) -> State:
        """Where a chain begins.   positions: (n_atoms, 3), Å.   masses: (n_atoms,), amu."""

    @abstractmethod
    def advance(
        self, state: State, force: Force, *, masses: np.ndarray, n_steps: int, generator: np.random.Generator
    ) -> State:
        """The state `n_steps` timesteps later."""

    def steps_of(self, time: float, *, name: str) -> int:
        """Timesteps in `time` (fs). ValueError, naming the setting `name`, where it is no multiple of the
        timestep."""
        steps = time / self.timestep
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"{name}={time} is not a multiple of timestep={self.timestep} fs; choose one that is"
            )
        return round(steps)
