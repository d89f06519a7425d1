"""What evaluations of trajectories share: replicas of one system, moved on the trained potential and, where a
reference is named, on that; their frames are the raw arrays.

Replicas begin at frames of the first test set that have the atoms of its first one, are brought to the
temperature by stochastic velocity rescaling, and are then recorded at constant energy or, for distributions,
go on with their thermostat. A replica whose energy is no longer a finite number, or one of whose bonds is
broken where it is a molecule (`_bonds`), is left out and counted.

Each surface has parts of its own, and every replica of a reference has one, since that is what costs: an
interrupted evaluation goes on with the next.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation._base import Evaluation, Measured, Subject
from sapis_lab.evaluation._bonds import Bonds
from sapis_lab.oracles import OracleConfig
from sapis_lab.simulation import OracleSurface, Replicas, Surface, advance, replicas_of
from sapis_lab.simulation.csvr import CsvrConfig
from sapis_lab.simulation.nve import NveConfig

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

POTENTIAL, REFERENCE = "potential", "reference"


class TrajectoryEvaluation(Evaluation):
    """Settings of trajectories; subclasses say what is scored of them."""

    production: ClassVar[Literal["nve", "csvr"]] = "csvr"
    """How replicas move while they are recorded: at constant energy for what depends on time."""

    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """K."""
    timestep: float = Field(default=0.5, gt=0, le=20)
    """fs."""
    n_replicas: int = Field(default=4, ge=1, le=1000)
    """Replicas, which begin at as many frames of the first test set."""
    equilibration: float = Field(default=1.0, ge=0, le=1e6)
    """ps before the first frame."""
    time: float = Field(default=10.0, gt=0, le=1e6)
    """ps that are recorded of every replica."""
    every: float = Field(default=2.0, gt=0, le=1e6)
    """fs between frames."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of momenta and thermostats."""
    reference: composed_kind("oracles", OracleConfig) | None = None  # type: ignore[valid-type]
    """A source of labels on which replicas move as well, with the same settings."""

    @abstractmethod
    def refuse(self, frame: Structure) -> None:
        """ValueError where this kind can say nothing of such a system."""

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        self.refuse(self.starts(subject)[0])
        n = 0 if self.reference is None else self.n_replicas
        return (POTENTIAL, *(f"{REFERENCE}-{k}" for k in range(n)))

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """positions and velocities (R, F, A, 3) Å, Å/fs (float32), of the replicas that lasted; cell (R, F,
        3, 3) Å where it is periodic; species and masses (A,); temperature (R, F) K; failed (number of
        replicas)."""
        from sapis_lab.simulation import PotentialSurface

        starts = self.starts(subject)
        if part == POTENTIAL:
            surface = PotentialSurface(subject.potential)
            return self._recorded(subject, surface, starts, seeds=range(len(starts)))
        assert self.reference is not None
        k = int(part.rpartition("-")[2])
        return self._recorded(subject, surface_of(self.reference), starts[k : k + 1], seeds=[k])

    def starts(self, subject: Subject) -> list[Structure]:
        """The frames that replicas begin at."""
        ids = subject.test_frames(2000)
        frames = subject.structures(ids[:1])
        alike = [k for k in ids if _same_atoms(subject, int(ids[0]), int(k))]
        chosen = np.array(alike)[np.arange(self.n_replicas) % len(alike)]
        return frames if self.n_replicas == 1 else subject.structures(chosen)

    def _recorded(
        self, subject: Subject, surface: Surface, starts: list[Structure], *, seeds: range | list[int]
    ) -> dict[str, np.ndarray]:
        from ase.data import atomic_masses

        masses = atomic_masses[np.asarray(starts[0].species, dtype=int)]
        state = replicas_of(starts, masses=[masses] * len(starts), seed=self.seed)
        state = _with_seeds(state, self.seed, seeds)
        warm = CsvrConfig(temperature=self.temperature, timestep=self.timestep)
        move = warm if self.production == "csvr" else NveConfig(timestep=self.timestep)
        state, found = warm.start(state), None
        bonds = Bonds(subject, starts) if not state.pbc.any() else None
        every = max(1, round(self.every / self.timestep))
        n_frames = max(1, round(1e3 * self.time / (every * self.timestep)))
        seen: list[tuple[np.ndarray, ...]] = []
        lasting = np.arange(len(state))

        def keep(now: Replicas) -> None:
            row = np.full((2, len(seeds), len(masses), 3), np.nan, dtype=np.float32)
            row[0, lasting] = now.positions.reshape(len(now), -1, 3)
            row[1, lasting] = (now.momenta / now.masses[:, None]).reshape(len(now), -1, 3)
            cell = np.full((len(seeds), 3, 3), np.nan)
            heat = np.full(len(seeds), np.nan)
            cell[lasting], heat[lasting] = now.cell, now.temperature()
            seen.append((*row, cell, heat))

        n_warm = round(1e3 * self.equilibration / (every * self.timestep))
        with np.errstate(invalid="ignore", over="ignore"):
            for k in range(n_warm + n_frames):
                ensemble = warm if k < n_warm else move
                state, found = advance(state, ensemble, surface, n_steps=every, found=found)
                bad = ~np.isfinite(found.energy) | ~np.isfinite(state.temperature())
                if bonds is not None:
                    bad |= bonds.broken(state, lasting)
                if bad.all():
                    raise ValueError(
                        f"all {len(seeds)} replicas had failed after "
                        f"{(k + 1) * every * self.timestep * 1e-3:.3g} ps at {self.temperature:g} K: there "
                        "is nothing to observe"
                    )
                if bad.any():
                    lasting, state, found = lasting[~bad], state.chosen(~bad), None
                if k >= n_warm:
                    keep(state)
        x, v, cell, heat = (np.stack(column, axis=1) for column in zip(*seen, strict=True))
        raw = {
            "positions": x[lasting],
            "velocities": v[lasting],
            "temperature": heat[lasting],
            "species": np.asarray(starts[0].species),
            "masses": masses,
            "failed": np.array(len(seeds) - len(lasting)),
        }
        return raw | ({"cell": cell[lasting]} if state.pbc.any() else {})

    def frame_fs(self) -> float:
        """fs between two frames as they are."""
        return max(1, round(self.every / self.timestep)) * self.timestep


def surface_of(oracle: OracleConfig) -> Surface:
    """The surface of a source of labels, at the accuracy of dynamics."""
    from sapis_lab.oracles.lennard_jones import LennardJonesConfig
    from sapis_lab.simulation import LennardJonesSurface

    if isinstance(oracle, LennardJonesConfig):
        return LennardJonesSurface(oracle)
    return OracleSurface(oracle.for_dynamics())


def of_reference(measured: Measured) -> list[Mapping[str, np.ndarray]]:
    """The parts of the reference, in order; none where there is no reference."""
    return [measured[part] for part in measured if part.startswith(REFERENCE)]


def joined(parts: list[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    """An array of all replicas of several parts."""
    return np.concatenate([part[name] for part in parts])


def _same_atoms(subject: Subject, one: int, other: int) -> bool:
    store = subject.store
    a, b = (store.species[int(store.offsets[k]) : int(store.offsets[k + 1])] for k in (one, other))
    return np.array_equal(a, b)


def _with_seeds(state: Replicas, seed: int, seeds: range | list[int]) -> Replicas:
    """With the random numbers of the replicas `seeds`, so that replica k is the same whoever else is
    there."""
    from dataclasses import replace

    return replace(state, generators=tuple(np.random.default_rng([seed, k]) for k in seeds))
