"""What training k small models as one, with a leading axis of k in every weight, gains over k single steps
(`sapis bench pack`).

A lattice trains many small models, and the step of a small model is mostly the dispatch of its operations.
Packed, the operations of one step serve all k: `torch.func.stack_module_state` stacks the weights, `vmap`
maps one model's loss over them and over the frames, which differ from model to model. Forces are
`torch.func.grad` of the energy in the geometry features with the model's own pullback, as
`derivatives.predict` takes them; gradients of the weights are one ordinary backward pass of the sum of the k
losses.

    step      forward, forces, the package's loss, backward, clipping by each model's own norm, AdamW; for all
    k models pytorch   k single steps, one model after the other, in PyTorch alone (`kernels.reference_forms`)
    compiled  the same with the C++ kernel, where there is one (CPU)
    gain      time of the k single steps over that of the packed one: below 1 packing loses

The frames are those of `inputs`, displaced anew for every model and with one neighbour graph for all. Before
anything is timed, the packed gradients are compared with the single ones.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from sapis_lab.atoms import AtomsBatch
from sapis_lab.bench.environments import MAIN, command
from sapis_lab.bench.inputs import INPUTS, THERMAL, make_input
from sapis_lab.bench.measure import MOST_CALLS, Settings, Worker, WorkerFailed, quartiles
from sapis_lab.bench.step import check_device, model_config, sized_model
from sapis_lab.bench.worker import LEARNING_RATE, Job
from sapis_lab.config import kind_class, load
from sapis_lab.derivatives import Prediction, predict
from sapis_lab.jobs.host import WORKER_ENVIRONMENT
from sapis_lab.kernels import reference_forms
from sapis_lab.models import Model, ModelConfig
from sapis_lab.screen import new_table
from sapis_lab.tasks import energy_loss
from sapis_lab.training import TrainConfig

INPUT = "eth16"
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
"""Of packed gradients against single ones: largest difference of an entry over the largest entry of that
model's gradient."""


class _Energy(nn.Module):
    """Energies of a model by frames and by atoms, from its geometry features, as `functional_call` wants
    them: as a forward pass."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: tuple[Tensor, ...], batch: AtomsBatch) -> tuple[Tensor, Tensor]:
        output = self.model.evaluate(features, batch)
        assert output.energy is not None and output.atomic_energy is not None
        return output.energy, output.atomic_energy


class Pack:
    """Models of one size as one: every weight has a leading axis of k.

    Args:
        models: k of them, alike but for their weights.   batches: one a model, alike but for positions, cell
            and targets.
    """

    def __init__(
        self, models: Sequence[Model], batches: Sequence[AtomsBatch], *, settings: TrainConfig
    ) -> None:
        self.one, self.like, self.settings = _Energy(models[0]), batches[0], settings
        self.weights, self.buffers = stack_module_state([_Energy(model) for model in models])
        fields = [(b.graph.vectors(b.positions, b.cell), b.energy, b.forces) for b in batches]
        self.inputs = tuple(torch.stack(parts) for parts in zip(*fields, strict=True))
        """displacements, energies and forces, each with k in front"""

    def losses(self) -> Tensor:
        """(k,), differentiable in the stacked weights."""
        return vmap(self._loss)(self.weights, self.buffers, *self.inputs)

    def _loss(
        self,
        weights: dict[str, Tensor],
        buffers: dict[str, Tensor],
        vectors: Tensor,
        energy: Tensor,
        forces: Tensor,
    ) -> Tensor:
        batch = copy.copy(self.like)
        batch.energy, batch.forces = energy, forces
        features, pullback = self.one.model.features_and_pullback(vectors, batch)

        def total(features: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            energies, atomic = functional_call(self.one, (weights, buffers), (features, batch))
            return energies.sum(), (energies, atomic)

        gradients, (energies, atomic) = grad(total, has_aux=True)(features)
        pairs = pullback(*gradients)
        prediction = Prediction(energies, batch.graph.forces(pairs), None, energies, atomic, pairs)
        return energy_loss(prediction, batch, scale=buffers["model.energy_scale"], config=self.settings.loss)

    def gradient(self, k: int, name: str) -> Tensor:
        """Of one weight of model `k`."""
        found = self.weights[f"model.{name}"].grad
        assert found is not None, f"no gradient of {name}"
        return found[k]

    @torch.no_grad()
    def clip(self, largest: float) -> None:
        """Shorten every model's own gradient to norm `largest`, as `clip_grad_norm_` does with one model."""
        gradients = [p.grad for p in self.weights.values() if p.grad is not None]
        norms = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)
        factors = (largest / (norms + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.dim() - 1)))


