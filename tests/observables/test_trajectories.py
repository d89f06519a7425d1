"""What is known of a trajectory by construction is found in it."""

from __future__ import annotations

import numpy as np
import pytest

from sapis_lab.observables import kinetics, spectra, statistics, structure, transport


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -------------------------------------------------------------------------------------------------- distances


def test_a_perfect_gas_has_g_of_one_whatever_its_size() -> None:
    for n in (2, 40):
        frames = 30_000 if n == 2 else 60
        x = generator().uniform(-20, 20, (frames, n, 3))
        g = structure.pair_distribution(x, 8 * np.eye(3), np.full(n, 18), n_bins=8).g
        assert g[4:] == pytest.approx(np.ones(4), abs=0.06)


def test_the_coordination_of_a_crystal_counts_its_shells() -> None:
    from ase.build import bulk

    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (3, 3, 3)
    found = structure.pair_distribution(
        atoms.positions[None], atoms.cell.array, atoms.numbers, n_bins=108, r_max=5.4
    )
    shells = {3.6 / np.sqrt(2): 12, 3.6: 18, 3.6 * np.sqrt(1.5): 42, 3.6 * np.sqrt(2): 54}
    for r, wanted in shells.items():
        assert found.coordination[np.searchsorted(found.r, r + 0.1)] == pytest.approx(wanted)


def test_a_mixture_is_normalised_by_the_number_of_the_other_kind() -> None:
    n = 60
    x = generator(1).uniform(0, 9, (400, n, 3))
    species = np.where(np.arange(n) < 12, 8, 1)
    cell = 9 * np.eye(3)
    for pair in ((8, 8), (8, 1), (1, 8), (1, 1)):
        found = structure.pair_distribution(x, cell, species, pair=pair, n_bins=6)
        assert found.g[2:] == pytest.approx(np.ones(4), abs=0.06), pair
    one, other = (structure.pair_distribution(x, cell, species, pair=p).g for p in ((8, 1), (1, 8)))
    assert np.allclose(one, other)


def test_distances_through_a_skewed_cell_are_those_of_a_neighbor_list() -> None:
    from sapis_lab.neighbors import neighbor_list

    cell = np.array([[9.0, 0, 0], [3.5, 8.0, 0], [-2.0, 2.5, 7.5]])
    x = generator(2).uniform(0, 9, (1, 20, 3))
    r_max = 3.0
    found = structure.pair_distribution(x, cell, np.full(20, 6), r_max=r_max, n_bins=30)
    pairs = neighbor_list(x[0], cell, True, r_max)
    v = x[0][pairs.neighbor] + pairs.shift @ cell - x[0][pairs.center]
    counts = np.histogram(np.linalg.norm(v, axis=1), bins=30, range=(0, r_max))[0]
    assert np.diff(found.coordination, prepend=0) * 20 == pytest.approx(counts)


def test_distances_beyond_half_of_the_cell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"r_max=5 Å, wanted at most half of the smallest height.*4 Å"):
        structure.pair_distribution(np.zeros((1, 2, 3)), 8 * np.eye(3), np.array([1, 1]), r_max=5.0)


def test_mdtraj_finds_the_same_distribution_angles_and_sizes() -> None:
    mdtraj = pytest.importorskip("mdtraj")
    x = generator(3).uniform(0, 12, (5, 30, 3))
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for k in range(30):
        topology.add_atom(f"A{k}", mdtraj.element.argon, residue)
    t = mdtraj.Trajectory(
        x / 10, topology, unitcell_lengths=np.full((5, 3), 1.2), unitcell_angles=np.full((5, 3), 90.0)
    )
    pairs = t.topology.select_pairs("all", "all")
    _, g = mdtraj.compute_rdf(t, pairs, r_range=(0, 0.6), n_bins=30)
    ours = structure.pair_distribution(x, 12 * np.eye(3), np.full(30, 18), r_max=6.0, n_bins=30)
    assert ours.g == pytest.approx(g, rel=2e-2, abs=2e-2)  # distances in float32 fall into other bins
    quads = generator(4).permutation(30)[:28].reshape(7, 4)
    theirs = mdtraj.compute_dihedrals(t, quads, periodic=False)
    assert np.abs(np.angle(np.exp(1j * (structure.torsions(x, quads) - theirs)))).max() < 1e-4
    theirs = mdtraj.compute_angles(t, quads[:, :3], periodic=False)
    assert structure.angles(x, quads[:, :3]) == pytest.approx(theirs, abs=1e-4)
    masses = np.ones(30)  # with others mdtraj takes them about the middle of the positions
    assert structure.radius_of_gyration(x, masses) / 10 == pytest.approx(mdtraj.compute_rg(t), abs=1e-6)


