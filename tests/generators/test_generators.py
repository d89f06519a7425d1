"""Generated structures have the statistics, energies and angles that their settings say."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from sapis_lab import units
from sapis_lab.config import ConfigError, kind_class, kinds, load
from sapis_lab.generators import GeneratorConfig, Start
from sapis_lab.generators.normal_modes import NormalModesConfig, normal_modes, relaxed
from sapis_lab.generators.rattled import RattledConfig
from sapis_lab.generators.restrained import RestrainedConfig
from sapis_lab.generators.torsions import TorsionsConfig, torsion_angle, turning

WATER = Start(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]]),
    np.array([15.999, 1.008, 1.008]),
)
CRYSTAL = Start(
    np.full(8, 14),
    5.43
    * np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]])
    / 4,
    np.full(8, 28.085),
    5.43 * np.eye(3),
    (True, True, True),
)
BONDS = ((0, 1, 0.96, 30.0), (0, 2, 0.96, 30.0), (1, 2, 1.52, 10.0))


def springs(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Water of three springs: invariant to translations and rotations, harmonic in the distances."""
    energy, forces = 0.0, np.zeros_like(x)
    for i, j, rest, k in BONDS:
        v = x[j] - x[i]
        r = np.linalg.norm(v)
        energy += 0.5 * k * (r - rest) ** 2
        pull = k * (r - rest) * v / r
        forces[i] += pull
        forces[j] -= pull
    return energy, forces


def nothing(x: np.ndarray) -> tuple[float, np.ndarray]:
    return 0.0, np.zeros_like(x)


def butane() -> Start:
    """n-Butane's carbons and some hydrogens, anti."""
    x = np.array([[-1.9, 0.3, 0], [-0.6, -0.5, 0], [0.6, 0.4, 0], [1.9, -0.4, 0], [2.75, 0.28, 0]])
    return Start(np.array([6, 6, 6, 6, 1]), x, np.array([12.011] * 4 + [1.008]))


SETTINGS = {
    "torsions": {"torsions": [[0, 1, 2, 3]], "spacing": "random"},
    "restrained": {"torsions": [[0, 1, 2, 3]], "n_steps": 20, "descent": 5},
}
STARTS = {"torsions": butane(), "restrained": butane()}


