"""What moves the replicas: energies, forces and stress of any surface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from sapis_lab.oracles import Failed, OracleConfig
from sapis_lab.simulation._replicas import Replicas


class Found(NamedTuple):
    """Energies, forces and, where they were asked for, stress of all replicas; NaN of a replica that cannot
    be computed."""

    energy: np.ndarray
    """(R,) eV."""
    forces: np.ndarray
    """(A, 3) eV/Å."""
    stress: np.ndarray | None = None
    """(R, 3, 3) eV/Å³, positive is tension."""


class Surface(ABC):
    """A potential-energy surface for dynamics. It may keep what saves time, such as neighbours, but its
    answers depend on the state alone to rounding."""

    @abstractmethod
    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        """What the surface is at `state`."""

    def forget(self) -> None:  # noqa: B027  (most have nothing to forget)
        """Drop what is kept from earlier states, so that what follows does not depend on it even by
        rounding."""


class OracleSurface(Surface):
    """A source of labels, one structure at a time."""

    def __init__(self, oracle: OracleConfig) -> None:
        self.oracle = oracle

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        if stress and "stress" not in type(self.oracle).gives:
            raise ValueError(f"oracle {self.oracle.kind!r} gives no stress, which this ensemble needs")
        energy = np.full(len(state), np.nan)
        forces = np.full(state.positions.shape, np.nan)
        tension = np.full((len(state), 3, 3), np.nan) if stress else None
        for k, (first, n, s) in enumerate(zip(state.starts, state.n_atoms, state.structures(), strict=True)):
            if not np.isfinite(s.positions).all():
                continue
            found = self.oracle.label(s.species, s.positions, cell=s.cell, pbc=s.pbc)
            if isinstance(found, Failed):
                continue
            energy[k], forces[first : first + n] = found.energy, found.forces
            if tension is not None and found.stress is not None:
                tension[k] = found.stress
        return Found(energy, forces, tension)