def test_the_signs_of_torsions_are_those_of_iupac() -> None:
    x = np.array([[[0, 1, 0], [0, 0, 0], [0, 0, 1], [0.0, 1, 1]]])
    assert structure.torsions(x, np.array([[0, 1, 2, 3]]))[0, 0] == pytest.approx(0)
    x[0, 3] = [1.0, 0, 1]  # clockwise by 90 degrees, looking along +z
    assert np.degrees(structure.torsions(x, np.array([[0, 1, 2, 3]]))[0, 0]) == pytest.approx(-90)


def test_angles_of_random_directions_have_a_flat_density() -> None:
    x = generator(6).normal(size=(60000, 3, 3))
    x[:, 1] = 0
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    _, density = structure.angle_density(structure.angles(x, np.array([[0, 1, 2]])), n_bins=10)
    assert density == pytest.approx(np.full(10, 0.5), abs=0.03)


def test_bonds_that_turn_are_found_and_rings_are_not() -> None:
    from ase.build import molecule

    for name, all_, heavy in (("CH3CH2OH", 3 - 1, 0), ("C6H6", 0, 0), ("trans-butane", 3, 1)):
        atoms = molecule(name)
        found = structure.rotatable_torsions(atoms.numbers, atoms.positions)
        assert len(found) == all_, name
        without = structure.rotatable_torsions(atoms.numbers, atoms.positions, hydrogens=False)
        assert len(without) == heavy, name


# ------------------------------------------------------------------------------------------------- statistics


def test_a_torsion_is_turned_to_its_angle_and_nothing_else_changes() -> None:
    from ase.build import molecule

    atoms = molecule("trans-butane")
    quads = structure.rotatable_torsions(atoms.numbers, atoms.positions)
    for angle in (-2.5, 0.4, 3.0):
        x = structure.turned_torsion(atoms.numbers, atoms.positions, atoms.positions, quads[1], angle=angle)
        assert structure.torsions(x[None], quads)[0, 1] == pytest.approx(angle)
        bonds = structure.bonded_pairs(atoms.numbers, atoms.positions)
        before, after = (
            np.linalg.norm(y[bonds[:, 0]] - y[bonds[:, 1]], axis=1) for y in (atoms.positions, x)
        )
        assert after == pytest.approx(before)


def test_the_error_of_a_correlated_mean_is_that_of_its_blocks() -> None:
    """An AR(1) series has a variance of the mean of (1 + a)/(1 - a)/n; naive errors are 4.4 times too
    small."""
    g, a, n = generator(7), 0.9, 200_000
    noise = g.normal(size=n) * np.sqrt(1 - a * a)
    x = np.zeros(n)
    for k in range(1, n):
        x[k] = a * x[k - 1] + noise[k]
    found = statistics.block_mean(x, n_blocks=100)
    assert found.error == pytest.approx(np.sqrt((1 + a) / (1 - a) / n), rel=0.2)


def test_divergences_have_their_limits_and_their_floor() -> None:
    assert statistics.jensen_shannon([1, 2, 3], [2, 4, 6]) == pytest.approx(0, abs=1e-12)
    assert statistics.jensen_shannon([1, 0], [0, 5]) == pytest.approx(np.log(2))
    g, m, n = generator(8), 36, 2000
    found = [
        statistics.jensen_shannon(*(np.bincount(g.integers(m, size=n), minlength=m) for _ in range(2)))
        for _ in range(60)
    ]
    assert np.mean(found) == pytest.approx((m - 1) / (4 * n), rel=0.1)
    with pytest.raises(ValueError, match="2 and 3 bins"):
        statistics.jensen_shannon([1, 1], [1, 1, 1])


def test_a_bootstrap_over_blocks_sees_that_blocks_differ() -> None:
    alike = [np.array([50.0, 50.0])] * 8
    apart = [np.array([100.0, 0.0]), np.array([0.0, 100.0])] * 4

    def share(a: np.ndarray, b: np.ndarray) -> float:
        return float(a[0] / a.sum() - b[0] / b.sum())

    assert statistics.block_bootstrap(alike, alike, share).error == pytest.approx(0)
    found = statistics.block_bootstrap(apart, alike, share, n_samples=2000)
    assert found.value == pytest.approx(0) and found.error == pytest.approx(0.5 / np.sqrt(8), rel=0.1)


