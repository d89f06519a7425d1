"""Umbrella windows bias what they say, go on bit for bit, and give the profile of a surface whose integral is
known."""

from __future__ import annotations

import numpy as np
import pytest
from known_surfaces import HarmonicSurface, PairSurface, atoms, pairs

from sapis_lab import units
from sapis_lab.errors import ConfigError
from sapis_lab.free_energy import BiasedSurface, Umbrella, Windows, circle, sample_windows, within
from sapis_lab.simulation import Replicas
from sapis_lab.simulation.langevin import LangevinConfig

TEMPERATURE = 300.0
KT = units.KB * TEMPERATURE
LEFT, RIGHT, BARRIER = 3.0, 4.6, 0.25
MIDDLE = (LEFT + RIGHT) / 2


def double_well(r):
    """Two wells of unequal depth: barrier ((x²-1)² with x from -1 to 1) and a slope; eV."""
    x = (r - MIDDLE) / (MIDDLE - LEFT)
    energy = BARRIER * (x**2 - 1) ** 2 + 0.03 * x
    slope = (4 * BARRIER * x * (x**2 - 1) + 0.03) / (MIDDLE - LEFT)
    return energy, slope


def exact_difference():
    """Free energy of r > MIDDLE minus that of r < MIDDLE, by quadrature of r² exp(-U/kT)."""
    r = np.linspace(1.5, 6.5, 200_001)
    density = r**2 * np.exp(-double_well(r)[0] / KT)
    return -KT * np.log(density[r > MIDDLE].sum() / density[r < MIDDLE].sum())


def wells(n=12):
    centers = np.linspace(2.6, 5.0, n)[:, None]
    gap = centers[1, 0] - centers[0, 0]
    return Windows(((0, 1),), centers, np.array([KT * (1.8 / gap) ** 2]))


def run(windows, **more):
    settings = {"n_pull": 500, "n_equilibrate": 500, "n_steps": 6000, "every": 10}
    return sample_windows(
        pairs([LEFT] * len(windows.centers)),
        LangevinConfig(temperature=TEMPERATURE, timestep=4.0, friction=0.01),
        PairSurface(double_well),
        windows,
        **settings | more,
    )


@pytest.fixture(scope="module")
def sampled():
    windows = wells()
    return Umbrella(windows, [run(windows)], kT=KT)


def test_a_double_well_has_the_difference_of_its_quadrature(sampled):
    right = within(sampled.values, [(MIDDLE, 10.0)], sampled.windows.atoms)
    error = sampled.resampled(lambda s: sampled.difference(right, s), n=30, seed=0).std()
    assert 0.0005 < error < 0.01
    assert sampled.difference(right) == pytest.approx(exact_difference(), abs=3 * error)


def test_its_profile_is_that_of_the_surface(sampled):
    edges = np.linspace(2.8, 4.8, 21)
    middle = (edges[1:] + edges[:-1]) / 2
    expected = double_well(middle)[0] - 2 * KT * np.log(middle)
    found = sampled.profile(0, edges)
    assert found - found.mean() == pytest.approx(expected - expected.mean(), abs=0.02)


def test_pymbar_and_the_solver_here_agree_on_it(sampled):
    assert sampled.solver_difference() < 1e-6
    thinned = sampled.by_pymbar()
    assert np.abs(thinned.f - sampled.solved.f).max() < 5 * thinned.error.max()
    assert 0.001 < sampled.overlap_gap() < 0.5


def test_populations_add_up(sampled):
    right = within(sampled.values, [(MIDDLE, 10.0)], sampled.windows.atoms)
    assert sampled.population(right) + sampled.population(~right) == pytest.approx(1.0)
    ratio = sampled.population(right) / sampled.population(~right)
    assert -KT * np.log(ratio) == pytest.approx(sampled.difference(right))


def test_a_basin_without_samples_is_refused(sampled):
    nowhere = np.zeros(len(sampled.values), dtype=bool)
    with pytest.raises(ValueError, match="a basin without samples has no free energy"):
        sampled.difference(nowhere)


