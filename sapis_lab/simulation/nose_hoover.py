"""Dynamics at one temperature by Nosé-Hoover chains (Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635,
1992; integrated as in Martyna, Tuckerman, Tobias & Klein, Mol. Phys. 87, 1117, 1996): deterministic and
canonical.

A chain of M thermostats with Q_1 = N kT tau², Q_j = kT tau² acts for half a step on both sides of velocity
Verlet, by a Suzuki-Yoshida splitting of third order. Conserved is

    H + Σ_j Q_j v_j² / 2 + N kT η_1 + kT Σ_{j>1} η_j.
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

_W = 1 / (2 - 2 ** (1 / 3))
WEIGHTS = (_W, 1 - 2 * _W, _W)
"""Of the parts of a half step (Suzuki, Yoshida)."""


class NoseHooverConfig(EnsembleConfig):
    """Canonical dynamics by Nosé-Hoover chains."""

    kind: Literal["nose_hoover"] = "nose_hoover"
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """K."""
    relaxation: float = Field(default=50.0, gt=0, le=1e6)
    """tau: time scale of the thermostats, fs."""
    n_chain: int = Field(default=3, ge=1, le=20)
    """Thermostats in a chain; one alone does not sample a harmonic oscillator."""

    def start(self, state: Replicas) -> Replicas:
        state = state.thermal(self.temperature).at_rest()
        none = np.zeros((len(state), self.n_chain))
        return replace(state, extra={**state.extra, "eta": none, "eta_velocity": none})

    def _masses(self, state: Replicas) -> np.ndarray:
        """Q, (R, M), eV fs²."""
        q = np.full((len(state), self.n_chain), units.KB * self.temperature * self.relaxation**2)
        q[:, 0] *= state.n_degrees
        return q

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        dt = self.timestep
        state = self._half(state)
        p = kicked(state.momenta, found.forces, 0.5 * dt)
        moved = replace(state, positions=state.positions + dt * p / state.masses[:, None])
        found = surface(moved)
        moved = self._half(replace(moved, momenta=kicked(p, found.forces, 0.5 * dt)))
        return replace(moved, step=state.step + 1), found

    def _half(self, state: Replicas) -> Replicas:
        """The chain acts for half a timestep."""
        kT, q, n = units.KB * self.temperature, self._masses(state), state.n_degrees
        eta, v = state.extra["eta"].copy(), state.extra["eta_velocity"].copy()
        twice, scale = 2 * state.kinetic(), np.ones(len(state))
        last = self.n_chain - 1

        def push(j: int, time: float) -> None:
            """Thermostat j is driven for `time`, and slowed by the next one."""
            drive = (twice * scale**2 - n * kT) if j == 0 else q[:, j - 1] * v[:, j - 1] ** 2 - kT
            slow = np.exp(-0.5 * time * v[:, j + 1]) if j < last else 1.0
            v[:, j] = (v[:, j] * slow + time * drive / q[:, j]) * slow

        for weight in WEIGHTS:
            dt = weight * 0.5 * self.timestep
            for j in range(last, -1, -1):
                push(j, 0.5 * dt)
            scale *= np.exp(-dt * v[:, 0])
            eta += dt * v
            for j in range(last + 1):
                push(j, 0.5 * dt)
        momenta = state.momenta * np.repeat(scale, state.n_atoms)[:, None]
        return replace(state, momenta=momenta, extra={**state.extra, "eta": eta, "eta_velocity": v})

    def conserved(self, state: Replicas, found: Found) -> np.ndarray:
        kT, eta, v = units.KB * self.temperature, state.extra["eta"], state.extra["eta_velocity"]
        chain = 0.5 * (self._masses(state) * v**2).sum(1) + kT * eta[:, 1:].sum(1)
        return super().conserved(state, found) + chain + state.n_degrees * kT * eta[:, 0]
