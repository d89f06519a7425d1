"""Umbrella windows: harmonic springs on coordinates of the replicas of a simulation, and what is sampled in
them (Torrie & Valleau, J. Comput. Phys. 23, 187, 1977).

    U_k = U + Σ_c K_c d_c² / 2,   d_c the way from coordinate c to the center of window k

All windows are replicas of one simulation. They begin at the same configurations, are pulled to their centers
along a way that is stated (up a circle or down it), come to equilibrium there, and are sampled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.config import fingerprint, identity
from sapis_lab.errors import ConfigError
from sapis_lab.files import make_folder, read_bytes, read_json, write_bytes, write_text
from sapis_lab.geometry import coordinates
from sapis_lab.simulation import EnsembleConfig, Found, Replicas, Surface, read_replicas, write_replicas

_PULL_EVERY = 10
"""Steps between two moves of the springs."""


@dataclass(frozen=True)
class Windows:
    """R windows on C coordinates."""

    atoms: tuple[tuple[int, ...], ...]
    """Two, three or four atoms of each coordinate, from 0 within a replica."""
    centers: np.ndarray
    """(R, C) Å or rad."""
    stiffness: np.ndarray
    """(C,) K, eV/Å² or eV/rad²; zero leaves a coordinate free."""

    def values(self, state: Replicas) -> np.ndarray:
        """(R, C) the coordinates of every replica."""
        x = state.positions
        return np.stack([coordinates.values(x[_atoms(state, four)], _all(four)) for four in self.atoms], 1)

    def ways(self, values: np.ndarray) -> np.ndarray:
        """(..., C) from the centers, (R, C) or one window's (C,), to `values` (..., C)."""
        return _ways(values, self.centers, self.atoms)

    def energies(self, values: np.ndarray) -> np.ndarray:
        """(R, N) eV: what every window's springs hold at `values` (N, C)."""
        d = _ways(values[None], self.centers[:, None], self.atoms)
        return np.asarray(0.5 * (self.stiffness * d**2).sum(-1))


def circle(
    n: int, *, kT: float, spacing: float, begin: float = -np.pi, turn: float = 2 * np.pi
) -> tuple[np.ndarray, float]:
    """Centers (n,) rad evenly around a circle, and the stiffness, eV/rad², with which they lie `spacing`
    standard deviations of a free angle apart: K = kT (spacing / gap)²."""
    return begin + turn * np.arange(n) / n, kT * (spacing * n / abs(turn)) ** 2


class BiasedSurface(Surface):
    """A surface with the springs of windows, one window for each replica."""

    def __init__(self, surface: Surface, windows: Windows) -> None:
        self.surface, self.windows = surface, windows

    def forget(self) -> None:
        self.surface.forget()

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        windows, found = self.windows, self.surface(state, stress=stress)
        if len(windows.centers) != len(state):
            raise ValueError(f"{len(windows.centers)} windows for {len(state)} replicas; wanted one for each")
        energy, forces = found.energy.copy(), found.forces.copy()
        tension = None if found.stress is None else found.stress.copy()
        for c, four in enumerate(windows.atoms):
            which = _atoms(state, four)
            value, gradient = coordinates.with_gradient(state.positions[which], _all(four))
            way = coordinates.difference(value, windows.centers[:, c], period=coordinates.period(four))
            energy += 0.5 * windows.stiffness[c] * way**2
            pull = windows.stiffness[c] * way[:, None, None] * gradient
            forces[which] -= pull
            if tension is not None:
                strain = np.einsum("rka,rkb->rab", pull, state.positions[which])
                tension += strain / state.volume[:, None, None]
        return Found(energy, forces, tension)


