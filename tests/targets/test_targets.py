"""Every target is scored and learnt by the formulas that it states, whether or not labels are missing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from target_cases import SCALE, SIZES, WEIGHT, batch_of, cases, found_of, shape_of, world

from sapis_lab.config import kind_class, kinds
from sapis_lab.quantities import declare, quantity
from sapis_lab.targets import Target
from sapis_lab.tasks import Objective, loss_sums, mean_loss

CASES = cases()
EXACT = 1e-13


@pytest.fixture(params=CASES)
def target(request: pytest.FixtureRequest) -> Target:
    return CASES[request.param]


def scale() -> torch.Tensor:
    return torch.tensor(SCALE, dtype=torch.float64)


def scores_of(target: Target, *parts: tuple) -> dict[str, float]:
    """Scores from the sums over batches."""
    sums = [target.sums(found_of(target, prediction), batch) for batch, prediction in parts]
    return target.scores([sum(float(s) for s in column) for column in zip(*sums, strict=True)])


def rows_there(batch, target: Target) -> np.ndarray:
    mask = batch.labelled(target.key)
    n = len(batch.label(target.key))
    return np.ones(n, bool) if mask is None else mask.numpy()


def test_every_kind_has_a_case() -> None:
    assert {target.kind for target in CASES.values()} == set(kinds("targets"))


def test_no_two_targets_have_an_error_of_the_same_name() -> None:
    names = Counter(m.key for target in CASES.values() for m in target.measures())
    assert [name for name, n in names.items() if n > 1] == []


@pytest.mark.parametrize("split", ["val", "test", "test_600K"])
def test_its_errors_are_quantities_of_every_split(target: Target, split: str) -> None:
    declare(*target.measures())
    for measure in target.measures():
        known = quantity(f"{split}_{measure.key}")
        assert known == measure.quantity(split)
        assert (known.split, known.measure, known.better) == (split, measure.key, "lower")
        assert known.unit == target.unit and measure.label in known.label
        assert known.label.startswith({"val": "validation", "test": "test", "test_600K": "test 600K"}[split])


def test_sums_are_as_many_as_it_says_and_scores_are_its_measures(target: Target) -> None:
    batch, prediction = world(target)
    sums = target.sums(found_of(target, prediction), batch)
    assert len(sums) == target.n_sums
    assert list(target.scores([float(s) for s in sums])) == [m.key for m in target.measures()]


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with missing labels"])
def test_scores_are_root_mean_square_and_mean_absolute_errors_of_what_has_a_label(
    target: Target, missing: bool
) -> None:
    batch, prediction = world(target, missing=missing)
    there = rows_there(batch, target)
    assert there.all() != missing
    error = (prediction - batch.label(target.key)).numpy()[there]
    wanted = {"rmse": np.sqrt(np.mean(error**2)), "mae": np.mean(np.abs(error))}
    if target.kind == "energy":
        wanted["mae_per_atom"] = np.mean(np.abs(error) / batch.n_atoms.numpy()[there])
    found = scores_of(target, (batch, prediction))
    assert {key.partition("_")[2]: value for key, value in found.items()} == pytest.approx(wanted, rel=EXACT)


def weighted_square(target: Target, error: np.ndarray, n_atoms: np.ndarray, volume: np.ndarray) -> float:
    """Sum of the squares that the docstring of every kind states."""
    if target.kind == "energy":
        return WEIGHT * np.sum((error / n_atoms / SCALE) ** 2)
    if target.kind == "forces":
        return WEIGHT * np.sum((error / SCALE) ** 2)
    if target.kind == "stress":
        return WEIGHT * np.sum((error * (volume / n_atoms / SCALE)[:, None, None]) ** 2)
    return WEIGHT * np.sum((error / 0.4) ** 2)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with missing labels"])
def test_the_loss_is_the_weighted_sum_of_squares(target: Target, missing: bool) -> None:
    batch, prediction = world(target, missing=missing)
    there = rows_there(batch, target)
    of_rows = there if target.per == "frame" else slice(None)
    error = (prediction - batch.label(target.key)).numpy()[there]
    n_atoms, volume = (x.numpy()[of_rows] for x in (batch.n_atoms, batch.cell.det().abs()))
    got = target.loss_sum(found_of(target, prediction), batch, scale())
    assert got.item() == pytest.approx(weighted_square(target, error, n_atoms, volume), rel=EXACT)
    double = target.model_copy(update={"weight": 2 * WEIGHT})
    assert double.loss_sum(found_of(target, prediction), batch, scale()).item() == pytest.approx(
        2 * got.item(), rel=EXACT
    )
    zero = target.model_copy(update={"weight": 0.0})
    assert zero.loss_sum(found_of(target, prediction), batch, scale()).item() == 0


def test_energies_of_frames_may_be_learnt_instead_of_those_per_atom() -> None:
    target = kind_class("targets", "energy", Target)(kind="energy", weight=WEIGHT, of="total")
    batch, prediction = world(target)
    error = (prediction - batch.energy).numpy()
    got = target.loss_sum(found_of(target, prediction), batch, scale())
    assert got.item() == pytest.approx(WEIGHT * np.sum((error / SCALE) ** 2), rel=EXACT)


def test_the_loss_of_a_complete_batch_is_a_mean(target: Target) -> None:
    batch, prediction = world(target)
    found = found_of(target, prediction)
    total = loss_sums([target], found, batch, scale=scale())[0].item()
    n = len(SIZES) if target.per == "frame" else sum(SIZES)
    assert mean_loss([target], found, batch, scale=scale()).item() == pytest.approx(total / n, rel=EXACT)


@pytest.mark.parametrize("value", [0.0, 1e6, float("nan")])
def test_what_is_predicted_where_a_label_is_missing_changes_nothing(target: Target, value: float) -> None:
    """Not even NaN, which a masked product would let through."""
    batch, prediction = world(target, missing=True)
    absent = torch.from_numpy(~rows_there(batch, target))
    results = []
    for spoilt in (prediction, torch.where(absent.view(-1, *[1] * target.rank), value, prediction)):
        leaf = spoilt.clone().requires_grad_(True)
        loss = target.loss_sum(found_of(target, leaf), batch, scale())
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert gradient[absent].abs().max() == 0 and (gradient[~absent] != 0).all()
        results.append((loss.item(), gradient, scores_of(target, (batch, spoilt))))
    (loss, gradient, scores), (other_loss, other_gradient, other_scores) = results
    assert loss == other_loss and torch.equal(gradient, other_gradient) and scores == other_scores


def test_frames_without_a_label_may_as_well_not_be_there(target: Target) -> None:
    """Loss, gradient and scores are those of the batch of the other frames."""
    rng = np.random.default_rng(2)
    n_atoms = np.array(SIZES)
    n_frames, total = len(n_atoms), int(n_atoms.sum())
    keep = np.array([True, False, True, True])
    rows = keep if target.per == "frame" else np.repeat(keep, n_atoms)
    label = rng.normal(size=shape_of(target, n_frames, total))
    prediction = torch.from_numpy(rng.normal(size=label.shape))
    masked = batch_of(target, np.where(rows.reshape(-1, *[1] * target.rank), label, np.nan), n_atoms)
    part = batch_of(target, label[rows], n_atoms[keep])
    results = []
    for batch, values in ((masked, prediction), (part, prediction[torch.from_numpy(rows)])):
        leaf = values.clone().requires_grad_(True)
        loss = target.loss_sum(found_of(target, leaf), batch, scale())
        (gradient,) = torch.autograd.grad(loss, leaf)
        results.append((loss.item(), gradient, scores_of(target, (batch, values))))
    (loss, gradient, scores), (part_loss, part_gradient, part_scores) = results
    assert loss == pytest.approx(part_loss, rel=EXACT)
    assert torch.equal(gradient[torch.from_numpy(rows)], part_gradient)
    assert scores == pytest.approx(part_scores, rel=EXACT)


def test_sums_over_two_halves_are_those_of_the_whole(target: Target) -> None:
    batch, prediction = world(target, missing=True)
    label = np.where(
        rows_there(batch, target).reshape(-1, *[1] * target.rank), batch.label(target.key).numpy(), np.nan
    )
    cut = 2 if target.per == "frame" else sum(SIZES[:2])
    halves = [
        (batch_of(target, label[:cut], np.array(SIZES[:2])), prediction[:cut]),
        (batch_of(target, label[cut:], np.array(SIZES[2:])), prediction[cut:]),
    ]
    assert scores_of(target, *halves) == pytest.approx(scores_of(target, (batch, prediction)), rel=EXACT)
    losses = [target.loss_sum(found_of(target, p), b, scale()).item() for b, p in halves]
    whole = target.loss_sum(found_of(target, prediction), batch, scale()).item()
    assert sum(losses) == pytest.approx(whole, rel=EXACT)


class Scoring(Objective):
    """What an objective knows of its targets, without a model that predicts them."""

    def found(self, batch, *, differentiable):
        raise NotImplementedError


def test_a_split_without_a_label_has_no_score(target: Target) -> None:
    objective = Scoring(torch.nn.Linear(1, 1), [target])  # type: ignore[arg-type]
    assert objective.scores([0.0] * target.n_sums) == {}
    assert objective.measured == [m.key for m in target.measures()]
    assert objective.n_sums == target.n_sums


def test_tables_order_targets_by_their_place_not_by_the_order_of_the_loss() -> None:
    objective = Scoring(torch.nn.Linear(1, 1), list(reversed(CASES.values())))  # type: ignore[arg-type]
    names = [f"val_{key}" for key in objective.measured]
    assert names[:5] == [
        "val_force_rmse",
        "val_force_mae",
        "val_energy_rmse",
        "val_energy_mae",
        "val_energy_mae_per_atom",
    ]
    assert names.index("val_stress_rmse") < names.index("val_dipole_rmse") < names.index("val_charge_rmse")
    assert names.index("val_charge_rmse") < names.index("val_gap_rmse")
