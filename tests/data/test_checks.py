"""The checks of a store: what each sees, what it lets pass, and that all of them are made and recorded."""

import dataclasses
import re

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.data import Frames, FrameStore, Subject, copies, findings
from sapis_lab.data._checks import check_store, collecting
from sapis_lab.data._checks._few_body import FewBody, Structure
from sapis_lab.data._copies import _near
from sapis_lab.errors import Notice
from sapis_lab.neighbors import neighbor_list

TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]


def argon(n=60, *, strain=0.04, seed=0):
    """Distorted and strained cells of four atoms with energies, forces and stresses of a pair potential
    D (1 - exp(-a (r - 2.7)))², which ends smoothly at 6 Å; eV and Å."""
    generator = np.random.default_rng(seed)
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells, x, e, f, s = [], [], [], [], []
    for _ in range(n):
        bent = strain * generator.normal(size=(3, 3))
        cell = 3.9 * np.eye(3) @ (np.eye(3) + (bent + bent.T) / 2)
        positions = sites @ cell + 0.06 * generator.normal(size=(4, 3))
        i, j, shift = neighbor_list(positions, cell, True, 6.0)
        v = positions[j] + shift @ cell - positions[i]
        r = np.linalg.norm(v, axis=1)
        end, dend = (1 - (r / 6) ** 2) ** 3, -r / 6 * (1 - (r / 6) ** 2) ** 2
        decay = np.exp(-1.3 * (r - 2.7))
        well, dwell = 0.3 * ((1 - decay) ** 2 - 1), 0.6 * (1 - decay) * 1.3 * decay
        slope = (dwell * end + well * dend)[:, None] * v / r[:, None]
        forces = np.zeros((4, 3))
        np.add.at(forces, i, slope)
        cells.append(cell)
        x.append(positions)
        e.append(0.5 * np.sum(well * end) - 40.0)
        f.append(forces)
        s.append(0.5 * v.T @ slope / np.linalg.det(cell))
    return Frames(
        n_atoms=np.full(n, 4),
        species=np.full(4 * n, 29, np.uint8),
        positions=np.concatenate(x),
        cell=np.array(cells),
        pbc=np.ones((n, 3), bool),
        energy=np.array(e),
        forces=np.concatenate(f).astype(np.float32),
        stress=np.array(s),
    )


