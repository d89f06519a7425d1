"""What a study's points run on: how many at a time, on which device, with how many of it, through which
executor, and what their training is told beside its settings.

Decided here alone, for `study run`, `tune` and `scale`, from the section `run:` of the study file and the
flags that override it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sapis_lab.config import ConfigError
from sapis_lab.jobs.host import n_cores

if TYPE_CHECKING:
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.sweep.study import RunOptions, Study
    from sapis_lab.training import PointConfig

Where = Literal["local", "slurm"]


@dataclass(frozen=True)
class Resources:
    """Where points run, and how many of them."""

    executor: Where
    workers: int
    """Points at a time; with Slurm, jobs of one array at a time."""
    device: str
    """'cpu' or 'cuda'."""
    devices: int
    """Of every point."""
    cores: int
    """Of this machine, for what is computed here: data, neighbour tables."""


def resources(
    run: RunOptions, *, workers: int | None = None, executor: Where | None = None, n_points: int | None = None
) -> Resources:
    """What `run` gives to points.

    Args:
        workers: instead of `run.workers`.   executor: instead of `run.executor`.
        n_points: there are no more, and so no more workers.

    Raises:
        ConfigError: 'cuda' is wanted on a machine without a GPU.
    """
    cores, where = n_cores(), executor or run.executor
    if where == "slurm":
        device, n = slurm_device(run), run.slurm.at_once
    else:
        device, n_gpus = _device(run.device)
        wanted = workers or run.workers
        n = wanted if isinstance(wanted, int) else (cores if device == "cpu" else n_gpus) // run.devices
    return Resources(where, max(1, n if n_points is None else min(n, n_points)), device, run.devices, cores)


def _device(wanted: str) -> tuple[str, int]:
    """'cpu' or 'cuda', and how many GPUs there are."""
    if wanted == "cpu":
        return "cpu", 0
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and n == 0:
        raise ConfigError("run.device: 'cuda' is wanted, but torch finds no GPU; use run.device=auto or cpu")
    return ("cuda", n) if n else ("cpu", 0)


def slurm_device(run: RunOptions) -> str:
    """'cuda' if it is wanted, or GPUs are asked for; this machine need not have any."""
    if run.device == "auto":
        return "cuda" if run.slurm.gpus else "cpu"
    return run.device


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


def slurm_queue(
    study: Study, folder: Path, *, points: Sequence[PointConfig], expected: Mapping[str, float]
) -> SlurmQueue:
    """Slurm, as an executor of `points` of the study.

    Args:
        folder: results folder.   expected: time of every point, s.
    """
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.sweep.engine import training_task

    run, device = study.run, slurm_device(study.run)
    task = training_task(points, cache=run.cache_folder, arguments=point_arguments(run, device))
    return SlurmQueue(folder, run.slurm, task, device=device, devices=run.devices, expected=expected)
