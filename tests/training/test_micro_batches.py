"""Micro batches: a step in parts has the loss and the gradients of the whole batch, to rounding, and is
otherwise a step like any other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from ranked_points import (
    LABELLED,
    TARGETS,
    Launcher,
    make_point,
    n_rows,
    pid_of,
    wait_until,
    weights,
)

from sapis_lab.config import kinds
from sapis_lab.records import read_record

EXACT = {"float32": 1e-5, "float64": 1e-12}
"""Loss and gradients by two ways, over the largest of them."""
TRAINED = 1e-6
"""Weights after a short training in float64, over the largest: AdamW divides by gradients that may be near
zero."""


def gradients(folder: Path, *, cache: Path, launcher: Launcher, ranks: int, sizes: list[int]) -> list:
    """(loss, gradients) of every size of the batch, the same on all ranks."""
    status = launcher.run(
        folder, cache=cache, ranks=ranks, target="ranked_points:save_gradients", batch_sizes=sizes
    )
    assert status == 0, (folder / "log.txt").read_text()
    found = [torch.load(folder / f"gradients.rank{r}.pt", weights_only=True) for r in range(ranks)]
    for other in found[1:]:
        for a, b in zip(sum(found[0], []), sum(other, []), strict=True):
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    return found[0]


@pytest.mark.parametrize(
    ("kind", "precision", "ranks", "targets"),
    [(kind, "float64", 1, ()) for kind in kinds("models")]
    + [("geat", "float32", 1, ()), ("transformer", "float32", 2, ())]
    + [pytest.param("nequip", "float64", 3, (), marks=pytest.mark.long)]
    + [("geat", "float64", 1, TARGETS), pytest.param("geat", "float64", 2, TARGETS, marks=pytest.mark.long)],
)
def test_the_parts_of_a_batch_have_its_loss_and_gradients(
    kind: str,
    precision: str,
    ranks: int,
    targets: list,
    tmp_path: Path,
    clusters: Path,
    labelled: Path,
    cache: Path,
    launcher: Launcher,
) -> None:
    """Frames of unequal size, some of them without some of their labels; parts that divide the batch, that do
    not, and single frames; ranks without a frame."""
    data, labels = (labelled, LABELLED) if targets else (clusters, None)
    sizes, found = [12, 5, 2, 1], {}
    for micro in (None, 4, 3, 1):
        settings = {"precision": precision, "micro_batch": micro, "targets": targets}
        folder = tmp_path / f"m{micro}"
        make_point(folder, data, kind=kind, labels=labels, **settings)
        found[micro] = gradients(folder, cache=cache, launcher=launcher, ranks=ranks, sizes=sizes)
    for micro in (4, 3, 1):
        for some, wanted in zip(found[micro], found[None], strict=True):
            assert [g is None for g in some] == [w is None for w in wanted]
            assert float(some[0]) == pytest.approx(float(wanted[0]), rel=EXACT[precision])
            pairs = [(g, w) for g, w in zip(some[1:], wanted[1:], strict=True) if w is not None]
            largest = max(float(w.abs().max()) for _, w in pairs)
            assert largest > 0
            assert all(float((g - w).abs().max()) <= EXACT[precision] * largest for g, w in pairs)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_point_in_parts_ends_as_one_of_whole_batches(
    ranks: int, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    """The transformer, whose frames are turned at random."""
    settings = {"kind": "transformer", "steps": 20, "batch_size": 7, "precision": "float64", "clip": 0.5}
    for name, micro, n in (("whole", None, 1), ("parts", 2, ranks)):
        folder = tmp_path / name
        make_point(folder, clusters, micro_batch=micro, **settings)
        assert launcher.run(folder, cache=cache, ranks=n) == 0, (folder / "log.txt").read_text()
    one, other = (read_record(tmp_path / name) for name in ("whole", "parts"))
    wanted = weights(tmp_path / "whole")
    difference = float((weights(tmp_path / "parts") - wanted).abs().max())
    assert 0 < difference < TRAINED * float(wanted.abs().max())
    assert other.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert (other.steps, other.samples, other.batch_size) == (one.steps, one.samples, one.batch_size)
    # of the whole batch, whose layout may be another than that of parts: which is cheaper depends on sizes
    for key in ("flops_per_step", "flops_elementwise_per_step", "flops_inference_per_frame"):
        assert getattr(other, key) == pytest.approx(getattr(one, key), rel=0.4)
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "parts")]
    assert [r.split(",")[0] for r in rows[0]] == [r.split(",")[0] for r in rows[1]]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_killed_point_in_parts_ends_in_the_same_bits(
    ranks: int, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    for name in ("whole", "killed"):
        make_point(tmp_path / name, clusters, kind="transformer", steps=60, batch_size=5, micro_batch=2)
    assert launcher.run(tmp_path / "whole", cache=cache, ranks=ranks) == 0
    killed = tmp_path / "killed"
    launcher.start(killed, cache=cache, ranks=ranks, checkpoint_seconds=0)
    wait_until(lambda: n_rows(killed) >= 10)
    os.kill(pid_of(killed), signal.SIGKILL)
    assert launcher.ended(killed)["status"] == -9 and (killed / "last.ckpt").exists()
    assert launcher.run(killed, cache=cache, ranks=ranks) == 0
    for file in ("model.safetensors", "metrics.csv"):
        assert (killed / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_micro_batches_no_smaller_than_a_batch_change_no_bit(
    tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    for micro in (None, 32):
        make_point(tmp_path / f"m{micro}", clusters, steps=5, micro_batch=micro)
        assert launcher.run(tmp_path / f"m{micro}", cache=cache) == 0
    assert torch.equal(weights(tmp_path / "m32"), weights(tmp_path / "mNone"))


def test_micro_batches_are_part_of_a_result_only_where_they_are_set(tmp_path: Path, clusters: Path) -> None:
    one, parts = (make_point(tmp_path / "p", clusters, micro_batch=micro) for micro in (None, 2))
    assert "micro_batch" not in one.science()["train"] and parts.science()["train"]["micro_batch"] == 2
    assert one.fingerprint != parts.fingerprint
