"""Points that learn more than energies and forces, from frames that lack some labels: ranks are one, a
killed point goes on, and rotations of frames turn what should turn."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ranked_points import LABELLED, TARGETS, Launcher, make_point, n_rows, pid_of, wait_until

from sapis_lab.batches import BatchMaker, TrainingStream, random_rotations
from sapis_lab.data import prepare
from sapis_lab.records import read_record
from sapis_lab.targets import EnergyTarget, ForcesTarget
from sapis_lab.training.run import prepare_task

EXACT = 1e-11
"""Gradients by two ways in float64, over the largest of them."""
LEARNT = {
    "energies": {"targets": TARGETS, "heads": {"gap": {"kind": "scalar", "pool": "mean"}}},
    "properties": {
        "targets": TARGETS,
        "heads": {"dipole": {"kind": "tensor"}},
        "task": {"kind": "properties"},
    },
}


@pytest.mark.parametrize("task", LEARNT)
def test_ranks_have_the_loss_and_gradients_of_all_labels_that_there_are(
    task: str, tmp_path: Path, labelled: Path, cache: Path, launcher: Launcher
) -> None:
    # sizes that divide, that do not, and a frame alone, which lacks some label and leaves a rank without any
    batch_sizes, found = [6, 5, 1], {}
    for n in (1, 2):
        folder = tmp_path / f"p{n}"
        make_point(folder, labelled, labels=LABELLED, precision="float64", **LEARNT[task])
        target = "ranked_points:save_gradients"
        status = launcher.run(folder, cache=cache, ranks=n, target=target, batch_sizes=batch_sizes)
        assert status == 0, (folder / "log.txt").read_text()
        ranks = [torch.load(folder / f"gradients.rank{r}.pt", weights_only=True) for r in range(n)]
        for a, b in zip(sum(ranks[0], []), sum(ranks[-1], []), strict=True):
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
        found[n] = ranks[0]
    for some, wanted in zip(found[2], found[1], strict=True):
        largest = max(float(w.abs().max()) for w in wanted[1:] if w is not None)
        assert [g is None for g in some] == [w is None for w in wanted]
        assert float(some[0]) == pytest.approx(float(wanted[0]), rel=EXACT)
        for g, w in zip(some[1:], wanted[1:], strict=True):
            assert w is None or float((g - w).abs().max()) < EXACT * largest
    # without energies, the readout of the model has no gradient, on any number of ranks
    assert any(w is None for w in found[1][0]) == (task == "properties")


@pytest.mark.parametrize(("task", "kind"), [("energies", "geat"), ("properties", "transformer")])
def test_a_killed_point_with_heads_ends_in_the_same_bits(
    task: str, kind: str, tmp_path: Path, labelled: Path, cache: Path, launcher: Launcher
) -> None:
    for name in ("whole", "killed"):
        make_point(tmp_path / name, labelled, kind=kind, labels=LABELLED, steps=60, **LEARNT[task])
    assert launcher.run(tmp_path / "whole", cache=cache) == 0, (tmp_path / "whole/log.txt").read_text()
    killed = tmp_path / "killed"
    launcher.start(killed, cache=cache, checkpoint_seconds=0)
    wait_until(lambda: n_rows(killed) >= 10)
    os.kill(pid_of(killed), signal.SIGKILL)
    assert launcher.ended(killed)["status"] == -9 and (killed / "last.ckpt").exists()
    assert launcher.run(killed, cache=cache) == 0
    for file in ("model.safetensors", "metrics.csv"):
        assert (killed / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    metrics = read_record(killed).metrics
    assert {"val_dipole_rmse", "val_charge_mae", "test_gap_rmse"} <= set(metrics)
    assert ("val_force_rmse" in metrics) == (task == "energies")


def test_rotations_of_frames_turn_vectors_and_leave_scalars(
    tmp_path: Path, labelled: Path, cache: Path
) -> None:
    point = make_point(tmp_path / "p", labelled, kind="transformer", labels=LABELLED, **LEARNT["energies"])
    task = prepare_task(point, cache)
    stream = TrainingStream(
        task.make, task.train_ids, batch_size=5, seed=0, augment=True, first_step=lambda: 0, rank=0, world=1
    )
    straight = TrainingStream(
        task.make, task.train_ids, batch_size=5, seed=0, augment=False, first_step=lambda: 0, rank=0, world=1
    )
    turned, plain = stream.batch(3), straight.batch(3)
    q = torch.from_numpy(random_rotations(5, seed=0, step=3)).float()
    assert (torch.linalg.det(q) < 0).any(), "wanted a reflection among them, which a dipole follows"
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(
        turned.label("dipole"), (q @ plain.label("dipole").unsqueeze(-1)).squeeze(-1), **near
    )
    torch.testing.assert_close(
        turned.forces, (q[plain.batch] @ plain.forces.unsqueeze(-1)).squeeze(-1), **near
    )
    for key in ("charges", "gap"):
        assert torch.equal(turned.label(key), plain.label(key))
    for key in ("dipole", "charges", "gap", "energy", "forces"):
        assert torch.equal(turned.labelled(key), plain.labelled(key)), key
    assert not plain.labelled("dipole").all()


def test_batches_hold_what_the_file_says_and_masks_where_it_is_silent(
    tmp_path: Path, labelled: Path, cache: Path
) -> None:
    from ase.io import read

    point = make_point(tmp_path / "p", labelled, labels=LABELLED, **LEARNT["energies"])
    task, frames = prepare_task(point, cache), read(labelled / "clusters.xyz", ":")
    ids = np.arange(20)
    batch = task.make(ids)
    for key, wanted in (("dipole", "mu"), ("gap", "gap")):
        there = [wanted in frames[k].info for k in ids]
        assert batch.labelled(key).tolist() == there
        for k in ids:
            label = torch.as_tensor(frames[k].info.get(wanted, 0.0)).float()
            assert torch.allclose(batch.label(key)[k], label)
    charges = [frames[k].arrays.get("q", np.zeros(len(frames[k]))) for k in ids]
    assert np.allclose(batch.label("charges"), np.concatenate(charges), atol=1e-6)
    assert batch.labelled("energy").tolist() == [frames[k].calc is not None for k in ids]
    n_atoms = np.array([len(frames[k]) for k in ids])
    counts = dict(zip((t.key for t in task.objective.targets), task.make.counts(ids).tolist(), strict=True))
    assert counts == {
        "energy": sum(frames[k].calc is not None for k in ids),
        "forces": n_atoms[[frames[k].calc is not None for k in ids]].sum(),
        "dipole": sum("mu" in frames[k].info for k in ids),
        "charges": n_atoms[["q" in frames[k].arrays for k in ids]].sum(),
        "gap": sum("gap" in frames[k].info for k in ids),
    }


def test_a_store_without_the_labels_of_a_target_is_refused(
    clusters: Path, tmp_path: Path, cache: Path
) -> None:
    point = make_point(tmp_path / "p", clusters, **LEARNT["energies"])
    words = "train.targets: dipole is to be learnt, but .* has no such labels; it has energy, forces"
    with pytest.raises(ValueError, match=words):
        prepare_task(point, cache)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 1}, "gap is of rank 1 per frame, but .* has labels of rank 0 per frame"),
        ({"per": "atom"}, "gap is of rank 0 per atom, but .* has labels of rank 0 per frame"),
        ({"unit": "meV"}, "gap has the unit 'meV', but .* has labels in 'eV'"),
    ],
)
def test_labels_that_are_not_what_the_target_says_are_refused(
    changes: dict[str, object], words: str, labelled: Path, tmp_path: Path, cache: Path
) -> None:
    """Three frames of a scalar would broadcast with vectors of three components."""
    targets = [{"kind": "property", "name": "gap", "unit": "eV", **changes}]
    point = make_point(tmp_path / "p", labelled, labels=LABELLED, targets=targets)
    with pytest.raises(ValueError, match=words):
        prepare_task(point, cache)
    make = BatchMaker(
        prepare(point.data, cache=cache), np.zeros(2), layout="pairs", cutoff=4.0, targets=(EnergyTarget(),)
    )
    assert make.targets != (EnergyTarget(), ForcesTarget())
