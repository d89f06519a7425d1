"""What the lattice engine costs: wall time of a lattice of short points, against their training times (`sapis
bench engine`).

All points are the same model on the same frames, with different seeds; a first round of two points, which is
not counted, measures how many steps make the wanted training time, with all workers at work. With T_i the
wall time that point i spent in training steps (`seconds_train` of its record) and w workers,

    overhead = W / (sum_i T_i / w) - 1,      W: wall time from the moment the workers are ready to the end of
    the last point.

The overhead holds all that is not a training step: forking, reading the data, building the model, counting
FLOPs, final scores, curves, checkpoints and records, and a worker that is idle at the end; validation along
the way, of which a study chooses how much it wants, is done once, at the end. The start of the workers
(importing torch and lightning, once a session) stands apart. Making the batches is measured by itself, in
turn with the steps that they are for. What else runs on the machine falsifies all of it: measure on an idle
one; its load is printed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.text import Text

from sapis_lab.config import home, plainly
from sapis_lab.data import prepare
from sapis_lab.derivatives import predict
from sapis_lab.jobs.events import Event
from sapis_lab.records import Record
from sapis_lab.sweep import engine
from sapis_lab.sweep.plan import infos
from sapis_lab.sweep.points import points
from sapis_lab.sweep.study import Study, load_study
from sapis_lab.tasks import energy_loss
from sapis_lab.training import PointConfig
from sapis_lab.training.run import prepare_task, set_up_process

WANTED = 0.15
"""Largest overhead that is wanted for points of 2 s."""
LOADER_SIZES = (3e3, 1e5)
LOADER_STEPS = 120
"""In which batches and steps are timed; the first quarter is not counted."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    study: str = "quickstart"
    """whose data and training are used"""
    model: str = "geat"
    """name of a file in configs/models/"""
    n_params: float = 3e3
    n_frames: int = 50
    n_points: int = 40
    seconds: float = 2.0
    """wanted training time of a point"""
    workers: int = 2
    trial_steps: int = 200
    """steps of the points that are not counted"""


class _Session(NamedTuple):
    """One call of the engine."""

    records: list[Record]
    seconds: float
    """wall time without the start of the workers"""
    start: float
    """time to start the workers, s"""


def run_engine(
    plan: Plan, *, cache: Path | None, save: Callable[[dict[str, Any]], None], console: Console
) -> int:
    """Run the lattice and print its cost; the exit status: 1 if a point failed.

    Args:
        cache: folder of the frame stores, `.sapis/data` of the project.   save: called with the results.

    Raises:
        ConfigError: no such study or model, or sizes that cannot be had.
    """
    cache = cache or home() / ".sapis" / "data"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="sapis-engine-") as place:
        trial = _session(
            _points(plan, plan.trial_steps, n=plan.workers, cache=cache), Path(place) / "trial", plan, cache
        )
        if len(trial.records) < plan.workers:
            console.print(Text("a point of the first round failed", style="red"))
            return 1
        # what else runs is in the wall time
        per_step = statistics.mean(r.cpu_seconds_train for r in trial.records) / plan.trial_steps
        steps = max(1, round(plan.seconds / per_step))
        session = _session(
            _points(plan, steps, n=plan.n_points, cache=cache), Path(place) / "lattice", plan, cache
        )
    if len(session.records) < plan.n_points:
        console.print(
            Text(f"{plan.n_points - len(session.records)} of {plan.n_points} points failed", style="red")
        )
        return 1
    result = _result(plan, session, steps=steps, load=load) | {"loader": _loaders(plan, cache)}
    save(result)
    for line in _lines(plan, result):
        console.print(Text(line), soft_wrap=True)
    return 0


def _points(plan: Plan, steps: int, *, n: int, cache: Path) -> list[PointConfig]:
    study = load_study(
        plan.study,
        [
            f"models=[{plan.model}]",
            f"lattice.n_params=[{plan.n_params}]",
            f"lattice.n_frames=[{plan.n_frames}]",
            f"lattice.seeds={list(range(n))}",
            "lattice.rate_factors=[1.0]",
            f"train.steps={steps}",
            "train.epochs=null",
            "train.validations=1",
            f"run.cache={cache}",
        ],
    )
    _make_data(study, cache)
    return [p.config for p in points(study, next(iter(infos(study).values())))]