def test_samples_of_one_surface_give_the_free_energy_of_another(sampled):
    """Both wells alike: what is left is the measure r²."""
    x = (sampled.values[:, 0] - MIDDLE) / (MIDDLE - LEFT)
    other = sampled.on_surface(-0.03 * x)
    right = within(sampled.values, [(MIDDLE, 10.0)], sampled.windows.atoms)
    r = np.linspace(1.5, 6.5, 200_001)
    density = r**2 * np.exp(-(double_well(r)[0] - 0.03 * (r - MIDDLE) / (MIDDLE - LEFT)) / KT)
    exact = -KT * np.log(density[r > MIDDLE].sum() / density[r < MIDDLE].sum())
    error = sampled.resampled(lambda s: sampled.difference(right, s), n=30, seed=0).std()
    assert sampled.difference(right, other) == pytest.approx(exact, abs=3 * error)
    assert abs(exact - exact_difference()) > 0.04
    assert 0.3 < sampled.effective(-0.03 * x) < 1 and sampled.effective(np.full(len(x), 2.0)) == 1.0


class Killed(Exception):
    pass


def test_windows_go_on_bit_for_bit_after_a_kill(tmp_path):
    windows, steps = wells(3), {"n_pull": 100, "n_equilibrate": 50, "n_steps": 250, "checkpoint_every": 40}
    whole = run(windows, **steps)

    def kill(done, total):
        if done == 280:
            raise Killed

    with pytest.raises(Killed):
        run(windows, **steps, folder=tmp_path / "w", progress=kill)
    went_on = run(windows, **steps, folder=tmp_path / "w")
    assert len(whole) == 25
    assert np.array_equal(went_on, whole)
    assert np.array_equal(run(windows, **steps, folder=tmp_path / "w"), whole)  # nothing is left to do


def test_a_folder_of_other_windows_is_refused(tmp_path):
    steps = {"n_pull": 10, "n_equilibrate": 0, "n_steps": 20}
    run(wells(3), **steps, folder=tmp_path)
    with pytest.raises(ConfigError, match="holds windows with other steps"):
        run(wells(3), n_pull=20, n_equilibrate=0, n_steps=20, folder=tmp_path)


def test_a_surface_that_fails_names_the_window():
    def broken(r):
        energy, slope = double_well(r)
        return np.where(r > 4.5, np.nan, energy), slope

    with pytest.raises(ValueError, match=r"window \d+ \(center \[[45]\.\d+\]\) has no finite energy at step"):
        sample_windows(
            pairs([LEFT] * 12),
            LangevinConfig(temperature=TEMPERATURE, timestep=4.0),
            PairSurface(broken),
            wells(),
            n_pull=500,
            n_equilibrate=0,
            n_steps=500,
            every=10,
        )


def butane_like(n, seed=0):
    x = np.array([[-1.9, 0.3, 0.1], [-0.6, -0.5, 0], [0.6, 0.4, 0], [1.9, -0.4, 0.3]])
    return atoms(x, np.full(4, 12.0), n=n, seed=seed)


