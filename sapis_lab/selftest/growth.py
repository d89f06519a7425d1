"""Whether growing a trained model pays: against the larger model trained from scratch at equal training FLOPs
(`sapis selftest growth`).

Three trainings a seed, all with the package's own settings (configs/train/default.yaml: optimiser, loss,
clipping, running average of the weights, which is what is scored; only the batch is smaller), on the same
frames; the peak rate after growth is a share of the default:

    small     N1 parameters, n1 steps.             rate: the default schedule over n1 steps (5 % warm-up, then
    cosine to zero) grown     `small` after `grow` to N2, with its moments and its average, n2 steps more on
    the frames that come next.
                                                   rate: linear to its peak over the re-warm-up, then cosine
                                                       to zero over the rest of n2
    scratch   N2 parameters, n3 steps.             rate: the default schedule over n3 steps

    n3 = round((C1 n1 + C2 n2) / C2),      C1, C2: FLOPs of one step at N1 and N2, counted on the frames of
    step 0 (`accounting`).

Growth is cold: it happens where the first cosine has come to zero. `grown` so has two complete schedules, one
a stage, and `scratch` one complete schedule as long as both together in FLOPs (to half a step); none is cut
short. Neither is tuned: rates and re-warm-up are as given.

Growth itself is measured on the validation frames with the weights as they are after `small`: the largest
change of a frame's energy and of a force component. In float32 it is rounding, which is compared with the sum
of the moduli of the atomic energies and the largest force.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from sapis_lab.accounting import counted_flops
from sapis_lab.atoms import AtomsBatch
from sapis_lab.augmentation import augmentation
from sapis_lab.batches import FixedBatches, TrainingStream
from sapis_lab.bench.step import model_config
from sapis_lab.config import expand_use, home, load, plainly
from sapis_lab.data import DatasetConfig, prepare
from sapis_lab.derivatives import predict
from sapis_lab.growth import grow
from sapis_lab.models import Model, ModelConfig
from sapis_lab.screen import new_table
from sapis_lab.tasks import Objective, Task, loss_sums, mean_loss
from sapis_lab.training import PointConfig, TrainConfig
from sapis_lab.training.module import TrainingModule, rate_factor
from sapis_lab.training.run import (
    SCORING_BATCH,
    PointFailed,
    prepare_task,
    set_up_process,
)
from sapis_lab.training.scoring import score

ROUNDING = 1e-5
"""Largest relative change of energies and forces that counts as rounding in float32."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    data: DatasetConfig
    model: str = "geat"
    """as `step.model_config` reads it; a family that grows"""
    small: float = 6e4
    """N1, number of parameters before"""
    large: float = 2.4e5
    """N2, after"""
    steps: int = 1000
    """n1"""
    more: int = 500
    """n2"""
    rewarm: int = 100
    """steps of the re-warm-up; never more than a fifth of n2"""
    rate: float = 0.3
    """peak rate after growth over the default: at the full rate the n2 steps first undo what `small` has
    learnt"""
    batch_size: int = 5
    n_seeds: int = 3
    """seeds 0 .. n_seeds - 1, of the weights, of what growth draws, and of the order of the frames"""


