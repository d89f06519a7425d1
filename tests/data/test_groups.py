"""Splits by group: none leaks, and sizes come as near as they can."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab.config import ConfigError, kind_class, load
from sapis_lab.data import _groups, prepare
from sapis_lab.data._groups import group_splits, named_split
from sapis_lab.data._pools import pool_splits
from sapis_lab.data.files import FilesConfig


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat([f"g{k}" for k in range(len(sizes))], sizes))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40),
    shares=st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_no_group_is_in_two_splits_and_every_frame_is_in_one(
    sizes: list[int], shares: tuple[float, float], seed: int
) -> None:
    groups = labels_of(sizes, seed)
    asked = {"n_validation": 1 + int(shares[0] * len(groups)), "n_test": 1 + int(shares[1] * len(groups))}
    try:
        splits = group_splits(groups, **asked, seed=seed)
    except ValueError as error:
        assert "frames of whole groups are asked for, the nearest is" in str(error)
        return
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(groups)))
    assert all(len(ids) for ids in splits.values())
    for a, b in combinations(splits.values(), 2):
        assert not set(groups[a]) & set(groups[b])
    again = group_splits(groups, **asked, seed=seed)
    assert all(np.array_equal(splits[k], again[k]) for k in splits)


@given(sizes=st.lists(st.integers(1, 20), min_size=2, max_size=9), wanted=st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_sizes_are_as_near_to_those_asked_for_as_whole_groups_allow(sizes: list[int], wanted: int) -> None:
    every = [sum(some) for k in range(1, len(sizes)) for some in combinations(sizes, k)]
    nearest = min(abs(total - wanted) for total in every)
    groups = labels_of(sizes)
    if nearest > wanted / 2:
        with pytest.raises(ValueError, match="the nearest is"):
            group_splits(groups, n_validation=0, n_test=wanted, seed=0)
    else:
        found = group_splits(groups, n_validation=0, n_test=wanted, seed=0)
        assert abs(len(found["test"]) - wanted) == nearest and len(found["train"])


def test_many_groups_are_chosen_to_the_frame_without_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 6, 3000).tolist(), 900]
    monkeypatch.setattr(_groups, "_MOST_BITS", 1 << 16)
    found = group_splits(labels_of(sizes), n_validation=1000, n_test=2000, seed=1)
    assert (len(found["validation"]), len(found["test"])) == (1000, 2000)


def test_seeds_choose_other_groups_and_none_takes_the_last() -> None:
    groups = np.repeat(np.arange(20), 5)
    tests = {tuple(group_splits(groups, n_validation=5, n_test=10, seed=k)["test"]) for k in range(5)}
    assert len(tests) > 2
    found = group_splits(groups, n_validation=5, n_test=10, seed=None)
    assert found["test"].tolist() == list(range(90, 100))
    assert found["validation"].tolist() == list(range(85, 90))


def test_the_choice_does_not_depend_on_the_names_of_the_groups() -> None:
    sizes = [3, 7, 2, 9, 4, 6]
    groups = labels_of(sizes)
    renamed = np.array([{"g0": "z", "g1": "y"}.get(g, g) for g in groups])
    a, b = (group_splits(g, n_validation=6, n_test=9, seed=4) for g in (groups, renamed))
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_the_largest_frames_are_tested_and_none_as_large_is_trained_on() -> None:
    rng = np.random.default_rng(0)
    n_atoms = rng.integers(3, 12, 200)
    # two compositions of every size
    groups = np.array([f"{n}-{k % 2}" for k, n in enumerate(n_atoms)])
    found = group_splits(groups, n_validation=30, n_test=50, seed=0, n_atoms=n_atoms)
    largest_elsewhere = max(n_atoms[found[k]].max() for k in ("train", "validation"))
    assert n_atoms[found["test"]].min() > largest_elsewhere
    counts = np.cumsum(np.bincount(n_atoms)[::-1])
    assert abs(len(found["test"]) - 50) == np.abs(counts - 50).min()
    assert not set(groups[found["train"]]) & set(groups[found["validation"]])


@pytest.mark.parametrize(
    ("sizes", "asked", "message"),
    [
        ([5, 5], (2, 2), "3 splits want at least as many groups of frames, got 2; hold out fewer splits"),
        (
            [50, 60, 70],
            (20, 50),
            "n_validation=20 .* nearest is 60: the 2 groups .* 70 .g2., 60 .g1. frames; ask for 60",
        ),
        ([100, 1], (0, 50), "n_test=50 .* nearest is 1: "),
    ],
)
def test_too_few_or_too_large_groups_are_refused(
    sizes: list[int], asked: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_splits(labels_of(sizes), n_validation=asked[0], n_test=asked[1], seed=0)


def test_groups_of_mixed_sizes_cannot_be_split_by_size() -> None:
    groups, n_atoms = np.repeat(["a", "b", "c"], 10), np.tile([3, 3, 4, 4, 5], 6)
    with pytest.raises(ValueError, match="3 groups have frames with 5 atoms and more, and frames with fewer"):
        group_splits(groups, n_validation=0, n_test=6, seed=0, n_atoms=n_atoms)
    with pytest.raises(ValueError, match="all frames have 3 atoms; the largest cannot be held out"):
        group_splits(groups, n_validation=0, n_test=6, seed=0, n_atoms=np.full(30, 3))


@pytest.mark.parametrize("n_train", [None, 7])
def test_a_pool_in_groups_is_split_in_its_permuted_order(n_train: int | None) -> None:
    groups = _groups.Groups(np.repeat(np.arange(10), 4))
    ranges = {"train": np.arange(100, 140), "validation": np.arange(0)}
    settings = {"train": ["a.xyz"], "tests": (), "n_validation": 8, "n_test": 4, "seed": 3}
    found = pool_splits(ranges, n_train=n_train, groups=groups, **settings)
    order = 100 + np.random.default_rng(3).permutation(40)
    assert [len(found[k]) for k in ("train", "validation", "test")] == [n_train or 28, 8, 4]
    of = {name: set((ids - 100) // 4) for name, ids in found.items()}
    assert not (of["train"] & of["validation"] | of["train"] & of["test"] | of["validation"] & of["test"])
    for ids in found.values():
        places = [int(np.nonzero(order == k)[0][0]) for k in ids]
        assert places == sorted(places)


# ----------------------------------------------------------------------------------------------------- deepmd


def write_system(folder: Path, species: str, n_frames: int, seed: int) -> None:
    """A system of DeePMD-kit."""
    rng = np.random.default_rng(seed)
    n = len(species)
    (folder / "set.000").mkdir(parents=True)
    (folder / "type_map.raw").write_text("H O\n")
    (folder / "type.raw").write_text(" ".join("01"[s == "O"] for s in species) + "\n")
    (folder / "nopbc").write_text("")
    x = 0.9 * np.arange(n)[:, None] * np.eye(3)[0] + rng.normal(scale=0.03, size=(n_frames, n, 3))
    for name, value in {
        "coord": x.reshape(n_frames, -1),
        "energy": -10.0 * n + rng.normal(scale=0.01, size=n_frames),
        "force": rng.normal(scale=0.1, size=(n_frames, 3 * n)),
    }.items():
        np.save(folder / "set.000" / f"{name}.npy", value)


def deepmd(root: Path, **more: object) -> object:
    systems = {"a": "HHO", "b": "HOH", "c": "HHOO", "d": "HHHO", "e": "OO", "f": "HHOOO"}
    for k, (name, species) in enumerate(systems.items()):
        if not (root / name).exists():
            write_system(root / name, species, 10, k)
    raw = {"kind": "deepmd", "train": sorted(systems), "n_validation": 10, "n_test": 10, "root": str(root)}
    return load(kind_class("data", "deepmd"), {**raw, **more}, source="x")


@pytest.mark.parametrize("by", ["source", "composition", "n_atoms"])
def test_systems_stay_together_in_a_store_and_in_what_is_said_before_it_is_made(
    by: str, tmp_path: Path
) -> None:
    config = deepmd(tmp_path, split_by=by, n_validation=20 if by != "source" else 10)
    store = prepare(config, cache=tmp_path / "cache")
    label = {
        "source": lambda k: k // 10,
        "composition": lambda k: ("HHO", "HHO", "HHOO", "HHHO", "OO", "HHOOO")[k // 10],
        "n_atoms": lambda k: (3, 3, 4, 4, 2, 5)[k // 10],
    }[by]
    of = {name: {label(int(k)) for k in ids} for name, ids in store.splits.items()}
    assert not (of["train"] & of["validation"] | of["train"] & of["test"] | of["validation"] & of["test"])
    info = config.info(cutoff=3.0)
    assert (info.n_train, info.n_validation, info.n_test["test"]) == tuple(
        len(store.splits[k]) for k in ("train", "validation", "test")
    )


def test_the_largest_systems_are_tested(tmp_path: Path) -> None:
    config = deepmd(tmp_path, split_by={"by": "composition", "test": "largest"})
    store = prepare(config, cache=tmp_path / "cache")
    assert sorted(store.splits["test"]) == list(range(50, 60))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"split_by": "molecule"},
            "split_by='molecule': the frames of this kind of data carry no keys",
        ),
        ({"split_by": {"by": "source", "tests": "largest"}}, "unknown key 'tests'; did you mean 'test'"),
        (
            {"split_by": "source", "n_validation": 0, "n_test": 0, "validation": "e", "tests": {"test": "f"}},
            "split_by says how frames are held out, but n_validation and n_test are 0; leave it out",
        ),
        (
            {"split_by": {"by": "n_atoms", "test": "largest"}, "n_test": 0, "tests": {"test": "f"}},
            "test=largest wants n_test",
        ),
    ],
)
def test_groups_without_a_meaning_are_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        deepmd(tmp_path, **settings)


def test_a_word_that_is_no_rule_is_a_key_of_frames_in_a_mapping_too():
    assert named_split({"by": "mol", "test": "largest"}) == {"by": "key", "key": "mol", "test": "largest"}
    assert named_split({"by": "n_atoms", "test": "largest"}) == {"by": "n_atoms", "test": "largest"}
    with pytest.raises(ValueError, match="wanted source, composition, n_atoms or a key of the frames, got 3"):
        named_split(3)


def test_a_setting_of_several_types_is_refused_once_from_inside_of_the_nearest():
    with pytest.raises(ConfigError) as refused:
        split_by = {"by": "source", "test": "all"}
        load(FilesConfig, {"train": "a.xyz", "n_test": 2, "split_by": split_by}, source="t")
    assert str(refused.value) == "t: split_by.test: input should be 'random' or 'largest', got 'all'"