def test_bias_forces_are_minus_the_gradient_of_all_coordinates():
    state = butane_like(3)
    generator = np.random.default_rng(0)
    state = Replicas(**{**vars(state), "positions": state.positions + 0.1 * generator.normal(size=(12, 3))})
    windows = Windows(
        ((0, 1), (0, 1, 2), (0, 1, 2, 3)), generator.normal(size=(3, 3)), np.array([1.0, 2.0, 3.0])
    )
    flat = HarmonicSurface(np.zeros((4, 3)), np.zeros((12, 12)))
    surface = BiasedSurface(flat, windows)
    found, step = surface(state), 1e-5
    values = windows.values(state)
    assert found.energy == pytest.approx(np.diag(windows.energies(values)))
    for atom in range(12):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                x = state.positions.copy()
                x[atom, axis] += sign * step
                ends.append(surface(Replicas(**{**vars(state), "positions": x})).energy.sum())
            assert found.forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_the_stress_of_a_bias_is_the_derivative_with_respect_to_strain():
    class Empty(HarmonicSurface):
        def __call__(self, state, *, stress=False):
            return super().__call__(state)._replace(stress=np.zeros((len(state), 3, 3)))

    state = butane_like(1)
    state = Replicas(**{**vars(state), "cell": 8 * np.eye(3)[None], "pbc": np.ones((1, 3), bool)})
    windows = Windows(((0, 2), (0, 1, 2, 3)), np.array([[1.0, 0.4]]), np.array([2.0, 3.0]))
    surface = BiasedSurface(Empty(np.zeros((4, 3)), np.zeros((12, 12))), windows)
    found, step = surface(state, stress=True).stress[0], 1e-5
    assert np.allclose(found, found.T)
    for a in range(3):
        for b in range(3):
            ends = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[a, b] += sign * step
                x = state.positions @ strain
                ends.append(surface(Replicas(**{**vars(state), "positions": x})).energy[0])
            assert found[a, b] == pytest.approx((ends[0] - ends[1]) / (2 * step) / 512, abs=1e-7)


def test_windows_are_reached_the_way_that_is_asked_for():
    """A torsion without any force goes up the circle, or down it, to the same center."""
    n, center = 2, np.deg2rad(90.0)
    windows = Windows(((0, 1, 2, 3),), np.full((n, 1), center), np.array([50 * KT]))
    state = butane_like(n)
    x = state.positions[:4]
    bonds = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]

    class Springs(HarmonicSurface):
        def __call__(self, state, *, stress=False):
            y = state.positions.reshape(-1, 4, 3)
            energy, forces = np.zeros(len(y)), np.zeros_like(y)
            for i, j in bonds:
                v = y[:, j] - y[:, i]
                r = np.linalg.norm(v, axis=1)
                rest = np.linalg.norm(x[j] - x[i])
                energy += 10.0 * (r - rest) ** 2
                pull = (20.0 * (r - rest) / r)[:, None] * v
                forces[:, i] += pull
                forces[:, j] -= pull
            return super().__call__(state)._replace(energy=energy, forces=forces.reshape(-1, 3))

    begin = windows.values(state)[0, 0]
    up = (center - begin) % (2 * np.pi)
    ways = np.array([[up], [up - 2 * np.pi]])
    assert ways[0, 0] > 0 > ways[1, 0]
    seen = []
    surface = Springs(np.zeros((4, 3)), np.zeros((12, 12)))

    class Watched(Springs):
        def __call__(self, state, *, stress=False):
            seen.append(windows.values(state)[:, 0])
            return surface(state)

    found = sample_windows(
        state,
        LangevinConfig(temperature=50.0, timestep=1.0, friction=0.05),
        Watched(np.zeros((4, 3)), np.zeros((12, 12))),
        windows,
        ways=ways,
        n_pull=1500,
        n_equilibrate=300,
        n_steps=300,
        every=10,
    )
    path = np.unwrap(np.array(seen[:1500]), axis=0)
    assert path[-1] - path[0] == pytest.approx(ways[:, 0], abs=0.8)
    assert found.mean(0)[:, 0] == pytest.approx([center, center], abs=0.1)


def test_windows_of_a_circle_lie_the_stated_spacing_apart():
    centers, stiffness = circle(25, kT=KT, spacing=1.8)
    sigma = np.sqrt(KT / stiffness)
    assert np.diff(centers) == pytest.approx(1.8 * sigma)
    assert centers[-1] + 1.8 * sigma == pytest.approx(centers[0] + 2 * np.pi)


def test_an_interval_may_run_through_the_end_of_the_circle():
    torsion = ((0, 1, 2, 3),)
    x = np.deg2rad([[170.0], [-170.0], [0.0], [149.0]])
    box = [(np.deg2rad(150), np.deg2rad(-150))]
    assert within(x, box, torsion).tolist() == [True, True, False, False]
    assert within(x, [None], torsion).all()
    assert within(x, [(-np.pi, np.pi)], torsion).all()