@pytest.mark.parametrize("kind", kinds("generators"))
def test_every_kind_makes_as_many_as_asked_and_the_same_by_the_same_seed(kind):
    config = load(kind_class("generators", kind, GeneratorConfig), SETTINGS.get(kind, {}), source=kind)
    start = STARTS.get(kind, WATER)
    before = start.positions.copy()
    made, again, other = (
        config.generate(start, springs, n=4, generator=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert len(made) == 4 and all(c.positions.shape == start.positions.shape for c in made)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(made, again, strict=True))
    assert not any(np.allclose(a.positions, b.positions) for a, b in zip(made, other, strict=True))
    assert len({c.positions.tobytes() for c in made}) == 4
    np.testing.assert_array_equal(start.positions, before)


def test_rattled_atoms_have_the_spread_that_was_asked_for():
    made = RattledConfig(displacement=0.03).generate(
        CRYSTAL, nothing, n=400, generator=np.random.default_rng(0)
    )
    moved = np.array([c.positions - CRYSTAL.positions for c in made])
    assert moved.std() == pytest.approx(0.03, rel=0.02) and abs(moved.mean()) < 2e-3
    assert all(np.array_equal(c.cell, CRYSTAL.cell) for c in made)


def test_strain_deforms_cell_and_atoms_alike_and_turns_nothing():
    made = RattledConfig(displacement=0.0, strain=0.02).generate(
        CRYSTAL, nothing, n=400, generator=np.random.default_rng(0)
    )
    strains = []
    for one in made:
        np.testing.assert_allclose(
            one.positions @ np.linalg.inv(one.cell), CRYSTAL.positions / 5.43, atol=1e-12
        )
        strain = np.linalg.inv(CRYSTAL.cell) @ one.cell - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        strains.append(strain)
    assert np.std([s[0, 0] for s in strains]) == pytest.approx(0.02, rel=0.1)
    assert np.std([s[0, 1] for s in strains]) == pytest.approx(0.02 / np.sqrt(2), rel=0.1)


def test_structures_whose_atoms_come_too_close_are_drawn_again_and_in_vain_refused():
    made = RattledConfig(displacement=0.3, min_distance=0.8).generate(
        WATER, nothing, n=200, generator=np.random.default_rng(0)
    )
    nearest = [min(np.linalg.norm(c.positions[i] - c.positions[j]) for i, j, *_ in BONDS) for c in made]
    assert min(nearest) >= 0.8
    with pytest.raises(ValueError, match=r"in each of 1000 draws atoms .* closer than min_distance=3\.0 Å"):
        RattledConfig(min_distance=3.0).generate(WATER, nothing, n=1, generator=np.random.default_rng(0))


def test_a_relaxed_structure_has_no_forces():
    x = relaxed(WATER, springs, max_force=1e-4)
    assert np.abs(springs(x)[1]).max() < 1e-4
    assert [float(np.linalg.norm(x[j] - x[i])) for i, j, *_ in BONDS] == pytest.approx(
        [b[2] for b in BONDS], abs=1e-4
    )


def test_normal_modes_of_a_diatomic_have_the_frequency_of_its_spring():
    start = Start(np.array([6, 8]), np.array([[0.0, 0, 0], [1.1, 0, 0]]), np.array([12.0, 16.0]))

    def spring(x):
        r = np.linalg.norm(x[1] - x[0])
        pull = 100.0 * (r - 1.1) * (x[1] - x[0]) / r
        return 50.0 * (r - 1.1) ** 2, np.array([pull, -pull])

    modes = normal_modes(start, spring, step=1e-3)
    reduced = 12.0 * 16.0 / 28.0
    assert modes.curvature == pytest.approx([100.0 / reduced], rel=1e-5)  # five motions cost nothing
    assert np.abs(modes.displacement[0, :, 1:]).max() < 1e-6


def test_a_molecule_has_three_n_minus_six_modes_and_a_crystal_three_n_minus_three():
    at_rest = WATER._replace(positions=relaxed(WATER, springs, max_force=1e-6))
    modes = normal_modes(at_rest, springs, step=1e-3)
    assert len(modes.curvature) == 3 and modes.curvature.min() > 0
    momentum = (WATER.masses[:, None] * modes.displacement).sum(1)
    assert np.abs(momentum).max() < 1e-10

    def tethers(x):
        return 0.5 * ((x - CRYSTAL.positions) ** 2).sum(), CRYSTAL.positions - x

    assert len(normal_modes(CRYSTAL, tethers, step=1e-3).curvature) == 21


def test_thermal_modes_have_half_kt_each():
    config = NormalModesConfig(temperature=100.0)
    made = config.generate(WATER, springs, n=2000, generator=np.random.default_rng(0))
    mean = np.mean([springs(c.positions)[0] for c in made])
    assert mean == pytest.approx(3 * 0.5 * units.KB * 100.0, rel=0.05)


def test_modes_of_ani_stay_below_their_energy():
    config = NormalModesConfig(temperature=20.0, distribution="ani")
    made = config.generate(WATER, springs, n=500, generator=np.random.default_rng(0))
    energies = np.array([springs(c.positions)[0] for c in made])
    bound = 1.5 * 3 * units.KB * 20.0
    assert energies.max() < 1.05 * bound and energies.mean() == pytest.approx(bound / 2, rel=0.1)


def test_a_start_that_is_no_minimum_is_refused():
    with pytest.raises(ValueError, match="the largest force of the start is .* set relax: true"):
        NormalModesConfig(relax=False).generate(WATER, springs, n=1, generator=np.random.default_rng(0))

    def hill(x):
        return -springs(x)[0], -springs(x)[1]

    top = WATER._replace(positions=relaxed(WATER, springs, max_force=1e-6))
    with pytest.raises(ValueError, match="the start is no minimum, 3 of its 3 modes fall away"):
        NormalModesConfig(relax=False).generate(top, hill, n=1, generator=np.random.default_rng(0))


def test_a_scan_goes_evenly_around_and_changes_no_bond():
    four, start = (0, 1, 2, 3), butane()
    made = TorsionsConfig(torsions=[four]).generate(start, nothing, n=12, generator=np.random.default_rng(0))
    first = torsion_angle(start.positions, four)
    for k, one in enumerate(made):
        turn = (torsion_angle(one.positions, four) - first) % (2 * np.pi)
        assert np.exp(1j * turn) == pytest.approx(np.exp(2j * np.pi * k / 12), abs=1e-9)
        by_ase = Atoms(start.species, one.positions).get_dihedral(*four)
        assert np.rad2deg(torsion_angle(one.positions, four)) % 360 == pytest.approx(by_ase, abs=1e-6)
        for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (1, 3), (2, 4)):
            assert np.linalg.norm(one.positions[j] - one.positions[i]) == pytest.approx(
                np.linalg.norm(start.positions[j] - start.positions[i])
            )
    assert turning(start, four).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("four", "message"),
    [
        ((0, 1, 2, 9), "names atom 9 of 5 atoms"),
        ((0, 2, 1, 3), "atoms 0 and 2 of .* are not bonded"),
    ],
)
def test_torsions_that_are_none_are_refused(four, message):
    with pytest.raises(ValueError, match=message):
        turning(butane(), four)


