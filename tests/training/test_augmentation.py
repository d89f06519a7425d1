"""Changed frames have the labels that they would be given anew, and the same ones after a restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ranked_points import LABELLED, Launcher, make_point, n_rows, pid_of, wait_until

from sapis_lab.atoms import AtomsBatch
from sapis_lab.augmentation import (
    Augmentation,
    augmentation,
    energy_change,
    random_displacements,
    random_rotations,
)
from sapis_lab.batches import BatchMaker, TrainingStream
from sapis_lab.config import ConfigError, kind_class, load
from sapis_lab.data import Frames, FrameStore
from sapis_lab.selftest import random_crystal, random_molecule
from sapis_lab.training import TrainConfig
from sapis_lab.training.run import prepare_task

ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
X = np.array(
    [
        [0.00, 0.56, 0.00],
        [1.20, -0.24, 0.10],
        [-1.15, -0.40, 0.02],
        [-1.93, 0.15, -0.10],
        [0.04, 1.20, 0.89],
        [0.03, 1.21, -0.87],
        [2.09, 0.41, -0.05],
        [1.22, -0.90, 0.98],
        [1.18, -0.86, -0.91],
    ]
)


def store_of(folder: Path, frames: list, energy: np.ndarray, forces: np.ndarray) -> FrameStore:
    store = FrameStore.create(folder)
    cell = np.array([np.zeros((3, 3)) if f.cell is None else f.cell for f in frames])
    store.append(
        Frames(
            n_atoms=np.array([len(f.species) for f in frames]),
            species=np.concatenate([f.species for f in frames]).astype(np.uint8),
            positions=np.concatenate([f.positions for f in frames]),
            cell=cell,
            pbc=np.repeat(cell.any((1, 2))[:, None], 3, axis=1),
            energy=energy,
            forces=forces.astype(np.float32),
        )
    )
    splits = {"train": np.arange(len(frames)), "validation": np.arange(0), "test": np.arange(0)}
    store.seal(splits=splits, metadata={})
    return store


def stream_of(make: BatchMaker, n: int, **settings: object) -> TrainingStream:
    usual: dict = {"batch_size": n, "seed": 3, "augment": False, "first_step": lambda: 0}
    return TrainingStream(make, np.arange(n), **{**usual, "rank": 0, "world": 1, **settings})


# -------------------------------------------------------------------------------------------------- rotations


def test_turned_labels_are_those_that_an_oracle_gives_the_turned_frame(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    oracle = kind_class("oracles", "xtb")()
    label = oracle.label(ETHANOL, X)
    frame = random_molecule(9, np.random.default_rng(0))._replace(species=ETHANOL, positions=X)
    store = store_of(tmp_path, [frame] * 2, np.full(2, label.energy), np.tile(label.forces, (2, 1)))
    make = BatchMaker(store, np.zeros(3), layout="pairs", cutoff=5.0, dtype=torch.float64)
    turns = next(r for s in range(20) if np.linalg.det(r := random_rotations(2, seed=s, step=0)).prod() < 0)
    batch = make(np.arange(2), turns)
    for k in range(2):
        again = oracle.label(ETHANOL, batch.positions[9 * k : 9 * k + 9].numpy())
        assert float(batch.energy[k]) == pytest.approx(again.energy, abs=1e-5)
        np.testing.assert_allclose(batch.forces[9 * k : 9 * k + 9], again.forces, atol=1e-4)


def test_so3_has_the_rotations_of_o3_without_their_reflections() -> None:
    full, proper = (random_rotations(200, seed=1, step=2, group=group) for group in ("O3", "SO3"))
    assert (np.linalg.det(proper) > 0).all() and (np.linalg.det(full) < 0).any()
    np.testing.assert_array_equal(full * np.sign(np.linalg.det(full))[:, None, None].round(), proper)


def test_a_model_with_symmetry_is_not_trained_on_turned_frames() -> None:
    given = Augmentation(rotations="SO3", noise=0.01)
    assert given.of(symmetry="none") == given
    assert given.of(symmetry="O3") == Augmentation(rotations="none", noise=0.01)


def test_what_stands_for_true_or_false_is_recorded_as_true_or_false() -> None:
    def setting(value: object) -> object:
        return TrainConfig(steps=1, augment=value).augment

    assert setting(True) is True and setting({"rotations": "O3"}) is True
    assert setting(False) is False and setting({"rotations": "none"}) is False
    assert setting({"rotations": "SO3"}) == Augmentation(rotations="SO3")
    assert augmentation(True).rotations == "O3" and augmentation(False).rotations == "none"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"rotations": "O(3)"},
            "train: augment.rotations: input should be 'O3', 'SO3' or 'none', got 'O(3)'",
        ),
        ({"noise": 0.5}, "train: augment.noise: input should be less than or equal to 0.1, got 0.5"),
        ({"turns": "O3"}, "train: augment: unknown key 'turns'; known: rotations, noise"),
        ("O3", "train: augment: wanted true, false, or a mapping as in {rotations: SO3}, got 'O3'"),
        (3, "train: augment: wanted true, false, or a mapping as in {rotations: SO3}, got '3'"),
    ],
)
def test_an_augmentation_that_does_not_exist_is_refused_in_one_line(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(TrainConfig, {"steps": 1, "augment": value}, source="train")
    assert str(error.value) == message


# ------------------------------------------------------------------------------------------------------ noise


def test_energies_follow_the_noise_to_first_order(tmp_path: Path) -> None:
    """At half the displacement the error of the energy is a quarter, that of the forces a half."""
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    oracle = kind_class("oracles", "xtb")(accuracy=0.01)
    label = oracle.label(ETHANOL, X)
    dx = random_displacements(9, noise=0.01, seed=0, step=0, place=0)
    of_energy, of_forces = [], []
    for share in (1.0, 0.5):
        moved = oracle.label(ETHANOL, X + share * dx)
        change = energy_change(label.forces, share * dx, np.array([9]))[0]
        of_energy.append(label.energy + change - moved.energy)
        of_forces.append(np.linalg.norm(label.forces - moved.forces))
    assert of_energy[1] / of_energy[0] == pytest.approx(0.25, rel=0.1)
    assert of_forces[1] / of_forces[0] == pytest.approx(0.5, rel=0.1)
    assert -0.08 < of_energy[0] < -0.005  # below the surface, which is convex


@pytest.mark.parametrize(
    ("structure", "layout"), [("molecules", "pairs"), ("molecules", "edges"), ("crystals", "edges")]
)
def test_a_batch_of_moved_frames_is_that_of_frames_stored_where_they_moved_to(
    structure: str, layout: str, tmp_path: Path
) -> None:
    """Neighbours included: pairs come and go at the cutoff."""
    rng = np.random.default_rng(5)
    make_frame = random_crystal if structure == "crystals" else lambda rng: random_molecule(7, rng)
    frames = [make_frame(np.random.default_rng(k)) for k in range(4)]
    sizes = np.array([len(f.species) for f in frames])
    energy, forces = rng.normal(size=4), rng.normal(size=(sizes.sum(), 3)).astype(np.float32)
    moves = [random_displacements(int(n), noise=0.1, seed=0, step=0, place=k) for k, n in enumerate(sizes)]
    moved = [f._replace(positions=f.positions + dx) for f, dx in zip(frames, moves, strict=True)]
    work = np.array(
        [(f * dx).sum() for f, dx in zip(np.split(forces, np.cumsum(sizes)[:-1]), moves, strict=True)]
    )

    def batch(store: FrameStore, *more: np.ndarray | None) -> AtomsBatch:
        make = BatchMaker(
            store, np.zeros(len(store.elements)), layout=layout, cutoff=3.0, dtype=torch.float64
        )
        return make(np.arange(4), *more)

    found = batch(store_of(tmp_path / "a", frames, energy, forces), None, np.concatenate(moves))
    wanted = batch(store_of(tmp_path / "b", moved, energy - work, forces))
    for name, value in wanted.to_dict().items():
        if torch.is_tensor(value):
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
    for name, value in wanted.graph._asdict().items():
        if torch.is_tensor(value):
            assert torch.equal(getattr(found.graph, name), value), name


def test_ranks_and_micro_batches_see_the_noise_of_the_global_batch(tmp_path: Path) -> None:
    frames = [random_molecule(n, np.random.default_rng(n)) for n in (4, 6, 5, 7, 3)]
    n = sum(len(f.species) for f in frames)
    store = store_of(tmp_path, frames, np.zeros(5), np.ones((n, 3)))
    make = BatchMaker(store, np.zeros(len(store.elements)), layout="edges", cutoff=3.0, dtype=torch.float64)
    augment = Augmentation(rotations="O3", noise=0.02)
    whole = stream_of(make, 5, augment=augment).batch(4)
    one_by_one = whole.positions.split(whole.n_atoms.tolist())
    plain = stream_of(make, 5, augment=Augmentation()).batch(4)
    assert 0.01 < float((whole.positions - plain.positions).std()) < 0.03
    for rank in range(2):
        stream = stream_of(make, 5, augment=augment, rank=rank, world=2, micro_batch=1)
        parts = stream.share(4).batches
        for part, place in zip(parts, range(rank, 5, 2), strict=True):
            assert torch.equal(part.positions, one_by_one[place])
            assert torch.equal(part.energy, whole.energy[place : place + 1])
    other = stream_of(make, 5, augment=augment).batch(5)
    assert float(other.energy.sum()) != float(whole.energy.sum())


def test_noise_wants_forces_on_every_training_frame(tmp_path: Path, labelled: Path, cache: Path) -> None:
    noisy = {"noise": 0.001}
    point = make_point(tmp_path / "p", labelled, kind="transformer", labels=LABELLED, augment=noisy)
    with pytest.raises(ValueError, match=r"noise wants forces, .* atoms of the training frames .* lack them"):
        prepare_task(point, cache)
    task = {"task": {"kind": "properties"}, "targets": [{"kind": "charges"}]}
    point = make_point(tmp_path / "q", labelled, labels=LABELLED, augment=noisy, **task)
    with pytest.raises(ValueError, match="noise wants energies and forces to learn"):
        prepare_task(point, cache)


@pytest.mark.parametrize("kind", ["geat", "transformer"])
def test_a_killed_point_with_noise_ends_in_the_same_bits(
    kind: str, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    augment = {"rotations": "SO3", "noise": 0.002}
    for name in ("whole", "killed"):
        make_point(tmp_path / name, clusters, kind=kind, steps=60, augment=augment)
    assert launcher.run(tmp_path / "whole", cache=cache) == 0, (tmp_path / "whole/log.txt").read_text()
    killed = tmp_path / "killed"
    launcher.start(killed, cache=cache, checkpoint_seconds=0)
    wait_until(lambda: n_rows(killed) >= 10)
    os.kill(pid_of(killed), signal.SIGKILL)
    assert launcher.ended(killed)["status"] == -9 and (killed / "last.ckpt").exists()
    assert launcher.run(killed, cache=cache) == 0
    for file in ("model.safetensors", "metrics.csv"):
        assert (killed / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
