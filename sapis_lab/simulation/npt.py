"""Dynamics at one temperature and pressure: Langevin dynamics (BAOAB), and the volume by stochastic cell
rescaling (Bernetti & Bussi, J. Chem. Phys. 153, 114107, 2020), isotropic.

Every few steps, of length t together, the square root of the volume V moves by

    d√V = -(β √V / 2 tau) (P0 - P - kT/2V) t + sqrt(kT β t / 2 tau) R,       P = (2K/3 - V tr(stress)/3) / V

with R normal and β a guess of the compressibility, which only scales the time: cell and positions are then
multiplied by (V'/V)^(1/3), momenta divided by it. Volumes are distributed as exp(-(F(V) + P0 V)/kT), so that
a perfect gas of N atoms has the mean (N + 1) kT / P0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface
from sapis_lab.simulation.langevin import LangevinConfig

BAR = 1e-4 / units.EV_PER_A3_TO_GPA
"""eV/Å³."""


class NptConfig(LangevinConfig):
    """Dynamics at constant temperature and pressure (Langevin, stochastic cell rescaling)."""

    kind: Literal["npt"] = "npt"  # type: ignore[assignment]
    wants_stress: ClassVar[bool] = True

    pressure: float = Field(default=1.0, ge=-1e7, le=1e8)
    """bar."""
    pressure_relaxation: float = Field(default=1000.0, gt=0, le=1e7)
    """Time in which the volume forgets, fs, if the compressibility is right."""
    compressibility: float = Field(default=4.5e-5, gt=0, le=1.0)
    """Isothermal, 1/bar; water's. A wrong one changes how fast the volume moves, not where to."""
    every: int = Field(default=10, ge=1, le=10_000)
    """Steps between two moves of the volume."""

    def start(self, state: Replicas) -> Replicas:
        if not state.pbc.all():
            k = int(np.argmin(state.pbc.all(1)))
            raise ValueError(
                f"replica {k} has pbc={state.pbc[k].tolist()}, and a pressure needs three periodic directions"
            )
        return super().start(state)

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        state, found = super().step(state, found, surface)
        if state.step % self.every:
            return state, found
        if found.stress is None:
            found = surface(state, stress=True)
        assert found.stress is not None
        before = super().conserved(state, found)
        state = self._rescaled(state, pressure(state, found.stress))
        found = surface(state, stress=True)
        heat = state.extra["heat"] + super().conserved(state, found) - before
        return replace(state, extra={**state.extra, "heat": heat}), found

    def _rescaled(self, state: Replicas, now: np.ndarray) -> Replicas:
        kT, volume = units.KB * self.temperature, state.volume
        rate = self.compressibility / BAR / self.pressure_relaxation * self.every * self.timestep
        drift = -0.5 * rate * np.sqrt(volume) * (self.pressure * BAR - now - 0.5 * kT / volume)
        noise = np.sqrt(0.5 * kT * rate) * np.array([g.standard_normal() for g in state.generators])
        root = np.sqrt(volume) + drift + noise
        # a move that would turn the cell inside out is too long: settings say so by a volume that stays
        factor = np.where(root > 0, np.abs(root) / np.sqrt(volume), 1.0) ** (2 / 3)
        of_atoms = np.repeat(factor, state.n_atoms)[:, None]
        return replace(
            state,
            cell=state.cell * factor[:, None, None],
            positions=state.positions * of_atoms,
            momenta=state.momenta / of_atoms,
        )


def pressure(state: Replicas, stress: np.ndarray) -> np.ndarray:
    """(R,) eV/Å³, kinetic part included.   stress: (R, 3, 3) eV/Å³, positive is tension."""
    return 2 * state.kinetic() / (3 * state.volume) - np.trace(stress, axis1=1, axis2=2) / 3
