"""The structure that a relaxation ends in is learnt from where it is (IS2RS), beside energies and forces and
with those masked that there are not, and is found by relaxing with what was learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import Trajectory
from labelled_files import make_point

from sapis_lab.data import prepare
from sapis_lab.evaluation import Subject
from sapis_lab.evaluation.baselines import BaselinesConfig
from sapis_lab.evaluation.relaxation import RelaxationConfig
from sapis_lab.potential import load_potential
from sapis_lab.records import read_record
from sapis_lab.training.run import run_point

SLAB = np.array([[0.0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [2.5, 2.5, 0]])
STIFFNESS, HEIGHT = 4.0, 1.8


def write_relaxations(folder: Path, *, n: int = 25, unconverged: str = "random3") -> None:
    """Four systems of one atom that comes down on a slab, from other places above the same site."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for s in range(4):
        name, start = (
            f"random{s + 1}",
            np.array([*generator.uniform(-0.5, 0.5, 2), generator.uniform(0.3, 0.8)]),
        )
        with Trajectory(folder / f"{name}.traj", "w") as file:
            for k in range(n):
                away = start * (1 - k / (n - 1)) + (0.2 if name == unconverged else 0.0)
                x = np.vstack([SLAB, [1.25, 1.25, HEIGHT] + away])
                atoms = Atoms(
                    "Cu4O",
                    x,
                    cell=np.diag([5.0 + 0.05 * s, 5.0, 15.0 + s]),
                    pbc=True,
                    constraint=FixAtoms(range(4)),
                )
                forces = STIFFNESS * np.vstack([np.tile(away / 4, (4, 1)), -away])  # on the slab as well
                energy = -20.0 + STIFFNESS / 2 * float(away @ away)
                atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
                file.write(atoms)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished point in `p`, its data in `oc20` and its store in `cache`."""
    place = tmp_path_factory.mktemp("relaxed")
    write_relaxations(place / "oc20")
    data = {"kind": "oc20", "systems": [f"random{k}" for k in (1, 2, 3, 4)], "held_out": ["random2"]}
    targets = [{"kind": "property", "name": "to_relaxed", "per": "atom", "rank": 1, "unit": "Å"}]
    settings = {**data, "n_validation": 8, "root": str(place)}
    make_point(place / "p", settings, n_frames=40, targets=targets, heads={"to_relaxed": {"kind": "tensor"}})
    run_point(place / "p", cache=place / "cache")
    return place


def subject(place: Path) -> Subject:
    from sapis_lab.config import load, read_yaml
    from sapis_lab.training import PointConfig

    point = load(PointConfig, read_yaml(place / "p" / "config.yaml"), source="test", recorded=True)
    return Subject(load_potential(place / "p"), prepare(point.data, cache=place / "cache"), "cpu")


def test_the_way_to_the_relaxed_structure_is_learnt_better_than_that_nothing_moves(place: Path) -> None:
    errors, of = read_record(place / "p").metrics, subject(place)
    assert "to_relaxed" in of.store.incomplete, "one trajectory has not converged"
    baselines = BaselinesConfig()
    still = baselines.score({part: baselines.measure(of, part) for part in baselines.parts(of)})
    assert errors["test_to_relaxed_rmse"] < 0.6 * still["test_to_relaxed_rmse_of_mean"]
    assert errors["test_known_to_relaxed_rmse"] < 0.8 * still["test_known_to_relaxed_rmse_of_mean"]


def test_a_relaxation_with_the_trained_potential_ends_near_the_relaxed_structure(place: Path) -> None:
    relaxation = RelaxationConfig(most_steps=50)
    of = subject(place)
    found = relaxation.score({part: relaxation.measure(of, part) for part in relaxation.parts(of)})
    assert found["test_share_lost"] == 0
    assert found["test_displacement"] < 0.5 * found["test_displacement_unrelaxed"]
    assert found["test_relaxation_energy_mae"] < 0.5 * found["test_relaxation_energy_mae_unrelaxed"]