def run_growth(
    plan: Plan, *, cache: Path | None, save: Callable[[dict[str, Any]], None], console: Console
) -> int:
    """Train all seeds and print the table; the exit status, 1 where a training diverged or growth changed
    more than rounding.

    Args:
        cache: folder of the frame stores, `.sapis/data` of the project.   save: called with all results after
            every seed.

    Raises:
        ConfigError: sizes that cannot be had, or that one does not grow into the other.
    """
    set_up_process(1)
    cache = cache or home() / ".sapis" / "data"
    store = plainly(lambda: prepare(plan.data, cache=cache))
    config, n_species = model_config(plan.model), len(store.elements)
    small, large = plainly(lambda: [config.at_size(n, n_species=n_species) for n in (plan.small, plan.large)])
    plainly(
        lambda: small.build(species=store.elements, mean_neighbors=1.0, seed=0).growth(large),
        about=f"{plan.model} does not grow",
    )
    train: TrainConfig = load(
        TrainConfig,
        {**expand_use("default", "train"), "steps": plan.steps, "batch_size": plan.batch_size},
        source="configs/train/default.yaml",
    )
    rewarm = min(plan.rewarm, plan.more // 5)
    facts = {
        "model": plan.model,
        "data": plan.data.identity(),
        "n_train": len(store.splits["train"]),
        "n_validation": len(store.splits["validation"]),
        "batch_size": plan.batch_size,
        "learning_rate": train.rate_of(large, plan.large),
        "rounding": ROUNDING,
        "schedules": {
            "small": f"{train.schedule} over {plan.steps} steps, {train.warmup:.0%} warm-up",
            "grown": (
                f"after all of small's: linear warm-up over {rewarm} steps to {plan.rate:g} times the rate, "
                f"cosine to {plan.more}"
            ),
            "scratch": f"{train.schedule} over all its steps, {train.warmup:.0%} warm-up",
        },
    }
    rows: list[dict[str, Any]] = []
    for seed in range(plan.n_seeds):
        comparison = _Comparison(plan, train, small, large, rewarm=rewarm, seed=seed, cache=cache)
        try:
            rows.append({"seed": seed, "error": None, **comparison.run(console)})
        except PointFailed as failure:
            rows.append({"seed": seed, "error": str(failure)})
        save({**facts, "rows": rows, "mean": _mean(rows)})
    _print(rows, facts, console)
    return int(any(row["error"] or not row["growth"]["is_rounding"] for row in rows))


class _Comparison:
    """The three trainings of one seed."""

    def __init__(
        self,
        plan: Plan,
        train: TrainConfig,
        small: ModelConfig,
        large: ModelConfig,
        *,
        rewarm: int,
        seed: int,
        cache: Path,
    ) -> None:
        self.plan, self.train, self.large, self.rewarm, self.seed = plan, train, large, rewarm, seed
        n_frames = len(prepare(plan.data, cache=cache).splits["train"])

        def task(config: ModelConfig, n_params: float) -> Task:
            point = PointConfig(
                id=f"growth-s{seed}",
                data=plan.data,
                model=config,
                n_params_target=n_params,
                n_frames=n_frames,
                seed=seed,
                train=train,
            )
            return prepare_task(point, cache)

        self.small, self.scratch = task(small, plan.small), task(large, plan.large)
        self.validation = list(
            FixedBatches(self.small.make, self.small.store.splits["validation"], batch_size=SCORING_BATCH)
        )

    def run(self, console: Console) -> dict[str, Any]:
        """The numbers of one seed.

        Raises:
            PointFailed: a training diverged.
        """
        plan, rate = self.plan, self.train.rate_of(self.large, self.plan.large)
        flops = {"small": self._flops(self.small), "large": self._flops(self.scratch)}
        total = flops["small"] * plan.steps + flops["large"] * plan.more
        n_scratch = max(1, round(total / flops["large"]))

        def scheduled(n: int) -> Callable[[int], float]:
            return lambda step: rate_factor(step, steps=n, config=self.train)

        def say(what: str, errors: Mapping[str, float]) -> None:
            message = (
                f"seed {self.seed}  {what}: validation force RMSE {1e3 * errors['force_rmse']:.1f} meV/Å, "
                f"loss {errors['loss']:.3g}"
            )
            console.print(Text(message, style="dim"), soft_wrap=True)

        before = self.module(self.small.model, steps=plan.steps, learning_rate=rate)
        optimizer = self._fit(before, first=0, n=plan.steps, factor=scheduled(plan.steps))
        found = {"small": self._scored(before)}
        say(f"{self._n_params(before):,} parameters, {plan.steps} steps", found["small"])

        grown = grow(
            before.model,
            self.large,
            seed=self.seed,
            optimizer_state=optimizer.state_dict(),
            average=list(before.average),
        )
        growth = function_change(before.model, grown.model, self.validation)
        after = self.module(grown.model, steps=plan.more, learning_rate=plan.rate * rate)
        after.average = list(grown.average or [])
        self._fit(after, first=plan.steps, n=plan.more, factor=self._rewarmed, state=grown.optimizer_state)
        found["grown"] = self._scored(after)
        say(f"grown to {self._n_params(after):,}, {plan.more} steps more", found["grown"])

        scratch = self.module(self.scratch.model, steps=n_scratch, learning_rate=rate)
        self._fit(scratch, first=0, n=n_scratch, factor=scheduled(n_scratch))
        found["scratch"] = self._scored(scratch)
        say(f"{self._n_params(scratch):,} from scratch, {n_scratch} steps", found["scratch"])
        return {
            "n_params": {
                "small": self._n_params(before),
                "grown": self._n_params(after),
                "scratch": self._n_params(scratch),
            },
            "flops_per_step": flops,
            "steps": {"small": plan.steps, "more": plan.more, "scratch": n_scratch},
            "flops": {"grown": total, "scratch": flops["large"] * n_scratch},
            "growth": growth,
            "validation": found,
            "rmse_ratio": found["grown"]["force_rmse"] / found["scratch"]["force_rmse"],
        }

    def objective(self, model: Model) -> Objective:
        """What `model` is trained for, as the small one is."""
        return self.train.task.objective(model, self.small.objective.targets)

    def module(self, model: Model, *, steps: int, learning_rate: float) -> TrainingModule:
        """`model` as it is trained."""
        return TrainingModule(
            model, self.train, steps=steps, learning_rate=learning_rate, mean_loss=self.objective(model)
        )

    def _rewarmed(self, step: int) -> float:
        """Rate over its peak after growth."""
        if step < self.rewarm:
            return (step + 1) / (self.rewarm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - self.rewarm) / (self.plan.more - self.rewarm)))

    def _stream(self) -> TrainingStream:
        task = self.small
        augment = augmentation(self.train.augment).of(symmetry=task.model.symmetry)
        return task.stream(seed=self.seed, augment=augment)

    def _fit(
        self,
        module: TrainingModule,
        *,
        first: int,
        n: int,
        factor: Callable[[int], float],
        state: Mapping[str, Any] | None = None,
    ) -> torch.optim.Optimizer:
        """Train for `n` steps on the frames of the steps from `first` on, as the package does; the optimiser
        in the end."""
        optimizer = module.configure_optimizers()["optimizer"]
        if state is not None:  # moments; settings are those of this stage
            optimizer.load_state_dict({**state, "param_groups": optimizer.state_dict()["param_groups"]})
        module.on_fit_start()
        stream = self._stream()
        for step in range(n):
            for group in optimizer.param_groups:
                group["lr"] = module.learning_rate * factor(step)
            optimizer.zero_grad(set_to_none=True)
            of_batch = self._loss(module.model, stream.batch(first + step))
            of_batch.backward()
            if not math.isfinite(of_batch.item()):
                size = self._n_params(module)
                raise PointFailed(
                    f"diverged: the loss is {of_batch.item()} at step {step + 1} of {n} of {size:,} "
                    f"parameters"
                )
            if self.train.clip is not None:
                torch.nn.utils.clip_grad_norm_(module.model.parameters(), self.train.clip)
            optimizer.step()
            module.update_average(first + step + 1)
        return optimizer

    def _loss(self, model: Model, batch: AtomsBatch) -> torch.Tensor:
        objective = self.objective(model)
        found = objective.found(batch, differentiable=True)
        return mean_loss(objective.targets, found, batch, scale=model.energy_scale)

    def _flops(self, task: Task) -> int:
        """Of one training step, on the frames of step 0."""
        batch = self._stream().batch(0)
        found = counted_flops(lambda: self._loss(task.model, batch).backward())
        task.model.zero_grad(set_to_none=True)
        return found

    def _scored(self, module: TrainingModule) -> dict[str, float]:
        """Validation errors and loss of the averaged weights."""
        with module.averaged() as model:
            errors = score(self.objective(model), self.validation, device=torch.device("cpu"))
            errors["loss"] = self._validation_loss(model)
        if why := self.small.divergence({f"val_{name}": value for name, value in errors.items()}):
            raise PointFailed(why)
        return errors

    def _validation_loss(self, model: Model) -> float:
        objective = self.objective(model)
        sums = [
            loss_sums(
                objective.targets, objective.found(b, differentiable=False), b, scale=model.energy_scale
            )
            for b in self.validation
        ]
        energy, force = (float(sum(part)) for part in zip(*sums, strict=True))
        return energy / sum(b.n_frames for b in self.validation) + force / sum(
            b.num_nodes for b in self.validation
        )

    @staticmethod
    def _n_params(module: TrainingModule) -> int:
        return sum(module.model.count().values())


