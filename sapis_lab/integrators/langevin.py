"""Langevin dynamics by the BAOAB splitting (Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34;
arXiv:1102.4139).

In one step of length dt: half a kick (B), half a drift (A), the exact Ornstein-Uhlenbeck step of the momenta
(O), half a drift, half a kick. The positions it samples are exact for harmonic forces at any stable dt and of
fourth order otherwise in the limit of strong friction, which is what labelled configurations need; momenta at
whole steps come out slightly cold, by (ω dt)²/4 for a mode of frequency ω.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sapis_lab import units


class State(NamedTuple):
    """A phase-space point."""

    positions: np.ndarray
    """(n_atoms, 3), Å."""
    momenta: np.ndarray
    """(n_atoms, 3), amu Å/fs."""


def thermal_momenta(masses: np.ndarray, *, temperature: float, generator: np.random.Generator) -> np.ndarray:
    """Momenta drawn from the Maxwell-Boltzmann distribution, (n_atoms, 3), amu Å/fs.   masses: (n_atoms,),
    amu; temperature: K."""
    kT = units.KB * temperature * units.ACCELERATION
    return np.sqrt(masses[:, None] * kT) * generator.standard_normal((len(masses), 3))


def baoab(
    state: State,
    force: Callable[[np.ndarray], np.ndarray],
    *,
    masses: np.ndarray,
    temperature: float,
    friction: float,
    timestep: float,
    n_steps: int,
    generator: np.random.Generator,
) -> State:
    """The state after `n_steps`; friction 0 gives velocity Verlet.

        p' = c p + sqrt(m kT (1 - c²)) ξ,   c = exp(-friction dt),   ξ ~ N(0, 1)      (the O step)

    Args:
        force: positions (n_atoms, 3) in Å to forces (n_atoms, 3) in eV/Å.   masses: (n_atoms,), amu.
        temperature: K.   friction: 1/fs.   timestep: fs.
    """
    x, p = state
    m, dt = masses[:, None], timestep
    kT = units.KB * temperature * units.ACCELERATION
    c = np.exp(-friction * dt)
    spread = np.sqrt(m * kT * (1 - c * c))
    f = force(x) * units.ACCELERATION
    for _ in range(n_steps):
        p = p + 0.5 * dt * f
        x = x + 0.5 * dt * p / m
        p = c * p + spread * generator.standard_normal(x.shape)
        x = x + 0.5 * dt * p / m
        f = force(x) * units.ACCELERATION
        p = p + 0.5 * dt * f
    return State(x, p)
