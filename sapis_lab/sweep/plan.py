"""What a study will cost, before anything is spent: N, D, FLOPs, time and disk of every point.

FLOPs: a training step with conservative forces costs STEP_FACTOR forward passes of its batch, an inference
INFERENCE_FACTOR (`accounting`). Times come from records of the same family on this host, as seconds per step
= a + b FLOPs per step with a, b >= 0. Where there are none they are a rough estimate from a measurement of
0.3 s: time of the matrix products, of moving what elementwise work touches, and of starting each operation.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sapis_lab.accounting import INFERENCE_FACTOR, STEP_FACTOR
from sapis_lab.atoms import block_is_cheaper
from sapis_lab.config import home
from sapis_lab.data import DatasetInfo, dataset_info
from sapis_lab.models import ModelConfig
from sapis_lab.records import Planned
from sapis_lab.sweep.points import Point
from sapis_lab.sweep.study import Study

_BYTES_PER_NUMBER = 4
"""float32."""
_COPIES = 3
"""Weights and their average in the checkpoint, and the final weights; the optimiser's state comes on top."""
_BYTES_PER_POINT = 60_000
"""Logs, curves, settings and record."""
_TABLE_PADDING = 1.25
"""Columns of a neighbour table over the mean number of neighbours: it is as wide as its fullest row."""
_GEMM_EFFICIENCY = 0.35
"""Share of the speed of a large product that products of this size reach."""
_SECONDS_PER_STEP = 0.02
"""Starting about two thousand operations a step; the floor of every small model."""
_SECONDS_PER_POINT = 4.0
"""Start, first step, final evaluation, writing."""


@dataclass(frozen=True)
class PointCost:
    """What one point will take."""

    planned: Planned
    flops_step: float
    """Matrix-product FLOPs of one training step."""
    flops_train: float
    flops_inference: float
    """Matrix-product FLOPs of energy and forces of one frame."""
    seconds: float
    disk: int
    """Bytes."""


