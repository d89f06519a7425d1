"""Systems of DeePMD-kit: frames, splits, stress as the arrays say, and refusals that name file and field."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.config import expand_use
from sapis_lab.data import dataset_info, prepare
from sapis_lab.data.deepmd import DeepmdConfig

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no water of DeePMD-kit to read"
)

SITES = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [3.0, 3, 3], [4.0, 3, 3], [3.0, 4, 3]])
BOX = np.diag([6.0, 7.0, 8.0])
TYPES = [0, 1, 1, 0, 1, 1]


def arrays(seed, n=20):
    """`n` frames of two O with two H each, on springs to their sites, in eV and Å."""
    d = 0.05 * np.random.default_rng(seed).normal(size=(n, 6, 3))
    return {
        "coord": (SITES + d).reshape(n, 18),
        "box": np.tile(BOX.reshape(9), (n, 1)),
        "energy": -900 + 5 * (d**2).sum((1, 2)),
        "force": (-10 * d).reshape(n, 18),
    }


def system(folder, *sets, type_map="O\nH\n", types=TYPES):
    """A system with these sets of arrays."""
    for k, found in enumerate(sets):
        (folder / f"set.{k:03d}").mkdir(parents=True)
        for name, array in found.items():
            np.save(folder / f"set.{k:03d}" / f"{name}.npy", array)
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    if type_map:
        (folder / "type_map.raw").write_text(type_map)
    return folder


@pytest.fixture
def root(tmp_path):
    system(tmp_path / "a", arrays(0), arrays(1))
    system(tmp_path / "b", arrays(2, 10))
    return tmp_path


def config(root, **changes):
    given = {"train": "a", "n_validation": 5, "tests": {"test": "b"}, "root": root}
    return DeepmdConfig(**{**given, **changes})


def make(root, **changes):
    return prepare(config(root, **changes), cache=root / "cache")


def refusal(root, **changes):
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the text is what each test looks at)
        make(root, **changes)
    return str(refused.value)


def test_frames_are_those_of_the_sets_in_order_and_the_split_that_of_the_seed(root):
    before = config(root, n_train=30, seed=3).info(cutoff=3.0)
    store = make(root, n_train=30, seed=3)
    order = np.random.default_rng(3).permutation(40)
    assert np.array_equal(store.splits["train"], order[:30])
    assert np.array_equal(store.splits["validation"], order[-5:])
    assert np.array_equal(store.splits["test"], np.arange(40, 50))
    both = [np.concatenate([arrays(seed)[name] for seed in (0, 1)]) for name in ("coord", "force", "energy")]
    frames = store.frames(np.arange(40))
    assert np.array_equal(frames.positions.reshape(40, 18), both[0])
    assert np.array_equal(frames.forces.reshape(40, 18), both[1].astype(np.float32))
    assert np.array_equal(frames.energy, both[2]) and np.array_equal(frames.cell, np.tile(BOX, (40, 1, 1)))
    assert frames.pbc.all() and frames.species[:6].tolist() == [8, 1, 1, 8, 1, 1]
    assert dataset_info(config(root, n_train=30, seed=3), cutoff=3.0, cache=root / "cache").n_train == 30
    assert (before.species, before.n_train, before.n_validation, dict(before.n_test)) == (
        (1, 8),
        30,
        5,
        {"test": 10},
    )
    assert before.periodic and before.mean_atoms == 6 and before.labels == ("energy", "forces")


@pytest.mark.filterwarnings("ignore:(energy unit|outliers|resolution of energies):")  # as was made here
def test_float32_totals_are_kept_as_they_are_and_their_step_is_told(root):
    given = {name: array.astype(np.float32) for name, array in arrays(0).items()}
    given["energy"] -= np.float32(29000)
    system(root / "c", given)
    store = make(root, train="c")
    assert store.energy.dtype == np.float64
    assert np.array_equal(store.energy[:20], given["energy"].astype(np.float64))
    assert store.metadata["energy_step"] == 2.0**-9


def test_open_systems_have_no_cell_even_where_a_box_lies_about(root):
    for name in ("a", "b"):
        (root / name / "nopbc").touch()
    store = make(root)
    assert not store.pbc.any() and not store.cell.any()
    assert not config(root).info(cutoff=3.0).periodic


@pytest.mark.filterwarnings("ignore:outliers")  # the energy of frame 7 is that of more atoms
def test_every_frame_of_a_mixed_system_has_its_own_elements(root):
    n = 20
    kinds = np.tile([1, 0, 0, 1, 0, -1], (n, 1))
    kinds[7] = [1, 0, 0, -1, -1, -1]
    given = {**arrays(0), "real_atom_types": kinds}
    for name in ("coord", "force"):
        given[name][:, 15:] = np.nan  # of atoms that are none, nothing is read
    given["coord"][7, 9:] = given["force"][7, 9:] = 0
    system(root / "mixed", given, type_map="H O", types=[0] * 6)
    store = make(root, train="mixed")
    frames = store.frames(np.array([0, 7]))
    assert frames.n_atoms.tolist() == [5, 3]
    assert frames.species.tolist() == [8, 1, 1, 8, 1, 8, 1, 1]
    assert np.array_equal(frames.positions[5:].reshape(-1), given["coord"][7, :9])
    assert config(root, train="mixed").info(cutoff=3.0).species == (1, 8)
    kinds[4, 2] = 2
    np.save(root / "mixed" / "set.000" / "real_atom_types.npy", kinds)
    assert "real_atom_types.npy, frame 4: atom 2 has type 2, wanted 0 to 1" in refusal(
        root, train="mixed", seed=1
    )


def test_stress_is_minus_the_virial_over_the_volume(root):
    virial = np.random.default_rng(5).normal(size=(20, 3, 3))
    virial += virial.transpose(0, 2, 1)
    for name, n in (("c", 20), ("d", 10)):
        system(root / name, {**arrays(n, n), "virial": virial[:n].reshape(n, 9)})
    store = make(root, train="c", tests={"test": "d"}, stress_from="virial")
    assert np.allclose(store.column("stress")[:20], -virial / (6 * 7 * 8))
    assert "a/set.000/virial.npy" in refusal(root, stress_from="virial")
    (root / "c" / "nopbc").touch()
    assert "a stress needs periodic frames" in refusal(root, train="c", stress_from="virial")


def test_the_map_of_types_may_be_a_setting(root):
    (root / "a" / "type_map.raw").unlink()
    assert "wanted " + str(root / "a" / "type_map.raw") in refusal(root)
    assert make(root, type_map=["O", "H"]).elements == (1, 8)
    (root / "a" / "type_map.raw").write_text("O Hq")
    assert "type_map.raw: names 'Hq', wanted chemical symbols" in refusal(root, seed=1)


@pytest.mark.parametrize("name", ["coord", "energy", "force", "box"])
def test_a_missing_array_is_named(root, name):
    (root / "a" / "set.001" / f"{name}.npy").unlink()
    assert f"missing file: wanted {root / 'a' / 'set.001' / name}.npy" in refusal(root)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("coord", lambda a: a[:, :15], "coord has shape (20, 15), wanted (n_frames, 18) for the 6 atoms of"),
        ("coord", lambda a: a[:0], "coord has shape (0, 18), wanted (n_frames, 18)"),
        (
            "force",
            lambda a: a[:, :15],
            "force has shape (20, 15), wanted (20, 18) for the 20 frames of coord",
        ),
        ("energy", lambda a: a[:19], "energy has shape (19,), wanted (20,) for the 20 frames"),
        ("box", lambda a: a[:, :3], "box has shape (20, 3), wanted (20, 9)"),
        ("energy", lambda a: a.astype(str), "array of type <U"),
    ],
)
def test_wrong_shapes_and_types_are_named(root, name, change, message):
    path = root / "a" / "set.001" / f"{name}.npy"
    np.save(path, change(arrays(1)[name]))
    assert f"{path}: {message}" in refusal(root)


@pytest.mark.parametrize("name", ["coord", "box", "energy", "force"])
def test_numbers_that_are_none_are_named(root, name):
    array = arrays(1)[name]
    array[3] = np.nan
    np.save(root / "a" / "set.001" / f"{name}.npy", array)
    called = {"coord": "positions", "box": "cell", "force": "forces"}.get(name, name)
    assert f"{root / 'a' / 'set.001'}, frame 3: {called}" in refusal(root)


@pytest.mark.parametrize("name", ["coord", "energy"])
@pytest.mark.parametrize("how", ["cut off", "in the header", "empty", "text", "pickle", "objects"])
def test_damaged_and_pickled_files_are_named(root, name, how):
    path = root / "a" / "set.000" / f"{name}.npy"
    whole = path.read_bytes()
    if how == "objects":
        np.save(path, np.array([object()] * 20), allow_pickle=True)
    else:
        written = {
            "cut off": whole[:-7],
            "in the header": whole[:40],
            "empty": b"",
            "text": b"hello",
            "pickle": pickle.dumps([1.0]),
        }
        path.write_bytes(written[how])
    assert f"{path}: not a whole .npy array of numbers" in refusal(root)


def test_types_without_an_element_are_named(root):
    (root / "a" / "type.raw").write_text("0 1 1 0 1 2")
    found = refusal(root)
    assert f"{root / 'a' / 'type.raw'}: atom 5 has type 2, wanted 0 to 1" in found
    assert "type_map.raw names 2 elements" in found
    (root / "a" / "type.raw").write_text("0 1 1 0 1 H")
    assert "type.raw: type of atom 5 is 'H', wanted a whole number" in refusal(root)
    (root / "a" / "type.raw").write_text("")
    assert "type.raw: no types" in refusal(root)


def test_folders_that_are_no_systems_are_named(root):
    assert f"{root / 'none'}: wanted a folder, got nothing" in refusal(root, train="none")
    assert "a/type.raw: wanted a folder, got a file" in refusal(root, train="a/type.raw")
    (root / "empty").mkdir()
    assert "missing file: wanted" in refusal(root, train="empty")
    (root / "empty" / "type.raw").write_text("0")
    (root / "empty" / "type_map.raw").write_text("H")
    assert "empty: no folder set.*" in refusal(root, train="empty")
    assert "leads out of the folder of data" in refusal(root / "a", train="../b")


def test_settings_that_say_nothing_or_too_much_are_refused(root):
    for changes, message in [
        ({"n_validation": 0}, "give either validation"),
        ({"n_test": 5}, "give either tests"),
        ({"tests": {"far": "b"}}, "split named 'far'"),
        ({"train": "/a"}, "absolute path"),
        ({"type_map": ["Q"]}, "type_map names 'Q'"),
        ({"isolated_atoms": {"Q": 1.0}}, "isolated_atoms names 'Q'"),
    ]:
        with pytest.raises(ValueError, match=message):
            config(root, **changes)
    assert "lower one of them" in refusal(root, n_validation=40)


def test_the_same_frame_in_two_splits_is_refused(root):
    assert "(train) and" in (found := refusal(root, train=["a", "b"]))
    assert "are the same configuration" in found and str(root / "b" / "set.000") in found


@needs_files
def test_water_has_the_published_size_and_forces(tmp_path):
    given = expand_use("water-pbe0ts", "data")
    store = prepare(DeepmdConfig.model_validate(given), cache=tmp_path)
    assert {name: len(ids) for name, ids in store.splits.items()} == {
        "train": 280,
        "validation": 40,
        "test": 80,
    }
    assert set(store.splits["test"].tolist()) == set(range(320, 400))
    frames = store.frames(np.arange(400))
    assert set(frames.n_atoms.tolist()) == {192} and store.elements == (1, 8)
    assert round(float(np.sqrt((frames.forces.astype(float) ** 2).mean())), 2) == 0.81
    assert store.metadata["energy_step"] == 2.0**-9
    assert np.array_equal(store.energy * 2**9, np.round(store.energy * 2**9))
    raw = np.load(Path(os.environ["SAPIS_DATA"]) / "water_pbe0ts/data_1/set.001/force.npy")
    assert np.array_equal(store.frames(np.arange(160, 240)).forces.reshape(80, -1), raw)
