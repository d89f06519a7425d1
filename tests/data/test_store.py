"""The frame store: what goes in comes out, whatever interrupts the writing."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab.data import Frames, FrameStore
from sapis_lab.data._arrays import GrowingArrays, segments
from sapis_lab.files import with_checksum
from sapis_lab.neighbors import neighbor_list


def random_frames(seed, sizes, *, periodic=False, stress=False):
    generator = np.random.default_rng(seed)
    n = int(np.sum(sizes))
    cell = np.repeat(6.0 * np.eye(3)[None], len(sizes), 0) if periodic else np.zeros((len(sizes), 3, 3))
    return Frames(
        n_atoms=np.array(sizes),
        species=generator.choice([1, 6, 8], n).astype(np.uint8),
        positions=generator.uniform(0, 6, (n, 3)),
        cell=cell,
        pbc=np.full((len(sizes), 3), periodic),
        energy=generator.normal(-1e5, 1.0, len(sizes)),
        forces=generator.normal(size=(n, 3)).astype(np.float32),
        stress=generator.normal(size=(len(sizes), 3, 3)) if stress else None,
    )


def three_splits(n):
    return {"train": np.arange(n - 2)[::-1], "validation": np.array([n - 2]), "test": np.array([n - 1])}


def equal(a, b):
    return all(
        np.array_equal(getattr(a, k), getattr(b, k))
        for k in ("n_atoms", "species", "positions", "cell", "pbc", "energy", "forces")
    )


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=4),
    data=st.data(),
)
def test_frames_come_back_as_they_were_appended(tmp_path_factory, sizes, data):
    folder = tmp_path_factory.mktemp("store")
    store = FrameStore.create(folder, columns=("stress",))
    parts = [random_frames(k, s, stress=True) for k, s in enumerate(sizes)]
    for part in parts:
        store.append(part)
    store = FrameStore.open(folder)
    n = sum(len(p) for p in parts)
    assert store.n_frames == n
    energy = np.concatenate([p.energy for p in parts])
    positions = np.concatenate([p.positions for p in parts])
    ends = np.cumsum(np.concatenate([p.n_atoms for p in parts]))
    ids = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6)))
    got = store.frames(ids)
    assert np.array_equal(got.energy, energy[ids])
    wanted = np.concatenate(
        [positions[ends[k] - store.offsets[k + 1] + store.offsets[k] : ends[k]] for k in ids]
    )
    assert np.array_equal(got.positions, wanted)
    assert got.stress.shape == (len(ids), 3, 3)


def test_energies_keep_float64(tmp_path):
    store = FrameStore.create(tmp_path)
    frames = random_frames(0, [3, 3])
    store.append(frames)
    assert store.energy.dtype == np.float64 and np.array_equal(store.energy, frames.energy)
    assert store.forces.dtype == np.float32 and store.offsets.dtype == np.int64


@pytest.mark.parametrize(
    "moment", ["some files written", "headers rewritten", "a half-written temporary manifest"]
)
def test_a_torn_append_is_invisible_and_is_cut_back(tmp_path, moment):
    store = FrameStore.create(tmp_path)
    first, second, third = (random_frames(k, [4, 5]) for k in range(3))
    store.append(first)
    manifest = (tmp_path / "manifest.json").read_bytes()
    store.append(second)
    (tmp_path / "manifest.json").write_bytes(manifest)  # everything was written but the manifest
    if moment == "some files written":
        for name in ("forces", "species"):
            path = tmp_path / f"{name}.npy"
            path.write_bytes(path.read_bytes()[:-7])
    if moment == "a half-written temporary manifest":
        (tmp_path / ".manifest.json.1.tmp").write_text("{")
    assert equal(FrameStore.open(tmp_path).frames(np.arange(2)), first)
    assert FrameStore.open(tmp_path).n_frames == 2
    again = FrameStore.open(tmp_path, writable=True)
    again.append(third)
    store = FrameStore.open(tmp_path)
    assert store.n_frames == 4
    assert equal(store.frames(np.arange(2)), first) and equal(store.frames(np.array([2, 3])), third)


def test_the_files_are_ordinary_npy_files(tmp_path):
    store = FrameStore.create(tmp_path)
    for k in range(3):
        store.append(random_frames(k, [2, 3]))
    assert np.array_equal(np.load(tmp_path / "positions.npy", allow_pickle=False), store.positions)
    assert len(np.load(tmp_path / "energy.npy", allow_pickle=False)) == 6


def test_a_damaged_file_is_named(tmp_path):
    FrameStore.create(tmp_path).append(random_frames(0, [2, 3]))
    path = tmp_path / "forces.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"forces\.npy has \d+ bytes"):
        FrameStore.open(tmp_path)


def test_opening_reads_nothing_but_the_manifest(tmp_path):
    """A store of 10⁸ frames (sparse files) opens at once."""
    FrameStore.create(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    n = 10**8 + 1
    for name, column in manifest["arrays"].items():
        column["n"] = n
        size = 128 + n * int(np.prod(column["row"], dtype=int)) * np.dtype(column["dtype"]).itemsize
        with (tmp_path / f"{name}.npy").open("r+b") as f:
            f.truncate(size)
    (tmp_path / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    store = FrameStore.open(tmp_path)
    assert store.n_frames == n - 1 and store.energy[n - 1] == 0


def test_splits_are_checked(tmp_path):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3] * 6))
    good = three_splits(6)
    for bad, message in [
        ({"train": good["train"], "test": good["test"]}, "needs the split 'validation'"),
        ({"train": good["train"], "validation": good["validation"]}, "begins with 'test'"),
        ({**good, "test": np.array([0])}, "frame 0 is named more than once"),
        ({**good, "test": np.array([6])}, "the store has 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.seal(splits=bad, metadata={})
    store.seal(splits=good, metadata={"isolated_atoms": {"1": -13.6}})
    store = FrameStore.open(tmp_path)
    assert store.sealed and store.splits["train"].tolist() == [3, 2, 1, 0]
    assert store.isolated_atoms == {1: -13.6}


def test_elements_are_those_of_the_frames_that_a_split_names(tmp_path):
    store = FrameStore.create(tmp_path)
    frames = random_frames(0, [9] * 5)
    frames.species[:9] = 79
    store.append(frames)
    store.seal(
        splits={"train": np.array([1, 2]), "validation": np.array([3]), "test": np.array([4])}, metadata={}
    )
    assert store.elements == (1, 6, 8)
    assert store.composition(np.arange(1, 5)).sum() == 36
    with pytest.raises(ValueError, match=r"Z=\[79\] occurs in the frames asked for but in no split"):
        store.composition()


@pytest.mark.parametrize("name", ["test600", "test_600_K", "test_", "held_out"])
def test_splits_have_names_that_quantities_can_carry(tmp_path, name):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3] * 4))
    with pytest.raises(ValueError, match=rf"a split is named '{name}', wanted train, validation, test"):
        store.seal(splits={**three_splits(3), name: np.array([3])}, metadata={})


def test_added_labels_leave_earlier_subsets_alone(tmp_path):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3] * 6))
    store.seal(splits=three_splits(6), metadata={})
    store = FrameStore.open(tmp_path, writable=True)
    store.append(random_frames(1, [3] * 2))
    old = {k: v.copy() for k, v in store.splits.items()}
    with pytest.raises(ValueError, match="only lengthen"):
        store.seal(splits={**old, "train": np.array([6, 7, 0, 1, 2, 3])}, metadata={})
    store.seal(splits={**old, "train": np.concatenate([old["train"], [6, 7]])}, metadata={})
    assert FrameStore.open(tmp_path).splits["train"].tolist() == [3, 2, 1, 0, 6, 7]


@pytest.mark.parametrize("periodic", [False, True])
def test_the_neighbor_table_is_that_of_every_frame_and_grows_with_the_store(tmp_path, periodic):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3, 3, 3], periodic=periodic))
    assert len(store.neighbors(3.0).offsets) == 4
    store.append(random_frames(1, [5, 2], periodic=periodic))
    table = store.neighbors(3.0)
    assert (tmp_path / "neighbors-3.0" / "manifest.json").exists()
    for k in range(5):
        atoms = slice(store.offsets[k], store.offsets[k + 1])
        wanted = neighbor_list(store.positions[atoms], store.cell[k], store.pbc[k], 3.0)
        edges = table.edges(np.array([k]))
        assert np.array_equal(edges.center, wanted.center) and np.array_equal(edges.neighbor, wanted.neighbor)
        assert np.array_equal(edges.shift, wanted.shift)
    both = table.edges(np.array([4, 0]))
    assert both.n_edges.sum() == len(both.center)


def test_composition_counts_elements(tmp_path):
    store = FrameStore.create(tmp_path)
    frames = random_frames(0, [9] * 4)
    store.append(frames)
    store.seal(splits=three_splits(4), metadata={})
    counts = store.composition(np.array([2, 0]))
    assert store.elements == (1, 6, 8)
    assert counts.tolist() == [
        [int((frames.species[9 * k : 9 * k + 9] == z).sum()) for z in (1, 6, 8)] for k in (2, 0)
    ]


def test_frames_of_other_columns_are_refused(tmp_path):
    store = FrameStore.create(tmp_path)
    with pytest.raises(ValueError, match="has no column 'stress'"):
        store.append(random_frames(0, [3], stress=True))
    with pytest.raises(ValueError, match="unknown columns"):
        FrameStore.create(tmp_path / "other", columns=("spin",))


def test_a_store_is_sent_to_other_processes_as_its_folder(tmp_path):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [50] * 40))
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).energy, store.energy)


@given(n=st.lists(st.integers(0, 4), min_size=1, max_size=6), data=st.data())
def test_segments_are_the_slices_joined(n, data):
    offsets = np.concatenate([[0], np.cumsum(n)])
    ids = np.array(data.draw(st.lists(st.integers(0, len(n) - 1), max_size=5)), dtype=int)
    rows, _ = segments(offsets, ids)
    assert rows.tolist() == [r for k in ids for r in range(offsets[k], offsets[k + 1])]


def test_appending_to_arrays_open_for_reading_is_refused(tmp_path):
    FrameStore.create(tmp_path)
    with pytest.raises(ValueError, match="writable=True"):
        GrowingArrays.open(tmp_path).append({})


@pytest.mark.parametrize("name", ["positions", "energy", "forces", "offsets", "species", "pbc"])
def test_a_bit_turned_over_in_a_store_is_found_when_it_is_opened(tmp_path, name):
    store = FrameStore.create(tmp_path)
    for seed in range(3):  # the sum runs on over several appends
        store.append(random_frames(seed, [3, 4]))
    store.seal(splits=three_splits(6), metadata={})
    assert FrameStore.open(tmp_path).problems() == []
    path = tmp_path / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        ValueError, match=rf"{name}\.npy: not what was written there .* delete its folder to make it again"
    ):
        FrameStore.open(tmp_path)


def test_large_stores_are_read_on_request(tmp_path, monkeypatch):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3] * 6))
    store.seal(splits=three_splits(6), metadata={})
    store.neighbors(3.0)
    monkeypatch.setattr("sapis_lab.data._arrays.CHECKED_BYTES", 10)
    for path in (
        tmp_path / "energy.npy",
        next((tmp_path / "neighbors-3.0").glob("shift.npy")),
        next((tmp_path / "splits").glob("test*")),
    ):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 8]))
        problems = FrameStore.open(tmp_path).problems()
        assert len(problems) == 1 and str(path) in problems[0]
        path.write_bytes(data)


def test_an_edited_manifest_of_a_store_is_refused(tmp_path):
    store = FrameStore.create(tmp_path)
    store.append(random_frames(0, [3] * 6))
    store.seal(splits=three_splits(6), metadata={"isolated_atoms": {"1": -13.6}})
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("-13.6", "-13.7"))
    with pytest.raises(
        ValueError, match=r"manifest\.json: its contents were changed after they were written"
    ):
        FrameStore.open(tmp_path)
