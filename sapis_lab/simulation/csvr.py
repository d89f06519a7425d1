"""Dynamics at one temperature by stochastic rescaling of the velocities (Bussi, Donadio & Parrinello, J.
Chem. Phys. 126, 014101, 2007): the canonical distribution, and dynamics that are hardly disturbed.

After each step of velocity Verlet the kinetic energy K of N degrees of freedom becomes (their eq. A7)

    K' = K c + (1 - c) Kbar/N (R1² + S) + 2 R1 sqrt(c (1 - c) K Kbar / N),   c = exp(-dt/tau),  Kbar = N kT/2

with R1 normal and S the sum of N - 1 squared normals; the sign of the factor is that of R1 + sqrt(c N K /
((1 - c) Kbar)).
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


class CsvrConfig(EnsembleConfig):
    """Canonical dynamics by stochastic velocity rescaling."""

    kind: Literal["csvr"] = "csvr"
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """K."""
    relaxation: float = Field(default=100.0, gt=0, le=1e6)
    """Time in which the kinetic energy forgets, fs."""

    def start(self, state: Replicas) -> Replicas:
        state = state.thermal(self.temperature).at_rest()
        return replace(state, extra={**state.extra, "heat": np.zeros(len(state))})

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        dt = self.timestep
        p = kicked(state.momenta, found.forces, 0.5 * dt)
        moved = replace(state, positions=state.positions + dt * p / state.masses[:, None])
        found = surface(moved)
        moved = replace(moved, momenta=kicked(p, found.forces, 0.5 * dt))
        factor, heat = rescaled(moved, temperature=self.temperature, forgotten=np.exp(-dt / self.relaxation))
        p = moved.momenta * np.repeat(factor, state.n_atoms)[:, None]
        extra = {**state.extra, "heat": state.extra["heat"] + heat}
        return replace(moved, momenta=p, extra=extra, step=state.step + 1), found

    def conserved(self, state: Replicas, found: Found) -> np.ndarray:
        return super().conserved(state, found) - state.extra["heat"]


def rescaled(state: Replicas, *, temperature: float, forgotten: float) -> tuple[np.ndarray, np.ndarray]:
    """The factor of the momenta of every replica and the heat it brings, eV; both (R,).

    Args:
        forgotten: c, the share of the kinetic energy that is kept.
    """
    c, n, kinetic = forgotten, state.n_degrees, state.kinetic()
    per_degree = 0.5 * units.KB * temperature
    first = np.array([g.standard_normal() for g in state.generators])
    others = np.array(
        [g.chisquare(k - 1) if k > 1 else 0.0 for g, k in zip(state.generators, n, strict=True)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = per_degree / kinetic
        squared = c + (1 - c) * ratio * (first**2 + others) + 2 * first * np.sqrt(c * (1 - c) * ratio)
        sign = np.sign(first + np.sqrt(c / ((1 - c) * ratio)))
        factor = np.where(kinetic > 0, sign * np.sqrt(np.maximum(squared, 0)), 1.0)
    return factor, kinetic * (factor**2 - 1)