@dataclass(frozen=True)
class Plan:
    """The costs of all points."""

    study: Study
    info: DatasetInfo
    costs: tuple[PointCost, ...]
    workers: int
    measured: frozenset[str]
    """Families whose times come from earlier records on this host; the others are rough estimates."""

    @property
    def seconds(self) -> float:
        """Time of all points on `workers` workers, longest first."""
        return makespan((c.seconds for c in self.costs), self.workers)

    def only(self, ids: Iterable[str]) -> Plan:
        """The plan of some of the points."""
        wanted = set(ids)
        return replace(self, costs=tuple(c for c in self.costs if c.planned.id in wanted))

    @property
    def expected_seconds(self) -> dict[str, float]:
        return {c.planned.id: c.seconds for c in self.costs}


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Wall time when the longest waiting job always goes to the first free worker."""
    ends = [0.0] * max(1, workers)
    for s in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += s
    return max(ends)


def infos(study: Study) -> dict[float, DatasetInfo]:
    """What is known of the data, for the cutoff of every model."""
    return {
        c: dataset_info(study.data, cutoff=c, cache=study.run.cache_folder)
        for c in sorted({m.cutoff for m in study.models})
    }


def plan(
    study: Study,
    points: Sequence[Point],
    known: Mapping[float, DatasetInfo],
    *,
    workers: int,
    device: str = "cpu",
) -> Plan:
    """Costs of `points`, with `known` from `infos(study)`."""
    speeds = _recorded_speeds(device)
    machine = None if {p.planned.family for p in points} <= set(speeds) else _measure_machine()
    costs = []
    state: dict[ModelConfig, int] = {}
    for point in points:
        planned, info, model = point.planned, known[point.config.model.cutoff], point.config.model
        if model not in state:
            train = point.config.train
            shapes = train.task.shapes(model, train, n_species=len(info.species))
            state[model] = train.optimizer.state_numbers(shapes)
        matmul, elementwise = _step(point.config.model, info, planned.batch_size)
        speed = speeds.get(planned.family) or _guess(machine, elementwise)
        costs.append(
            PointCost(
                planned=planned,
                flops_step=matmul,
                flops_train=matmul * planned.steps,
                flops_inference=INFERENCE_FACTOR / STEP_FACTOR * matmul / planned.batch_size,
                seconds=speed.start + planned.steps * (speed.floor + matmul * speed.per_flop),
                disk=_BYTES_PER_NUMBER * (_COPIES * planned.n_params + state[model]) + _BYTES_PER_POINT,
            )
        )
    return Plan(study, next(iter(known.values())), tuple(costs), workers, frozenset(speeds))


def planned_flops(point: Point, known: Mapping[float, DatasetInfo]) -> float:
    """Matrix-product FLOPs of training a point, with `known` from `infos(study)`."""
    return (
        _step(point.config.model, known[point.config.model.cutoff], point.planned.batch_size)[0]
        * point.planned.steps
    )


def _step(model: ModelConfig, info: DatasetInfo, batch: int) -> tuple[float, float]:
    """Matrix-product FLOPs and elementwise operations of one training step."""
    n_pairs = _pairs_computed(model, info)
    forward = model.flops(
        n_atoms=round(batch * info.mean_atoms), n_pairs=round(batch * n_pairs), n_species=len(info.species)
    )
    return STEP_FACTOR * float(forward.matmul), STEP_FACTOR * float(forward.elementwise)


def _pairs_computed(model: ModelConfig, info: DatasetInfo) -> float:
    """Pairs of a frame as the layout of `model` computes them: neighbours, or slots with their padding and
    the atoms themselves."""
    if model.layout == "edges":
        return info.mean_pairs
    slots = info.mean_atoms**2
    if not info.periodic and block_is_cheaper(
        n_slots=slots, n_edges=info.mean_pairs, n_atoms=info.mean_atoms
    ):
        return slots
    return _TABLE_PADDING * info.mean_pairs + info.mean_atoms


# ------------------------------------------------------------------------------------------------------ speed


class Speed(NamedTuple):
    """Time of a point: start + steps (floor + per_flop FLOPs)."""

    start: float
    """s a point."""
    floor: float
    """s a step."""
    per_flop: float
    """s a FLOP."""


class _Machine(NamedTuple):
    flops: float
    """Matrix products of middling size, FLOP/s, one thread."""
    bandwidth: float
    """Elementwise additions, numbers/s, one thread."""


def _guess(machine: _Machine | None, elementwise: float) -> Speed:
    assert machine is not None
    return Speed(
        _SECONDS_PER_POINT,
        _SECONDS_PER_STEP + elementwise / machine.bandwidth,
        1 / (_GEMM_EFFICIENCY * machine.flops),
    )


def _measure_machine() -> _Machine:
    a, x = np.ones((256, 256), np.float32), np.ones(1_000_000, np.float32)
    y = np.empty_like(x)

    def rate(work: float, function: object) -> float:
        function()  # type: ignore[operator]
        # CPU time: what else runs at the moment is no property of the machine
        n, begin = (
            0,
            time.process_time(),
        )
        while time.process_time() - begin < 0.15:
            function()  # type: ignore[operator]
            n += 1
        return n * work / (time.process_time() - begin)

    return _Machine(rate(2 * 256**3, lambda: a @ a), rate(len(x), lambda: np.add(x, x, out=y)))


def _recorded_speeds(device: str) -> dict[str, Speed]:
    """Speed of every family that has records on this host and kind of device, from all runs tables of the
    project."""
    tables = [
        t for path in sorted((home() / "results").glob("*/runs.parquet")) if (t := _table(path)) is not None
    ]
    if not tables:
        return {}
    runs = pd.concat(tables, ignore_index=True)
    here = runs["host"].astype(object) == platform.node()
    on_cpu = runs["device"].isin(["cpu", platform.processor(), platform.machine()])
    runs = runs[here & (on_cpu == (device == "cpu")) & (runs["status"] == "done") & (runs["steps"] >= 20)]
    speeds = {}
    for family, rows in runs.groupby("family"):
        flops = rows["flops_per_step"].to_numpy(float)
        seconds = rows["seconds_train"].to_numpy(float) / rows["steps"].to_numpy(float)
        floor, per_flop = _line(flops, seconds)
        start = float(
            np.median(rows["seconds_total"].to_numpy(float) - rows["seconds_train"].to_numpy(float))
        )
        speeds[str(family)] = Speed(max(start, 0.0), floor, per_flop)
    return speeds


def _table(path: Path) -> pd.DataFrame | None:
    wanted = [
        "family",
        "status",
        "host",
        "device",
        "steps",
        "flops_per_step",
        "seconds_train",
        "seconds_total",
    ]
    try:
        return pd.read_parquet(path, columns=wanted)
    except (OSError, ValueError, KeyError):
        return None  # a table of another program version teaches nothing about speed


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept and slope of y = a + b x with a, b >= 0 and least relative squares; x and y (n,), y
    positive."""
    from scipy.optimize import nnls

    scale = max(float(x.max()), 1.0)
    (a, b), _ = nnls(np.column_stack([np.ones_like(x), x / scale]) / y[:, None], np.ones_like(y))
    return float(a), float(b / scale)
