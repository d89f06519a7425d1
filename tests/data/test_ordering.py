"""Orders of the training frames: nested, reproducible, and of what they promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab.config import ConfigError, dump, fingerprint, kind_class, kinds, load
from sapis_lab.data import Frames, FrameStore, prepare, store_folder
from sapis_lab.data._frame_features import chunks, compositions, frame_features
from sapis_lab.data._ordering import (
    FarthestOrder,
    RandomOrder,
    StratifiedOrder,
    clusters,
    energy_quantiles,
    farthest_first,
    nearest,
    stratified_order,
)
from sapis_lab.selftest import random_crystal, random_molecule, random_rotation

ORDERS = {
    "random": RandomOrder(),
    "composition": StratifiedOrder(by="composition"),
    "source": StratifiedOrder(by="source"),
    "energy": StratifiedOrder(by="energy", n_strata=4),
    "environment": StratifiedOrder(by="environment", n_strata=4),
    "farthest": FarthestOrder(n_first=20),
}


def store_of(folder: Path, frames: list, energy: np.ndarray | None = None) -> FrameStore:
    n_atoms = np.array([len(f.species) for f in frames])
    cell = np.array([np.zeros((3, 3)) if f.cell is None else f.cell for f in frames])
    store = FrameStore.create(folder)
    store.append(
        Frames(
            n_atoms=n_atoms,
            species=np.concatenate([f.species for f in frames]).astype(np.uint8),
            positions=np.concatenate([f.positions for f in frames]),
            cell=cell,
            pbc=np.repeat(cell.any((1, 2))[:, None], 3, axis=1),
            energy=np.random.default_rng(1).normal(size=len(frames)) if energy is None else energy,
            forces=np.zeros((n_atoms.sum(), 3), np.float32),
        )
    )
    return store


def some_molecules(n: int) -> list:
    """Of 4 to 8 atoms."""
    return [random_molecule(4 + k % 5, np.random.default_rng(k)) for k in range(n)]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """60 molecules; it is not sealed."""
    return store_of(tmp_path_factory.mktemp("molecules"), some_molecules(60))


SOURCES = [f"file {k % 3}" for k in range(60)]
POOL = np.random.default_rng(5).permutation(60)[:50]


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_has_every_frame_of_the_pool_once_and_is_the_same_every_time(
    name: str, molecules: FrameStore
) -> None:
    first, again = (ORDERS[name].training_order(molecules, POOL, seed=3, sources=SOURCES) for _ in range(2))
    assert sorted(first) == sorted(POOL) and np.array_equal(first, again)
    assert np.array_equal(first, POOL) == (name == "random")


# ----------------------------------------------------------------------------------------------------- strata


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9), seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_every_prefix_holds_each_stratum_in_its_share_to_less_than_one_frame(
    sizes: list[int], seed: int
) -> None:
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(strata)
    order = stratified_order(strata, seed=seed)
    assert np.array_equal(np.sort(order), np.arange(n))
    for s, n_s in enumerate(sizes):
        members = strata[order] == s
        assert np.abs(np.cumsum(members) - np.arange(1, n + 1) * n_s / n).max() < 1
        assert (np.diff(order[members]) > 0).all(), "frames of a stratum stay in their order"


def test_strata_are_what_they_are_said_to_be(molecules: FrameStore) -> None:
    """By their share in every prefix of the order."""
    energy = np.asarray(molecules.energy)[POOL]
    sizes = np.diff(molecules.offsets)[POOL]
    # molecules of other sizes have other compositions; energies of 60 frames are fitted by 3 elements
    for name, labels in (("source", np.array(SOURCES)[POOL]), ("energy", None)):
        if labels is None:
            labels = energy_quantiles(molecules, POOL, n=4)
            assert sorted(np.bincount(labels)) == [12, 12, 13, 13]
        found = ORDERS[name].training_order(molecules, POOL, seed=0, sources=SOURCES)
        label_of = dict(zip(POOL, labels, strict=True))
        chosen = np.array([label_of[k] for k in found])
        for s in np.unique(labels):
            share = (labels == s).mean() * np.arange(1, 51)
            assert np.abs(np.cumsum(chosen == s) - share).max() < 1
    assert len(np.unique(sizes)) == 5 and np.isfinite(energy).all()


def test_quantiles_are_of_the_energy_that_the_composition_does_not_explain(tmp_path: Path) -> None:
    frames = some_molecules(40)
    of_atom = {1: -13.0, 6: -1000.0, 8: -2000.0}
    extra = np.random.default_rng(0).permutation(40) - 19.5
    n_atoms = np.array([len(f.species) for f in frames])
    energy = np.array([sum(of_atom[int(z)] for z in f.species) for f in frames]) + 1e-4 * extra * n_atoms
    energy[7] = np.nan
    strata = energy_quantiles(store_of(tmp_path, frames, energy), np.arange(40), n=3)
    assert strata[7] == 3 and sorted(np.bincount(strata)) == [1, 13, 13, 13]
    rest = np.arange(40) != 7
    assert np.corrcoef(strata[rest], extra[rest])[0, 1] > 0.8


def test_clusters_find_groups_that_are_far_apart(tmp_path: Path) -> None:
    """Distorted copies of four molecules."""
    rng = np.random.default_rng(2)
    kinds_of = rng.integers(0, 4, 80)
    bases = [random_molecule(6, np.random.default_rng(k)) for k in range(4)]
    frames = [
        b._replace(positions=b.positions + rng.normal(scale=0.02, size=(6, 3)))
        for b in (bases[k] for k in kinds_of)
    ]
    which = clusters(frame_features(store_of(tmp_path, frames), np.arange(80)), n=4, seed=0)
    assert len({(a, b) for a, b in zip(kinds_of, which, strict=True)}) == 4


def test_rows_belong_to_their_nearest_centre() -> None:
    rng = np.random.default_rng(0)
    rows, centres = rng.integers(-1000, 1000, (500, 5)), rng.integers(-1000, 1000, (7, 5)).astype(float)
    distance = ((rows[:, None] - centres[None]) ** 2).sum(-1)
    assert np.array_equal(nearest(rows, centres), distance.argmin(1))
    assert len(np.unique(clusters(np.zeros((30, 3), np.int32), n=4, seed=0))) == 1, "rows that do not differ"


def test_scaffolds_are_the_rings_of_a_molecule(tmp_path: Path) -> None:
    chem = pytest.importorskip("rdkit.Chem", reason="scaffolds need the extra [chem]")
    from rdkit.Chem import AllChem

    from sapis_lab.data._scaffolds import scaffolds

    frames = []
    # toluene and ethylbenzene have one ring, ethanol and propane none, cyclohexane another
    for k, smiles in enumerate(("Cc1ccccc1", "CCO", "CCc1ccccc1", "C1CCCCC1", "CCC")):
        molecule = chem.AddHs(chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=k + 1)
        species = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
        positions = molecule.GetConformer().GetPositions()
        frames.append(
            random_molecule(4, np.random.default_rng(0))._replace(species=species, positions=positions)
        )
    store = store_of(tmp_path / "m", frames)
    toluene, ethanol, ethylbenzene, cyclohexane, propane = scaffolds(store, np.arange(5))
    assert toluene == ethylbenzene and ethanol == propane
    assert len({toluene, ethanol, cyclohexane}) == 3
    crystals = store_of(tmp_path / "c", [random_crystal(np.random.default_rng(0))])
    with pytest.raises(ValueError, match="training frame 0 is periodic; wanted molecules"):
        scaffolds(crystals, np.arange(1))


# --------------------------------------------------------------------------------------------------- farthest


@pytest.mark.parametrize("seed", range(5))
def test_each_next_frame_maximises_the_smallest_distance_to_those_before(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sapis_lab.data import _ordering

    monkeypatch.setattr(_ordering, "_CHUNK", 17)
    rows = np.random.default_rng(seed).integers(-4, 5, (60, 2)).astype(np.int32)  # some are equal
    found = farthest_first(rows, n=60)
    assert sorted(found) == list(range(60)) and found[0] == 0
    distance = ((rows[:, None].astype(int) - rows[None]) ** 2).sum(-1)
    for k in range(1, 60):
        others = np.setdiff1d(np.arange(60), found[:k])
        smallest = distance[np.ix_(others, found[:k])].min(1)
        assert distance[found[k], found[:k]].min() == smallest.max()
        assert found[k] == others[np.argmax(smallest)], "the first of several"
    assert np.array_equal(farthest_first(rows, n=7), found[:7])


def test_the_farthest_are_followed_by_the_others_in_the_order_of_the_pool(molecules: FrameStore) -> None:
    found = FarthestOrder(n_first=6).training_order(molecules, POOL, seed=0)
    assert found[0] == POOL[0]
    assert np.array_equal(found[6:], POOL[~np.isin(POOL, found[:6])])
    assert np.array_equal(found[:6], FarthestOrder(n_first=50).training_order(molecules, POOL, seed=0)[:6])


# --------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("structure", ["molecules", "crystals"])
def test_features_are_those_of_the_turned_and_renumbered_frame(structure: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frames = (
        some_molecules(20)
        if structure == "molecules"
        else [random_crystal(np.random.default_rng(k)) for k in range(20)]
    )
    turned = []
    for f in frames:
        r, o = -random_rotation(rng), rng.permutation(len(f.species))
        cell = None if f.cell is None else f.cell @ r.T
        moved = (f.positions @ r.T + rng.normal(size=3))[o]
        turned.append(f._replace(positions=moved, species=f.species[o], cell=cell))
    features = frame_features(store_of(tmp_path, frames + turned), np.arange(40))
    assert np.abs(features[:20] - features[20:]).max() <= 1  # rounded to whole numbers
    assert np.abs(features).max() > 1000


def test_features_of_equal_frames_are_equal_and_others_differ_by_how_far_they_are(tmp_path: Path) -> None:
    base = random_molecule(8, np.random.default_rng(3))
    step = np.random.default_rng(0).normal(size=(8, 3))
    frames = [base._replace(positions=base.positions + s * step) for s in (0.0, 0.0, 0.02, 0.05, 0.1)]
    features = frame_features(store_of(tmp_path, frames), np.arange(5)).astype(float)
    distance = np.linalg.norm(features - features[0], axis=1)
    assert distance[1] == 0 and (np.diff(distance[1:]) > 0).all()


def test_more_elements_than_have_places_of_their_own_still_give_features(tmp_path: Path) -> None:
    frames = [
        f._replace(species=np.arange(1 + k, 1 + k + len(f.species))) for k, f in enumerate(some_molecules(15))
    ]
    store = store_of(tmp_path, frames)
    assert len(np.unique(frame_features(store, np.arange(15)), axis=0)) == 15
    elements, counts = compositions(store, np.arange(15))
    for k, f in enumerate(frames):
        assert np.array_equal(np.repeat(elements, counts[k]), f.species)


def test_one_frame_has_features(tmp_path: Path) -> None:
    store = store_of(tmp_path, some_molecules(1))
    assert frame_features(store, np.array([0])).tolist() == [[0]]
    assert FarthestOrder().training_order(store, np.array([0]), seed=0).tolist() == [0]


def test_frames_are_read_in_pieces_that_cover_them_once(
    molecules: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sapis_lab.data import _frame_features

    whole = frame_features(molecules, POOL)
    monkeypatch.setattr(_frame_features, "_CHUNK_ATOMS", 20)
    pieces = list(chunks(molecules, POOL))
    assert len(pieces) > 10 and sorted(np.concatenate(pieces)) == list(range(50))
    assert max(int(np.diff(molecules.offsets)[POOL[p]].sum()) for p in pieces) <= 20
    assert np.abs(frame_features(molecules, POOL) - whole).max() <= 1


# --------------------------------------------------------------------------------------------------- settings

MINIMAL = {
    "rmd17": {},
    "extxyz": {
        "train": "a.xyz",
        "n_validation": 1,
        "n_test": 1,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    },
    "deepmd": {"train": "a", "n_validation": 1, "n_test": 1},
    "mlearn": {"element": "Si"},
}


@pytest.mark.parametrize("kind", MINIMAL)
def test_the_random_order_is_no_part_of_the_identity_and_others_are(kind: str) -> None:
    cls = kind_class("data", kind)
    plain = load(cls, {"kind": kind, **MINIMAL[kind]}, source="x")
    assert "order" not in plain.identity() and "split_by" not in plain.identity()
    found = {store_folder(plain, Path())}
    for order in ("farthest", {"kind": "stratified", "by": "energy"}, {"kind": "farthest", "n_first": 7}):
        config = load(cls, {"kind": kind, **MINIMAL[kind], "order": order}, source="x")
        assert load(cls, dump(config), source="x") == config
        found.add(store_folder(config, Path()))
    assert len(found) == 4


def test_stores_made_before_there_were_orders_keep_their_name() -> None:
    assert fingerprint(kind_class("data", "rmd17")().identity())[:12] == "0a8ec2921078"
    assert {"rmd17", "extxyz", "deepmd", "mlearn"} <= set(kinds("data"))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("nearest", "order: wanted random, stratified, farthest, .* got kind='nearest'"),
        (3, "order: wanted random, stratified, farthest, .* got 3"),
        ({"kind": "farthest", "n_fist": 3}, "unknown key 'n_fist'; did you mean 'n_first'"),
        ({"kind": "farthest", "n_first": 0}, "order.n_first: .* got 0"),
        ({"kind": "stratified", "by": "source"}, "order: by=source, but the frames of this data set do not"),
        (
            {"kind": "stratified", "n_strata": 3},
            "n_strata=3 has no meaning with by=composition, .* leave it out, or set by",
        ),
    ],
)
def test_orders_that_do_not_exist_are_refused(order: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(kind_class("data", "rmd17"), {"kind": "rmd17", "order": order}, source="x")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (StratifiedOrder(by="source"), "all training frames come from a.xyz; wanted several"),
        (StratifiedOrder(by="energy", n_strata=51), "n_strata=51 exceeds the 50 training frames; lower it"),
    ],
)
def test_frames_without_what_an_order_goes_by_are_refused(
    order: StratifiedOrder, message: str, molecules: FrameStore
) -> None:
    with pytest.raises(ValueError, match=message):
        order.training_order(molecules, POOL, seed=0, sources=["a.xyz"] * 60)


def test_an_order_changes_neither_the_pool_nor_what_is_held_out(tmp_path: Path) -> None:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    for name, shift in (("a", 0), ("b", 100)):
        frames = []
        for k, f in enumerate(some_molecules(25)):
            rng = np.random.default_rng(shift + k)
            atoms = Atoms(f.species, f.positions + rng.normal(scale=0.02, size=f.positions.shape))
            forces = rng.normal(size=f.positions.shape)
            atoms.calc = SinglePointCalculator(atoms, energy=-10.0 * len(atoms), forces=forces)
            frames.append(atoms)
        write(tmp_path / f"{name}.xyz", frames, format="extxyz")

    def splits(order: object) -> dict[str, list[int]]:
        raw = {
            **MINIMAL["extxyz"],
            "kind": "extxyz",
            "train": ["a.xyz", "b.xyz"],
            "n_validation": 6,
            "n_test": 5,
            "root": str(tmp_path),
            "order": order,
        }
        store = prepare(load(kind_class("data", "extxyz"), raw, source="x"), cache=tmp_path / "cache")
        return {name: ids.tolist() for name, ids in store.splits.items()}

    wanted = splits("random")
    assert wanted["train"] == np.random.default_rng(0).permutation(50)[:39].tolist()
    seen = {tuple(wanted["train"])}
    for order in ("farthest", {"kind": "stratified", "by": "source"}, "stratified"):
        found = splits(order)
        assert sorted(found["train"]) == sorted(wanted["train"])
        assert found["validation"] == wanted["validation"] and found["test"] == wanted["test"]
        seen.add(tuple(found["train"]))
    assert len(seen) == 4