def test_ranks_are_those_of_scipy() -> None:
    from scipy.stats import spearmanr

    x, y = generator(9).normal(size=(2, 30))
    y[3] = y[7]
    assert statistics.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(statistics.spearman(np.ones(3), np.arange(3.0)))


# -------------------------------------------------------------------------------------------------- transport


def test_displacements_by_fourier_transforms_are_those_of_the_definition() -> None:
    x = np.cumsum(generator(10).normal(size=(50, 4, 3)), axis=0) + 1e3
    slow = [((x[k:] - x[: len(x) - k]) ** 2).sum(-1).mean() for k in range(50)]
    assert transport.mean_squared_displacement(x) == pytest.approx(slow, abs=1e-8)


def test_brownian_paths_have_their_coefficient() -> None:
    """30 particles, 10^5 steps in three directions, times of 10 to 40 steps: D to 1 %."""
    d, dt = 0.05, 2.0
    steps = np.sqrt(2 * d * dt) * generator(11).normal(size=(100_000, 30, 3)).astype(np.float32)
    x = np.cumsum(steps, axis=0, dtype=np.float64)
    found = transport.diffusion(x, timestep=dt, n_blocks=4, fit=(1e-4, 4e-4))
    assert found.value == pytest.approx(d, rel=0.01)
    assert 0 < found.error < 0.01 * d


def test_the_error_of_a_coefficient_is_its_scatter() -> None:
    """Deviations over errors have the spread of Student's t with seven degrees of freedom, 1.18."""
    g, d = generator(15), 0.5
    found = [
        transport.diffusion(np.cumsum(g.normal(size=(800, 4, 3)), axis=0), timestep=1.0, n_blocks=8)
        for _ in range(150)
    ]
    z = np.array([(one.value - d) / one.error for one in found])
    assert abs(z.mean()) < 0.3 and z.std() == pytest.approx(1.18, abs=0.25)


def test_a_ballistic_path_grows_with_the_square_of_time() -> None:
    v = generator(12).normal(size=(1, 5, 3))
    time = 2.0 * np.arange(40)
    found = transport.mean_squared_displacement(time[:, None, None] * v)
    assert found == pytest.approx(time**2 * (v**2).sum(-1).mean())


def test_a_drift_of_the_whole_is_no_diffusion() -> None:
    x = np.zeros((40, 6, 3)) + np.arange(40)[:, None, None]
    assert transport.diffusion(x, timestep=1.0, masses=np.arange(1.0, 7)).value == pytest.approx(0, abs=1e-9)


def test_wrapped_paths_are_followed_through_the_boundary_of_a_skewed_and_changing_cell() -> None:
    cell = np.array([[6.0, 0, 0], [2.0, 5.0, 0], [-1.0, 1.0, 7.0]])
    fractions = np.cumsum(0.1 * generator(13).normal(size=(300, 5, 3)), axis=0)
    cells = cell * (1 + 0.05 * np.sin(np.arange(300) / 20))[:, None, None]
    whole = fractions @ cells
    found = transport.unwrapped((fractions % 1.0) @ cells, cells)
    offset = np.round((found[0] - whole[0]) @ np.linalg.inv(cells[0]))
    assert np.allclose(found - offset @ cells, whole)


def test_the_note_on_size_is_that_of_water() -> None:
    """216 TIP3P waters, 298 K, box 18.6 Å, 0.31 mPa s: +1.0e-5 cm²/s within a tenth."""
    more = transport.yeh_hummer(temperature=298, viscosity=0.31, length=18.6) * transport.CM2_PER_S
    assert more == pytest.approx(1.07e-5, rel=0.03)


# ---------------------------------------------------------------------------------------------------- spectra


