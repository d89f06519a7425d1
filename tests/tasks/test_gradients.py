"""Losses of energies, derivatives and heads have the gradients that they should, in every form of the
step."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import apart, gradients, make_store, point_of, task_of

from sapis_lab import kernels
from sapis_lab.config import kinds
from sapis_lab.derivatives import node_features, predict
from sapis_lab.models import Model
from sapis_lab.selftest import batch_of, build, random_crystal, random_molecule
from sapis_lab.training import step_forms
from sapis_lab.training.step_forms import TracedStep

EXACT = 1e-11
KINDS = kinds("models")
IDS = np.array([0, 3, 1, 5])
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@needs_compiler
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with missing labels"])
@pytest.mark.parametrize("structure", ["molecules", "mixed", "crystals"])
@pytest.mark.parametrize("task", ["energies", "properties"])
def test_the_kernel_has_the_gradients_of_pytorch_in_trunk_and_heads(
    tmp_path: Path, task: str, structure: str, missing: bool
) -> None:
    store = make_store(tmp_path, structure, missing=missing)
    made = task_of(point_of("geat", periodic=structure == "crystals", task=task), store)
    assert made.model.kernel(torch.device("cpu")) == "C++"
    found = gradients(made, IDS)
    with kernels.reference_forms():
        wanted = gradients(made, IDS)
    assert apart(found, wanted) < EXACT
    idle = {name for name, gradient in wanted.items() if gradient.abs().max() < 1e-12}
    assert not idle


@pytest.mark.parametrize("kind", KINDS)
def test_stress_is_the_central_difference_of_the_energy_in_a_strain(kind: str, tmp_path: Path) -> None:
    made = task_of(point_of(kind, periodic=True), make_store(tmp_path, "crystals"))
    batch = made.make(np.array([2]))
    found = made.objective.found(batch, differentiable=False)
    assert found.stress is not None
    step = 1e-4
    for a, b in ((0, 0), (1, 2), (0, 2)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        energies = []
        for sign in (1, -1):
            strained = batch.clone()
            strained.positions = batch.positions @ (torch.eye(3) + sign * strain)
            strained.cell = batch.cell @ (torch.eye(3) + sign * strain)
            energies.append(made.objective.found(strained, differentiable=False).energy.item())
        wanted = (energies[0] - energies[1]) / (2 * step) / batch.cell.det().abs().item()
        assert found.stress[0, a, b].item() == pytest.approx(
            wanted, abs=2e-6 * found.stress.abs().max().item()
        )


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with missing labels"])
@pytest.mark.parametrize(("kind", "structure"), [(k, s) for k in KINDS for s in ("mixed", "crystals")])
def test_the_loss_of_everything_agrees_with_central_differences_in_the_parameters(
    kind: str, structure: str, missing: bool, tmp_path: Path
) -> None:
    """In single numbers of several parameters, and along a direction through all."""
    store = make_store(tmp_path, structure, missing=missing)
    made = task_of(point_of(kind, periodic=structure == "crystals"), store)
    wanted, named = gradients(made, IDS), dict(made.model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    directions = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in named.items()}
    batch, counts = made.make(IDS), made.make.counts(IDS)

    def slope(along: dict[str, torch.Tensor], step: float) -> float:
        values = []
        for s in (1, -2):
            with torch.no_grad():
                for name, d in along.items():
                    named[name] += s * step * d
            values.append(made.objective(batch, counts).item())
        with torch.no_grad():
            for name, d in along.items():
                named[name] += step * d
        return (values[0] - values[1]) / (2 * step)

    def inner(along: dict[str, torch.Tensor]) -> float:
        return sum((wanted[name] * d).sum().item() for name, d in along.items())

    scale = wanted["loss"].item()
    assert slope(directions, 1e-6) == pytest.approx(inner(directions), abs=1e-5 * scale, rel=1e-5)
    for name in [n for n in named if n.startswith("heads.")][::3] + list(named)[:2]:
        assert slope({name: directions[name]}, 1e-5) == pytest.approx(
            inner({name: directions[name]}), abs=1e-6 * scale, rel=1e-5
        ), name


@pytest.mark.parametrize("stress", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_energy_parameters_are_those_that_node_features_do_not_depend_on(kind: str, stress: bool) -> None:
    from sapis_lab.config import kind_class

    model = build(
        kind_class("models", kind)(cutoff=4.0).at_size(3e3, n_species=3), dtype=torch.float64, seed=0
    )
    rng = np.random.default_rng(0)
    frames = [random_crystal(rng)] if stress else [random_molecule(n, rng) for n in (5, 7)]
    batch = batch_of(frames, layout=model.layout, cutoff=4.0, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def used(value: torch.Tensor) -> set[str]:
        weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = torch.autograd.grad((value * weights).sum(), list(model.parameters()), allow_unused=True)
        return {n for n, g in zip(names, found, strict=True) if g is not None and g.abs().max() > 0}

    with kernels.reference_forms():
        by_features = used(node_features(model, batch, differentiable=True))
        by_energy = used(predict(model, batch, differentiable=True).energy)
    assert set(model.energy_parameters()) == set(names) - by_features
    assert by_energy == set(names)


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_energies_need_is_neither_trained_nor_counted_without_them(
    kind: str, tmp_path: Path
) -> None:
    store = make_store(tmp_path)
    for task in ("energies", "properties"):
        point = point_of(kind, task=task)
        made = task_of(point, store)
        planned = point.train.task.n_params(point.model, point.train, n_species=3)
        trained = {n: p.numel() for n, p in made.model.named_parameters() if p.requires_grad}
        assert planned == sum(made.model.count().values()) == sum(trained.values())
        heads = sum(n for name, n in trained.items() if name.startswith("heads."))
        readout = set(made.model.energy_parameters())
        assert heads > 0 and bool(readout & set(trained)) == (task == "energies")
        plain = point.model.n_params(n_species=3)
        without = (
            0 if task == "energies" else sum(dict(made.model.named_parameters())[n].numel() for n in readout)
        )
        assert sum(trained.values()) == plain + heads - without
        # and everything that is trained has a gradient from the loss
        found = gradients(made, IDS)
        used = {n for n, g in found.items() if n != "loss" and g.abs().max() > 1e-12}
        assert used == set(trained)


@pytest.mark.parametrize(
    ("kind", "structure", "task"),
    [
        ("geat", "mixed", "energies"),
        ("geat", "crystals", "energies"),
        ("transformer", "molecules", "properties"),
    ],
)
def test_the_traced_step_agrees_with_the_eager_one(
    kind: str, structure: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_forms, "BACKEND", "eager")
    store = make_store(tmp_path, structure, missing=True)
    made = task_of(point_of(kind, periodic=structure == "crystals", task=task), store)
    traced = TracedStep(made.objective, form="compiled")
    for ids in (IDS, IDS[::-1].copy() if structure == "molecules" else IDS):
        batch, counts = made.make(ids), made.make.counts(ids)
        results = []
        for step in (made.objective, traced):
            for p in made.model.parameters():
                p.grad = None
            loss = step(batch, counts)
            loss.backward()
            named = made.model.named_parameters()
            results.append({"loss": loss.detach()} | {n: p.grad for n, p in named if p.grad is not None})
        assert apart(results[1], results[0]) < EXACT
    assert len(traced.buckets) == 1 and not traced.given_up


def test_labels_that_are_missing_are_as_frames_that_are_not_there(tmp_path: Path) -> None:
    """The term of each target is that of the frames that have its label, and the sum divided by their
    number."""
    store = make_store(tmp_path, missing=True)
    for task in ("energies", "properties"):
        made = task_of(point_of("geat", task=task), store)
        total = gradients(made, np.arange(6))
        for k, target in enumerate(made.objective.targets):
            labels = [store.frames(np.array([i])).label(target.key) for i in range(6)]
            whole = np.array([i for i in range(6) if not np.isnan(labels[i]).any()])
            assert 0 < len(whole) < 6, target.key
            part = made.objective.found(made.make(whole), differentiable=False)
            wanted = target.loss_sum(part, made.make(whole), made.model.energy_scale)
            found = made.objective.found(made.make(np.arange(6)), differentiable=False)
            got = target.loss_sum(found, made.make(np.arange(6)), made.model.energy_scale)
            assert got.item() == pytest.approx(wanted.item(), rel=1e-12)
            n = len(whole) if target.per == "frame" else int(made.make.n_atoms[whole].sum())
            assert int(made.make.counts(np.arange(6))[k]) == n
            total["loss"] = total["loss"] - wanted / n
        assert abs(total["loss"].item()) < 1e-12 * 100


def test_a_model_without_energies_has_no_forces(tmp_path: Path) -> None:
    made = task_of(point_of("nequip", task="properties"), make_store(tmp_path))
    assert isinstance(made.model, Model)
    with pytest.raises(ValueError, match="this model has learnt no energies, and so has no forces"):
        predict(made.model, made.make(IDS))
