"""rMD17: both layouts give the same store, in eV, with the literature's splits."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.data import FrameStore, dataset_info, prepare, store_folder
from sapis_lab.data.rmd17 import Rmd17Config

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no rMD17 files to read"
)


def read(part):
    with np.load(Path(os.environ["SAPIS_DATA"]) / "rmd17" / f"rmd17_ethanol_{part}_01.npz") as archive:
        return dict(archive)


def small_dataset(root, *, n=1000, seed=0):
    """Pre-split files of a made-up harmonic 'ethanol', in kcal/mol, with the official numbers of frames."""
    generator = np.random.default_rng(seed)
    folder = root / "rmd17"
    folder.mkdir(parents=True)
    rest = np.array([[0.0, 0, 0], [1.4, 0, 0], [-0.5, 1.0, 0]])
    for part in ("train", "test"):
        d = 0.1 * generator.normal(size=(n, 3, 3))
        arrays = {
            "nuclear_charges": np.array([6, 8, 1]),
            "coords": rest + d,
            "energies": 50 * (d**2).sum((1, 2)),
            "forces": -100 * d,
        }
        np.savez(folder / f"rmd17_ethanol_{part}_01.npz", **arrays)
    return folder


@needs_files
def test_units_are_ev_and_the_spread_of_energies_is_the_published_one(tmp_path):
    store = prepare(Rmd17Config(), cache=tmp_path)
    test = store.splits["test"]
    assert round(store.energy[test].std() / units.KCAL_PER_MOL_TO_EV, 2) == 4.15
    rows = store.frames(test).forces.astype(float)
    assert round(np.sqrt((rows**2).mean()) / units.KCAL_PER_MOL_TO_EV, 1) == 27.5
    assert store.elements == (1, 6, 8)


@needs_files
def test_validation_is_the_last_50_and_training_a_permutation_of_the_first_950(tmp_path):
    store = prepare(Rmd17Config(), cache=tmp_path)
    raw = read("train")
    assert {k: len(v) for k, v in store.splits.items()} == {"train": 950, "validation": 50, "test": 1000}
    assert np.array_equal(
        store.frames(store.splits["validation"]).positions.reshape(-1, 9, 3), raw["coords"][-50:]
    )
    assert set(store.splits["train"].tolist()) == set(range(950))
    assert store.splits["train"][:50].tolist() != list(range(50))


@needs_files
def test_the_official_layout_gives_the_same_store_as_the_pre_split_one(tmp_path):
    """An official download is imitated: one file of all frames in another order, and index files."""
    train, test = read("train"), read("test")
    generator = np.random.default_rng(0)
    place = generator.permutation(2500)[:2000]
    whole = {"nuclear_charges": train["nuclear_charges"]}
    for key in ("coords", "energies", "forces"):
        both = np.concatenate([train[key], test[key]])
        whole[key] = generator.normal(size=(2500, *both.shape[1:]))
        whole[key][place] = both
    for home in (tmp_path / "with-folder" / "rmd17", tmp_path / "without"):
        (home / "npz_data").mkdir(parents=True)
        (home / "splits").mkdir()
        np.savez(home / "npz_data" / "rmd17_ethanol.npz", **whole)
        np.savetxt(home / "splits" / "index_train_01.csv", place[:1000], fmt="%d")
        np.savetxt(home / "splits" / "index_test_01.csv", place[1000:], fmt="%d")
    wanted = prepare(Rmd17Config(), cache=tmp_path / "cache")
    for name in ("with-folder", "without"):
        config = Rmd17Config(root=tmp_path / name)
        assert store_folder(config, tmp_path / name / "cache").name == wanted.folder.name
        got = prepare(config, cache=tmp_path / name / "cache")
        files = sorted(p.relative_to(wanted.folder) for p in wanted.folder.rglob("*.npy"))
        assert len(files) > 8
        for file in files:
            assert (got.folder / file).read_bytes() == (wanted.folder / file).read_bytes(), file


def test_info_needs_no_store_and_a_finished_store_needs_no_files(tmp_path):
    small_dataset(tmp_path / "files")
    config = Rmd17Config(root=tmp_path / "files")
    before = config.info(cutoff=20.0)
    assert (before.species, before.n_train, before.n_validation, dict(before.n_test)) == (
        (1, 6, 8),
        950,
        50,
        {"test": 1000},
    )
    assert before.mean_atoms == 3 and before.mean_pairs == 6 and not before.periodic
    prepare(config, cache=tmp_path / "cache")
    (tmp_path / "files").rename(tmp_path / "gone")
    assert len(prepare(config, cache=tmp_path / "cache").splits["train"]) == 950
    after = dataset_info(config, cutoff=20.0, cache=tmp_path / "cache")
    assert after == before


def test_a_sealed_store_is_opened_not_made_again(tmp_path):
    small_dataset(tmp_path)
    config = Rmd17Config(root=tmp_path)
    calls = []
    first = prepare(config, cache=tmp_path / "cache", progress=lambda *call: calls.append(call))
    stamp = (first.folder / "positions.npy").stat().st_mtime_ns
    assert calls[-1] == ("reading rMD17", 2, 2)
    second = prepare(config, cache=tmp_path / "cache", progress=lambda *call: pytest.fail("made twice"))
    assert (second.folder / "positions.npy").stat().st_mtime_ns == stamp


def test_files_that_changed_beneath_a_store_are_refused(tmp_path):
    folder = small_dataset(tmp_path)
    config = Rmd17Config(root=tmp_path)
    prepare(config, cache=tmp_path / "cache")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    small_dataset(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"rmd17_ethanol_test_01\.npz has changed since the store"):
        prepare(config, cache=tmp_path / "cache")


def test_identity_leaves_out_where_files_lie_and_holds_the_version():
    assert Rmd17Config(root="/a").identity() == Rmd17Config(root="/b").identity()
    assert Rmd17Config().identity()["version"] == Rmd17Config.version
    assert store_folder(Rmd17Config(split=2), Path("c")) != store_folder(Rmd17Config(split=1), Path("c"))


def test_missing_files_are_named_with_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv("SAPIS_DATA", raising=False)
    with pytest.raises(ValueError, match="set SAPIS_DATA"):
        prepare(Rmd17Config(), cache=tmp_path / "cache")
    with pytest.raises(
        ValueError,
        match=r"wanted .*npz_data/rmd17_ethanol\.npz or .*rmd17_ethanol_train_01\.npz; .*SAPIS_DATA",
    ):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"root=.*nowhere.* does not exist"):
        prepare(Rmd17Config(root=tmp_path / "nowhere"), cache=tmp_path / "cache")
    small_dataset(tmp_path)
    (tmp_path / "rmd17" / "rmd17_ethanol_test_01.npz").unlink()
    with pytest.raises(ValueError, match=r"missing file: .*test_01\.npz"):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")


@pytest.mark.parametrize("how", ["object array", "pickle"])
def test_pickled_npz_files_are_refused(tmp_path, how):
    import pickle

    folder = small_dataset(tmp_path)
    path = folder / "rmd17_ethanol_train_01.npz"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"coords": 1}))
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["energies"] = np.array([object()] * 1000)
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"train_01\.npz.*refused because reading (them|it) runs code"):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")


def test_wrong_shapes_and_numbers_of_frames_are_named(tmp_path):
    folder = small_dataset(tmp_path)
    path = folder / "rmd17_ethanol_test_01.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "forces": arrays["forces"][:, :2]})
    with pytest.raises(
        ValueError, match=r"test_01\.npz: forces has shape \(1000, 2, 3\), wanted \(1000, 3, 3\)"
    ):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")
    np.savez(path, **{k: v if k == "nuclear_charges" else v[:900] for k, v in arrays.items()})
    with pytest.raises(ValueError, match=r"test_01\.npz: 900 frames, wanted the 1000"):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")


def test_an_unfinished_store_is_replaced(tmp_path):
    small_dataset(tmp_path)
    config = Rmd17Config(root=tmp_path)
    FrameStore.create(store_folder(config, tmp_path / "cache"))
    assert prepare(config, cache=tmp_path / "cache").n_frames == 2000


def test_two_at_once_make_it_only_once(tmp_path):
    small_dataset(tmp_path)
    config = Rmd17Config(root=tmp_path)
    made = []
    with ThreadPoolExecutor(2) as pool:
        stores = list(
            pool.map(
                lambda _: prepare(config, cache=tmp_path / "cache", progress=lambda *call: made.append(call)),
                range(2),
            )
        )
    assert len(made) == 2, "two files were read, once each"
    assert stores[0].n_frames == stores[1].n_frames == 2000


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.array(["C", "O", "H"]), r"train_01\.npz: array 'nuclear_charges' is of type <U1"),
        (np.array(6), r"train_01\.npz: nuclear_charges has shape \(\), wanted \(n_atoms,\)"),
    ],
)
def test_species_that_are_not_atomic_numbers_are_refused(tmp_path, numbers, message):
    path = small_dataset(tmp_path) / "rmd17_ethanol_train_01.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "nuclear_charges": numbers})
    with pytest.raises(ValueError, match=message):
        prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache")
