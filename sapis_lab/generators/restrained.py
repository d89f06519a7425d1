"""Configurations of short dynamics whose torsions are held near random angles: thermal everywhere else, also
where a molecule hardly ever goes by itself.

For every structure angles are drawn evenly from the circle and the start is turned to them; contacts relax by
steepest descent with short steps, then the structure moves by Langevin dynamics at the temperature with a
spring K d² / 2 on every torsion, K = kT / spread². What is labelled is the surface without springs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.generators._base import Configuration, GeneratorConfig, Start, Surface
from sapis_lab.generators.torsions import Atom, turned, turning
from sapis_lab.geometry.coordinates import difference, values, with_gradient
from sapis_lab.integrators.langevin import State, baoab, thermal_momenta

_LONGEST = 0.05
"""Å that an atom moves in one step of descent, at most."""
_SLOPE = 0.002
"""Å per eV/Å of force."""


class RestrainedConfig(GeneratorConfig):
    """Dynamics near random torsions."""

    kind: Literal["restrained"] = "restrained"
    torsions: tuple[tuple[Atom, Atom, Atom, Atom], ...] = Field(min_length=1, max_length=100)
    """Four atoms each, from 0."""
    spread: float = Field(default=10.0, gt=0, le=180)
    """Standard deviation of a torsion in its spring alone, degrees."""
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """K."""
    friction: float = Field(default=0.02, gt=0, le=10)
    """1/fs."""
    timestep: float = Field(default=1.0, gt=0, le=20)
    """fs."""
    n_steps: int = Field(default=500, ge=1, le=10**7)
    """Of dynamics, for each structure."""
    descent: int = Field(default=100, ge=0, le=100_000)
    """Steps of descent before."""

    def generate(
        self, start: Start, surface: Surface, *, n: int, generator: np.random.Generator
    ) -> list[Configuration]:
        if any(start.pbc):
            raise ValueError("generator 'restrained' turns parts of molecules, got a periodic structure")
        parts = [turning(start, four) for four in self.torsions]

        def draw() -> Configuration:
            x = start.positions
            angles = 2 * np.pi * generator.random(len(self.torsions))
            for four, part, angle in zip(self.torsions, parts, angles, strict=True):
                x = turned(x, four, part, angle=angle)
            return Configuration(self._moved(x, start, surface, generator), start.cell)

        return self.drawn(draw, start, n=n, what="temperature or timestep")

    def _moved(
        self, x: np.ndarray, start: Start, surface: Surface, generator: np.random.Generator
    ) -> np.ndarray:
        """Where dynamics from the positions x (n_atoms, 3) end, held at the torsions of x."""
        kT = units.KB * self.temperature
        stiffness = kT / np.deg2rad(self.spread) ** 2
        rest = [values(x, four) for four in self.torsions]

        def force(now: np.ndarray) -> np.ndarray:
            total = surface(now)[1].copy()
            for four, angle in zip(self.torsions, rest, strict=True):
                value, gradient = with_gradient(now, four)
                total[list(four)] -= stiffness * difference(value, angle, period=2 * np.pi) * gradient
            return total

        for _ in range(self.descent):
            step = _SLOPE * force(x)
            length = np.linalg.norm(step, axis=1, keepdims=True)
            x = x + step * np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12))
        momenta = thermal_momenta(start.masses, temperature=self.temperature, generator=generator)
        return baoab(
            State(x, momenta),
            force,
            masses=start.masses,
            temperature=self.temperature,
            friction=self.friction,
            timestep=self.timestep,
            n_steps=self.n_steps,
            generator=generator,
        ).positions