def function_change(before: Model, after: Model, batches: Sequence[AtomsBatch]) -> dict[str, Any]:
    """The largest changes of a frame's energy (eV) and of a force component (eV/Å), and what rounding of them
    is relative to."""
    largest = dict.fromkeys(
        ("max_energy_change", "max_force_change", "sum_atomic_energies", "max_force"), 0.0
    )
    relative = 0.0
    for batch in batches:
        old, new = predict(before, batch), predict(after, batch)
        with torch.no_grad():
            features = before.features(batch.graph.vectors(batch.positions, batch.cell), batch)
            atomic = (before.atomic_energy(features, batch)[0] * before.energy_scale).abs()
        moduli = atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic)
        energy, force, reference = (
            (new.energy - old.energy).abs(),
            (new.forces - old.forces).abs().max(),
            old.forces.abs().max(),
        )
        relative = max(relative, float((energy / moduli).max()), float(force / reference))
        values = (energy.max(), force, moduli.max(), reference)
        largest = {
            key: max(known, float(value)) for (key, known), value in zip(largest.items(), values, strict=True)
        }
    return {**largest, "relative": relative, "is_rounding": relative <= ROUNDING}


# ---------------------------------------------------------------------------------------------------- telling

_STAGES = ("small", "grown", "scratch")


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Over the seeds that did not diverge; None where all did."""
    done = [row for row in rows if not row["error"]]
    if not done:
        return None
    keys = ("force_rmse", "loss")
    ratios = [row["rmse_ratio"] for row in done]
    return {
        "n_seeds": len(done),
        "validation": {
            s: {k: statistics.mean(row["validation"][s][k] for row in done) for k in keys} for s in _STAGES
        },
        "rmse_ratio": statistics.mean(ratios),
        "rmse_ratio_sd": statistics.stdev(ratios) if len(ratios) > 1 else None,
    }


def _print(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], console: Console) -> None:
    done = [row for row in rows if not row["error"]]
    if done:
        first = done[0]
        n, steps, flops = first["n_params"], first["steps"], first["flops"]
        console.print(
            f"{facts['model']}: {n['small']:,} parameters for {steps['small']:,} steps, grown to "
            f"{n['grown']:,} for {steps['more']:,} more "
            f"({flops['grown']:.4g} FLOPs), against {n['scratch']:,} from scratch for {steps['scratch']:,} "
            f"({flops['scratch']:.4g} FLOPs); "
            f"batches of {facts['batch_size']} of {facts['n_train']} frames, peak rate "
            f"{facts['learning_rate']:g}",
            soft_wrap=True,
        )
    errors, losses = ([f"{what} {stage}" for stage in _STAGES] for what in "FL")
    table = new_table("seed", "max |dE| eV", "max |dF| eV/Å", "relative", *errors, "ratio", *losses)
    for row in rows:
        if row["error"]:
            table.add_row(str(row["seed"]), "diverged")
            continue
        growth = row["growth"]
        changes = [f"{growth[key]:.1e}" for key in ("max_energy_change", "max_force_change", "relative")]
        table.add_row(str(row["seed"]), *changes, *_cells(row["validation"], f"{row['rmse_ratio']:.3f}"))
    mean = _mean(rows)
    if mean and len(done) > 1:
        table.add_row(
            "mean",
            "",
            "",
            "",
            *_cells(mean["validation"], f"{mean['rmse_ratio']:.3f} ± {mean['rmse_ratio_sd']:.3f}"),
        )
    console.print(table)
    for row in rows:
        if row["error"]:
            console.print(Text(f"seed {row['seed']}: {row['error']}", style="red"), soft_wrap=True)
    for stage, words in facts["schedules"].items():
        console.print(Text(f"{stage}: {words}", style="dim"), soft_wrap=True)
    meaning = (
        "dE, dF: changes of energies and forces by growth; relative: the larger of both, to sum |E_i| and to "
        "the largest force; F: "
        "validation force RMSE, meV/Å; L: validation loss; ratio: F grown over F scratch, below 1 growth wins"
    )
    console.print(Text(meaning, style="dim"), soft_wrap=True)


def _cells(validation: Mapping[str, Mapping[str, float]], ratio: str) -> list[str]:
    forces = [f"{1e3 * validation[stage]['force_rmse']:.1f}" for stage in _STAGES]
    return [*forces, ratio, *(f"{validation[stage]['loss']:.3g}" for stage in _STAGES)]
