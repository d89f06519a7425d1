"""What a store of very many frames asks of a process: chunks of memory, and no look at what is known."""

import json
import os
import tracemalloc

import numpy as np
import pytest

from sapis_lab import batches
from sapis_lab.batches import BatchMaker, TrainingStream
from sapis_lab.data import Frames, FrameStore, _store
from sapis_lab.data._arrays import GrowingArrays
from sapis_lab.files import with_checksum, without_checksum
from sapis_lab.tasks import energies

REFERENCES = np.array([-13.0, -1000.0, -2000.0])


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def frames(sizes, *, seed=0, species=(1, 6, 8), lacking=(), periodic=False):
    generator = np.random.default_rng(seed)
    sizes, n = np.array(sizes), int(np.sum(sizes))
    energy = generator.normal(-1e5, 1, len(sizes))
    energy[list(lacking)] = np.nan
    return Frames(
        n_atoms=sizes,
        species=generator.choice(species, n).astype(np.uint8),
        positions=generator.uniform(0, 4, (n, 3)),
        cell=np.zeros((len(sizes), 3, 3)) + periodic * 5 * np.eye(3),
        pbc=np.full((len(sizes), 3), periodic),
        energy=energy,
        forces=generator.normal(size=(n, 3)).astype(np.float32),
    )


def splits_of(n, old=None):
    if old is not None:
        return {**old, "train": np.concatenate([old["train"], np.arange(sum(map(len, old.values())), n)])}
    return {"train": np.arange(n - 2)[::-1], "validation": np.array([n - 2]), "test": np.array([n - 1])}


def sealed(folder, given):
    store = FrameStore.create(folder)
    store.append(given)
    store.seal(splits=splits_of(store.n_frames), metadata={})
    return FrameStore.open(folder)


def forget(folder, *names):
    """Take facts out of the manifest, as of a store that an older version made."""
    path = folder / "manifest.json"
    manifest = without_checksum(json.loads(path.read_text()), source="", advice="")
    path.write_text(json.dumps(with_checksum({k: v for k, v in manifest.items() if k not in names})))