class PackJob(Job):
    """k models, packed and one by one; an action is one training step of all of them.

    Args:
        model: the settings of every model.   n_models: k; the seed of model i is i.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        n_models: int,
        input: str = INPUT,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        config = load(kind_class("models", model["kind"], ModelConfig), model, source="the model")
        data, self.settings, self.device = make_input(input), TrainConfig(steps=1), torch.device(device)
        dtype = getattr(torch, precision)
        self.models = [
            config.build(species=data.elements, mean_neighbors=data.mean_neighbors, seed=k)
            for k in range(n_models)
        ]
        self.batches = []
        first = data.batch(layout=self.models[0].layout, dtype=dtype).to(self.device)
        for k, single in enumerate(self.models):
            single.to(self.device, dtype).energy_scale.fill_(float(np.sqrt(np.mean(data.forces**2))))
            batch = copy.copy(first)
            shift = np.random.default_rng(k).normal(scale=THERMAL, size=data.positions.shape)
            batch.positions = first.positions + torch.from_numpy(shift).to(first.positions)
            self.batches.append(batch)
        self.pack = Pack(self.models, self.batches, settings=self.settings)
        self.last: Tensor = torch.zeros(())
        self.actions: dict[str, Callable[[], object]] = {"packed": self.packed, "pytorch": self.pytorch}
        if self._is_compiled():
            self.actions["compiled"] = self.compiled
        self.optimizers = [self._optimizer(single.parameters()) for single in self.models]
        self.pack_optimizer = self._optimizer(self.pack.weights.values())
        self.facts = {
            "n_params": sum(self.models[0].count().values()),
            "n_models": n_models,
            "n_atoms": len(data.species),
            "gradient_differences": self.gradient_differences(),
            "tolerance": TOLERANCE[precision],
        }

    def _is_compiled(self) -> bool:
        batch = self.batches[0]
        with torch.no_grad():
            return (
                self.models[0].energy_and_gradient(batch.graph.vectors(batch.positions, batch.cell), batch)
                is not None
            )

    def _optimizer(self, parameters: Any) -> torch.optim.AdamW:
        settings = self.settings
        return torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )

    def packed(self) -> None:
        """One step of all models at once."""
        self.pack_optimizer.zero_grad(set_to_none=True)
        losses = self.pack.losses()
        losses.sum().backward()
        if self.settings.clip is not None:
            self.pack.clip(self.settings.clip)
        self.pack_optimizer.step()
        self.last = losses.detach()

    def pytorch(self) -> None:
        """One step of one model after the other, in PyTorch alone."""
        with reference_forms():
            self.compiled()

    def compiled(self) -> None:
        """One step of one model after the other, as training takes them."""
        losses = []
        for model, batch, optimizer in zip(self.models, self.batches, self.optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            of_batch = self._single_loss(model, batch)
            of_batch.backward()
            if self.settings.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip, foreach=True)
            optimizer.step()
            losses.append(of_batch.detach())
        self.last = torch.stack(losses)

    def _single_loss(self, model: Model, batch: AtomsBatch) -> Tensor:
        prediction = predict(model, batch, differentiable=True)
        return energy_loss(prediction, batch, scale=model.energy_scale, config=self.settings.loss)

    def gradient_differences(self) -> dict[str, float]:
        """How far the packed gradients are from the single ones of the PyTorch and of the compiled form;
        relative, see `TOLERANCE`."""
        self.pack_optimizer.zero_grad(set_to_none=True)
        self.pack.losses().sum().backward()
        found = {}
        for form in [action for action in self.actions if action != "packed"]:
            with reference_forms() if form == "pytorch" else nullcontext():
                found[form] = max(self._difference(k) for k in range(len(self.models)))
        return found

    def _difference(self, k: int) -> float:
        model = self.models[k]
        model.zero_grad(set_to_none=True)
        self._single_loss(model, self.batches[k]).backward()
        pairs = [
            (p.grad, self.pack.gradient(k, name))
            for name, p in model.named_parameters()
            if p.grad is not None
        ]
        largest = torch.stack([single.abs().max() for single, _ in pairs]).max()
        return (
            torch.stack([(packed - single).abs().max() for single, packed in pairs]).max() / largest
        ).item()

    def enter(self, action: str) -> None:
        return

    def check(self) -> None:
        if not bool(torch.isfinite(self.last).all()):
            raise ValueError(f"the last step gave losses {self.last.tolist()}, wanted finite numbers")


# -------------------------------------------------------------------------------------------------- measuring


def run_pack(
    *,
    model: str,
    sizes: Sequence[float],
    n_models: Sequence[int],
    settings: Settings,
    save: Callable[[dict[str, Any]], None],
    console: Console,
) -> int:
    """Measure every size with every number of models; the exit status, 1 where one failed or gave other
    gradients.

    Args:
        model: as `step.model_config` reads it.   n_models: values of k.   save: called with all results after
            every measurement.

    Raises:
        ConfigError: a model, size or device that is not there.
    """
    check_device(settings.device)
    config, elements = model_config(model), make_input(INPUT).elements
    sized = {size: sized_model(model, config, size, elements) for size in sizes}
    rows: list[dict[str, Any]] = []
    for size in sizes:
        for k in n_models:
            console.print(Text(f"{model} at {size:g}, {k} at once ...", style="dim"), soft_wrap=True)
            row = {"size": size, "n_models": k, "error": None, **_measured(sized[size], k, settings)}
            rows.append(row)
            clock = "wall" if settings.device.startswith("cuda") else "cpu"
            facts = {"model": model, "input": INPUT, "device": settings.device, "clock": clock, "threads": 1}
            save({**facts, "rounds": settings.rounds, "visit_seconds": settings.visit_seconds, "rows": rows})
    _print(rows, model, settings, console)
    return int(any(row["error"] or not row["gradients_agree"] for row in rows))


def _measured(model: dict[str, Any], k: int, settings: Settings) -> dict[str, Any]:
    """Times of one size and one k, in a process of its own: the steps in rounds, forwards and backwards in
    turn."""
    arguments = {"model": model, "n_models": k, "device": settings.device}
    with tempfile.TemporaryDirectory(prefix="sapis-bench-") as folder:
        line = command(MAIN, "worker", "sapis_lab.bench.pack:PackJob", json.dumps(arguments))
        with Worker(line, log=Path(folder) / "worker.log", environment=WORKER_ENVIRONMENT) as worker:
            try:
                facts = worker.read()["facts"]
                actions = ["packed", *facts["gradient_differences"]]
                calls: dict[str, int] = {}
                seconds: dict[str, list[float]] = {action: [] for action in actions}
                for action in actions:
                    worker.ask(do="time", action=action, n=1)
                    wall = min(worker.ask(do="time", action=action, n=2)["wall"])
                    calls[action] = max(1, min(MOST_CALLS, round(settings.visit_seconds / max(wall, 1e-9))))
                for visit in range(settings.rounds):
                    for action in actions[:: 1 if visit % 2 == 0 else -1]:
                        seconds[action] += worker.ask(do="time", action=action, n=calls[action])["seconds"]
            except WorkerFailed as failure:
                return {"error": str(failure), "gradients_agree": False}
    return {
        **facts,
        **_summary(seconds, k),
        "gradients_agree": max(facts["gradient_differences"].values()) <= facts["tolerance"],
    }


def _summary(seconds: dict[str, list[float]], k: int) -> dict[str, Any]:
    """Median and quartiles in s per model and step, and the gains."""
    times = {}
    for action, values in seconds.items():
        low, median, high = (v / k for v in quartiles(values))
        times[action] = {"n": len(values), "seconds": median, "seconds_q25": low, "seconds_q75": high}
    gains = {
        a: statistics.median(v) / statistics.median(seconds["packed"])
        for a, v in seconds.items()
        if a != "packed"
    }
    return {"times": times, "gains": gains}


def _print(rows: Sequence[dict[str, Any]], model: str, settings: Settings, console: Console) -> None:
    clock = (
        "wall time, device synchronised" if settings.device.startswith("cuda") else "CPU time of one thread"
    )
    console.print(
        f"{model} on frames like {INPUT} ({INPUTS[INPUT]}): ms of {clock} per model and training step",
        soft_wrap=True,
    )
    single = ("quartiles", "gain")
    headings = ("N", "k", "packed", "quartiles", "PyTorch", *single, "C++", *single)
    table = new_table(*headings, "gradients differ by")
    for row in rows:
        if row["error"]:
            table.add_row(f"~{row['size']:,.0f}", str(row["n_models"]), "failed")
            continue
        singles = [cell for form in ("pytorch", "compiled") for cell in _single_cells(row, form)]
        worst = max(row["gradient_differences"].values())
        table.add_row(
            f"{row['n_params']:,}",
            str(row["n_models"]),
            *_times(row["times"]["packed"]),
            *singles,
            f"{worst:.1e}",
        )
    console.print(table)
    for row in rows:
        if row["error"]:
            console.print(
                Text(f"failed  {row['size']:g}, k = {row['n_models']}: {row['error']}", style="red"),
                soft_wrap=True,
            )
    done = [row for row in rows if not row["error"]]
    if done:
        verdict = "equal" if all(row["gradients_agree"] for row in done) else "NOT equal"
        tolerance = max(row["tolerance"] for row in done)
        console.print(
            f"packed gradients {verdict} to the single ones, tolerance {tolerance:g} of the largest entry",
            soft_wrap=True,
        )
    console.print(
        Text("gain: time of k single steps over that of one packed step; below 1 packing loses", style="dim"),
        soft_wrap=True,
    )


def _single_cells(row: dict[str, Any], form: str) -> list[str]:
    if form not in row["times"]:
        return ["-", "-", "-"]
    return [*_times(row["times"][form]), f"{row['gains'][form]:.2f}"]


def _times(value: dict[str, Any]) -> list[str]:
    return [
        f"{1e3 * value['seconds']:.3g}",
        f"{1e3 * value['seconds_q25']:.3g}-{1e3 * value['seconds_q75']:.3g}",
    ]
