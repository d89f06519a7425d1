"""Every ensemble samples what it says, conserves what it says, and goes on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import kind_class, kinds
from sapis_lab.simulation import (
    EnsembleConfig,
    Found,
    Replicas,
    Surface,
    advance,
    read_replicas,
    replicas_of,
    simulate,
    write_replicas,
)
from sapis_lab.simulation.npt import BAR
from sapis_lab.structures import Structure

STIFFNESS = 2.0
"""eV/Å²"""


class Springs(Surface):
    """Every atom on a spring at its place; perfect gas with stiffness 0."""

    def __init__(self, rest: np.ndarray, stiffness: float = STIFFNESS) -> None:
        self.rest, self.stiffness = rest, stiffness

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        x = state.positions - self.rest if self.stiffness else np.zeros_like(state.positions)
        energy = state.per_replica(0.5 * self.stiffness * (x**2).sum(1))
        return Found(energy, -self.stiffness * x, np.zeros((len(state), 3, 3)) if stress else None)


class Bonds(Surface):
    """The atoms of replicas of n atoms, bound to each other by springs that are stiffer along some axes, and
    coupled where they are stretched: momentum is conserved and nothing else, so that a thermostat which
    scales all momenta alike reaches every state."""

    def __init__(self, rest: np.ndarray, n: int, stiffness: float) -> None:
        self.rest, self.n, self.stiffness = rest, n, stiffness

    def apart(self, state: Replicas) -> np.ndarray:
        """(R, n, 3) displacements from the places, less their mean."""
        x = (state.positions - self.rest).reshape(-1, self.n, 3)
        return x - x.mean(1, keepdims=True)

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        u, axes, q = self.apart(state), np.array([1.0, 1.7, 2.9]), 40.0
        v = np.roll(u, 1, axis=2)
        w = np.roll(v, 1, axis=1)
        energy = self.stiffness * (0.5 * axes * u**2 + q * u**2 * w**2).sum((1, 2))
        slope = axes * u + 2 * q * u * w**2
        back = np.roll(np.roll(2 * q * u**2 * w, -1, axis=1), -1, axis=2)
        force = -self.stiffness * (slope + back)
        force -= force.mean(1, keepdims=True)
        none = np.zeros((len(state), 3, 3)) if stress else None
        return Found(energy, force.reshape(-1, 3), none)


def replicas(n: int = 4, n_atoms: int = 3, *, cell: float = 10.0, seed: int = 0) -> Replicas:
    generator = np.random.default_rng(7)
    some = [
        Structure(
            np.array([8, 1, 6] * n_atoms)[:n_atoms],
            generator.uniform(0, cell, (n_atoms, 3)),
            cell * np.eye(3),
            np.ones(3, bool),
        )
        for _ in range(n)
    ]
    masses = [np.array([16.0, 1.0, 12.0] * n_atoms)[:n_atoms]] * n
    return replicas_of(some, masses=masses, seed=seed)


SETTINGS: dict[str, dict[str, Any]] = {"npt": {"every": 3, "pressure": 1e4}}


@pytest.fixture(params=kinds("simulation"))
def ensemble(request: pytest.FixtureRequest) -> EnsembleConfig:
    return kind_class("simulation", request.param)(timestep=0.5, **SETTINGS.get(request.param, {}))


# ------------------------------------------------------------------------------------------------- every kind


def test_forces_of_the_bonds_are_the_slope_of_their_energy() -> None:
    state = replicas(2, 3)
    surface = Bonds(state.positions, 3, 0.5)
    generator = np.random.default_rng(1)
    x = state.positions + 0.1 * generator.normal(size=(6, 3))
    d = generator.normal(size=(6, 3))
    there = [surface(replace(state, positions=x + h * d)).energy.sum() for h in (-1e-4, 1e-4)]
    forces = surface(replace(state, positions=x)).forces
    assert (there[1] - there[0]) / 2e-4 == pytest.approx(-(forces * d).sum(), rel=1e-6)


def test_a_replica_does_the_same_alone_as_among_others(ensemble: EnsembleConfig) -> None:
    state = replicas()
    surface = Springs(state.positions)
    together, _ = advance(ensemble.start(state), ensemble, surface, n_steps=20)
    which = np.arange(4) == 2
    alone = replicas().chosen(which)
    end, _ = advance(ensemble.start(alone), ensemble, Springs(alone.positions), n_steps=20)
    assert np.array_equal(end.positions, together.chosen(which).positions)
    assert np.array_equal(end.momenta, together.chosen(which).momenta)


def test_a_state_that_was_written_goes_on_bit_for_bit(ensemble: EnsembleConfig, tmp_path: Path) -> None:
    state = replicas()
    surface = Springs(state.positions)
    half, _ = advance(ensemble.start(state), ensemble, surface, n_steps=10)
    write_replicas(tmp_path / "state.npz", half, {"note": "half"})
    end, _ = advance(half, ensemble, surface, n_steps=10)
    read, facts = read_replicas(tmp_path / "state.npz")
    again, _ = advance(read, ensemble, surface, n_steps=10)
    assert facts == {"note": "half"}
    for name in ("positions", "momenta", "cell"):
        assert np.array_equal(getattr(end, name), getattr(again, name)), name
    assert end.step == again.step == 20
    assert end.extra.keys() == again.extra.keys()
    assert all(np.array_equal(end.extra[k], again.extra[k]) for k in end.extra)


def test_the_error_of_what_is_conserved_falls_with_the_square_of_the_timestep(
    ensemble: EnsembleConfig,
) -> None:
    spreads = []
    for dt in (0.5, 1.0, 2.0):
        state = replicas(8, 6)
        kind = ensemble.model_copy(update={"timestep": dt, "temperature": 300.0})
        seen: list[np.ndarray] = []

        def keep(now: Replicas, found: Found, kind: EnsembleConfig = kind, seen: Any = seen) -> None:
            seen.append(kind.conserved(now, found))

        advance(kind.start(state), kind, Springs(state.positions), n_steps=round(200 / dt), on_frame=keep)
        spreads.append(np.std(np.array(seen), axis=0).mean())
    slope = np.polyfit(np.log([0.5, 1.0, 2.0]), np.log(spreads), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize("kind", [k for k in kinds("simulation") if k not in ("nve", "respa")])
def test_kinetic_energies_and_displacements_are_those_of_the_temperature(kind: str) -> None:
    ensemble = kind_class("simulation", kind)(timestep=2.0, temperature=500.0)
    if kind in ("langevin", "npt"):
        ensemble = ensemble.model_copy(update={"friction": 0.02})
    if kind == "npt":
        ensemble = ensemble.model_copy(update={"every": 10**4})  # the springs do not know the cell
    state = replicas(60, 3)
    surface = Bonds(state.positions, 3, 0.5)
    kinetic, virial = [], []

    def keep(now: Replicas, found: Found) -> None:
        if now.step > 1500:
            kinetic.append(now.kinetic())
            u = surface.apart(now)
            virial.append(-0.5 * (u * found.forces.reshape(u.shape)).sum((1, 2)))

    end, _ = advance(ensemble.start(state), ensemble, surface, n_steps=6000, every=50, on_frame=keep)
    half = 0.5 * units.KB * 500.0
    for found, n in ((kinetic, end.n_degrees[0]), (virial, 6)):  # equipartition, and that of the virial
        got = np.array(found)
        error = got.mean(0).std(ddof=1) / np.sqrt(got.shape[1])
        assert abs(got.mean() - n * half) < 4 * error + 0.004 * n * half
    assert np.array(kinetic).var() == pytest.approx(2 * end.n_degrees[0] * half**2, rel=0.12)


def test_the_volume_of_a_perfect_gas_is_that_of_the_gas_law() -> None:
    n, temperature = 64, 300.0
    ensemble = kind_class("simulation", "npt")(
        timestep=2.0,
        temperature=temperature,
        friction=0.02,
        pressure=1e4,
        compressibility=5e-5,
        pressure_relaxation=200.0,
        every=5,
    )
    wanted = (n + 1) * units.KB * temperature / (1e4 * BAR)
    state = replicas(24, n, cell=wanted ** (1 / 3))
    volumes: list[np.ndarray] = []

    def keep(now: Replicas, found: Found) -> None:
        if now.step > 1000:
            volumes.append(now.volume)

    advance(
        ensemble.start(state), ensemble, Springs(state.positions, 0.0), n_steps=8000, every=20, on_frame=keep
    )
    means = np.array(volumes).mean(0)
    assert abs(means.mean() - wanted) < 3 * means.std(ddof=1) / np.sqrt(len(means))
    assert np.array(volumes).var() == pytest.approx(wanted**2 / (n + 1), rel=0.25)


def test_velocity_verlet_conserves_momentum_and_energy() -> None:
    ensemble = kind_class("simulation", "nve")(timestep=0.2, temperature=300.0)
    state = ensemble.start(replicas(3, 5))
    assert np.allclose(state.per_replica(state.momenta), 0, atol=1e-12)
    assert state.conserves_momentum and state.n_degrees.tolist() == [12] * 3


def test_pressure_without_a_box_is_refused() -> None:
    state = replace(replicas(2), pbc=np.array([[True] * 3, [True, True, False]]))
    with pytest.raises(ValueError, match="replica 1 has pbc=.*three periodic directions"):
        kind_class("simulation", "npt")().start(state)


# ---------------------------------------------------------------------------------------------------- folders


def run(folder: Path, n_steps: int, *, seed: int = 0, ensemble: EnsembleConfig | None = None) -> Replicas:
    state = replicas(2, 3, seed=seed)
    kind = ensemble or kind_class("simulation", "langevin")()
    surface = Springs(state.positions)
    return simulate(folder, state, kind, surface, n_steps=n_steps, every=5, checkpoint_every=20)


def test_an_interrupted_simulation_leaves_the_files_of_one_that_was_not(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, 100)
    run(parts, 40)
    for file in parts.glob("*.xyz"):
        file.write_text(file.read_text() + "3\nhalf a fra")  # written after the last checkpoint
    run(parts, 100)
    names = sorted(p.name for p in whole.iterdir() if p.suffix in (".xyz", ".csv"))
    assert names == ["energies.csv", "trajectory-000.xyz", "trajectory-001.xyz"]
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_another_question_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "a", 20)
    with pytest.raises(ValueError, match=r"holds a simulation with another ensemble.*take another folder"):
        run(tmp_path / "a", 40, ensemble=kind_class("simulation", "nve")())


def test_ase_and_we_read_the_frames(tmp_path: Path) -> None:
    from ase.io import read

    from sapis_lab.formats import read_extxyz

    end = run(tmp_path / "a", 100)
    frames = read(tmp_path / "a" / "trajectory-001.xyz", index=":")
    assert len(frames) == 20
    assert np.allclose(frames[-1].positions, end.positions[3:], atol=1e-8)
    ours = list(read_extxyz(tmp_path / "a" / "trajectory-001.xyz"))
    assert ours[-1].info["step"] == "100"
    assert np.allclose(ours[-1].columns["velocities"], (end.momenta / end.masses[:, None])[3:], atol=1e-8)


def test_mdtraj_reads_the_positions(tmp_path: Path) -> None:
    mdtraj = pytest.importorskip("mdtraj")
    end = run(tmp_path / "a", 100)
    with mdtraj.formats.XYZTrajectoryFile(str(tmp_path / "a" / "trajectory-000.xyz")) as file:
        x = file.read()
    assert x.shape == (20, 3, 3)
    assert np.allclose(x[-1], end.positions[:3], atol=1e-5)