def test_a_bond_of_a_ring_cannot_turn():
    angles = np.arange(6) * np.pi / 3
    ring = Start(
        np.full(6, 6),
        1.4 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1),
        np.full(6, 12.0),
    )
    with pytest.raises(ValueError, match="the bond of 1 and 2 is part of a ring"):
        turning(ring, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("config", "start", "message"),
    [
        (RattledConfig(strain=0.1), WATER, "strain=0.1 wants three periodic directions"),
        (TorsionsConfig(torsions=[(0, 1, 2, 3)]), CRYSTAL, "got a periodic structure"),
        (TorsionsConfig(torsions=[(0, 1, 2, 3), (1, 2, 3, 4)]), butane(), "even is for one torsion, got 2"),
    ],
)
def test_starts_that_a_kind_cannot_use_are_refused(config, start, message):
    with pytest.raises(ValueError, match=message):
        config.generate(start, nothing, n=2, generator=np.random.default_rng(0))


def test_settings_without_effect_are_refused():
    with pytest.raises(ConfigError, match="all structures would be the same"):
        load(RattledConfig, {"displacement": 0}, source="x")
    with pytest.raises(ConfigError, match="are not four different atoms"):
        load(TorsionsConfig, {"torsions": [[0, 1, 1, 2]]}, source="x")


# ------------------------------------------------------------------------------------------------- restrained


def chain(x):
    """Five springs of 20 eV/Å² that leave the torsion of four atoms, and a fifth atom, alone."""
    rest = butane().positions
    energy, forces = 0.0, np.zeros_like(x)
    for i, j in ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3)):
        v = x[j] - x[i]
        r = np.linalg.norm(v)
        apart = r - np.linalg.norm(rest[j] - rest[i])
        energy += 10.0 * apart**2
        forces[i] += 20.0 * apart * v / r
        forces[j] -= 20.0 * apart * v / r
    return energy, forces


def test_restrained_structures_are_thermal_at_all_torsions():
    config = RestrainedConfig(torsions=[(0, 1, 2, 3)], temperature=300, n_steps=300, descent=10, timestep=2.0)
    made = config.generate(butane(), chain, n=120, generator=np.random.default_rng(0))
    torsions = [torsion_angle(c.positions, (0, 1, 2, 3)) for c in made]
    quarters = np.histogram(torsions, bins=4, range=(-np.pi, np.pi))[0]
    assert quarters.min() > 15
    mean = np.mean([chain(c.positions)[0] for c in made])
    assert mean == pytest.approx(2.5 * units.KB * 300, rel=0.25)  # kT/2 of each spring


def test_a_restrained_torsion_stays_within_its_spread_of_where_it_was_turned_to():
    config = RestrainedConfig(torsions=[(0, 1, 2, 3)], spread=2.0, n_steps=300, descent=10)
    begin = torsion_angle(butane().positions, (0, 1, 2, 3))
    for seed in range(5):
        wanted = begin + 2 * np.pi * np.random.default_rng(seed).random(1)[0]
        (one,) = config.generate(butane(), chain, n=1, generator=np.random.default_rng(seed))
        apart = np.rad2deg(torsion_angle(one.positions, (0, 1, 2, 3)) - wanted)
        assert abs((apart + 180) % 360 - 180) < 8.0


def test_a_restrained_crystal_is_refused():
    with pytest.raises(ValueError, match="turns parts of molecules, got a periodic structure"):
        RestrainedConfig(torsions=[(0, 1, 2, 3)]).generate(
            CRYSTAL, nothing, n=1, generator=np.random.default_rng(0)
        )
