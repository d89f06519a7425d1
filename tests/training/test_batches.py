"""The order of the batches and the augmentation are pure functions of (seed, step)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab import batches as _batches
from sapis_lab.batches import TrainingStream, frames_of_step, permuted, random_rotations
from sapis_lab.data import Frames, FrameStore


@given(n_frames=st.integers(1, 60), batch_size=st.integers(1, 20), seed=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_epoch_sees_every_frame_once(n_frames, batch_size, seed):
    batch_size = min(batch_size, n_frames)
    steps = -(-3 * n_frames // batch_size)
    stream = np.concatenate(
        [frames_of_step(s, n_frames=n_frames, batch_size=batch_size, seed=seed) for s in range(steps)]
    )
    for epoch in range(3):
        assert sorted(stream[epoch * n_frames : (epoch + 1) * n_frames]) == list(range(n_frames))


def test_the_order_differs_between_epochs_and_between_seeds():
    def epoch(k, seed):
        return frames_of_step(k, n_frames=40, batch_size=40, seed=seed).tolist()

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)


def test_augmentation_draws_from_all_of_o3():
    q = random_rotations(4000, seed=0, step=0)
    np.testing.assert_allclose(q @ q.transpose(0, 2, 1), np.broadcast_to(np.eye(3), q.shape), atol=1e-14)
    reflected = (np.linalg.det(q) < 0).mean()
    assert abs(reflected - 0.5) < 0.04
    assert np.abs(q.mean(0)).max() < 0.05  # uniform: no preferred direction
    assert not np.array_equal(q[:5], random_rotations(5, seed=0, step=1))


@pytest.mark.parametrize("stress", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_rows_of_a_held_store_has_the_bits_of_one_that_is_gathered(
    tmp_path, monkeypatch, dtype, stress
):
    generator = np.random.default_rng(0)
    n_frames, n = 9, 5
    positions = generator.uniform(0, 3, (n_frames, n, 3))
    positions[3] += 1000.0  # far from the origin: moved there before it is rounded
    store = FrameStore.create(tmp_path, columns=("stress",) if stress else ())
    store.append(
        Frames(
            n_atoms=np.full(n_frames, n),
            species=np.tile(np.uint8([1, 6, 8, 1, 1]), n_frames),
            positions=positions.reshape(-1, 3),
            cell=np.zeros((n_frames, 3, 3)),
            pbc=np.zeros((n_frames, 3), bool),
            energy=generator.normal(-1e5, 1, n_frames),
            forces=generator.normal(size=(n_frames * n, 3)).astype(np.float32),
            stress=generator.normal(size=(n_frames, 3, 3)) if stress else None,
        )
    )
    store.seal(
        splits={"train": np.array([5, 3, 0, 1, 2, 4]), "validation": np.array([6]), "test": np.array([7, 8])},
        metadata={},
    )
    ids = store.splits["train"][:4]

    def batch(held):
        monkeypatch.setattr(_batches, "HELD", held)
        make = _batches.BatchMaker(
            store, np.array([-13.0, -1000.0, -2000.0]), layout="pairs", cutoff=5.0, dtype=dtype
        )
        assert make._is_held == bool(held)
        return make(ids).to_dict()

    rows, gathered = batch(1 << 20), batch(0)
    assert rows.keys() == gathered.keys()
    for name, value in gathered.items():
        if torch.is_tensor(value):
            assert rows[name].dtype == value.dtype and torch.equal(rows[name], value), name
    assert rows["graph"].block == gathered["graph"].block == (4, 5)


def test_ranks_share_the_global_batch_without_gap_or_repetition():
    ids, seen = np.arange(100, 130), []

    def record(chosen, rotations):
        seen.extend(chosen.tolist())
        return chosen, rotations

    def stream(rank, world):
        return TrainingStream(
            record, ids, batch_size=6, seed=3, augment=True, first_step=lambda: 0, rank=rank, world=world
        )

    whole, rotations = stream(0, 1).batch(7)
    parts = [stream(rank, 3).batch(7) for rank in range(3)]
    assert sorted(whole.tolist()) == sorted(np.concatenate([p[0] for p in parts]).tolist())
    for rank, (chosen, turned) in enumerate(parts):
        np.testing.assert_array_equal(chosen, whole[rank::3])
        np.testing.assert_array_equal(turned, rotations[rank::3])


@given(
    batch_size=st.integers(1, 9), world=st.integers(1, 3), micro=st.integers(1, 10), step=st.integers(0, 3)
)
@settings(max_examples=50, deadline=None)
def test_micro_batches_are_a_share_in_its_order_with_its_rotations(batch_size, world, micro, step):
    class Make:
        def __call__(self, chosen, rotations):
            return chosen, rotations

        def counts(self, chosen):
            return torch.tensor([len(chosen)])

    def stream(rank, micro_batch):
        return TrainingStream(
            Make(),
            np.arange(100, 111),
            batch_size=batch_size,
            seed=3,
            augment=True,
            first_step=lambda: 0,
            rank=rank,
            world=world,
            micro_batch=micro_batch,
        ).share(step)

    for rank in range(world):
        whole, parts = stream(rank, None), stream(rank, micro)
        assert parts.counts.tolist() == whole.counts.tolist() == [batch_size]
        assert all(len(ids) == len(turned) <= micro for ids, turned in parts.batches)
        assert len(whole.batches) <= 1 and bool(whole.batches) == bool(parts.batches)
        for of_whole, of_parts in zip(*(zip(*s.batches, strict=True) for s in (whole, parts)), strict=True):
            np.testing.assert_array_equal(of_whole[0], np.concatenate(of_parts))


@given(batch_size=st.integers(1, 9), world=st.integers(1, 5), step=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_the_shares_of_any_number_of_ranks_differ_by_one_frame_at_most_and_make_up_the_batch(
    batch_size, world, step
):
    ids = np.arange(100, 111)

    class Make:
        """Frame k has k atoms."""

        n_atoms, dtype = np.arange(200), torch.float64

        def __call__(self, chosen, rotations):
            return chosen

        def counts(self, chosen):
            return torch.tensor([len(chosen), int(chosen.sum())])

    shares = [
        TrainingStream(
            Make(),
            ids,
            batch_size=batch_size,
            seed=3,
            augment=False,
            first_step=lambda: 0,
            rank=rank,
            world=world,
        ).share(step)
        for rank in range(world)
    ]
    whole = ids[frames_of_step(step, n_frames=len(ids), batch_size=batch_size, seed=3)]
    sizes = [sum(map(len, s.batches)) for s in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([b for s in shares for b in s.batches])) == sorted(whole)
    for share in shares:  # every rank divides by the same, the frames and atoms of the whole
        assert share.counts.tolist() == [batch_size, whole.sum()]


@given(n=st.integers(1, 300), key=st.tuples(st.integers(0, 3), st.integers(0, 3)))
@settings(max_examples=60, deadline=None)
def test_permuted_positions_are_a_permutation(n, key):
    assert sorted(permuted(np.arange(n), n=n, key=key).tolist()) == list(range(n))


def test_permuted_positions_are_uniform_and_of_their_key():
    n, cells = 4000, np.zeros((20, 20))
    for key in range(25):
        to = permuted(np.arange(n), n=n, key=(key, 1))
        np.add.at(cells, (np.arange(n) // 200, to // 200), 1)
    chi2 = ((cells - 250) ** 2 / 250).sum()
    assert 270 < chi2 < 460  # 361 degrees of freedom: 361 +- 27
    a, b = (permuted(np.arange(n), n=n, key=key) for key in ((0, 1), (1, 0)))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.08 and abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.08


@given(
    n_frames=st.integers(5, 60),
    batch_size=st.integers(1, 30),
    seed=st.integers(0, 2),
    piece=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_every_epoch_of_a_large_store_sees_every_frame_once(n_frames, batch_size, seed, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches, "LARGEST_DRAWN", 4)
        patch.setattr(_batches, "_PIECE", piece)
        steps = -(-3 * n_frames // batch_size)
        stream = np.concatenate(
            [frames_of_step(s, n_frames=n_frames, batch_size=batch_size, seed=seed) for s in range(steps)]
        )
    for epoch in range(3):
        wanted = permuted(np.arange(n_frames), n=n_frames, key=(seed, epoch))
        assert np.array_equal(stream[epoch * n_frames : (epoch + 1) * n_frames], wanted)


def test_the_order_of_an_epoch_is_that_which_numpy_draws():
    """Results rest on it; it is a whole permutation up to four million frames."""
    assert _batches.LARGEST_DRAWN == 1 << 22
    stream = [frames_of_step(s, n_frames=10, batch_size=4, seed=3).tolist() for s in range(5)]
    wanted = [np.random.default_rng([3, epoch]).permutation(10) for epoch in range(2)]
    assert sum(stream, []) == np.concatenate(wanted).tolist()
