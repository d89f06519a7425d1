"""Langevin dynamics of a classical force field inside OpenMM, torsions held by harmonic springs whose rest
angles move: the samples of umbrella windows at tens of thousands of steps a second.

    U' = U + Σ_j K_j d_j² / 2,   d_j the shortest way from torsion j to its rest angle

The integrator is OpenMM's Langevin middle scheme (Zhang et al., J. Phys. Chem. A 123, 6056, 2019), whose
configurations are as exact as BAOAB's. Nothing is constrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sapis_lab import units
from sapis_lab.geometry.coordinates import difference
from sapis_lab.oracles.openmm import OpenmmConfig, _openmm, _simulation

_SPRING = "0.5 * stiffness{k} * min(d, {period} - d)^2; d = abs(theta - rest{k})"


class TorsionWalk:
    """A molecule that walks from window to window.

    Args:
        positions: (n_atoms, 3) Å where it begins.   torsions: four atoms each.
        stiffness: of each torsion, eV/rad².   temperature: K.   friction: 1/fs.   timestep: fs.
    """

    def __init__(
        self,
        oracle: OpenmmConfig,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        torsions: Sequence[tuple[int, int, int, int]],
        stiffness: Sequence[float],
        temperature: float,
        friction: float,
        timestep: float,
        seed: int,
    ) -> None:
        openmm, _ = _openmm()
        made = _simulation(oracle, tuple(int(z) for z in species), None)
        system = openmm.XmlSerializer.clone(made.context.getSystem())
        for k, (four, spring) in enumerate(zip(torsions, stiffness, strict=True)):
            force = openmm.CustomTorsionForce(_SPRING.format(k=k, period=2 * np.pi))
            force.addGlobalParameter(f"stiffness{k}", spring / units.KJ_PER_MOL_TO_EV)
            force.addGlobalParameter(f"rest{k}", 0.0)
            force.addTorsion(*four, [])
            system.addForce(force)
        integrator = openmm.LangevinMiddleIntegrator(temperature, 1e3 * friction, 1e-3 * timestep)
        integrator.setRandomNumberSeed(seed + 1)  # zero would be drawn from the clock
        self._context: Any = openmm.Context(system, integrator, made.context.getPlatform())
        self._integrator: Any = integrator
        self._context.setPositions(0.1 * np.asarray(positions))
        self._context.setVelocitiesToTemperature(temperature, seed + 1)
        self.rest = np.zeros(len(torsions))

    def place(self, rest: Sequence[float] | np.ndarray) -> None:
        """Set the rest angles, rad, at once."""
        self.rest = np.asarray(rest, dtype=np.float64)
        for k, angle in enumerate(self.rest.tolist()):
            self._context.setParameter(f"rest{k}", float(difference(angle, 0.0, period=2 * np.pi)))

    def move(self, rest: Sequence[float] | np.ndarray, *, n_steps: int, every: int = 20) -> None:
        """Move the rest angles to `rest`, the shortest way, in `n_steps`."""
        begin, way = self.rest, difference(np.asarray(rest), self.rest, period=2 * np.pi)
        for done in range(every, n_steps + 1, every):
            self.place(begin + way * done / n_steps)
            self._integrator.step(every)
        self.place(rest)

    def run(self, n_steps: int, *, every: int) -> np.ndarray:
        """Positions (n_steps // every, n_atoms, 3), Å, after every `every` steps."""
        from openmm import unit

        seen = []
        for _ in range(n_steps // every):
            self._integrator.step(every)
            state = self._context.getState(getPositions=True)
            seen.append(10 * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        return np.array(seen)
