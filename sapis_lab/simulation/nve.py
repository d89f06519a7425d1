"""Dynamics at constant energy by velocity Verlet, with the centre of mass at rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from sapis_lab.simulation._base import EnsembleConfig, kicked
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface


class NveConfig(EnsembleConfig):
    """Dynamics at constant energy (velocity Verlet)."""

    kind: Literal["nve"] = "nve"
    temperature: float = Field(default=300.0, ge=0, le=1e5)
    """Temperature that momenta are drawn at, K; starting at a minimum, half of it stays in the motion."""

    def start(self, state: Replicas) -> Replicas:
        return state.thermal(self.temperature).at_rest()

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        dt = self.timestep
        p = kicked(state.momenta, found.forces, 0.5 * dt)
        moved = replace(state, positions=state.positions + dt * p / state.masses[:, None])
        found = surface(moved)
        return replace(moved, momenta=kicked(p, found.forces, 0.5 * dt), step=state.step + 1), found