def test_oscillators_have_their_lines_each_with_an_equal_share_of_the_heat() -> None:
    dt, n, lines = 0.5, 40_000, np.array([800.0, 1600.0, 3200.0])
    masses = np.array([1.0, 12.0, 16.0])
    omega = 2 * np.pi * spectra.CM_PER_FS * lines
    time = dt * np.arange(n)
    v = np.zeros((n, 3, 3))
    v[:, :, 0] = np.cos(omega * time[:, None] + 1) / np.sqrt(masses)
    found = spectra.vibrational_density(v, masses, timestep=dt)
    assert spectra.peaks(found) == pytest.approx(lines, abs=0.2)
    step = found.wavenumber[1]
    for line in lines:
        near = np.abs(found.wavenumber - line) < 200
        assert found.density[near].sum() * step == pytest.approx(1 / 3, rel=1e-3)


def test_a_dipole_absorbs_with_the_square_of_the_frequency() -> None:
    dt, time = 0.5, 0.5 * np.arange(40_000)
    mu = np.zeros((len(time), 3))
    for line in (1000.0, 2000.0):
        mu[:, 0] += np.cos(2 * np.pi * spectra.CM_PER_FS * line * time)
    found = spectra.infrared(mu + 5.0, timestep=dt)
    a, b = (found.density[np.abs(found.wavenumber - line) < 200].sum() for line in (1000, 2000))
    assert b / a == pytest.approx(4, rel=0.01)


def test_a_spectrum_is_near_itself_and_far_from_a_shifted_one() -> None:
    nu = np.arange(0, 4000, 2.0)

    def line(at: float) -> spectra.Spectrum:
        return spectra.Spectrum(nu, np.exp(-0.5 * ((nu - at) / 20) ** 2))

    assert spectra.cosine(line(1000), line(1000)) == pytest.approx(1)
    assert spectra.cosine(line(1000), line(1020)) == pytest.approx(np.exp(-0.25), rel=1e-4)
    assert spectra.peak_shifts(np.array([990.0, 3010.0]), np.array([1000.0, 3000.0])).tolist() == [-10, 10]
    wide = spectra.broadened(line(1000), 15.0)
    assert wide.density.max() == pytest.approx(20 / np.hypot(20, 15), rel=1e-3)


def test_the_shift_of_velocity_verlet_is_taken_away() -> None:
    dt, line = 1.0, 3000.0
    omega, x, v, seen = 2 * np.pi * spectra.CM_PER_FS * line, 1.0, 0.0, []
    for _ in range(60_000):
        v -= 0.5 * dt * omega**2 * x
        x += dt * v
        v -= 0.5 * dt * omega**2 * x
        seen.append(v)
    found = spectra.vibrational_density(
        np.array(seen)[:, None, None] * np.array([1.0, 0, 0]), np.ones(1), timestep=dt, segment=20_000
    )
    peak = spectra.peaks(found)
    assert peak[0] > line + 30
    assert spectra.without_verlet_shift(peak, timestep=dt) == pytest.approx([line], abs=0.3)


# --------------------------------------------------------------------------------------------------- kinetics


def hops(n: int, rate: float, seed: int) -> np.ndarray:
    """An angle that sits in one of two wells and changes with a probability `rate` a step, so that its
    slowest time scale is -1/ln(1 - 2 rate)."""
    g = generator(seed)
    well = np.cumsum(g.random(n) < rate) % 2
    return np.where(well, 2.8, -0.5) + 0.2 * g.normal(size=n)


def test_the_time_between_hops_is_found_from_states_and_from_features() -> None:
    rate = 0.01
    wanted = -1 / np.log(1 - 2 * rate)
    runs = [hops(40_000, rate, seed) for seed in range(5)]
    states = [structure_states(x) for x in runs]
    assert kinetics.markov_timescales(states, lag=10, n_states=18)[0] == pytest.approx(wanted, rel=0.08)
    features = [kinetics.circle(x) for x in runs]
    assert kinetics.tica_timescales(features, lag=10)[0] == pytest.approx(wanted, rel=0.08)


def structure_states(angle: np.ndarray) -> np.ndarray:
    found = kinetics.angle_states(angle)
    assert found.min() >= 0 and found.max() < 18
    return found


def test_an_autocorrelation_decays_as_its_process() -> None:
    x = hops(100_000, 0.02, 3)
    found = kinetics.autocorrelation(np.sign(np.cos(x)))
    assert found[0] == 1 and found[20] == pytest.approx((1 - 0.04) ** 20, abs=0.05)


def test_a_lag_longer_than_the_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match="lag=50 steps, wanted at least 1 and less than the longest"):
        kinetics.tica_timescales([np.zeros((20, 2))], lag=50)
