"""Damage to a store has a place, and appends are whole: shards with checksums, small appends, progress."""

import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapis_lab.data import Frames, FrameStore
from sapis_lab.data import _shards as shards
from sapis_lab.data._arrays import Column, GrowingArrays
from sapis_lab.errors import ConfigError
from sapis_lab.files import with_checksum, without_checksum


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def frames(n, *, first=0, n_atoms=3):
    generator = np.random.default_rng(first)
    return Frames(
        n_atoms=np.full(n, n_atoms),
        species=np.tile(np.resize(np.uint8([8, 1, 1]), n_atoms), n),
        positions=generator.normal(size=(n * n_atoms, 3)),
        cell=np.zeros((n, 3, 3)),
        pbc=np.zeros((n, 3), bool),
        energy=generator.normal(size=n),
        forces=generator.normal(size=(n * n_atoms, 3)).astype(np.float32),
    )


def seal(store):
    n = store.n_frames
    store.seal(
        splits={"train": np.arange(n - 2), "validation": np.array([n - 2]), "test": np.array([n - 1])},
        metadata={},
    )


def edit(folder, change):
    """Rewrite a manifest with its checksum."""
    path = folder / "manifest.json"
    manifest = without_checksum(json.loads(path.read_text()), source="", advice="")
    change(manifest)
    path.write_text(json.dumps(with_checksum(manifest)))


def turn_a_bit(path, place):
    with path.open("r+b") as f:
        f.seek(place)
        byte = f.read(1)[0]
        f.seek(place)
        f.write(bytes([byte ^ 16]))


@given(first=st.binary(max_size=40), second=st.binary(max_size=400))
def test_the_checksum_of_two_pieces_follows_from_theirs(first, second):
    got = shards.combined(zlib.crc32(first), zlib.crc32(second), len(second))
    assert got == zlib.crc32(first + second)


