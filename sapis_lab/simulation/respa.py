"""Dynamics at constant energy with two timesteps, by the reversible reference system propagator (r-RESPA;
Tuckerman, Berne & Martyna, J. Chem. Phys. 97, 1990, 1992).

The forces F of the surface are split into those of a cheap one, F_fast, and the rest, F - F_fast. A step of
the surface dt is

    p += dt/2 (F - F_fast);      n_inner times velocity Verlet with F_fast and dt/n_inner;      p += dt/2 (F -
    F_fast),

reversible and symplectic, so that the energy of the whole surface fluctuates and does not drift as long as dt
stays clear of half the period of the fastest motion of either part. What the fast surface describes well
(bonds and angles of a force field, a coarse tight binding) need not be computed with the slow one at every
short step. With `n_inner: 1`, or without a fast surface, it is velocity Verlet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.oracles import OracleConfig
from sapis_lab.oracles.lennard_jones import LennardJonesConfig
from sapis_lab.simulation._base import EnsembleConfig, kicked
from sapis_lab.simulation._lennard_jones_surface import LennardJonesSurface
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, OracleSurface, Surface


class RespaConfig(EnsembleConfig):
    """Dynamics at constant energy with a short timestep for a cheap part of the forces (r-RESPA)."""

    kind: Literal["respa"] = "respa"
    temperature: float = Field(default=300.0, ge=0, le=1e5)
    """Temperature that momenta are drawn at, K."""
    n_inner: int = Field(default=4, ge=1, le=1000)
    """Short steps of the fast forces in one `timestep` of the surface."""
    fast: composed_kind("oracles", OracleConfig) | None = None  # type: ignore[valid-type]
    """The cheap surface, a source of labels; without one all forces are slow, and the short steps are free
    flight."""

    def start(self, state: Replicas) -> Replicas:
        return state.thermal(self.temperature).at_rest()

    def fast_surface(self) -> Surface | None:
        """The cheap surface, ready for dynamics. Each step has a new one, which knows nothing of earlier
        states: a simulation that is continued is then the same to the last bit."""
        if self.fast is None:
            return None
        if isinstance(self.fast, LennardJonesConfig):
            return LennardJonesSurface(self.fast)
        return OracleSurface(self.fast.for_dynamics())

    def step(self, state: Replicas, found: Found, surface: Surface) -> tuple[Replicas, Found]:
        return respa_step(
            state, found, surface, self.fast_surface(), timestep=self.timestep, n_inner=self.n_inner
        )


def respa_step(
    state: Replicas, found: Found, surface: Surface, fast: Surface | None, *, timestep: float, n_inner: int
) -> tuple[Replicas, Found]:
    """One step of the surface, with `n_inner` steps of the fast one in it.

    Args:
        found: of the surface at `state`.   timestep: of the surface, fs.
    """
    short, m = timestep / n_inner, state.masses[:, None]
    if fast is None or n_inner == 1:  # the two kicks add up to those of all forces
        p = kicked(state.momenta, found.forces, 0.5 * timestep)
        moved = replace(state, positions=state.positions + timestep * p / m)
        found = surface(moved)
        return replace(moved, momenta=kicked(p, found.forces, 0.5 * timestep), step=state.step + 1), found
    cheap = fast(state)
    p = kicked(state.momenta, found.forces - cheap.forces, 0.5 * timestep)
    x = state.positions
    for _ in range(n_inner):
        p = kicked(p, cheap.forces, 0.5 * short)
        x = x + short * p / m
        cheap = fast(replace(state, positions=x))
        p = kicked(p, cheap.forces, 0.5 * short)
    moved = replace(state, positions=x)
    found = surface(moved)
    p = kicked(p, found.forces - cheap.forces, 0.5 * timestep)
    return replace(moved, momenta=p, step=state.step + 1), found
