"""What each optimiser costs of a training step (`sapis bench optimizers`).

Every kind trains a copy of one model on one input, with its default settings and the rate zero, so that all
do the same work for ever. A step is that of `bench.step`; within it the optimiser is timed by itself, behind
the sweeps that leave its state as cold as training does. Visits are interleaved; a share is the median over
visits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console

from sapis_lab.bench.inputs import INPUTS, make_input
from sapis_lab.bench.measure import Settings
from sapis_lab.bench.step import StepJob, model_config, sized_model
from sapis_lab.config import kind_class, kinds, plainly
from sapis_lab.optimizers import OptimizerConfig
from sapis_lab.screen import new_table
from sapis_lab.training import TrainConfig
from sapis_lab.training.process import set_up_torch


class OptimizedJob(StepJob):
    """A model with the optimiser of a kind, whose part of a step has a clock of its own."""

    def __init__(self, kind: str, *, model: dict[str, Any], input: str) -> None:
        super().__init__(model=model, input=input, device="cpu")
        config = kind_class("optimizers", kind, OptimizerConfig)(kind=kind)
        train = TrainConfig(steps=1, optimizer=config)
        self.kind, self.own, self._began = kind, 0.0, 0.0
        self.optimizer = config.build(self.parameters, learning_rate=0.0, train=train)
        self.optimizer.register_step_pre_hook(self._starts)
        self.optimizer.register_step_post_hook(self._ends)
        self.enter("train")

    def _starts(self, *_: Any) -> None:
        self._began = time.process_time()

    def _ends(self, *_: Any) -> None:
        self.own += time.process_time() - self._began

    def visit(self, seconds: float) -> tuple[float, float]:
        """Seconds of a step, and of the optimiser in it, over a visit of at least one step."""
        self.own, steps, begin = 0.0, 0, time.process_time()
        while steps == 0 or time.process_time() - begin < seconds:
            self.train()
            steps += 1
        total = time.process_time() - begin
        self.check()
        return total / steps, self.own / steps


def run_optimizers(
    *,
    model: str,
    sizes: Sequence[float],
    inputs: Sequence[str],
    settings: Settings,
    save: Callable[[dict[str, Any]], None],
    console: Console,
) -> int:
    """Measure every kind of optimiser at every size on every input, and print the table; the exit status.

    Args:
        model: as `step.model_config` reads it.   inputs: names of `make_input`.   save: called with all
            results.

    Raises:
        ConfigError: a name that is not known, or a size that the model cannot have.
    """
    set_up_torch(1)
    config = model_config(model)
    elements = plainly(lambda: {name: make_input(name).elements for name in inputs}, about="--inputs")
    rows = []
    for name in inputs:
        for size in sizes:
            plain = sized_model(model, config, size, elements[name])
            jobs = [OptimizedJob(kind, model=plain, input=name) for kind in kinds("optimizers")]
            for job in jobs:  # kernels are built, first bases made
                for _ in range(12):
                    job.train()
            visits = [[job.visit(settings.visit_seconds) for job in jobs] for _ in range(settings.rounds)]
            for k, job in enumerate(jobs):
                rows.append(_row(job, name, size, [one[k] for one in visits]))
    save({"model": model, "torch": torch.__version__, "rows": rows})
    _print(rows, model, console)
    return 0


def _row(job: OptimizedJob, name: str, size: float, visits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {
        "input": name,
        "size": size,
        "n_params": job.facts["n_params"],
        "optimizer": job.kind,
        "step_ms": 1e3 * statistics.median(total for total, _ in visits),
        "optimizer_ms": 1e3 * statistics.median(own for _, own in visits),
        "share": statistics.median(own / total for total, own in visits),
        "shares": [own / total for total, own in visits],
    }


def _print(rows: Sequence[dict[str, Any]], model: str, console: Console) -> None:
    console.print(f"{model}: CPU time of one thread per training step, and the optimiser's share of it")
    table = new_table("input", "N", "optimiser", "step ms", "its ms", "share", left=["input", "optimiser"])
    for row in rows:
        table.add_row(
            INPUTS[row["input"]],
            f"{row['n_params']:,}",
            row["optimizer"],
            f"{row['step_ms']:.2f}",
            f"{row['optimizer_ms']:.2f}",
            f"{100 * row['share']:.1f} %",
        )
    console.print(table)
