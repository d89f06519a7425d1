"""Labels in batches: turned with their frames, and the same bits whether rows are held or gathered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import gradients, make_store, point_of, task_of

from sapis_lab import batches
from sapis_lab.batches import BatchMaker, random_rotations

IDS = np.array([4, 0, 2, 5, 1])
EXACT = 1e-10


@pytest.mark.parametrize("structure", ["molecules", "mixed", "crystals"])
def test_the_loss_of_an_equivariant_model_is_that_of_the_turned_frames(
    structure: str, tmp_path: Path
) -> None:
    """Of scalars, vectors, matrices and stress alike, with labels that are missing: all turn together."""
    store = make_store(tmp_path, structure, missing=True)
    task = task_of(point_of("geat", periodic=structure == "crystals"), store)
    rotations = random_rotations(len(IDS), seed=0, step=0)
    assert (np.linalg.det(rotations) < 0).any()
    plain, turned = task.make(IDS), task.make(IDS, rotations)
    found = [task.objective.found(b, differentiable=False) for b in (plain, turned)]
    for target in task.objective.targets:
        losses = [
            target.loss_sum(f, b, task.model.energy_scale)
            for f, b in zip(found, (plain, turned), strict=True)
        ]
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=EXACT), target.key
        if target.rank:
            difference = plain.label(target.key) - turned.label(target.key)
            assert difference.abs().max() > 0.1, f"{target.key} has not turned"
    matrices = torch.from_numpy(rotations)
    wanted = matrices @ plain.label("alpha") @ matrices.transpose(1, 2)
    torch.testing.assert_close(turned.label("alpha"), wanted)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with missing labels"])
def test_rows_of_a_held_store_have_the_labels_and_masks_of_those_that_are_gathered(
    missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, "molecules", missing=missing)
    task = task_of(point_of("geat"), store)

    def made(held: int) -> tuple[BatchMaker, dict]:
        monkeypatch.setattr(batches, "HELD", held)
        make = BatchMaker(
            store, np.zeros(3), layout="pairs", cutoff=10.0, targets=tuple(task.objective.targets)
        )
        assert make._is_held == bool(held)
        return make, make(IDS).to_dict()

    (_, rows), (_, gathered) = made(1 << 20), made(0)
    assert rows.keys() == gathered.keys() and ("present" in rows) == missing
    for name in ("labels", "present") if missing else ("labels",):
        assert rows[name].keys() == gathered[name].keys()
        for key, value in gathered[name].items():
            assert rows[name][key].dtype == value.dtype and torch.equal(rows[name][key], value), key
    for name in ("energy", "forces", "positions"):
        assert torch.equal(rows[name], gathered[name])
    assert set(rows["labels"]) == {"dipole", "charges", "gap", "alpha"}


def test_the_loss_of_a_batch_is_a_mean_of_means(tmp_path: Path) -> None:
    """Of two batches with all labels, the loss of both together is the mean, weighted by what each has."""
    store = make_store(tmp_path, "molecules")
    task = task_of(point_of("geat"), store)
    parts = [gradients(task, ids) for ids in (IDS[:2], IDS[2:])]
    whole = gradients(task, IDS)
    for name, gradient in whole.items():
        wanted = (2 * parts[0][name] + 3 * parts[1][name]) / 5
        assert (gradient - wanted).abs().max() < 1e-11 * max(1.0, wanted.abs().max().item()), name
