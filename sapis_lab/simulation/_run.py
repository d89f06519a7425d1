"""A simulation in a folder: frames and energies are appended as they come, the state is written now and then,
and an interrupted one goes on from there bit for bit.

    state.npz              the last checkpoint: a state and how long the other files were then
    trajectory-000.xyz     extended XYZ of replica 0, ...: ASE reads it whole, mdtraj its positions
    energies.csv           step, time, replica, energy, kinetic energy, temperature, conserved energy, volume
    settings.json          what was asked for; another question in the same folder is refused
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.config import fingerprint, identity
from sapis_lab.data import SYMBOLS
from sapis_lab.errors import ConfigError
from sapis_lab.files import make_folder, read_json, write_text
from sapis_lab.simulation._base import EnsembleConfig
from sapis_lab.simulation._replicas import Replicas, read_replicas, write_replicas
from sapis_lab.simulation._surface import Found, Surface

STATE, ENERGIES, SETTINGS = "state.npz", "energies.csv", "settings.json"
HEADER = "step,time_fs,replica,energy_eV,kinetic_eV,temperature_K,conserved_eV,volume_A3\n"

OnFrame = Callable[[Replicas, Found], None]
Ends = Callable[[Replicas, Found], np.ndarray]
"""From a state to the replicas that have failed, (R,) bool."""


def advance(
    state: Replicas,
    ensemble: EnsembleConfig,
    surface: Surface,
    *,
    n_steps: int,
    every: int = 1,
    on_frame: OnFrame | None = None,
    found: Found | None = None,
) -> tuple[Replicas, Found]:
    """The state `n_steps` later; `on_frame` sees every `every`-th one (by its number, not the first).

    Args:
        found: what the surface is at `state`, where it is known.
    """
    found = found or surface(state, stress=ensemble.wants_stress)
    for _ in range(n_steps):
        state, found = ensemble.step(state, found, surface)
        if on_frame is not None and state.step % every == 0:
            on_frame(state, found)
    return state, found


@dataclass(frozen=True)
class SimulationFolder:
    """Where a simulation is written."""

    folder: Path

    def trajectory(self, replica: int) -> Path:
        """The frames of a replica."""
        return self.folder / f"trajectory-{replica:03d}.xyz"


def simulate(
    folder: Path,
    start: Replicas,
    ensemble: EnsembleConfig,
    surface: Surface,
    *,
    n_steps: int,
    every: int,
    checkpoint_every: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Replicas:
    """Run `n_steps` from `start` in `folder`, or go on with what was begun there; the last state.

    Args:
        every: steps between frames.   checkpoint_every: steps between checkpoints.   progress: called as
        progress(steps done, n_steps).

    Raises:
        ConfigError: the folder holds a simulation with other settings, or a damaged one.
    """
    make_folder(folder)
    place = SimulationFolder(folder)
    asked = {
        "ensemble": identity(ensemble),
        "every": every,
        "checkpoint_every": checkpoint_every,
        "start": fingerprint(
            {"x": start.positions.tolist(), "z": start.species.tolist(), "cell": start.cell.tolist()}
        ),
    }
    _refuse_other(folder, asked)
    files = [*(place.trajectory(k) for k in range(len(start))), folder / ENERGIES]
    if (folder / STATE).exists():
        state, facts = read_replicas(folder / STATE)
        for file, length in zip(files, facts["lengths"], strict=True):
            if not file.exists() or file.stat().st_size < length:
                raise ConfigError(
                    f"{file} is shorter than its checkpoint says ({length} bytes); remove {folder} to begin "
                    "again"
                )
            os.truncate(file, length)
    else:
        state = ensemble.start(start)
        for file in files:
            write_text(file, HEADER if file.name == ENERGIES else "")
    handles = [file.open("a", encoding="utf-8") for file in files]
    try:
        while state.step < n_steps:
            # A checkpoint is also where what is kept from earlier states is dropped: a simulation that was
            # interrupted there and one that was not are then the same to the last bit.
            surface.forget()
            n = min(checkpoint_every - state.step % checkpoint_every, n_steps - state.step)

            def write(now: Replicas, found: Found) -> None:
                _write_frame(handles, now, found, ensemble)

            state, _ = advance(state, ensemble, surface, n_steps=n, every=every, on_frame=write)
            for handle in handles:
                handle.flush()
                os.fsync(handle.fileno())
            write_replicas(folder / STATE, state, {"lengths": [file.stat().st_size for file in files]})
            if progress is not None:
                progress(state.step, n_steps)
    finally:
        for handle in handles:
            handle.close()
    return state


def _refuse_other(folder: Path, asked: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if not path.exists():
        write_text(path, json.dumps(asked, indent=1) + "\n")
        return
    there = read_json(path, then=f"remove {folder} to begin again", keys=list(asked))
    for name, value in json.loads(json.dumps(asked)).items():
        if there[name] != value:
            raise ConfigError(
                f"{folder} holds a simulation with another {name}: {json.dumps(there[name])[:200]}, wanted "
                f"{json.dumps(value)[:200]}; take another folder, or remove it"
            )


def _write_frame(handles: list[Any], state: Replicas, found: Found, ensemble: EnsembleConfig) -> None:
    time = state.step * ensemble.timestep
    kinetic, temperature = state.kinetic(), state.temperature()
    conserved, volume = ensemble.conserved(state, found), state.volume
    for k, (first, n) in enumerate(zip(state.starts.tolist(), state.n_atoms.tolist(), strict=True)):
        atoms = slice(first, first + n)
        velocities = state.momenta[atoms] / state.masses[atoms, None]
        handles[k].write(_frame(state, k, atoms, velocities, found, time))
        handles[-1].write(
            f"{state.step},{time:.10g},{k},{found.energy[k]!r},{kinetic[k]!r},{temperature[k]:.6f},"
            f"{conserved[k]!r},{volume[k]:.6f}\n".replace("np.float64(", "").replace(")", "")
        )


def _frame(state: Replicas, k: int, atoms: slice, velocities: np.ndarray, found: Found, time: float) -> str:
    numbers = np.concatenate([state.positions[atoms], velocities, found.forces[atoms]], 1)
    symbols = [SYMBOLS[int(z)] for z in state.species[atoms]]
    cell = ""
    if state.pbc[k].any():
        pbc = " ".join("FT"[int(periodic)] for periodic in state.pbc[k])
        cell = f'Lattice="{" ".join(f"{c:.10g}" for c in state.cell[k].ravel())}" pbc="{pbc}" '
    lines = [
        str(len(symbols)),
        f"{cell}Properties=species:S:1:pos:R:3:velocities:R:3:forces:R:3 energy={found.energy[k]:.12g} "
        f"time={time:.10g} step={state.step}",
        *(
            f"{s:<2} " + " ".join(f"{v:.8f}" for v in row)
            for s, row in zip(symbols, numbers.tolist(), strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"
