"""The state of a simulation: several replicas, their atoms joined in order, each with random numbers of its
own.

Whatever the next step depends on is here, so that a state that was written and read again goes on bit for
bit, and a replica does the same alone as among others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sapis_lab import units
from sapis_lab.errors import ConfigError
from sapis_lab.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from sapis_lab.structures import Structure


@dataclass(frozen=True)
class Replicas:
    """R replicas with A atoms in all. Nothing is changed in place: a step gives a new state."""

    n_atoms: np.ndarray
    """(R,)"""
    species: np.ndarray
    """(A,) atomic numbers."""
    masses: np.ndarray
    """(A,) amu."""
    positions: np.ndarray
    """(A, 3) Å, never wrapped: a path through a periodic boundary is whole."""
    momenta: np.ndarray
    """(A, 3) amu Å/fs."""
    cell: np.ndarray
    """(R, 3, 3) Å, rows are lattice vectors; zeros without periodicity."""
    pbc: np.ndarray
    """(R, 3) bool."""
    generators: tuple[np.random.Generator, ...]
    """Random numbers of every replica."""
    step: int = 0
    """Steps done."""
    conserves_momentum: bool = False
    """Whether the total momentum of a replica stays what it is, so that it takes no part in the heat."""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(R, ...) what an ensemble keeps besides: velocities of thermostats, work done by them."""

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def replica(self) -> np.ndarray:
        """(A,) the replica of every atom."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @property
    def starts(self) -> np.ndarray:
        """(R,) the first atom of every replica."""
        return np.cumsum(self.n_atoms) - self.n_atoms

    @property
    def volume(self) -> np.ndarray:
        """(R,) Å³; zero without three lattice vectors."""
        return np.abs(np.linalg.det(self.cell))

    @property
    def n_degrees(self) -> np.ndarray:
        """(R,) degrees of freedom that share the kinetic energy."""
        return np.maximum(3 * self.n_atoms - 3 * int(self.conserves_momentum), 1)

    def per_replica(self, of_atoms: np.ndarray) -> np.ndarray:
        """Sums over the atoms of each replica, (R, ...), of (A, ...)."""
        return np.add.reduceat(of_atoms, self.starts, axis=0)

    def kinetic(self) -> np.ndarray:
        """(R,) kinetic energies, eV."""
        twice = (self.momenta**2).sum(1) / self.masses
        return 0.5 * self.per_replica(twice) / units.ACCELERATION

    def temperature(self) -> np.ndarray:
        """(R,) K, from the kinetic energies."""
        return 2 * self.kinetic() / (units.KB * self.n_degrees)

    def at_rest(self) -> Replicas:
        """With the centre of mass of every replica at rest, and its momentum no longer counted as heat."""
        drift = self.per_replica(self.momenta) / self.per_replica(self.masses)[:, None]
        return replace(
            self,
            momenta=self.momenta - self.masses[:, None] * np.repeat(drift, self.n_atoms, axis=0),
            conserves_momentum=True,
        )

    def normal(self) -> np.ndarray:
        """(A, 3) standard normal numbers, those of each replica from its own generator."""
        pairs = zip(self.generators, self.n_atoms, strict=True)
        return np.concatenate([generator.standard_normal((n, 3)) for generator, n in pairs])

    def thermal(self, temperature: float | np.ndarray) -> Replicas:
        """With momenta drawn from the Maxwell-Boltzmann distribution at `temperature` (K, or (R,))."""
        kT = units.KB * np.broadcast_to(temperature, len(self)) * units.ACCELERATION
        spread = np.sqrt(self.masses * np.repeat(kT, self.n_atoms))[:, None]
        return replace(self, momenta=spread * self.normal())

    def structures(self) -> list[Structure]:
        """The configurations of all replicas."""
        from sapis_lab.structures import Structure

        ends = np.cumsum(self.n_atoms)
        return [
            Structure(self.species[end - n : end], self.positions[end - n : end], cell, pbc)
            for n, end, cell, pbc in zip(self.n_atoms, ends, self.cell, self.pbc, strict=True)
        ]

    def chosen(self, which: np.ndarray) -> Replicas:
        """The replicas `which`, (R,) bool."""
        atoms = np.repeat(which, self.n_atoms)
        return replace(
            self,
            n_atoms=self.n_atoms[which],
            species=self.species[atoms],
            masses=self.masses[atoms],
            positions=self.positions[atoms],
            momenta=self.momenta[atoms],
            cell=self.cell[which],
            pbc=self.pbc[which],
            generators=tuple(g for g, kept in zip(self.generators, which, strict=True) if kept),
            extra={name: value[which] for name, value in self.extra.items()},
        )


def replicas_of(structures: Sequence[Structure], *, masses: Sequence[np.ndarray], seed: int) -> Replicas:
    """Replicas at rest that begin as `structures`; replica k draws from default_rng([seed, k]).

    Args:
        masses: (n_atoms,) amu, of each structure.
    """
    if not structures:
        raise ValueError("wanted at least one structure, got none")
    positions = np.concatenate([np.asarray(s.positions, dtype=np.float64) for s in structures])
    return Replicas(
        n_atoms=np.array([len(s.species) for s in structures]),
        species=np.concatenate([np.asarray(s.species) for s in structures]),
        masses=np.concatenate([np.asarray(m, dtype=np.float64) for m in masses]),
        positions=positions,
        momenta=np.zeros_like(positions),
        cell=np.array(
            [np.zeros((3, 3)) if s.cell is None else np.asarray(s.cell) for s in structures], float
        ),
        pbc=np.array([np.zeros(3, bool) if s.pbc is None else np.asarray(s.pbc) for s in structures], bool),
        generators=tuple(np.random.default_rng([seed, k]) for k in range(len(structures))),
    )


_ARRAYS = ("n_atoms", "species", "masses", "positions", "momenta", "cell", "pbc")
_EXTRA = "extra-"


def write_replicas(path: Path, state: Replicas, facts: Mapping[str, Any]) -> None:
    """Write a state, and JSON `facts` with it, in one step; `read_replicas` gives the same bits."""
    plain = {
        "step": state.step,
        "conserves_momentum": state.conserves_momentum,
        "generators": [generator.bit_generator.state for generator in state.generators],
        "facts": dict(facts),
    }
    arrays = {name: getattr(state, name) for name in _ARRAYS}
    arrays |= {_EXTRA + name: value for name, value in state.extra.items()}
    out = io.BytesIO()
    np.savez(out, **arrays, plain=np.array(json.dumps(plain)))  # type: ignore[arg-type]
    write_bytes(path, out.getbuffer())


def read_replicas(path: Path) -> tuple[Replicas, dict[str, Any]]:
    """The state and the facts in `path`. ConfigError when it is damaged."""
    data = io.BytesIO(read_bytes(path))
    try:
        with np.load(data, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "plain"}
            plain = json.loads(str(archive["plain"]))
        generators = []
        for state in plain["generators"]:
            generator = np.random.default_rng()
            generator.bit_generator.state = state
            generators.append(generator)
        return (
            Replicas(
                **{name: arrays[name] for name in _ARRAYS},
                generators=tuple(generators),
                step=int(plain["step"]),
                conserves_momentum=bool(plain["conserves_momentum"]),
                extra={
                    name.removeprefix(_EXTRA): value
                    for name, value in arrays.items()
                    if name.startswith(_EXTRA)
                },
            ),
            plain["facts"],
        )
    except Exception as error:  # whatever a damaged archive raises
        raise ConfigError(
            f"{path}: cannot be read as the state of a simulation ({error}); remove it to begin again"
        ) from None
