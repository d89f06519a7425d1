"""A potential that is its own reference has no error, one with a known fault has it at its size."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sapis_lab.config import kind_class
from sapis_lab.evaluation import Evaluation, Subject
from sapis_lab.observables.surfaces import of_oracle
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig


def kind(name: str, **settings: Any) -> Any:
    return kind_class("evaluation", name)(**settings)


class Exact:
    """An oracle in the place of a trained potential."""

    dtype = torch.float64

    def __init__(self, oracle: Any, species: tuple[int, ...]) -> None:
        self.predict = of_oracle(oracle)
        self.model = SimpleNamespace(species=species, gives_energy=True, cutoff=5.0)


def measured(evaluation: Evaluation, subject: Subject) -> dict[str, dict[str, np.ndarray]]:
    return {part: evaluation.measure(subject, part) for part in evaluation.parts(subject)}


SILICON = StillingerWeberConfig()
STRONG = StillingerWeberConfig(epsilon=1.1 * SILICON.epsilon)
BULK = {"crystal": "Si", "lattice": "diamond", "a": 5.40, "max_force": 1e-4}


# --------------------------------------------------------------------------------------------------- crystals


def test_the_elastic_constants_of_the_reference_itself_have_no_error(crystals: Subject) -> None:
    subject = replace(crystals, potential=Exact(SILICON, (14,)))
    evaluation = kind("elastic", reference=SILICON, **BULK)
    raw = measured(evaluation, subject)
    found = evaluation.score(raw)
    assert found["mae"] < 1e-6 and found["stable"] == 1
    assert found["C11"] == pytest.approx(151.4, abs=0.3) and found["C44"] == pytest.approx(56.4, abs=0.3)
    published = kind("elastic", published={"C11": 150.0, "C12": 76.4}, **BULK)
    wanted = (abs(found["C11"] - 150) + abs(found["C12"] - 76.4)) / 2
    assert published.score({"potential": raw["potential"]})["mae"] == pytest.approx(wanted)


def test_a_tenth_more_energy_is_a_tenth_of_the_modulus_and_its_root_of_the_phonons(crystals: Subject) -> None:
    subject = replace(crystals, potential=Exact(STRONG, (14,)))
    evaluation = kind("equation_of_state", reference=SILICON, n_volumes=7, **BULK)
    found = evaluation.score(measured(evaluation, subject))
    assert found["bulk_modulus_error"] == pytest.approx(0.1, abs=1e-3) and found["volume_error"] < 1e-5
    assert found["has_minimum"] == 1 and found["energy_mae"] > 0
    pytest.importorskip("phonopy")
    evaluation = kind("phonons", reference=SILICON, mesh=(3, 3, 3), supercell=(1, 1, 1), **BULK)
    raw = measured(evaluation, subject)
    found = evaluation.score(raw)
    top = raw["reference"]["frequencies"].max()
    assert found["max_error"] == pytest.approx((np.sqrt(1.1) - 1) * top, rel=0.02)
    assert found["lowest"] > -0.05


def test_molecules_and_unknown_elements_are_no_crystals(subject: Subject, crystals: Subject) -> None:
    with pytest.raises(ValueError, match="elastic wants a crystal; the first test frame is not periodic"):
        kind("elastic").parts(subject)
    with pytest.raises(ValueError, match=r"crystal Si has atomic numbers \[14\], which the potential does"):
        kind("elastic", crystal="Si").parts(crystals)
    with pytest.raises(ValueError, match="published has 'C77', wanted names such as C11"):
        kind("elastic", published={"C77": 1.0})


# ------------------------------------------------------------------------------------------------- vibrations


def test_the_vibrations_of_the_reference_itself_have_no_error(ethanols: Subject) -> None:
    pytest.importorskip("tblite")
    from sapis_lab.oracles.xtb import XtbConfig

    oracle = XtbConfig()
    subject = replace(ethanols, potential=Exact(oracle, (1, 6, 8)))
    evaluation = kind("vibrations", reference=oracle)
    found = evaluation.score(measured(evaluation, subject))
    assert found["max_error"] == 0 and found["imaginary"] == 0 and found["converged"] == 1
    assert 3400 < found["highest"] < 3800


def test_a_shift_of_a_line_is_an_error_of_its_size() -> None:
    lines = np.array([500.0, 1500.0, 3000.0])

    def one(wavenumber: np.ndarray) -> dict[str, np.ndarray]:
        return {"wavenumber": wavenumber, "asymmetry": np.array(0.0), "converged": np.array(1.0)}

    raw = {"potential-0": one(lines + [0, 10, -20]), "reference-0": one(lines)}
    found = kind("vibrations").score(raw)
    assert (found["mae"], found["max_error"], found["imaginary"]) == (pytest.approx(10), 20, 0)
    assert found["zero_point_error"] == pytest.approx(0.5 * 10 * 1.239841984e-4)
    gone = kind("vibrations").score({"potential-0": one(np.zeros(0)), "reference-0": one(lines)})
    assert gone == {"asymmetry": 0.0, "converged": 1.0}


def test_conformers_of_the_reference_itself_have_its_order_and_no_error(ethanols: Subject) -> None:
    pytest.importorskip("tblite")
    from sapis_lab.oracles.xtb import XtbConfig

    oracle = XtbConfig(accuracy=0.1)
    subject = replace(ethanols, potential=Exact(oracle, (1, 6, 8)))
    evaluation = kind("conformers", reference=oracle, n_starts=4)
    found = evaluation.score(measured(evaluation, subject))
    assert found["n_conformers"] == 2  # trans and gauche
    assert found["energy_mae"] < 1e-4 and found["displacement"] < 1e-2 and found["converged"] == 1


def test_conformers_in_the_opposite_order_are_seen() -> None:
    energies = np.array([0.0, 0.1, 0.2])
    raw = {
        f"start-{k}": {
            "reference": np.array(e),
            "potential": np.array(5 - e),
            "single": np.array(5 + e),
            "distances": np.array([1.0, 2.0 + k]),
            "displacement": np.array(0.1),
            "converged": np.array(1.0),
        }
        for k, e in enumerate(energies)
    }
    raw["start-3"] = raw["start-0"]
    found = kind("conformers").score(raw)
    assert found["n_conformers"] == 3 and found["spearman"] == pytest.approx(-1)
    assert found["energy_mae"] == pytest.approx(0.4 / 3) and found["single_mae"] == pytest.approx(0)


# ----------------------------------------------------------------------------------------------- trajectories


def oscillators(line: float, n: int = 2, failed: int = 0) -> dict[str, np.ndarray]:
    """Velocities of n replicas of one atom at a frame every 2 fs for 20 ps."""
    time = 2.0 * np.arange(10_000)
    v = np.zeros((n, len(time), 1, 3))
    v[:, :, 0, 0] = np.cos(2 * np.pi * 2.99792458e-5 * line * time)
    return {"velocities": v, "masses": np.ones(1), "failed": np.array(failed)}


def test_a_spectrum_that_is_shifted_says_by_how_much() -> None:
    evaluation = kind("spectrum", n_replicas=2)
    reference = {f"reference-{k}": oscillators(1500.0, 1) for k in range(2)}
    same = evaluation.score({"potential": oscillators(1500.0), **reference})
    assert same["cosine"] == pytest.approx(1) and same["peak_shift"] == pytest.approx(0, abs=1e-6)
    assert same["cosine_floor"] == pytest.approx(1) and same["failures"] == 0
    moved = evaluation.score({"potential": oscillators(1512.0, failed=1), **reference})
    assert moved["peak_shift"] == pytest.approx(12, abs=0.5) and moved["cosine"] < 0.95
    assert moved["failures"] == 0.5 and moved["highest_peak_reference"] == pytest.approx(1500, abs=0.5)


def test_a_faint_peak_that_is_a_little_lower_than_the_references_is_not_missing() -> None:
    def two(height: float, n: int) -> dict[str, np.ndarray]:
        strong, faint = oscillators(1500.0, n), oscillators(1000.0, n)
        return strong | {"velocities": strong["velocities"] + np.sqrt(height) * faint["velocities"]}

    evaluation = kind("spectrum", n_replicas=1)
    found = evaluation.score({"potential": two(0.09, 1), "reference-0": two(0.12, 1)})
    assert found["peak_shift"] < 1


def turning(states: np.ndarray) -> dict[str, np.ndarray]:
    angle = states[..., None].astype(float)
    return {"torsions": angle, "gyration": np.ones(states.shape), "failed": np.array(0)}


def test_torsions_that_are_the_same_have_the_divergence_of_their_noise_and_others_more() -> None:
    g = np.random.default_rng(0)
    runs = [0.3 * g.normal(size=(1, 4000)) + np.where(g.random((1, 4000)) < 0.3, 2.0, -1.0) for _ in range(9)]
    evaluation = kind("torsions", n_replicas=1)
    reference = {f"reference-{k}": turning(run) for k, run in enumerate(runs[:8])}
    same = evaluation.score({"potential": turning(runs[8]), **reference})
    assert same["js_mean"] < 0.005 and same["js_floor"] < 0.002 and 0 < same["js_error"] < 0.005
    other = evaluation.score({"potential": turning(runs[8] + 1.0), **reference})
    assert other["js_mean"] > 0.3


def soft_spheres() -> LennardJonesConfig:
    one = LennardJonesAtom(epsilon=0.01, sigma=2.0)
    return LennardJonesConfig(atoms={"O": one, "Mg": one}, cutoff=4.0, switch_start=3.0)


def test_a_replica_of_the_reference_is_the_same_in_a_part_of_its_own(crystals: Subject) -> None:
    """So an interrupted evaluation ends in the same numbers."""
    oracle = soft_spheres()
    evaluation = kind("rdf", reference=oracle, n_replicas=3, time=0.1, equilibration=0.02, timestep=1.0)
    assert evaluation.parts(crystals) == ("potential", "reference-0", "reference-1", "reference-2")
    from sapis_lab.evaluation._trajectories import surface_of

    starts = evaluation.starts(crystals)
    together = evaluation._recorded(crystals, surface_of(oracle), starts, seeds=range(3))
    alone = evaluation.measure(crystals, "reference-2")
    assert np.allclose(alone["positions"][0], together["positions"][2], atol=1e-5)


def test_a_distribution_that_is_its_own_reference_has_no_error(crystals: Subject) -> None:
    oracle = soft_spheres()
    evaluation = kind("rdf", reference=oracle, n_replicas=2, time=0.1, equilibration=0.02, timestep=1.0)
    parts = [evaluation.measure(crystals, f"reference-{k}") for k in range(2)]
    potential = {name: np.concatenate([p[name] for p in parts]) for name in ("positions", "cell")}
    potential |= {"species": parts[0]["species"], "failed": np.array(0)}
    found = evaluation.score({"potential": potential, "reference-0": parts[0], "reference-1": parts[1]})
    pairs = {key.removeprefix("mae_") for key in found if key.startswith("mae_")}
    assert pairs == {"O_O", "O_Mg", "Mg_Mg"} and all(found[f"mae_{p}"] == 0 for p in pairs)
    assert found["peak_position_O_Mg"] == pytest.approx(found["reference_position_O_Mg"])


def test_systems_that_a_kind_says_nothing_of_are_refused(subject: Subject, crystals: Subject) -> None:
    for name in ("rdf", "diffusion"):
        with pytest.raises(ValueError, match="periodic in three directions; its test frames are not"):
            kind(name).parts(subject)
    with pytest.raises(ValueError, match="torsions want molecules; the test frames are periodic"):
        kind("torsions").parts(crystals)
    with pytest.raises(ValueError, match="vibrations want molecules"):
        kind("vibrations").parts(crystals)


def test_replicas_that_all_fly_apart_leave_nothing_to_observe(ethanols: Subject) -> None:
    evaluation = kind("torsions", n_replicas=2, temperature=1e5, timestep=5.0, time=1.0)
    with pytest.raises(ValueError, match=r"all 2 replicas had failed after .* ps at 100000 K"):
        evaluation.measure(ethanols, "potential")


# ------------------------------------------------------------------------------------------------ physicality


def test_an_equivariant_potential_is_at_rounding_in_double_precision(ethanols: Subject) -> None:
    """Though it was trained in single precision, which stays what it is."""
    assert ethanols.potential.dtype == torch.float32
    evaluation = kind("physicality", n_frames=2)
    found = evaluation.score(measured(evaluation, ethanols))
    for key in ("extensivity", "translation_energy", "rotation_energy"):
        assert found[key] < 1e-9, key
    for key in ("ghost_force", "translation_force", "rotation_force", "order_force"):
        assert found[key] < 1e-9, key
    assert found["antisymmetry"] < 1e-10
    assert ethanols.potential.dtype == torch.float32
