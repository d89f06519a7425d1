"""Scores of the kinds umbrella, integration and classical are those of samples whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sapis_lab import units
from sapis_lab.config import ConfigError, load
from sapis_lab.evaluation import Subject
from sapis_lab.evaluation.classical import ClassicalConfig
from sapis_lab.evaluation.integration import IntegrationConfig
from sapis_lab.evaluation.umbrella import UmbrellaConfig
from sapis_lab.free_energy import lobatto
from sapis_lab.oracles.lennard_jones import LennardJonesConfig
from sapis_lab.quantities import quantity
from sapis_lab.report.baselines import baseline_rows

KT = units.KB * 300
TORSION = (0, 1, 2, 3)


# --------------------------------------------------------------------------------------------------- umbrella


def flat_walk(config, seed, n=200):
    """Samples (n, R, 1) of a torsion without any force of its own, in the windows of `config`."""
    windows = config._windows()
    spread = np.sqrt(KT / windows.stiffness[0])
    x = windows.centers[:, 0] + spread * np.random.default_rng(seed).normal(size=(n, len(windows.centers)))
    values = (x + np.pi) % (2 * np.pi) - np.pi
    return {"values": values[..., None], "centers": windows.centers, "stiffness": windows.stiffness}


def test_a_flat_torsion_has_the_free_energies_of_its_angles():
    config = UmbrellaConfig(
        torsions=(TORSION,), regions={"half": ((90.0, -90.0),)}, oracle=LennardJonesConfig()
    )
    parts = ["model-up-0", "model-down-0", "reference-up-0", "reference-down-0"]
    found = config.checked(config.score({p: flat_walk(config, k) for k, p in enumerate(parts)}))
    exact = -KT * np.log(140 / 220)
    assert found["delta_f"] == pytest.approx(exact, abs=3 * found["delta_f_error"])
    assert found["reference_delta_f"] == pytest.approx(exact, abs=3 * found["reference_error"])
    assert 1e-4 < found["delta_f_error"] < 0.01
    assert found["delta_f_difference"] == abs(found["delta_f"] - found["reference_delta_f"])
    assert found["hysteresis"] < 0.01 and found["profile_mae"] < 0.01
    assert found["population_half"] == pytest.approx(0.5, abs=0.08)
    assert found["solver_difference"] < 1e-5
    shown = quantity("umbrella_delta_f")
    assert (shown.display_unit, shown.display_factor) == ("kJ/mol", pytest.approx(96.485, abs=1e-3))


def test_windows_that_are_stuck_are_seen_by_the_hysteresis_alone():
    config = UmbrellaConfig(torsions=(TORSION,), n_windows=(12,), basin=((-90.0, 90.0),))
    walks = {"model-up-0": flat_walk(config, 0), "model-down-0": flat_walk(config, 1)}
    free = config.score(walks)
    for way, shift in (("up", -1.0), ("down", 1.0)):  # two windows keep the side that they come from
        values = walks[f"model-{way}-0"]["values"]
        for k in (9, 10):
            values[:, k] = values[:, k] + 0.5 * shift
    stuck = config.score(walks)
    assert stuck["delta_f_error"] < 2 * free["delta_f_error"]
    assert stuck["solver_difference"] < 1e-5
    assert stuck["hysteresis"] > 10 * max(free["hysteresis"], free["delta_f_error"])


def test_windows_of_an_arc_end_where_it_says_and_are_entered_from_both_ends():
    config = UmbrellaConfig(torsions=(TORSION,), n_windows=(5,), arc=(-190.0, 110.0))
    windows = config._windows()
    assert np.rad2deg(windows.centers[:, 0]) == pytest.approx([-190, -115, -40, 35, 110])
    sigma = np.sqrt(KT / windows.stiffness[0])
    assert np.deg2rad(75) == pytest.approx(1.8 * sigma)
    for begin, way in ((-185.0, "up"), (172.0, "up"), (105.0, "down"), (-248.0, "down")):
        ways = config._ways(windows, np.full((5, 1), np.deg2rad(begin)), way)
        ends = np.rad2deg(np.deg2rad(begin) + ways[:, 0] - windows.centers[:, 0])
        assert (ends + 180) % 360 - 180 == pytest.approx(np.zeros(5), abs=1e-9)
        assert np.abs(np.diff(ways[:, 0])) == pytest.approx(np.full(4, np.deg2rad(75)))
        assert np.abs(ways).max() <= np.deg2rad(320)


def test_around_a_circle_all_windows_are_entered_up_or_down():
    config = UmbrellaConfig(torsions=(TORSION,), n_windows=(8,))
    windows = config._windows()
    begin = np.full((8, 1), 0.3)
    up, down = (config._ways(windows, begin, way) for way in ("up", "down"))
    assert np.all((up > 0) & (up < 2 * np.pi)) and np.all((down < 0) & (down > -2 * np.pi))
    assert up - down == pytest.approx(np.full((8, 1), 2 * np.pi))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_windows": [9, 9]}, "n_windows has 2 numbers for 1 torsions"),
        ({"arc": [100, -100]}, "wanted an angle and a larger one"),
        ({"basin": [[0, 1], [0, 1]]}, "basin has 2 intervals for 1 torsions"),
        ({"spacing": 4}, "less than or equal to 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        load(UmbrellaConfig, {"kind": "umbrella", "torsions": [list(TORSION)], **given}, source="x")


# ------------------------------------------------------------------------------------------------ integration


def oscillators(n, seed, offset=0.0, stiffness=(1.0, 3.0)):
    """Energies (n, 7, 2) of exact samples between two oscillators in three dimensions, reduced stiffness."""
    coupling, weights = lobatto(7)
    k = (1 - coupling) * stiffness[0] + coupling * stiffness[1]
    x = np.random.default_rng(seed).normal(size=(n, 7, 3)) / np.sqrt(k)[:, None]
    squared = 0.5 * KT * (x**2).sum(-1)
    energies = np.stack([stiffness[0] * squared, stiffness[1] * squared - offset], -1)
    return {"energies": energies, "coupling": coupling, "weights": weights, "offset": np.array(offset)}


def test_a_switch_between_oscillators_has_its_free_energy():
    config = IntegrationConfig(oracle=LennardJonesConfig())
    found = config.checked(config.score({"up": oscillators(1500, 0), "down": oscillators(1500, 1)}))
    exact = 1.5 * KT * np.log(3)
    assert found["integration"] == pytest.approx(exact, abs=3 * found["integration_error"])
    assert found["mbar"] == pytest.approx(exact, abs=3 * found["mbar_error"])
    assert found["bar"] == pytest.approx(exact, abs=0.003)
    assert found["difference"] < 0.5 * units.KJ_PER_MOL_TO_EV and found["solver_difference"] < 1e-7
    assert found["hysteresis"] < 0.5 * units.KJ_PER_MOL_TO_EV


def test_parts_with_other_offsets_are_brought_together():
    config = IntegrationConfig(oracle=LennardJonesConfig())
    same = config.score({"up": oscillators(300, 0), "down": oscillators(300, 1)})
    other = config.score({"up": oscillators(300, 0), "down": oscillators(300, 1, offset=0.5)})
    assert other == pytest.approx(same, abs=1e-9)


# -------------------------------------------------------------------------------------------------- classical


def arrays(*, shift, noise=0.0):
    generator = np.random.default_rng(0)
    composition = generator.integers(1, 4, size=(30, 2))
    n_atoms = composition.sum(1)
    energy = generator.normal(size=30)
    forces = generator.normal(size=(n_atoms.sum(), 3))
    return {
        "n_atoms": n_atoms,
        "composition": composition,
        "energy": energy,
        "forces": forces,
        "energy_predicted": energy + composition @ np.array(shift) + noise * generator.normal(size=30),
        "forces_predicted": forces + 0.1,
    }


def times():
    return {"force_field": np.array([1e-4, 2e-4, 9.0]), "model": np.array([1e-3, 1e-3, 1e-3])}


def test_energies_are_compared_without_what_each_element_adds():
    config = ClassicalConfig(oracle=LennardJonesConfig())
    found = config.checked(config.score({"test": arrays(shift=[-700.0, 30.0]), "times": times()}))
    assert found["test_energy_rmse_of_force_field"] == pytest.approx(0, abs=1e-9)
    assert found["test_force_rmse_of_force_field"] == pytest.approx(0.1)
    assert found["test_force_mae_of_force_field"] == pytest.approx(0.1)
    assert found["seconds_per_step"] == 2e-4 and found["speed"] == pytest.approx(5.0)
    noisy = config.score({"test": arrays(shift=[-700.0, 30.0], noise=0.2), "times": times()})
    assert 0.1 < noisy["test_energy_rmse_of_force_field"] < 0.3


def test_frames_that_cannot_be_labelled_are_counted_and_all_of_them_refused():
    config = ClassicalConfig(oracle=LennardJonesConfig())
    some = arrays(shift=[1.0, 2.0])
    some["energy_predicted"][:15] = np.nan
    some["forces_predicted"][: some["n_atoms"][:15].sum()] = np.nan
    found = config.score({"test": some, "times": times()})
    assert found["test_unlabelled"] == 0.5 and found["test_force_rmse_of_force_field"] == pytest.approx(0.1)
    some["energy_predicted"][:] = np.nan
    with pytest.raises(ValueError, match="could not label any frame of test"):
        config.score({"test": some, "times": times()})


def test_the_surface_that_labelled_the_frames_has_no_error(chains: Subject):
    """Frames labelled by an oracle of their own: forces are equal to what is stored."""
    oracle = LennardJonesConfig(
        atoms={s: {"epsilon": 0.01, "sigma": 1.0} for s in ("H", "O")}, truncation="shifted"
    )
    config = ClassicalConfig(oracle=oracle, repeats=1)
    found = config.measure(chains, "test")
    first = chains.structures(chains.store.splits["test"][:1])[0]
    label = oracle.label(first.species, first.positions)
    assert found["forces_predicted"][:4] == pytest.approx(label.forces)
    assert found["energy_predicted"][0] == pytest.approx(label.energy)
    perfect = {**found, "energy": found["energy_predicted"], "forces": found["forces_predicted"]}
    scores = config.score({"test": perfect, "times": times()})
    assert scores["test_force_rmse_of_force_field"] == 0 and scores["energy_spearman"] == pytest.approx(1.0)


def test_force_fields_stand_in_the_table_of_baselines():
    runs = pd.DataFrame(
        {
            "status": "done",
            "model": "geat",
            "family": "geat",
            "n_frames": [10],
            "n_params": [1000],
            "seed": [0],
            "learning_rate": [0.01],
            "lmax": [2],
            "symmetry": "O(3)",
            "batch_size": [16],
            "id": ["a"],
            "val_force_rmse": [0.01],
            "test_force_rmse": [0.01],
            "classical-ff14SB_test_force_rmse_of_force_field": [0.2],
            "classical-MMFF94_test_force_rmse_of_force_field": [0.4],
        }
    )
    found = baseline_rows(runs, quantity("val_force_rmse"))
    assert found is not None
    assert [(r["name"], r["text"], r["ratio"]) for r in found["rows"]] == [
        ("force field (classical-ff14SB)", "200", ""),
        ("force field (classical-MMFF94)", "400", ""),
        ("geat", "10", "0.05"),
    ]