def sample_windows(
    start: Replicas,
    ensemble: EnsembleConfig,
    surface: Surface,
    windows: Windows,
    *,
    ways: np.ndarray | None = None,
    n_pull: int,
    n_equilibrate: int,
    n_steps: int,
    every: int,
    folder: Path | None = None,
    checkpoint_every: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Coordinates (n_samples, R, C) in all windows, after every `every` steps of `n_steps`.

    Args:
        start: one replica for each window, before the ensemble has begun.
        ways: (R, C) from where the replicas begin to their centers; the shortest way where not given. All are
            pulled at one speed, so that the farthest arrives after `n_pull` steps.
        folder: where state and samples are kept every `checkpoint_every` steps; the same call goes on from
            there bit for bit.
        progress: called as progress(steps done, steps in all).

    Raises:
        ValueError: a replica's energy or forces are not finite.
        ConfigError: the folder holds windows of another question, or is damaged.
    """
    begins = windows.values(start)
    ways = -windows.ways(begins) if ways is None else ways
    lengths = np.linalg.norm(ways, axis=1)
    total = n_pull + n_equilibrate + n_steps
    parts: list[np.ndarray] = []
    state = None
    if folder is not None:
        asked = {
            "ensemble": identity(ensemble),
            "windows": fingerprint(
                {"at": windows.centers.tolist(), "k": windows.stiffness.tolist(), "of": windows.atoms}
            ),
            "ways": fingerprint(ways.tolist()),
            "start": fingerprint({"x": start.positions.tolist(), "z": start.species.tolist()}),
            "steps": [n_pull, n_equilibrate, n_steps, every, checkpoint_every],
        }
        state, parts = _continued(folder, asked)
    state = ensemble.start(start) if state is None else state
    fresh: list[np.ndarray] = []
    biased, found = BiasedSurface(surface, windows), None
    while state.step < total:
        if state.step % checkpoint_every == 0:
            surface.forget()
            found = None
        if state.step < n_pull and (state.step % _PULL_EVERY == 0 or found is None):
            done = (state.step - state.step % _PULL_EVERY + _PULL_EVERY) / n_pull * lengths.max(initial=0.0)
            share = np.minimum(done / np.maximum(lengths, 1e-12), 1.0)[:, None]
            at = Windows(windows.atoms, begins + share * ways, windows.stiffness)
            biased, found = BiasedSurface(surface, at), None
        elif state.step == n_pull or found is None:
            biased, found = BiasedSurface(surface, windows), None
        if found is None:
            found = biased(state, stress=ensemble.wants_stress)
        state, found = ensemble.step(state, found, biased)
        _want_finite(found, state, windows)
        if state.step > n_pull + n_equilibrate and (state.step - n_pull - n_equilibrate) % every == 0:
            fresh.append(windows.values(state))
        if state.step % checkpoint_every and state.step != total:
            continue
        if folder is not None:
            _keep(folder, state, np.array(fresh).reshape(-1, *windows.centers.shape), len(parts))
        if fresh:
            parts.append(np.array(fresh))
            fresh = []
        if progress is not None:
            progress(state.step, total)
    return np.concatenate(parts) if parts else np.zeros((0, *windows.centers.shape))


def _want_finite(found: Found, state: Replicas, windows: Windows) -> None:
    bad = ~np.isfinite(found.energy) | (state.per_replica((~np.isfinite(found.forces)).sum(1)) > 0)
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(
            f"window {k} (center {np.round(windows.centers[k], 3).tolist()}) has no finite energy at step "
            f"{state.step}: the surface fails there; a shorter timestep or slower pulling may help"
        )


def _continued(folder: Path, asked: dict[str, Any]) -> tuple[Replicas | None, list[np.ndarray]]:
    """The state and the samples that are in `folder`."""
    make_folder(folder)
    settings = folder / "settings.json"
    if settings.exists():
        there = read_json(settings, then=f"remove {folder} to begin again", keys=list(asked))
        for name, value in json.loads(json.dumps(asked)).items():
            if there[name] != value:
                raise ConfigError(
                    f"{folder} holds windows with other {name}: {json.dumps(there[name])[:200]}, wanted "
                    f"{json.dumps(value)[:200]}; take another folder, or remove it"
                )
    else:
        write_text(settings, json.dumps(asked, indent=1) + "\n")
    if not (folder / "state.npz").exists():
        return None, []
    state, facts = read_replicas(folder / "state.npz")
    parts = []
    for k in range(facts["parts"]):
        path = folder / f"samples-{k:05d}.npy"
        try:
            parts.append(np.load(io.BytesIO(read_bytes(path)), allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); remove {folder} to begin again") from None
    return state, parts


def _keep(folder: Path, state: Replicas, fresh: np.ndarray, n_before: int) -> None:
    """Samples first, then the state that says how many parts count."""
    n = n_before
    if len(fresh):
        out = io.BytesIO()
        np.save(out, fresh)
        write_bytes(folder / f"samples-{n:05d}.npy", out.getvalue())
        n += 1
    write_replicas(folder / "state.npz", state, {"parts": n})


def _atoms(state: Replicas, four: Sequence[int]) -> np.ndarray:
    """(R, len(four)) numbers of the atoms in the state."""
    if max(four) >= state.n_atoms.min():
        raise ValueError(f"coordinate {list(four)} names atom {max(four)} of {state.n_atoms.min()}")
    return np.asarray(state.starts[:, None] + np.array(four))


def _all(four: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(len(four)))


def _ways(values: np.ndarray, centers: np.ndarray, atoms: Sequence[tuple[int, ...]]) -> np.ndarray:
    columns = [
        coordinates.difference(values[..., c], centers[..., c], period=coordinates.period(four))
        for c, four in enumerate(atoms)
    ]
    return np.stack(columns, -1)
