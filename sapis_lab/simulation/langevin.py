"""Langevin dynamics at one temperature by BAOAB (Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34):
the canonical distribution. `integrators.langevin` is the same for one structure.

The energy that friction and noise bring is counted, so that what is left is conserved but for the error of
the timestep.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.simulation._base import EnsembleConfig, kicked
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface


class LangevinConfig(EnsembleConfig):
    """Langevin dynamics (BAOAB)."""

    kind: Literal["langevin"] = "langevin"
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """K."""
    friction: float = Field(default=0.01, ge=0, le=10)
    """1/fs: 0.01 lets momenta forget within 100 fs."""

    def start(self, state: Replicas) -> Replicas:
        return replace(state.thermal(self.temperature), extra={**state.extra, "heat": np.zeros(len(state))})

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        dt, m = self.timestep, state.masses[:, None]
        p = kicked(state.momenta, found.forces, 0.5 * dt)
        x = state.positions + 0.5 * dt * p / m
        before = replace(state, positions=x, momenta=p)
        c = np.exp(-self.friction * dt)
        spread = np.sqrt(m * units.KB * self.temperature * units.ACCELERATION * (1 - c * c))
        after = replace(before, momenta=c * p + spread * state.normal())
        heat = state.extra["heat"] + after.kinetic() - before.kinetic()
        moved = replace(after, positions=x + 0.5 * dt * after.momenta / m)
        found = surface(moved)
        p = kicked(after.momenta, found.forces, 0.5 * dt)
        extra = {**state.extra, "heat": heat}
        return replace(moved, momenta=p, extra=extra, step=state.step + 1), found

    def conserved(self, state: Replicas, found: Found) -> np.ndarray:
        return super().conserved(state, found) - state.extra["heat"]
