"""Integration from surface to surface gives the closed forms of harmonic systems, and agrees with MBAR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_surfaces import HarmonicSurface, atoms

from sapis_lab import units
from sapis_lab.free_energy import (
    EinsteinSurface,
    SwitchedSurface,
    center_of_mass_free_energy,
    einstein_free_energy,
    estimate_switch,
    harmonic_free_energy,
    lobatto,
    sample_switch,
)
from sapis_lab.simulation.langevin import LangevinConfig

TEMPERATURE = 300.0
KT = units.KB * TEMPERATURE
SITES = 3.0 * np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)], dtype=float)
MASSES = np.array([28.0, 12.0] * 4)


def crystal_hessian():
    """Springs between all pairs, near ones stiffer: no force on the whole."""
    n = len(SITES)
    hessian = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(i):
            v = SITES[j] - SITES[i]
            r = np.linalg.norm(v)
            block = 4.0 * (3.0 / r) ** 4 * np.outer(v, v) / r**2 + 0.3 * np.eye(3)
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
            hessian[i, :, i] += block
            hessian[j, :, j] += block
    return hessian.reshape(3 * n, 3 * n)


def switch(a, b, *, n=7, seed=0, steps=4000, masses=MASSES, offset=0.0):
    coupling, weights = lobatto(n)
    ensemble = LangevinConfig(temperature=TEMPERATURE, timestep=2.0, friction=0.02)
    state = ensemble.start(atoms(SITES, masses, n=n, seed=seed))
    surface = SwitchedSurface(a, b, coupling=coupling, offset=offset)
    energies, _ = sample_switch(state, ensemble, surface, n_equilibrate=500, n_steps=steps, every=10)
    return estimate_switch(energies, coupling=coupling, weights=weights, kT=KT)


def test_lobatto_integrates_polynomials_of_degree_2n_minus_3_exactly():
    for n in (2, 3, 5, 8):
        x, w = lobatto(n)
        assert x[0] == 0 and x[-1] == 1 and np.all(np.diff(x) > 0)
        for degree in range(2 * n - 2):
            assert w @ x**degree == pytest.approx(1 / (degree + 1), abs=1e-12)
        assert abs(w @ x ** (2 * n - 2) - 1 / (2 * n - 1)) > 1e-9
    with pytest.raises(ValueError, match="wanted at least the two ends"):
        lobatto(1)


def test_from_harmonic_to_harmonic_is_half_kt_of_the_ratio_of_determinants():
    n = 3 * len(SITES)
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    first, second = np.eye(n) * 2.0, q @ np.diag(np.linspace(2, 6, n)) @ q.T
    exact = 0.5 * KT * (np.linalg.slogdet(second)[1] - np.linalg.slogdet(first)[1])
    found = switch(HarmonicSurface(SITES, first), HarmonicSurface(SITES, second))
    assert found.integration == pytest.approx(exact, abs=3 * found.integration_error)
    assert found.mbar == pytest.approx(exact, abs=3 * found.mbar_error)
    assert found.integration_error < 0.02 and found.mbar_error < 0.02
    # 0.5 kJ/mol, and two combined errors, between the two
    both = np.hypot(found.integration_error, found.mbar_error)
    assert abs(found.integration - found.mbar) < min(2 * both, 0.5 * units.KJ_PER_MOL_TO_EV)
    assert found.own == pytest.approx(found.mbar, abs=1e-7)
    assert found.bar == pytest.approx(found.mbar, abs=2 * both)


def test_a_harmonic_crystal_has_the_free_energy_of_its_modes():
    """Frenkel and Ladd, against the exact sum over 3N - 3 modes of two masses."""
    hessian = crystal_hessian()
    frequency, energy = 0.04, -3.0
    found = switch(
        EinsteinSurface(SITES, frequency=frequency), HarmonicSurface(SITES, hessian, energy), offset=energy
    )
    einstein = einstein_free_energy(len(SITES), frequency=frequency, kT=KT)
    exact = harmonic_free_energy(hessian, MASSES, kT=KT)
    assert einstein + found.integration == pytest.approx(exact, abs=3 * found.integration_error)
    assert einstein + found.mbar == pytest.approx(exact, abs=3 * found.mbar_error)
    assert found.integration_error < 0.03
    assert abs(exact - einstein) > 0.1  # there was something to integrate


def test_an_einstein_crystal_has_3n_minus_3_modes_of_its_frequency_whatever_the_masses():
    frequency = 0.03
    surface = EinsteinSurface(SITES, frequency=frequency)
    state = atoms(SITES, MASSES, n=1)
    hessian, step = np.empty((24, 24)), 1e-4
    for k in range(24):
        ends = []
        for sign in (1, -1):
            x = state.positions.copy()
            x.reshape(-1)[k] += sign * step
            ends.append(surface(replace(state, positions=x)).forces.ravel())
        hessian[k] = -(ends[0] - ends[1]) / (2 * step)
    root = np.repeat(np.sqrt(MASSES), 3)
    squared = np.linalg.eigvalsh(hessian / np.outer(root, root)) * units.ACCELERATION
    assert squared[:3] == pytest.approx(np.zeros(3), abs=1e-9)
    assert squared[3:] == pytest.approx(frequency**2)
    assert harmonic_free_energy(hessian, MASSES, kT=KT) == pytest.approx(
        einstein_free_energy(8, frequency=frequency, kT=KT)
    )


def test_an_einstein_crystal_does_not_hold_its_center_of_mass():
    surface, state = EinsteinSurface(SITES, frequency=0.03), atoms(SITES, MASSES, n=2)
    moved = surface(replace(state, positions=state.positions + [1.0, 2.0, 3.0]))
    assert moved.energy == pytest.approx([0.0, 0.0], abs=1e-12)
    x = state.positions + np.random.default_rng(0).normal(size=state.positions.shape)
    assert state.per_replica(surface(replace(state, positions=x)).forces) == pytest.approx(0.0, abs=1e-10)


def test_the_center_of_mass_is_a_perfect_gas_of_one_particle():
    """An argon atom at 300 K has a thermal wavelength of 0.1596 Å."""
    volume = 40.0
    expected = -KT * np.log(volume / 0.15955**3)
    assert center_of_mass_free_energy(39.948, volume=volume, kT=KT) == pytest.approx(expected, rel=1e-3)


def test_a_crystal_with_an_unstable_mode_is_refused():
    with pytest.raises(ValueError, match="has a mode with the squared frequency"):
        harmonic_free_energy(-crystal_hessian(), MASSES, kT=KT)


def test_a_switch_that_fails_names_the_coupling():
    class Broken(HarmonicSurface):
        def __call__(self, state, *, stress=False):
            found = super().__call__(state)
            return found._replace(energy=np.full(len(state), np.nan))

    with pytest.raises(ValueError, match="at coupling 0.000 an energy is not finite after 510 steps"):
        switch(HarmonicSurface(SITES, np.eye(24)), Broken(SITES, np.eye(24)), n=2)


def test_a_surface_between_two_has_a_share_of_their_forces():
    first, second = HarmonicSurface(SITES, np.eye(24)), HarmonicSurface(SITES, 3 * np.eye(24))
    state = atoms(SITES + 0.1, MASSES, n=3)
    found = SwitchedSurface(first, second, coupling=np.array([0.0, 0.25, 1.0]))(state)
    one, three = first(state), second(state)
    share = np.repeat([0.0, 0.25, 1.0], 8)[:, None]
    assert found.forces == pytest.approx((1 - share) * one.forces + share * three.forces)
    assert found.energy[1] == pytest.approx(0.75 * one.energy[1] + 0.25 * three.energy[1])
    with pytest.raises(ValueError, match="2 couplings for 3 replicas"):
        SwitchedSurface(first, second, coupling=np.zeros(2))(state)