def peak_of(work):
    """Bytes that `work()` had allocated at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_sealing_takes_a_few_bytes_a_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_CHUNK", 1000)
    n = 40_000
    store = FrameStore.create(tmp_path)
    store.append(frames([9] * n))
    splits = splits_of(n)
    assert peak_of(lambda: store.seal(splits=splits, metadata={})) < 6 * n + 1_000_000


def test_composition_takes_little_more_than_its_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_COMPOSITION_CHUNK", 500)
    n = 40_000
    store = sealed(tmp_path, frames([9] * n))
    assert peak_of(store.composition) < 24 * n + 500_000
    ids = np.random.default_rng(0).permutation(n)
    assert peak_of(lambda: store.composition(ids)) < 24 * n + 500_000


@pytest.mark.parametrize("sizes", [[9] * 30_000, np.resize([7, 8, 9], 30_000)])
def test_the_memory_of_a_reader_does_not_grow_with_the_frames(tmp_path, monkeypatch, sizes):
    for name in ("ENERGIES", "LARGEST_DRAWN", "HELD"):
        monkeypatch.setattr(batches, name, 10)
    monkeypatch.setattr(_store, "_CHUNK", 100)
    monkeypatch.setattr("sapis_lab.data._arrays.CHECKED_BYTES", 10)
    monkeypatch.setattr(_store, "CHECKED_BYTES", 10)
    sealed(tmp_path, frames(sizes)).neighbors(1.0)

    def read():
        store = FrameStore.open(tmp_path)
        make = BatchMaker(store, REFERENCES, layout="edges", cutoff=1.0)
        stream = TrainingStream(
            make,
            store.splits["train"],
            batch_size=32,
            seed=0,
            augment=False,
            first_step=lambda: 0,
            rank=0,
            world=1,
        )
        for step in range(3):
            stream.share(step)

    read()
    assert peak_of(read) < 600_000  # 8 bytes a frame would be 240,000 more; one array of atoms 2 MB


def test_energies_of_a_large_store_are_those_that_a_small_one_keeps(tmp_path, monkeypatch):
    store = sealed(tmp_path, frames([3, 5, 4] * 10))
    ids = np.array([4, 4, 29, 0])
    kept = BatchMaker(store, REFERENCES, layout="edges", cutoff=2.0)(ids)
    monkeypatch.setattr(batches, "ENERGIES", 10)
    made = BatchMaker(store, REFERENCES, layout="edges", cutoff=2.0)
    assert made._energies is None
    np.testing.assert_allclose(made(ids).energy.numpy(), kept.energy.numpy(), rtol=1e-6)


def test_blocks_of_many_sizes_are_not_kept_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_GRAPHS", 3)
    store = sealed(tmp_path, frames([3, 4, 5, 4, 3] * 6))
    make = BatchMaker(store, REFERENCES, layout="pairs", cutoff=9.0)
    for k in range(20):
        make(np.array([k, k + 3, k + 5]))
    assert len(make._graphs) == 3


@pytest.mark.parametrize("periodic", [False, True])
def test_sizes_are_known_of_sealed_stores_and_found_of_others(tmp_path, monkeypatch, periodic):
    store = FrameStore.create(tmp_path)
    store.append(frames([4, 2, 7]))
    store.append(frames([5], periodic=periodic))
    assert store.sizes == (2, 7, periodic)
    store.seal(splits=splits_of(4), metadata={})
    forget(tmp_path, "known")
    assert FrameStore.open(tmp_path).sizes == (2, 7, periodic)
    again = FrameStore.open(tmp_path, writable=True)
    again.seal(splits=splits_of(4), metadata={})
    opened = FrameStore.open(tmp_path)
    monkeypatch.setattr(GrowingArrays, "__getitem__", None)  # nothing is read
    assert opened.sizes == (2, 7, periodic)


def test_sealing_again_looks_at_new_frames_only(tmp_path):
    sealed(tmp_path, frames([3] * 6, species=(1, 6)))
    store = FrameStore.open(tmp_path, writable=True)
    assert (store.elements, store.incomplete) == ((1, 6), ())
    store.append(frames([2, 8], species=(8,), lacking=[1]))
    looked_at, real = [], FrameStore.label_column
    store.label_column = lambda key: real(store, key).view(Watched).watched_by(looked_at)
    store.seal(splits=splits_of(8, store.splits), metadata={})
    assert FrameStore.open(tmp_path).elements == (1, 6, 8)
    assert FrameStore.open(tmp_path).incomplete == ("energy",)
    assert FrameStore.open(tmp_path).sizes == (2, 8, False)
    assert sorted(looked_at) == [6, 18]  # the first new frame, and its first atom


class Watched(np.ndarray):
    """An array that notes where it is first cut."""

    def watched_by(self, notes):
        self.notes = notes
        return self

    def __getitem__(self, key):
        if hasattr(self, "notes") and isinstance(key, slice):
            self.notes.append(key.start)
        return np.asarray(self)[key]


def test_a_store_sealed_by_an_older_version_is_sealed_again(tmp_path):
    sealed(tmp_path, frames([3] * 6, species=(1, 6), lacking=[2]))
    forget(tmp_path, "known")
    store = FrameStore.open(tmp_path, writable=True)
    store.append(frames([2, 8], species=(8,)))
    store.seal(splits=splits_of(8, store.splits), metadata={})
    store = FrameStore.open(tmp_path)
    assert (store.elements, store.incomplete, store.sizes) == ((1, 6, 8), ("energy",), (2, 8, False))


def test_elements_of_frames_that_no_split_names_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_CHUNK", 2)
    store = FrameStore.create(tmp_path)
    for z in (1, 79, 6, 80, 8, 81):
        store.append(frames([z % 5 + 1], species=(z,)))
    store.seal(
        splits={"train": np.array([0]), "validation": np.array([2]), "test": np.array([4])}, metadata={}
    )
    assert store.elements == (1, 6, 8)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_frame_that_splits_name_twice_is_found(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_store, "_CHUNK", chunk)
    store = FrameStore.create(tmp_path)
    store.append(frames([2] * 9))
    for train in ([0, 1, 5, 1], [0, 7, 1], [3] * 256):
        with pytest.raises(ValueError, match=r"frame [173] is named more than once by the splits"):
            store.seal(
                splits={"train": np.array(train), "validation": np.array([7]), "test": np.array([8])},
                metadata={},
            )


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_composition_is_the_same_in_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_store, "_COMPOSITION_CHUNK", chunk)
    store = sealed(tmp_path, frames([3, 1, 4, 1, 5, 9, 2]))
    wanted = [
        [int((store.species[a:b] == z).sum()) for z in store.elements]
        for a, b in zip(store.offsets, store.offsets[1:], strict=False)
    ]
    assert store.composition().tolist() == wanted
    assert store.composition(np.array([6, 0, 0])).tolist() == [wanted[k] for k in (6, 0, 0)]
    assert store.composition(np.array([], dtype=int)).shape == (0, len(store.elements))


def test_large_splits_are_read_where_they_are_used(tmp_path, monkeypatch):
    store = sealed(tmp_path, frames([2] * 50))
    monkeypatch.setattr(_store, "CHECKED_BYTES", 10)
    path = next((tmp_path / "splits").glob("train*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert len(FrameStore.open(tmp_path).splits["train"]) == 48
    assert [str(path) in problem for problem in store.problems()] == [True]
    monkeypatch.setattr(_store, "CHECKED_BYTES", 1000)
    with pytest.raises(ValueError, match=r"train-1\.npy: not what was written there"):
        _ = FrameStore.open(tmp_path).splits


def test_frames_of_one_size_come_back_as_those_of_any(tmp_path):
    one = sealed(tmp_path, frames([4] * 9))
    ids = np.array([8, 0, 3, 3])
    quick = one.frames(ids)
    forget(tmp_path, "known")
    plain = FrameStore.open(tmp_path)
    assert one._one_size == 4 and plain._one_size == 0
    for name in ("n_atoms", "species", "positions", "cell", "pbc", "energy", "forces"):
        a, b = getattr(quick, name), getattr(plain.frames(ids), name)
        assert np.array_equal(a, b) and a.dtype == b.dtype and a.flags.writeable, name


@pytest.mark.parametrize("sizes", [[4] * 6, [2, 3, 4, 5, 6, 7]])
def test_rows_of_a_label_are_those_of_its_frames(tmp_path, sizes):
    store = sealed(tmp_path, frames(sizes))
    ids = np.array([5, 0, 2])
    for key in ("energy", "forces"):
        assert np.array_equal(store.label_rows(key, ids), store.frames(ids).label(key))
    assert store.n_atoms(ids).tolist() == store.frames(ids).n_atoms.tolist() == [sizes[k] for k in ids]
    with pytest.raises(ValueError, match="has no labels 'dipole'"):
        store.label_rows("dipole", ids)


@pytest.mark.parametrize("lacking", [[], [3, 7], list(range(10))])
def test_the_mean_force_of_many_frames_is_that_of_all_together(tmp_path, monkeypatch, lacking):
    given = frames([3, 5] * 5)
    first = np.concatenate([[0], np.cumsum(given.n_atoms)])
    for k in lacking:
        given.forces[first[k] : first[k + 1]] = np.nan
    store, ids = sealed(tmp_path, given), np.array([9, 0, 3, 4, 7])
    wanted = np.concatenate([store.forces[first[k] : first[k + 1]] for k in ids]).astype(float)
    for size in (100, 2, 1):
        monkeypatch.setattr(energies, "_FRAMES", size)
        if len(lacking) == 10:
            with pytest.raises(ValueError, match="no training frame has forces"):
                energies._force_rms(store, ids)
        else:
            assert energies._force_rms(store, ids) == pytest.approx(np.sqrt(np.nanmean(wanted**2)), rel=1e-12)
