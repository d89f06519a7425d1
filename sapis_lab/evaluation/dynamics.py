"""Whether dynamics on the potential last, and how well they conserve the energy.

Replicas start at frames of the first test set, with momenta of one temperature, and move for a while. A
replica has failed when its energy or a force is not finite, when two atoms are too close for any model
(`neighbors.MIN_DISTANCE`), or when a bond of the frame it began with has left its usual length by more than
0.5 Å (the rule of Fu et al., arXiv:2210.07237, for molecules). Bonds are pairs within 1.25 times the sum of
the covalent radii; their usual length is the mean over the training frames with the same atoms in the same
order, or what it was at the start.

    failures            share of the replicas that have failed
    time_to_failure     mean time until then, ps; of those that have not, the whole time counts
    failure_rate        failures and one half over the time that all of them lasted, 1/ps: of lifetimes that
                        are exponential and cut at the end, with Jeffreys' prior, so that none is not zero
    drift               median over the others of the size of the slope of the conserved energy, eV/ps an atom
    fluctuation         median over the others of its standard deviation about that line, eV per atom
    drift_of_kinetic    drift over the whole time, in units of the standard deviation of the kinetic energy
    temperature         mean over the others, K
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.evaluation._bonds import Bonds
from sapis_lab.measures import Quantity
from sapis_lab.simulation import EnsembleConfig
from sapis_lab.simulation.nve import NveConfig

FRAME_FS = 5.0
"""Time between two looks at a replica, fs, at most."""
LOOKS = 20
"""How often a replica is looked at, at least."""


class DynamicsConfig(Evaluation):
    """Stability of dynamics, and drift of the energy."""

    kind: Literal["dynamics"] = "dynamics"
    ensemble: composed_kind("simulation", EnsembleConfig) = NveConfig()  # type: ignore[valid-type]
    """How the replicas move: an ensemble, with its temperature and timestep."""
    n_replicas: int = Field(default=8, ge=1, le=10_000)
    """Replicas, which begin at as many frames of the first test set."""
    time: float = Field(default=2.0, gt=0, le=1e6)
    """ps."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of momenta and thermostats."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def energy(key: str, label: str, unit: str) -> Quantity:
            return Quantity(key, label, unit, better="lower", display_unit=f"m{unit}", display_factor=1e3)

        return (
            Quantity("failures", "share of trajectories that fail", "", better="lower"),
            Quantity("time_to_failure", "time to failure", "ps", better="higher"),
            Quantity("failure_rate", "failures per time", "1/ps", better="lower"),
            energy("drift", "drift of the energy per atom", "eV/ps"),
            energy("fluctuation", "fluctuation of the conserved energy per atom", "eV"),
            Quantity("drift_of_kinetic", "drift over the spread of the kinetic energy", "", better="lower"),
            Quantity("temperature", "mean temperature", "K"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        subject.test_frames(1)
        return ("replicas",)

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """time (n_looks,) ps; conserved and kinetic (n_looks, R) eV; temperature (n_looks, R) K; failed_at
        (R,) ps, NaN of those that last; n_atoms (R,)."""
        from ase.data import atomic_masses

        from sapis_lab.simulation import PotentialSurface, advance, replicas_of

        ids = subject.test_frames()
        ids = ids[np.arange(self.n_replicas) % len(ids)]
        frames = subject.structures(ids)
        masses = [atomic_masses[np.asarray(frame.species, dtype=int)] for frame in frames]
        state = self.ensemble.start(replicas_of(frames, masses=masses, seed=self.seed))
        bonds = Bonds(subject, frames)
        n_atoms, surface = state.n_atoms, PotentialSurface(subject.potential)
        n_steps = max(1, round(1e3 * self.time / self.ensemble.timestep))
        every = max(1, min(round(FRAME_FS / self.ensemble.timestep), n_steps // LOOKS))
        seen: list[tuple[Any, ...]] = []
        failed_at = np.full(len(state), np.nan)
        running, found = np.arange(len(state)), None
        with np.errstate(invalid="ignore", over="ignore"):
            for step in range(every, n_steps + 1, every):
                state, found = advance(state, self.ensemble, surface, n_steps=every, found=found)
                time = step * self.ensemble.timestep * 1e-3
                bad = ~np.isfinite(found.energy) | bonds.broken(state, running)
                failed_at[running[bad]] = time
                row = np.full((3, len(failed_at)), np.nan)
                row[:, running] = self.ensemble.conserved(state, found), state.kinetic(), state.temperature()
                seen.append((time, *row))
                if bad.any():  # what has failed moves no further
                    running, state, found = running[~bad], state.chosen(~bad), None
                if not len(running):
                    break
        time, conserved, kinetic, temperature = (np.array(column) for column in zip(*seen, strict=True))
        return {
            "time": time,
            "conserved": conserved,
            "kinetic": kinetic,
            "temperature": temperature,
            "failed_at": failed_at,
            "n_atoms": n_atoms,
        }

    def score(self, measured: Measured) -> dict[str, float]:
        found = measured["replicas"]
        time, failed_at, n = found["time"], found["failed_at"], found["n_atoms"]
        lasted = np.isnan(failed_at)
        scores = {
            "failures": float((~lasted).mean()),
            "time_to_failure": float(np.where(lasted, time[-1], failed_at).mean()),
            "failure_rate": float(((~lasted).sum() + 0.5) / np.where(lasted, time[-1], failed_at).sum()),
        }
        if not lasted.any() or len(time) < 3:
            return scores
        energy, kinetic = found["conserved"][:, lasted], found["kinetic"][:, lasted]
        slope, start = np.polyfit(time, energy, 1)
        about = (energy - start - slope * time[:, None]).std(0)
        return scores | {
            "drift": float(np.median(np.abs(slope) / n[lasted])),
            "fluctuation": float(np.median(about / n[lasted])),
            "drift_of_kinetic": float(np.median(np.abs(slope) * np.ptp(time) / kinetic.std(0))),
            "temperature": float(found["temperature"][:, lasted].mean()),
        }
