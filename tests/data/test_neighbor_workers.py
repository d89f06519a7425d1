"""Neighbour tables by several processes are those of one, byte by byte, wherever they were interrupted."""

import os

import numpy as np
import pytest

from sapis_lab.data import Frames, FrameStore
from sapis_lab.data import _edge_chunks as chunks
from sapis_lab.data import _neighbor_table as tables
from sapis_lab.data import _neighbor_workers as workers


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(autouse=True)
def _chunks_of_few_atoms(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ATOMS", 40)
    monkeypatch.setattr(tables, "CHUNK_ATOMS", 40)
    monkeypatch.setattr(tables, "_WORTH_WORKERS", 80)


def a_store(folder, *, seed=0):
    """Molecules of one size and of many, and periodic frames."""
    generator = np.random.default_rng(seed)
    store = FrameStore.create(folder)
    for sizes, periodic in (([5] * 30, False), (generator.integers(1, 9, 20), False), ([6] * 20, True)):
        n, m = int(np.sum(sizes)), len(sizes)
        store.append(
            Frames(
                n_atoms=np.array(sizes),
                species=np.ones(n, np.uint8),
                positions=generator.uniform(0, 6, (n, 3)),
                cell=np.repeat(periodic * 6.0 * np.eye(3)[None], m, 0),
                pbc=np.full((m, 3), periodic),
                energy=np.zeros(m),
                forces=np.zeros((n, 3), np.float32),
            )
        )
    return store


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_the_same_for_any_number_of_processes(tmp_path):
    wanted = a_store(tmp_path / "one")
    wanted.neighbors(3.0)
    for n_workers in (2, 3):
        store = a_store(tmp_path / f"{n_workers}")
        table = store.neighbors(3.0, n_workers=n_workers)
        assert len(table.offsets) == 71
        assert files_of(store.folder / "neighbors-3.0") == files_of(wanted.folder / "neighbors-3.0")


def test_an_interrupted_table_goes_on_with_another_number_of_processes(tmp_path, monkeypatch):
    wanted, store = a_store(tmp_path / "one"), a_store(tmp_path / "two")
    wanted.neighbors(3.0)

    def stop(what, done, total):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.neighbors(3.0, progress=stop)
    done = len(np.load(tmp_path / "two" / "neighbors-3.0" / "offsets.npy")) - 1
    assert 20 < done < 70
    asked, real = [], workers.chunk_bounds
    monkeypatch.setattr(workers, "chunk_bounds", lambda s, first: (asked.append(first), real(s, first))[1])
    store.neighbors(3.0, n_workers=2)
    assert asked == [done]
    assert files_of(store.folder / "neighbors-3.0") == files_of(wanted.folder / "neighbors-3.0")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_progress_counts_frames_and_says_what_one_took(tmp_path, n_workers):
    calls = []
    a_store(tmp_path).neighbors(
        3.0, n_workers=n_workers, progress=lambda what, done, total: calls.append((what, done, total))
    )
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls}) and calls[-1][1:] == (
        70,
        70,
    )
    assert {what for what, _, _ in calls[:-1]} == {"neighbours within 3 Å"}
    assert calls[-1][0].startswith("neighbours within 3 Å, ") and calls[-1][0].endswith("s a frame")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_frame_without_neighbours_to_be_had_is_an_error_of_its_own_words(tmp_path, n_workers):
    store = a_store(tmp_path)
    one = store.frames(np.array([69]))
    one.cell[:] = 0.0
    store.append(one)
    with pytest.raises(ValueError, match="lattice vector 0 is zero; give the cell"):
        store.neighbors(3.0, n_workers=n_workers)
    # what came before it is kept
    assert len(np.load(tmp_path / "neighbors-3.0" / "offsets.npy")) > 50


def test_a_worker_that_ends_is_told_with_what_it_wrote(tmp_path, monkeypatch):
    store = a_store(tmp_path)
    real = workers._Worker.ask

    def ask(self, first, last):
        real(self, "no" if first > 20 else first, last)

    monkeypatch.setattr(workers._Worker, "ask", ask)
    with pytest.raises(
        RuntimeError, match=r"(?s)neighbours of frames \d+ to \d+ ended with exit status.*int\(\)"
    ):
        store.neighbors(3.0, n_workers=2)


def test_small_tables_start_no_processes_and_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_WORTH_WORKERS", 10**9)
    monkeypatch.setattr(tables, "CHUNK_ATOMS", 10**9)
    monkeypatch.setattr(workers, "_Worker", None)
    a_store(tmp_path).neighbors(3.0, n_workers=2, progress=pytest.fail)
