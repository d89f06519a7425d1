"""Surfaces with known free energies."""

from __future__ import annotations

import numpy as np

from sapis_lab.simulation import Found, Replicas, Surface, replicas_of
from sapis_lab.structures import Structure


class PairSurface(Surface):
    """Two atoms with the energy `of(r)`, which gives energy and derivative of their distances (R,)."""

    def __init__(self, of):
        self.of = of

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        v = state.positions[1::2] - state.positions[::2]
        r = np.linalg.norm(v, axis=1)
        energy, slope = self.of(r)
        pull = (slope / r)[:, None] * v
        forces = np.empty_like(state.positions)
        forces[::2], forces[1::2] = pull, -pull
        return Found(energy, forces)


class HarmonicSurface(Surface):
    """x·H·x/2 of displacements x from sites, one Hessian (3N, 3N), eV/Å², for all replicas."""

    def __init__(self, sites, hessian, energy=0.0):
        self.sites, self.hessian, self.energy = sites, hessian, energy

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        x = (state.positions.reshape(len(state), -1, 3) - self.sites).reshape(len(state), -1)
        force = -x @ self.hessian
        return Found(self.energy - 0.5 * (x * force).sum(1), force.reshape(-1, 3))


def pairs(distances, *, seed=0, mass=10.0):
    """Replicas of two atoms each, so far apart along x."""
    frames = [
        Structure(np.array([18, 18]), np.array([[0.0, 0, 0], [r, 0, 0]]), None, None) for r in distances
    ]
    return replicas_of(frames, masses=[np.full(2, mass)] * len(frames), seed=seed)


def atoms(positions, masses, *, n, seed=0):
    """`n` replicas at the same positions (N, 3)."""
    frames = [Structure(np.full(len(positions), 18), positions, None, None)] * n
    return replicas_of(frames, masses=[masses] * n, seed=seed)
