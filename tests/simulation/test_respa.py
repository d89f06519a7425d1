"""Two timesteps: reversible, conserving, and velocity Verlet where there is only one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapis_lab.config import kind_class
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.simulation import Found, Replicas, Surface, advance, replicas_of
from sapis_lab.simulation.respa import RespaConfig, respa_step
from sapis_lab.structures import Structure


class Bonds(Surface):
    """Pairs of atoms on springs: stiff ones, the fast part, and a soft anharmonic well about the origin."""

    def __init__(self, *, stiff: float, soft: float) -> None:
        self.stiff, self.soft, self.n_calls = stiff, soft, 0

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        self.n_calls += 1
        x = state.positions
        v = x[1::2] - x[::2]
        r = np.linalg.norm(v, axis=1, keepdims=True)
        pull = self.stiff * (r - 1.0) * v / r
        forces = np.zeros_like(x)
        forces[::2] += pull
        forces[1::2] -= pull
        forces -= self.soft * x * (x**2).sum(1, keepdims=True)
        energy = np.zeros(len(x))
        energy[::2] = 0.5 * self.stiff * (r[:, 0] - 1) ** 2
        energy += 0.25 * self.soft * (x**2).sum(1) ** 2
        return Found(state.per_replica(energy), forces)


WHOLE, FAST = {"stiff": 30.0, "soft": 0.02}, {"stiff": 30.0, "soft": 0.0}


def pairs(n: int = 3) -> Replicas:
    generator = np.random.default_rng(0)
    some = []
    for _ in range(n):
        x = generator.normal(size=(4, 3))
        x[1::2] = x[::2] + [1.02, 0, 0]
        some.append(Structure(np.array([6, 1, 6, 1]), x))
    return replicas_of(some, masses=[np.array([12.0, 1.0, 12.0, 1.0])] * n, seed=1)


def test_one_inner_step_and_no_fast_surface_are_velocity_verlet() -> None:
    nve = kind_class("simulation", "nve")(timestep=0.4)
    start = nve.start(pairs())
    wanted, _ = advance(start, nve, Bonds(**WHOLE), n_steps=50)
    for settings in (
        {"n_inner": 1, "fast": {"kind": "lennard_jones"}},
        {"n_inner": 5},
    ):
        ensemble = kind_class("simulation", "respa")(timestep=0.4, **settings)
        end, _ = advance(start, ensemble, Bonds(**WHOLE), n_steps=50)
        assert np.array_equal(end.positions, wanted.positions)
        assert np.array_equal(end.momenta, wanted.momenta)


def run(n_inner: int, timestep: float, n_steps: int, state: Replicas) -> tuple[Replicas, np.ndarray, int]:
    whole, fast, energies = Bonds(**WHOLE), Bonds(**FAST), []
    found = whole(state)
    for _ in range(n_steps):
        state, found = respa_step(state, found, whole, fast, timestep=timestep, n_inner=n_inner)
        energies.append(found.energy + state.kinetic())
    return state, np.array(energies), whole.n_calls


def test_a_path_goes_back_where_it_came_from() -> None:
    start = RespaConfig().start(pairs())
    end, _, _ = run(6, 3.0, 40, start)
    assert np.abs(end.positions - start.positions).max() > 0.1
    back, _, _ = run(6, 3.0, 40, replace(end, momenta=-end.momenta))
    assert np.allclose(back.positions, start.positions, atol=1e-9)
    assert np.allclose(back.momenta, -start.momenta, atol=1e-9)


def test_the_energy_is_conserved_where_one_timestep_is_too_long() -> None:
    """The stiff bonds have a period of 11 fs: 4 fs at once is beyond what they bear, in eight parts it is
    not, and the slow forces are computed no more often."""
    start = RespaConfig(temperature=300.0).start(pairs())
    with np.errstate(over="ignore", invalid="ignore"):
        _, one, calls_one = run(1, 4.0, 500, start)
    _, many, calls_many = run(8, 4.0, 500, start)
    assert calls_one == calls_many
    spread = many.std(0).max()
    assert not one.std(0).max() < 20 * spread and spread < 5e-3
    drift = np.polyfit(np.arange(500) * 4e-3, many, 1)[0]
    assert np.abs(drift).max() < 2e-3


def test_the_error_falls_with_the_square_of_the_outer_step() -> None:
    start = RespaConfig(temperature=300.0).start(pairs())
    steps = (0.5, 1.0, 2.0)
    spread = [run(round(20 * dt), dt, round(400 / dt), start)[1].std(0).mean() for dt in steps]
    slope = np.polyfit(np.log(steps), np.log(spread), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.3)


def test_a_fast_surface_that_is_the_whole_one_needs_no_slow_kicks() -> None:
    """Then n_inner steps are as many of velocity Verlet with the short step."""
    oracle = LennardJonesConfig(atoms={"Ar": LennardJonesAtom(epsilon=0.01, sigma=3.4)})
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    s = Structure(np.full(8, 18), 3.8 * corners)
    state = replicas_of([s], masses=[np.full(8, 39.9)], seed=0)
    respa = RespaConfig(timestep=8.0, n_inner=4, fast=oracle)
    nve = kind_class("simulation", "nve")(timestep=2.0)
    start = nve.start(state)
    surface = respa.fast_surface()
    assert surface is not None
    a, _ = advance(start, respa, surface, n_steps=5)
    b, _ = advance(start, nve, surface, n_steps=20)
    assert np.allclose(a.positions, b.positions, atol=1e-9)