def _make_data(study: Study, cache: Path) -> None:
    store = plainly(lambda: prepare(study.data, cache=cache), about=f"data {study.data.kind!r}")
    store.neighbors(study.models[0].cutoff)


def _session(lattice: Sequence[PointConfig], folder: Path, plan: Plan, cache: Path) -> _Session:
    begin, start = time.perf_counter(), 0.0

    def note(event: Event) -> None:
        nonlocal begin, start
        if event.kind == "launched":
            begin, start = time.perf_counter(), event.seconds
        elif event.kind in ("done", "failed"):
            ends.append(time.perf_counter())

    ends: list[float] = []
    records = engine.run(lattice, folder=folder, cache=cache, workers=plan.workers, on_event=note)
    return _Session(records, max(ends) - begin, start)


def _loaders(plan: Plan, cache: Path) -> list[dict[str, float]]:
    """Median CPU seconds of making a batch, and of the step that it is for, at each of `LOADER_SIZES`
    parameters."""
    set_up_process(1)
    return [_loader(_points(replace(plan, n_params=n), 1, n=1, cache=cache)[0], cache) for n in LOADER_SIZES]


def _loader(point: PointConfig, cache: Path) -> dict[str, float]:
    task = prepare_task(point, cache)
    stream = task.stream(seed=point.seed)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4, fused=True)
    times = []
    for step in range(LOADER_STEPS):
        begin = time.process_time()
        batch = stream.batch(step)
        made = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        energy_loss(
            predict(task.model, batch, differentiable=True),
            batch,
            scale=task.model.energy_scale,
            config=point.train.loss,
        ).backward()
        optimizer.step()
        times.append((made - begin, time.process_time() - made))
    batch_seconds, step_seconds = (
        statistics.median(column) for column in zip(*times[LOADER_STEPS // 4 :], strict=True)
    )
    return {
        "n_params": point.n_params or point.n_params_target,
        "batch_seconds": batch_seconds,
        "step_seconds": step_seconds,
    }


def _result(plan: Plan, session: _Session, *, steps: int, load: float) -> dict[str, Any]:
    train = [r.seconds_train for r in session.records]
    ideal = sum(train) / plan.workers
    return {
        "n_points": plan.n_points,
        "workers": plan.workers,
        "model": plan.model,
        "n_params": session.records[0].n_params,
        "n_frames": plan.n_frames,
        "steps": steps,
        "load": load,
        "seconds_start": session.start,
        "seconds_wall": session.seconds,
        "seconds_train": train,
        "seconds_total": [r.seconds_total for r in session.records],
        "overhead": session.seconds / ideal - 1,
    }


def _lines(plan: Plan, result: dict[str, Any]) -> list[str]:
    train, total = result["seconds_train"], result["seconds_total"]
    ideal = sum(train) / plan.workers
    inside = sum(total) / sum(train) - 1
    each = f"{statistics.mean(train):.2f} s of training each ({min(train):.2f} to {max(train):.2f})"
    return [
        f"{plan.n_points} points of {result['model']} with N = {result['n_params']:,}, {result['steps']} "
        f"steps, "
        f"{each}; load of the machine before: {result['load']:.1f}",
        f"start of the {plan.workers} workers, once: {result['seconds_start']:.1f} s",
        f"wall time {result['seconds_wall']:.1f} s; sum of the training times / {plan.workers}: {ideal:.1f} "
        f"s",
        f"overhead {100 * result['overhead']:.1f} % (wanted at most {100 * WANTED:.0f} %), of which "
        f"{100 * inside:.1f} % inside the points: data, model, validation, scores, files",
        *(
            f"N = {r['n_params']:,}: making a batch takes {1e3 * r['batch_seconds']:.2f} ms, the step "
            f"{1e3 * r['step_seconds']:.1f} ms: "
            f"{100 * r['batch_seconds'] / (r['batch_seconds'] + r['step_seconds']):.1f} % of a training"
            for r in result["loader"]
        ),
    ]
