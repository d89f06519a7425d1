"""What every ensemble offers: how a state moves one step."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.config import KindConfig
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface


class EnsembleConfig(KindConfig):
    """Settings of dynamics; subclasses are the kinds of ensembles."""

    wants_stress: ClassVar[bool] = False
    """Whether a step needs the stress."""

    timestep: float = Field(default=0.5, gt=0, le=20)
    """fs."""

    @abstractmethod
    def start(self, state: Replicas) -> Replicas:
        """`state` with the momenta and whatever else the first step needs."""

    @abstractmethod
    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        """The state one timestep later, and what the surface is there.

        Args:
            found: what the surface is at `state`.
        """

    def conserved(self, state: Replicas, found: Found) -> np.ndarray:
        """(R,) eV: what stays constant but for the error of the integration."""
        return found.energy + state.kinetic()


def kicked(momenta: np.ndarray, forces: np.ndarray, time: float) -> np.ndarray:
    """Momenta (A, 3), amu Å/fs, after `forces` (A, 3), eV/Å, for `time` fs."""
    return momenta + time * units.ACCELERATION * forces
