"""Langevin dynamics samples the canonical distribution, and conserves energy without friction."""

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.integrators.langevin import State, baoab, thermal_momenta

MASSES = np.array([1.0, 4.0, 16.0])
STIFFNESS = np.array([20.0, 30.0, 40.0])[:, None]


def spring(x):
    return -STIFFNESS * x


def kinetic_temperature(momenta: np.ndarray, masses: np.ndarray) -> float:
    """2 E_kin / (3 n_atoms k), K.   momenta: (..., n_atoms, 3), amu Å/fs; masses: (n_atoms,), amu."""
    return float(np.mean(momenta**2 / masses[:, None]) / (units.KB * units.ACCELERATION))


def test_dynamics_without_friction_conserves_energy_to_second_order():
    p = thermal_momenta(MASSES, temperature=500, generator=np.random.default_rng(0))

    def drift(dt):
        state, worst = State(np.zeros((3, 3)), p), 0.0
        start = 0.5 * np.sum(p**2 / MASSES[:, None]) / units.ACCELERATION
        for _ in range(200):
            state = baoab(
                state,
                spring,
                masses=MASSES,
                temperature=500,
                friction=0.0,
                timestep=dt,
                n_steps=round(1 / dt),
                generator=np.random.default_rng(1),
            )
            energy = 0.5 * np.sum(state.momenta**2 / MASSES[:, None]) / units.ACCELERATION + 0.5 * np.sum(
                STIFFNESS * state.positions**2
            )
            worst = max(worst, abs(energy - start))
        return worst

    assert 3 < drift(0.5) / drift(0.25) < 5


def test_harmonic_positions_have_the_exact_canonical_variance_at_a_large_step():
    """<x²> = kT/k for any stable step: the property that makes BAOAB worth its name."""
    generator = np.random.default_rng(0)
    state = State(np.zeros((3, 3)), thermal_momenta(MASSES, temperature=500, generator=generator))
    squares, momenta = [], []
    for _ in range(8000):
        state = baoab(
            state,
            spring,
            masses=MASSES,
            temperature=500,
            friction=0.05,
            timestep=2.0,
            n_steps=3,
            generator=generator,
        )
        squares.append(state.positions**2)
        momenta.append(state.momenta)
    ratio = np.mean(squares, axis=(0, 2)) * STIFFNESS[:, 0] / (units.KB * 500)
    assert np.allclose(ratio, 1.0, atol=0.08)
    assert kinetic_temperature(np.array(momenta)[:, 2:], MASSES[2:]) == pytest.approx(
        500 * (1 - 40 * units.ACCELERATION / 16 * 4 / 4), rel=0.06
    )


def test_thermal_momenta_have_the_temperature_they_were_drawn_at():
    masses = np.full(20_000, 12.0)
    p = thermal_momenta(masses, temperature=300, generator=np.random.default_rng(0))
    assert kinetic_temperature(p, masses) == pytest.approx(300, rel=0.02)
