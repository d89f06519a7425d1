"""What a study's points run on: how many at a time, on which device, with how many of it, through which
executor, and what their training is given beside its settings.

Decided here alone, for `study run`, `tune` and `scale`, from the section `run:` of the study file and the
flags that override it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sapis_lab.config import ConfigError
from sapis_lab.executors import Capacity, ExecutorConfig, executor
from sapis_lab.jobs.executor import Executor
from sapis_lab.jobs.host import n_cores

if TYPE_CHECKING:
    from sapis_lab.sweep.study import RunOptions, Study
    from sapis_lab.training import PointConfig


@dataclass(frozen=True)
class Resources:
    """Where points run, and how many of them."""

    executor: ExecutorConfig
    workers: int
    """Points at a time; with Slurm, jobs of one array at a time."""
    device: Literal["cpu", "cuda"]
    devices: int
    """Of every point."""
    cores: int
    """Of this machine, for what is computed here: data, neighbour tables."""

    @property
    def slurm(self) -> bool:
        """Points wait in Slurm's queue, where they go on without the process that submitted them."""
        return self.executor.kind == "slurm"


def resources(
    run: RunOptions, *, workers: int | None = None, where: str | None = None, n_points: int | None = None
) -> Resources:
    """What `run` gives to points.

    Args:
        workers: instead of `run.workers`.   where: the kind of an executor, instead of `run.executor`.
        n_points: there are no more, and so no more workers.

    Raises:
        ConfigError: 'cuda' is wanted on a machine without a GPU.
    """
    chosen = _executor(run, where)
    device, n = chosen.capacity(
        device=run.device, devices=run.devices, n_jobs=run.workers if workers is None else workers
    )
    return Resources(
        chosen, n if n_points is None else max(1, min(n, n_points)), device, run.devices, n_cores()
    )


def _executor(run: RunOptions, kind: str | None) -> ExecutorConfig:
    """That of the study, or of another kind; Slurm's settings stand in `run.slurm`."""
    from sapis_lab.executors.slurm import SlurmConfig

    chosen = run.executor if kind in (None, run.executor.kind) else executor(kind)
    return chosen if chosen != SlurmConfig() else SlurmConfig(options=run.slurm)


def point_arguments(run: RunOptions, device: str) -> dict[str, Any]:
    """What `run` says to the training of every point, beyond its device; defaults are left out.

    Raises:
        ConfigError: `run.step` wants another device.
    """
    if run.step == "graph" and not device.startswith("cuda"):
        raise ConfigError(
            f"run.step: 'graph' replays CUDA graphs and wants CUDA, got device {device}; use auto, eager or "
            f"compiled"
        )
    fields = type(run).model_fields
    return {key: value for key in _TOLD if (value := getattr(run, key)) != fields[key].default}


_TOLD = ("step", "checkpoint_seconds")
"""Keys of `run:` that are arguments of `run_point`, with its defaults."""


def executor_of(
    study: Study,
    use: Resources,
    folder: Path,
    *,
    points: Sequence[PointConfig],
    expected: Mapping[str, float] | None = None,
) -> Executor:
    """What runs the training of `points` of the study.

    Args:
        folder: results folder.   expected: time of every point, s.
    """
    from sapis_lab.sweep.engine import training_task

    arguments = point_arguments(study.run, use.device)
    return use.executor.build(
        folder,
        training_task(points, cache=study.run.cache_folder, arguments=arguments),
        capacity=Capacity(use.device, use.workers),
        devices=use.devices,
        expected=expected or {},
    )
