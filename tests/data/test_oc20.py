"""Relaxations on surfaces: raw forces, the state that a trajectory ends in, splits by system, refusals."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixedPlane
from ase.io import Trajectory

from sapis_lab.config import load, read_yaml
from sapis_lab.data import prepare
from sapis_lab.data.oc20 import Oc20Config

pytestmark = pytest.mark.filterwarnings("ignore::sapis_lab.errors.Notice")  # of copies

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no relaxations to read"
)
REPOSITORY = Path(__file__).resolve().parents[2]
SITES = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0], [1, 1, 1.5], [1, 1, 3.3]])
CELL = np.diag([4.0, 4.0, 12.0])
STIFFNESS = 3.0
"""eV/Å²"""


def frame(k, n, *, symbols="Cu5O", tag=0.0, change=None, end=0.0):
    """The k-th of n steps: the last two atoms come down on springs, `end` Å above where they rest."""
    away = np.zeros((6, 3))
    away[4:] = [0.1, 0, 0.4]
    away *= (n - 1 - k) / (n - 1)
    away[4:, 2] += end
    cell = CELL * [1 + tag / 4, 1, 1 + tag]  # of no two systems the same
    atoms = Atoms(symbols, SITES + away, cell=cell, pbc=True, constraint=FixAtoms([0, 1, 2, 3]))
    # raw forces: the fixed atoms feel some, which constraints would hide
    forces = -STIFFNESS * away
    forces[:4] = [0, 0, 0.7]
    energy = -20.0 + tag + STIFFNESS / 2 * float((away**2).sum())
    atoms.set_tags([0, 0, 0, 0, 1, 2])
    if change is not None:
        atoms = change(k, atoms) or atoms
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def relaxations(root, n=12, **changes):
    """Three systems; `changes` of the last one."""
    (root / "oc20").mkdir(parents=True, exist_ok=True)
    for s, symbols in enumerate(("Cu5O", "Cu4OO", "Cu5O")):
        with Trajectory(root / "oc20" / f"random{s + 1}.traj", "w") as file:
            for k in range(n):
                own = changes if s == 2 else {}
                file.write(frame(k, n, **{"symbols": symbols, "tag": 0.2 * s, **own}))
    return config(root)


def config(root, **changes):
    settings = {"systems": ("random1", "random2", "random3"), "held_out": ("random2",), "n_validation": 3}
    return Oc20Config(**{**settings, "root": root, **changes})


def refusal(settings, cache):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        prepare(settings, cache=cache)
    return str(refused.value)


@needs_files
@pytest.mark.filterwarnings("ignore:outliers")  # forces of 269 eV/Å in a first step
def test_energies_and_raw_forces_are_the_bytes_of_the_trajectory(tmp_path):
    raw = read_yaml(REPOSITORY / "configs" / "data" / "oc20-10.yaml")
    store = prepare(load(Oc20Config, raw, source="oc20-10"), cache=tmp_path)
    bytes_ = (Path(os.environ["SAPIS_DATA"]) / "oc20" / "random1000100.traj").read_bytes()
    # the header of the first frame says "forces.": 33 x 3 float64 at byte 1112; that of the last the energy
    assert b'"energy": -57.74908337, "forces.": {"ndarray": [[33, 3], "float64", 1112]}' in bytes_
    forces = np.frombuffer(bytes_, "<f8", count=99, offset=1112).reshape(33, 3)
    first = store.frames(np.array([0]))
    assert np.array_equal(first.forces, forces.astype(np.float32))
    fixed = first.label("fixed") == 1
    assert fixed.sum() == 17 and np.abs(first.forces[fixed]).max() > 0.05, "forces without constraints"
    assert b'"energy": -60.58567902' in bytes_[-2000:]
    assert (first.energy[0], first.label("relaxed_energy")[0]) == (-57.74908337, -60.58567902)
    assert first.label("system")[0] == 1000100 and first.pbc.all()
    assert store.metadata["not_relaxed"] == ["random1000187"]
    assert {name: len(ids) for name, ids in store.splits.items()} == {
        "train": 416,
        "validation": 60,
        "test": 102,
        "test_known": 9,
    }


def test_every_frame_knows_the_way_to_the_relaxed_structure(tmp_path):
    store = prepare(relaxations(tmp_path), cache=tmp_path / "cache")
    for k in range(12):
        at = store.frames(np.array([k]))
        left = (11 - k) / 11
        assert at.label("to_relaxed")[4:] == pytest.approx(
            np.tile([-0.1 * left, 0, -0.4 * left], (2, 1)), abs=1e-6
        )
        assert np.abs(at.label("to_relaxed")[:4]).max() < 1e-6
        assert at.label("relaxed_energy")[0] == pytest.approx(-20.0)
        assert at.forces[:4, 2] == pytest.approx(0.7) and at.label("fixed").tolist() == [1, 1, 1, 1, 0, 0]
        assert at.label("tag").tolist() == [0, 0, 0, 0, 1, 2] and at.label("step")[0] == k


def test_the_way_to_the_relaxed_structure_is_by_the_nearest_image(tmp_path):
    def across(k, atoms):
        if k:
            atoms.positions[4] += atoms.cell[0] - atoms.cell[1]

    store = prepare(relaxations(tmp_path, change=across), cache=tmp_path / "cache")
    assert store.frames(np.array([24])).label("to_relaxed")[4] == pytest.approx([-0.1, 0, -0.4], abs=1e-6)


def test_a_system_that_is_held_out_is_the_test_and_first_frames_of_the_others_are_known(tmp_path):
    splits = prepare(relaxations(tmp_path), cache=tmp_path / "cache").splits
    assert splits["test"].tolist() == list(range(12, 24)) and splits["test_known"].tolist() == [0, 24]
    pool = np.concatenate([splits["train"], splits["validation"]])
    assert sorted(pool.tolist()) == [*range(1, 12), *range(25, 36)]
    # both systems have their share of every training subset
    assert [int((splits["train"][:n] < 12).sum()) for n in (4, 10)] in (
        [2, 5],
        [1, 5],
        [2, 4],
        [3, 5],
        [2, 6],
    )


def test_a_trajectory_that_has_not_converged_has_no_relaxed_state(tmp_path):
    store = prepare(relaxations(tmp_path, end=0.2), cache=tmp_path / "cache")  # 0.6 eV/Å on the free atoms
    lacks = np.isnan(store.label_column("relaxed_energy"))
    assert lacks.tolist() == [False] * 24 + [True] * 12
    assert np.isnan(store.label_column("to_relaxed")[-72:]).all()
    assert store.metadata["not_relaxed"] == ["random3"] and "to_relaxed" in store.incomplete
    large = config(tmp_path, converged_below=0.7)
    assert prepare(large, cache=tmp_path / "cache").metadata["not_relaxed"] == []


def test_frames_that_have_not_moved_are_left_out_and_counted(tmp_path):
    def stays(k, atoms):
        if k in (5, 7):
            return frame(4, 12, symbols="Cu5O", tag=0.4)
        return None

    store = prepare(relaxations(tmp_path, change=stays), cache=tmp_path / "cache")
    assert store.n_frames == 34 and store.metadata["n_left_out"] == 2
    assert store.label_column("step")[24:].tolist() == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]


def test_a_plan_says_what_the_store_holds(tmp_path):
    settings = relaxations(tmp_path)
    planned, store = settings.info(cutoff=4.0), prepare(settings, cache=tmp_path / "cache")
    assert planned.species == store.elements == (8, 29) and planned.periodic
    assert (planned.n_train, planned.n_test) == (19, {"test": 12, "test_known": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda k, a: a.set_constraint(FixedPlane(0, (0, 0, 1))),
            "a constraint FixedPlane, wanted atoms that",
        ),
        (lambda k, a: a.set_cell(a.cell * (1 + 0.01 * k)), "another cell than in the last frame"),
        (lambda k, a: setattr(a, "pbc", [True, True, False]), "pbc=[True, True, False], wanted three"),
        (
            lambda k, a: a.set_atomic_numbers([29, 29, 29, 29, 29, 8 + (k == 0)]),
            "other elements than in the last",
        ),
    ],
)
def test_a_frame_that_is_not_of_one_relaxation_is_refused(tmp_path, change, message):
    said = refusal(relaxations(tmp_path, change=change), tmp_path / "cache")
    assert said.startswith(f"{tmp_path / 'oc20' / 'random3.traj'}, frame ") and message in said


def test_a_damaged_trajectory_is_refused_by_its_name(tmp_path):
    settings = relaxations(tmp_path)
    path = tmp_path / "oc20" / "random3.traj"
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"not a trajectory",
        b"",
        whole[:200] + b"\0" * 400 + whole[600:],
    ):
        path.write_bytes(damaged)
        said = refusal(settings, tmp_path / "cache")
        assert said.startswith(str(path)) and "\n" not in said
    path.write_bytes(whole)
    prepare(settings, cache=tmp_path / "cache")


def test_a_frame_without_labels_is_refused(tmp_path):
    settings = relaxations(tmp_path)
    with Trajectory(tmp_path / "oc20" / "random3.traj", "a") as file:
        file.write(Atoms("Cu5O", SITES, cell=CELL, pbc=True))
    assert "random3.traj, frame 12: no energy; it has no labels" in refusal(settings, tmp_path / "cache")


def test_an_element_of_the_tested_system_alone_is_refused(tmp_path):
    settings = relaxations(tmp_path, symbols="Cu5N")
    held = settings.model_copy(update={"held_out": ("random3",)})
    assert "element Z=7 occurs in split 'test' but in no training frame" in refusal(held, tmp_path / "cache")