@given(sizes=st.lists(st.integers(0, 9), max_size=6))
def test_shards_and_whole_are_those_of_the_bytes_however_they_were_appended(sizes):
    everything = np.random.default_rng(0).normal(size=(sum(sizes), 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 3 * 16)
        sums, first = shards.Sums(0, ()), 0
        for n in sizes:
            sums = shards.extended(sums, everything[first : first + n])
            first += n
        assert sums == shards.sums_of(everything)
    assert sums.whole == zlib.crc32(everything.tobytes())
    assert [s.end - s.first for s in sums.shards[:-1]] == [3] * (len(sums.shards) - 1)
    assert all(s.crc32 == zlib.crc32(everything[s.first : s.end].tobytes()) for s in sums.shards)


@pytest.fixture
def sharded(tmp_path, monkeypatch):
    """A store of many shards that is too large to be looked at when it is opened."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 240)
    monkeypatch.setattr("sapis_lab.data._arrays.CHECKED_BYTES", 10)
    monkeypatch.setattr("sapis_lab.data._store.CHECKED_BYTES", 10)
    store = FrameStore.create(tmp_path)
    for k in range(4):
        store.append(frames(5, first=k))
    seal(store)
    return tmp_path


def test_damage_is_named_by_array_rows_and_frames(sharded):
    store = FrameStore.open(sharded)
    assert store.problems() == []
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 31)
    problems = FrameStore.open(sharded).problems()
    assert len(problems) == 1
    assert "positions.npy: not what was written there in rows 30 to 39, of frames 10 to 13 (" in problems[0]


def test_neighbouring_shards_that_are_damaged_are_one_range(sharded):
    for row in (11, 21, 50):
        turn_a_bit(sharded / "positions.npy", 128 + 24 * row)
    turn_a_bit(sharded / "energy.npy", 128 + 8 * 3)
    problems = FrameStore.open(sharded).problems()
    assert [p[p.index("rows") : p.index("(") + 1] for p in problems if "positions" in p] == [
        "rows 10 to 29, of frames 3 to 9 (",
        "rows 50 to 59, of frames 16 to 19 (",
    ]
    assert [p for p in problems if "energy" in p and "in rows 0 to 19 (" in p]


def test_damaged_rows_of_a_neighbour_table_and_a_large_split_are_named(sharded):
    store = FrameStore.open(sharded)
    store.neighbors(3.0)
    turn_a_bit(sharded / "neighbors-3.0" / "center.npy", 128)
    turn_a_bit(next((sharded / "splits").glob("train*")), 130)
    problems = FrameStore.open(sharded).problems()
    assert len(problems) == 2
    assert "center.npy: not what was written there in rows 0 to 59, of frames 0 to" in problems[0]
    assert "train-1.npy: not what was written there (" in problems[1]


def test_offsets_that_are_damaged_say_nothing_of_frames(sharded):
    turn_a_bit(sharded / "offsets.npy", 128 + 8 * 2)
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 31)
    assert [p[p.index("in rows") : p.index("(")] for p in FrameStore.open(sharded).problems()] == [
        "in rows 0 to 20 ",
        "in rows 30 to 39 ",
    ]


def test_an_append_reads_nothing_that_was_written_before(sharded):
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 31)
    before = json.loads((sharded / "manifest.json").read_text())["arrays"]["positions"]["shards"]
    store = FrameStore.open(sharded, writable=True)
    store.append(frames(5, first=9))
    after = json.loads((sharded / "manifest.json").read_text())["arrays"]["positions"]["shards"]
    assert after[: len(before)] == before and after[-1][0] == 75
    # the damage of old rows is not made to look whole, and is not laid to the new ones
    assert ["rows 30 to 39" in p for p in store.problems()] == [True]


def forget_shards(manifest):
    for column in manifest["arrays"].values():
        column.pop("shards")


def test_a_store_without_shards_opens_is_checked_and_gets_them_for_new_rows(sharded):
    edit(sharded, forget_shards)
    store = FrameStore.open(sharded, writable=True)
    assert store.problems() == []
    store.append(frames(5, first=9))
    ends = [
        end for end, _ in json.loads((sharded / "manifest.json").read_text())["arrays"]["positions"]["shards"]
    ]
    assert ends == [60, 70, 75]
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 72)
    assert ["in rows 70 to 74, of frames 23 to 24" in p for p in FrameStore.open(sharded).problems()] == [
        True
    ]
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 72)
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 7)
    assert ["in rows 0 to 59, of frames 0 to 19" in p for p in FrameStore.open(sharded).problems()] == [True]


def test_rows_that_a_version_without_shards_appended_are_a_shard_of_their_own(sharded):
    """Such a version goes on with the checksum of the whole, which it finds in every manifest."""
    old = json.loads((sharded / "manifest.json").read_text())["arrays"]
    store = FrameStore.open(sharded, writable=True)
    store.append(frames(5, first=9))

    def without_new_shards(manifest):
        for name, column in manifest["arrays"].items():
            column["shards"] = old[name]["shards"]

    edit(sharded, without_new_shards)
    assert FrameStore.open(sharded).problems() == []
    turn_a_bit(sharded / "positions.npy", 128 + 24 * 61)
    assert ["in rows 60 to 74" in p for p in FrameStore.open(sharded).problems()] == [True]


def test_the_manifest_still_has_the_checksum_of_every_whole_array(sharded):
    for name, column in json.loads((sharded / "manifest.json").read_text())["arrays"].items():
        assert column["crc32"] == zlib.crc32(np.load(sharded / f"{name}.npy").tobytes())


@pytest.mark.parametrize("bad", [3, [3], [[1, 2, 3]], [[2, 0], [1, 0]], [[10**9, 0]], [[1, -1]], [["1", 0]]])
def test_shards_that_are_none_are_refused(sharded, bad):
    edit(sharded, lambda manifest: manifest["arrays"]["energy"].update(shards=bad))
    with pytest.raises(ConfigError, match=r"manifest\.json: arrays: wanted dtype, row and n"):
        FrameStore.open(sharded)


# ------------------------------------------------------------------------------- many small appends, progress


def count_of(monkeypatch, name):
    calls, real = [], getattr(os, name)
    monkeypatch.setattr(os, name, lambda *arguments: (calls.append(1), real(*arguments))[1])
    return calls


def test_gathered_appends_are_the_bytes_of_single_ones_with_few_fsyncs(tmp_path, monkeypatch):
    one, many = FrameStore.create(tmp_path / "one"), FrameStore.create(tmp_path / "many")
    for k in range(20):
        one.append(frames(2, first=k))
    calls = count_of(monkeypatch, "fsync")
    with many.gathered():
        for k in range(20):
            many.append(frames(2, first=k))
            assert many.n_frames == 2 * k + 2
    assert len(calls) == 9  # 7 arrays, the manifest, its folder
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes(), path.name


def test_arrays_that_the_caller_fills_anew_are_gathered_as_they_were(tmp_path):
    store, block = FrameStore.create(tmp_path), frames(2)
    wanted = block.energy.copy()
    with store.gathered():
        store.append(block)
        block.energy[:] = 7.0
        store.append(block)
    assert np.array_equal(store.energy, [*wanted, 7.0, 7.0])


def test_what_is_gathered_is_read_and_written_when_it_is_much_or_old(tmp_path):
    store = FrameStore.create(tmp_path)
    with store.gathered():
        store.append(frames(2))
        assert FrameStore.open(tmp_path).n_frames == 0
        assert len(store.frames(np.array([0, 1]))) == 2  # reading brings it to the disk
        assert FrameStore.open(tmp_path).n_frames == 2
    for settings in ({"n_bytes": 1}, {"seconds": 0.0}):
        with store.gathered(**settings):
            store.append(frames(1))
            assert FrameStore.open(tmp_path).n_frames == store.n_frames
    assert store.problems()[:-1] == []


def test_an_error_in_between_loses_nothing_that_was_appended(tmp_path):
    store = FrameStore.create(tmp_path)
    with pytest.raises(ValueError, match="bad frame"), store.gathered():
        store.append(frames(2), done={"a.xyz": 2})
        raise ValueError("bad frame")
    store = FrameStore.open(tmp_path, writable=True)
    assert store.n_frames == 2 and store.progress == {"a.xyz": 2}


def test_progress_is_that_of_the_frames_that_are_there(tmp_path):
    store = FrameStore.create(tmp_path)
    store.append(frames(2), done={"a.xyz": 2})
    store.append(frames(3))
    store.append(frames(0), done={"b.xyz": {"frames": 0, "at": 17}})
    assert FrameStore.open(tmp_path).progress == {"a.xyz": 2, "b.xyz": {"frames": 0, "at": 17}}
    before = (tmp_path / "manifest.json").read_bytes()
    store.append(frames(1), done={"a.xyz": 3})
    (tmp_path / "manifest.json").write_bytes(before)  # killed before the manifest: neither is there
    store = FrameStore.open(tmp_path, writable=True)
    assert store.n_frames == 5 and store.progress["a.xyz"] == 2
    with store.gathered():
        store.append(frames(1), done={"a.xyz": 3})
        assert store.progress["a.xyz"] == 3 and FrameStore.open(tmp_path).progress["a.xyz"] == 2
    assert FrameStore.open(tmp_path).progress["a.xyz"] == 3
    seal(store)
    assert FrameStore.open(tmp_path).progress == {}


def test_a_conversion_goes_on_where_it_was_killed(tmp_path):
    whole = FrameStore.create(tmp_path / "whole")
    for k in range(6):
        whole.append(frames(2, first=k))

    def convert(folder, *, until):
        store = FrameStore.resume(folder)
        with store.gathered(n_bytes=1000):
            for k in range(store.progress.get("file", 0), until):
                store.append(frames(2, first=k), done={"file": k + 1})
        return store

    convert(tmp_path / "killed", until=4)
    with (tmp_path / "killed" / "forces.npy").open("ab") as f:
        f.write(b"half an append")
    store = convert(tmp_path / "killed", until=6)
    assert np.array_equal(store.positions, whole.positions) and store.n_frames == 12


def test_resuming_begins_anew_where_there_is_nothing_to_go_on_with(tmp_path):
    store = FrameStore.resume(tmp_path)
    store.append(frames(3), done={"a": 3})
    assert FrameStore.resume(tmp_path).n_frames == 3
    assert FrameStore.resume(tmp_path, columns=("time",)).n_frames == 0  # other columns
    store = FrameStore.create(tmp_path)
    store.append(frames(4))
    seal(store)
    assert FrameStore.resume(tmp_path).n_frames == 0  # finished


def test_a_disk_that_fills_up_while_rows_wait_keeps_what_is_there(tmp_path, monkeypatch):
    arrays = GrowingArrays.create(tmp_path / "a", {"x": Column("<f8")}, done=0)
    arrays.append({"x": np.arange(3.0)}, done=3)
    real = GrowingArrays.write_manifest

    def full(self):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), arrays.gathered():
        arrays.append({"x": np.arange(2.0)}, done=5)
        monkeypatch.setattr(GrowingArrays, "write_manifest", full)
    monkeypatch.setattr(GrowingArrays, "write_manifest", real)
    assert arrays["x"].tolist() == [0, 1, 2] and arrays.fact("done") == 3
    assert np.load(tmp_path / "a" / "x.npy").tolist() == [0, 1, 2]
    arrays.append({"x": np.array([9.0])}, done=4)
    assert GrowingArrays.open(tmp_path / "a")["x"].tolist() == [0, 1, 2, 9]


def test_an_append_whose_folder_could_not_be_flushed_is_there_once(tmp_path, monkeypatch):
    """The manifest was replaced before the error: what it says has happened."""
    arrays = GrowingArrays.create(tmp_path / "a", {"x": Column("<f8")})
    real = GrowingArrays.write_manifest

    def late(self):
        real(self)
        monkeypatch.setattr(GrowingArrays, "write_manifest", real)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(GrowingArrays, "write_manifest", late)
    # the append writes at once and fails; the end of the context must not write its rows again
    with pytest.raises(OSError, match="Input/output"), arrays.gathered(n_bytes=1):
        arrays.append({"x": np.arange(2.0)})
    assert arrays["x"].tolist() == [0, 1] and GrowingArrays.open(tmp_path / "a")["x"].tolist() == [0, 1]
