"""Free energies of states with a closed form, by the solver here and by pymbar."""

from __future__ import annotations

import numpy as np
import pytest

from sapis_lab.free_energy import mbar, overlap, overlap_gap, self_consistent, statistical_inefficiency
from sapis_lab.free_energy._statistics import blocked_counts

SPRINGS = np.array([1.0, 2, 4, 8, 16])
EXACT = 0.5 * np.log(SPRINGS)


def harmonic(n, seed=0):
    """Reduced energies (5, 5n) of samples of five oscillators in all of them."""
    generator = np.random.default_rng(seed)
    x = np.concatenate([generator.normal(size=n) / np.sqrt(k) for k in SPRINGS])
    return 0.5 * SPRINGS[:, None] * x**2, np.full(5, n)


def test_harmonic_states_have_their_free_energies_within_the_error():
    u, n = harmonic(2000)
    found = mbar(u, n)
    assert np.all(np.abs(found.f - EXACT)[1:] < 3 * found.error[1:])
    assert found.error.max() < 0.03


def test_both_solvers_agree_to_rounding():
    u, n = harmonic(500)
    ours, theirs = self_consistent(u, n, tolerance=1e-11), mbar(u, n)
    assert ours.f == pytest.approx(theirs.f, abs=1e-8)
    assert overlap(u, n, ours) == pytest.approx(theirs.overlap, abs=1e-8)


def test_the_equations_hold_at_the_solution():
    u, n = harmonic(300)
    f = self_consistent(u, n).f
    below = (n[:, None] * np.exp(f[:, None] - u)).sum(0)
    again = -np.log((np.exp(-u) / below).sum(1))
    assert again - again[0] == pytest.approx(f, abs=1e-8)


def test_a_state_without_samples_is_reweighted():
    u, n = harmonic(3000)
    kept = np.ones(u.shape[1], dtype=bool)
    kept[2 * 3000 : 3 * 3000] = False
    solved = self_consistent(u[:, kept], np.where(np.arange(5) == 2, 0, n))
    assert solved.f == pytest.approx(EXACT, abs=0.05)
    assert solved.free_energy(u[2, kept]) == pytest.approx(solved.f[2], abs=1e-9)


def test_samples_that_count_twice_are_as_two_samples():
    u, n = harmonic(200)
    counts = blocked_counts(n, np.full(5, 10), np.random.default_rng(1))
    assert counts.reshape(5, -1).sum(1) == pytest.approx(n)
    repeated = np.repeat(np.arange(u.shape[1]), counts.astype(int))
    assert self_consistent(u, n, counts=counts).f == pytest.approx(
        self_consistent(u[:, repeated], n).f, abs=1e-8
    )


def test_energies_far_beyond_the_range_of_the_exponential_are_fine():
    u, n = harmonic(300)
    shifted = self_consistent(u + 5e3, n).f
    assert shifted == pytest.approx(self_consistent(u, n).f, abs=1e-7)


def test_states_that_share_nothing_are_refused():
    x = np.concatenate([np.full(50, 0.0), np.full(50, 1e3)])
    u = 0.5 * (x - np.array([[0.0], [1e3]])) ** 2
    with pytest.raises(ValueError, match="fall into groups that do not overlap"):
        self_consistent(u, np.array([50, 50]), most=500)
    assert overlap_gap(np.eye(2)) == pytest.approx(0.0)


def test_energies_that_are_no_numbers_are_refused():
    u, n = harmonic(10)
    u[2, 7] = np.nan
    with pytest.raises(ValueError, match="1 samples have an energy that is not a number"):
        self_consistent(u, n)
    with pytest.raises(ValueError, match=r"u has shape \(5, 50\), wanted \(5, 60\)"):
        self_consistent(u, n + 2)


def test_the_statistical_inefficiency_of_a_known_process():
    """x' = c x + noise has g = (1 + c)/(1 - c)."""
    c, generator = 0.9, np.random.default_rng(0)
    noise = generator.normal(size=200_000)
    x = np.empty_like(noise)
    x[0] = 0
    for k in range(1, len(x)):
        x[k] = c * x[k - 1] + noise[k]
    assert statistical_inefficiency(x) == pytest.approx(19, rel=0.1)
    assert statistical_inefficiency(noise) == pytest.approx(1, abs=0.1)
    assert statistical_inefficiency(np.stack([noise, x], 1)) == pytest.approx(19, rel=0.1)
    assert statistical_inefficiency(np.ones(100)) == 1.0


def test_the_statistical_inefficiency_is_that_of_pymbar():
    timeseries = pytest.importorskip("pymbar.timeseries")
    x = np.cumsum(np.random.default_rng(3).normal(size=500)) * 0.1 + np.random.default_rng(4).normal(size=500)
    assert statistical_inefficiency(x) == pytest.approx(
        timeseries.statistical_inefficiency(x, mintime=1), rel=1e-6
    )