def found(folder, frames, **splits):
    """Findings by check; 40 of 60 frames are for training."""
    n = len(frames)
    store = FrameStore.create(folder, columns=() if frames.stress is None else ("stress",))
    store.append(frames)
    parts = splits or {
        "train": np.arange(2 * n // 3),
        "validation": np.arange(2 * n // 3, 5 * n // 6),
        "test": np.arange(5 * n // 6, n),
    }
    return {f.check: f for f in findings(Subject(store, parts, lambda k: f"made, frame {k}"))}


@pytest.fixture(scope="module")
def crystals():
    return argon()


def test_derivatives_of_the_cheap_potential_are_those_of_its_energies():
    generator = np.random.default_rng(1)
    z, x = np.array([1, 6, 8, 1, 6]), 1.4 * generator.normal(size=(5, 3))
    cell, h = 5 * np.eye(3) + 0.3 * generator.normal(size=(3, 3)), 1e-5
    potential = FewBody([1, 6, 8])

    def energy(moved, box):
        return potential(Structure(z, moved, box, np.ones(3, bool))).energy

    made = potential(Structure(z, x, cell, np.ones(3, bool)), strain=True)
    step = np.zeros((5, 3))
    step[3, 1] = h
    slope = (energy(x + step, cell) - energy(x - step, cell)) / (2 * h)
    assert np.allclose(slope, made.gradient[10], atol=1e-7)
    bent = np.zeros((3, 3))
    bent[0, 2] = bent[2, 0] = h / 2
    there, back = np.eye(3) + bent, np.eye(3) - bent
    slope = (energy(x @ there, cell @ there) - energy(x @ back, cell @ back)) / (2 * h)
    assert np.allclose(slope, made.strain[:, 0, 2], atol=1e-7)


def test_sound_labels_pass_every_check(tmp_path, crystals):
    outcomes = {check: f.outcome for check, f in found(tmp_path / "s", crystals).items()}
    assert set(outcomes.values()) == {"passed"}, outcomes
    assert {"energies against forces", "stress", "copies", "outliers"} <= set(outcomes)


@pytest.mark.parametrize(
    ("change", "check", "outcome", "words"),
    [
        ({"forces": -1.0}, "energies against forces", "failed", "set forces_are: gradient"),
        ({"forces": 0.529177}, "energies against forces", "failed", "force_unit .such as eV/Bohr"),
        ({"forces": 1.889726}, "energies against forces", "failed", "force_unit .such as eV/Angstrom"),
        ({"energy": 0.25}, "energies against forces", "failed", "set energy_is: per_atom"),
        ({"energy": 23.06}, "energies against forces", "failed", "set energy_unit: kcal/mol"),
        (
            {"energy": 1e3, "forces": 1e3},
            "energy unit",
            "suspect",
            "in kJ/mol .*or meV and read as eV",
        ),
        ({"stress": -1.0}, "stress", "failed", "set stress_is: compression"),
        ({"stress": units.EV_PER_A3_TO_GPA}, "stress", "failed", "set stress_unit: GPa"),
        ({"stress": -59.0}, "stress", "failed", "set virial_key instead of stress_key"),
    ],
)
def test_a_wrong_unit_or_sign_is_told_with_the_setting_that_corrects_it(
    tmp_path, crystals, change, check, outcome, words
):
    wrong = {key: getattr(crystals, key) * np.asarray(factor) for key, factor in change.items()}
    seen = found(tmp_path / "s", dataclasses.replace(crystals, **wrong))[check]
    assert seen.outcome == outcome
    assert re.search(words, seen.why), seen.why


def test_stress_in_the_order_of_vasp_is_told_by_its_order(tmp_path, crystals):
    stress = crystals.stress.copy()
    # yz, xz, xy hold what VASP has there: xy, yz, zx
    for (a, b), (c, d) in zip([(1, 2), (0, 2), (0, 1)], [(0, 1), (1, 2), (2, 0)], strict=True):
        stress[:, a, b] = stress[:, b, a] = crystals.stress[:, c, d]
    seen = found(tmp_path / "s", dataclasses.replace(crystals, stress=stress))["stress"]
    assert seen.outcome == "failed" and "taken for xy, yz, xz" in seen.why


def test_forces_of_the_test_alone_are_compared_with_those_of_training(tmp_path, crystals):
    forces = crystals.forces.copy()
    forces[-40:] *= -1
    seen = found(tmp_path / "s", dataclasses.replace(crystals, forces=forces))
    assert seen["energies against forces"].outcome == "passed"
    assert seen["forces of test as in training"].outcome == "failed"
    assert "set forces_are: gradient" in seen["forces of test as in training"].why


def test_relaxed_structures_are_not_checked_and_say_why(tmp_path, crystals):
    calm = dataclasses.replace(crystals, forces=crystals.forces * np.float32(1e-4))
    seen = found(tmp_path / "s", calm)["energies against forces"]
    assert seen.outcome == "not checked" and "relaxed structures" in seen.why


def test_forces_that_are_all_too_large_are_a_unit_rather_than_outliers(tmp_path, crystals):
    forces = crystals.forces * 1e4
    seen = found(tmp_path / "s", dataclasses.replace(crystals, forces=forces))["outliers"]
    assert seen.outcome == "suspect" and "a unit rather than single frames" in seen.why
    assert "max_force" not in seen.why


def test_outliers_are_named_with_the_settings_that_leave_them_out(tmp_path, crystals):
    energy, forces = crystals.energy.copy(), crystals.forces.copy()
    energy[7] -= 6000
    forces[36] = 640  # of each component
    seen = found(tmp_path / "s", dataclasses.replace(crystals, energy=energy, forces=forces))["outliers"]
    assert seen.outcome == "suspect" and seen.why.startswith("2 of 60 frames")
    assert "made, frame 7: energy -1500 eV/atom off" in seen.why and "frame 9: a force of 1109" in seen.why
    assert "energy_window" in seen.why and 0 < float(seen.why.split("max_force: ")[1].split(",")[0]) < 1109


def test_single_precision_is_told_with_its_step_where_it_is_coarse(tmp_path, crystals):
    coarse = (crystals.energy - 1e6).astype(np.float32).astype(np.float64)
    seen = found(tmp_path / "s", dataclasses.replace(crystals, energy=coarse))["resolution of energies"]
    assert seen.outcome == "suspect" and "in steps of 62.5 meV" in seen.why
    fine = crystals.energy.astype(np.float32).astype(np.float64)
    seen = found(tmp_path / "t", dataclasses.replace(crystals, energy=fine))["resolution of energies"]
    assert seen.outcome == "passed" and "single precision" in seen.why


def test_half_of_a_set_without_its_periodicity_is_told(tmp_path, crystals):
    pbc, cell = crystals.pbc.copy(), crystals.cell.copy()
    pbc[::2], cell[::2] = False, 0.0
    seen = found(tmp_path / "s", dataclasses.replace(crystals, pbc=pbc, cell=cell, stress=None))
    assert seen["periodicity"].outcome == "suspect" and "bonding distance" in seen["periodicity"].why


# ----------------------------------------------------------------------------------------------------- copies


def with_copy(frames, *, x=None, cell=None, turn=None, order=None, energy=0.0):
    """The frames and frame 3 once more, its positions, cell and labels changed."""
    atoms = slice(12, 16)
    x = frames.positions[atoms] if x is None else x
    cell = frames.cell[3] if cell is None else cell
    f = frames.forces[atoms].astype(float)
    if turn is not None:
        x, cell, f = x @ turn, cell @ turn, f @ turn
    order = np.arange(4) if order is None else order
    return Frames(
        n_atoms=np.append(frames.n_atoms, 4),
        species=np.append(frames.species, frames.species[atoms]),
        positions=np.concatenate([frames.positions, x[order]]),
        cell=np.concatenate([frames.cell, cell[None]]),
        pbc=np.concatenate([frames.pbc, frames.pbc[3:4]]),
        energy=np.append(frames.energy, frames.energy[3] + energy),
        forces=np.concatenate([frames.forces, f[order].astype(np.float32)]),
    )


def groups(folder, frames):
    store = FrameStore.create(folder)
    store.append(frames)
    return copies(store, np.arange(len(frames)))


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("same", {}),
        ("renumbered", {"order": np.array([2, 0, 3, 1])}),
        ("turned", {"turn": TURN * np.linalg.det(TURN)}),
        ("reflected", {"turn": -TURN * np.linalg.det(TURN)}),
        ("turned", {"turn": TURN * np.linalg.det(TURN), "order": np.array([1, 3, 2, 0])}),
    ],
)
def test_copies_are_found_whatever_their_motion(tmp_path, crystals, way, changes):
    crystals = dataclasses.replace(crystals, stress=None)
    (group,) = groups(tmp_path / "s", with_copy(crystals, **changes))
    assert group.frames == (3, 60) and group.copies[0].way == way
    assert group.copies[0].deviation < 1e-9 and group.copies[0].force_gap < 1e-5


def test_wrapped_and_moved_crystals_and_other_cells_of_their_lattice_are_copies(tmp_path, crystals):
    crystals = dataclasses.replace(crystals, stress=None)
    x, cell = crystals.positions[12:16], crystals.cell[3]
    other = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ cell
    wrapped = x + np.array([[1, 0, 0], [0, -2, 0], [0, 0, 0], [0, 1, 1]]) @ cell
    for k, (way, changes) in enumerate(
        [
            ("wrapped", {"x": wrapped}),
            ("moved", {"x": wrapped + 0.37}),
            ("renumbered", {"cell": other}),
        ]
    ):
        (group,) = groups(tmp_path / f"s{k}", with_copy(crystals, **changes))
        assert group.frames == (3, 60) and group.copies[0].way == way


def test_steps_of_a_relaxation_are_no_copies_though_they_are_near(tmp_path, crystals):
    crystals = dataclasses.replace(crystals, stress=None)
    near = crystals.positions[12:16] + 3e-5 * np.random.default_rng(0).normal(size=(4, 3))
    assert groups(tmp_path / "a", with_copy(crystals, x=near, energy=4e-6)) == []
    rounded = np.round(crystals.positions[12:16], 4)
    assert len(groups(tmp_path / "b", with_copy(crystals, x=rounded))) == 1


def test_copies_of_open_frames_are_found_and_other_labels_told(tmp_path):
    generator = np.random.default_rng(4)
    x = 2.0 * generator.normal(size=(12, 5, 3))
    x[7] = (x[2] @ TURN)[[1, 0, 2, 4, 3]] + 3.0
    z = np.array([6, 6, 8, 1, 1], np.uint8)
    frames = Frames(
        n_atoms=np.full(12, 5),
        species=np.tile(z, 12),
        positions=x.reshape(-1, 3),
        cell=np.zeros((12, 3, 3)),
        pbc=np.zeros((12, 3), bool),
        energy=-1500 + generator.normal(size=12),
        forces=generator.normal(size=(60, 3)).astype(np.float32),
    )
    (group,) = groups(tmp_path / "s", frames)
    assert group.frames == (2, 7) and group.copies[0].way in ("turned", "reflected")
    splits = {"train": np.arange(6), "validation": np.array([6]), "test": np.arange(7, 12)}
    store = FrameStore.open(tmp_path / "s")
    seen = {f.check: f for f in findings(Subject(store, splits, lambda k: f"frame {k}"))}
    assert seen["copies"].outcome == "suspect" and "frame 2 (train) and frame 7 (test)" in seen["copies"].why
    assert seen["labels of copies"].outcome == "suspect"


# --------------------------------------------------------------------------------------------- all of them


def test_what_is_found_is_recorded_and_suspects_are_warnings(tmp_path, crystals):
    store = FrameStore.create(
        tmp_path / "s",
        columns=("stress",),
    )
    energy = crystals.energy.copy()
    energy[7] -= 6000
    store.append(dataclasses.replace(crystals, energy=energy))
    splits = {"train": np.arange(40), "validation": np.arange(40, 50), "test": np.arange(50, 60)}
    with pytest.warns(Notice, match="outliers: 1 of 60 frames"):
        check_store(store, splits, lambda k: f"frame {k}")
    store.seal(splits=splits, metadata={"origin": "made"})
    recorded = {
        f["check"]: f["outcome"] for f in FrameStore.open(tmp_path / "s").metadata["checks"]["findings"]
    }
    assert recorded["outliers"] == "suspect" and recorded["elements"] == "passed"
    check_store(
        store, splits, lambda k: f"frame {k}", known=("outliers",)
    )  # and no warning, which is an error


def test_a_failure_is_raised_and_collected_where_all_checks_are_wanted(tmp_path, crystals):
    store = FrameStore.create(tmp_path / "s", columns=("stress",))
    forces = -crystals.forces
    forces[0] = np.nan
    store.append(dataclasses.replace(crystals, forces=forces))
    splits = {"train": np.arange(40), "validation": np.arange(40, 50), "test": np.arange(50, 60)}
    with pytest.raises(ValueError, match="frame 0: forces of atom 0 is .*wanted finite numbers"):
        check_store(store, splits, lambda k: f"frame {k}")
    with collecting() as seen:
        check_store(store, splits, lambda k: f"frame {k}")
    outcomes = {f.check: f.outcome for f in seen}
    assert outcomes["numbers are finite"] == "failed" and outcomes["elements"] == "passed"
    assert outcomes["energies against forces"] == "not checked"


@pytest.mark.parametrize("shape", ["uniform", "equal", "line", "powers"])
def test_near_points_are_those_of_all_comparisons(shape):
    generator = np.random.default_rng(0)
    points = {
        "uniform": 40 * generator.uniform(size=(300, 4)),
        "equal": np.zeros((60, 4)),
        "line": np.outer(np.arange(50) * 0.5, [1, 0, 0, 0]),
        "powers": 10.0 ** -np.arange(0, 300, 3)[:, None] * [1e9, 1, 1, 1],
    }[shape]
    apart = np.abs(points[:, None] - points[None]).max(-1)
    assert _near(points).tolist() == np.argwhere(np.triu(apart <= 1.0, 1)).tolist()
