"""What every executor offers: what jobs get where they run, and the running of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

from sapis_lab.config import KindConfig, dump, named_kind
from sapis_lab.jobs.executor import Executor, Task

DeviceChoice = Literal["auto", "cpu", "cuda"]


class Capacity(NamedTuple):
    """What jobs get."""

    device: Literal["cpu", "cuda"]
    n_jobs: int
    """At a time."""


class ExecutorConfig(KindConfig):
    """Settings of an executor; subclasses are the executor kinds."""

    @abstractmethod
    def check(self) -> None:
        """ConfigError if no job can be run from this machine; asked before anything is spent."""

    @abstractmethod
    def capacity(
        self, *, device: DeviceChoice, devices: int, n_jobs: int | Literal["auto"] = "auto"
    ) -> Capacity:
        """What jobs get that want `devices` of `device` each, `n_jobs` of them at a time.

        Raises:
            ConfigError: there is no such device.
        """

    @abstractmethod
    def build(
        self, folder: Path, task: Task, *, capacity: Capacity, devices: int, expected: Mapping[str, float]
    ) -> Executor:
        """What runs jobs.

        Args:
            folder: of what is said about all of them, such as a log; their own lie in it, or in one folder of
                it.   task: what they do.
            capacity: of this executor.   devices: of every job.   expected: time of every job, s, by its id.
        """


def executor(given: Any, context: Any = None) -> ExecutorConfig:
    """The executor that a name, or a mapping with `kind` and settings, stands for. ValueError names the
    nearest kind when there is none of that name."""
    return named_kind("executors", ExecutorConfig, given, context)


def _given(value: Any, info: ValidationInfo) -> ExecutorConfig:
    return executor(value, info.context)


def _written(chosen: ExecutorConfig) -> Any:
    """What `executor` reads back: the name where all settings are those of the kind, else all of them."""
    return chosen.kind if chosen.model_fields_set <= {"kind"} else dump(chosen)


ExecutorChoice = Annotated[ExecutorConfig, BeforeValidator(_given), PlainSerializer(_written)]
"""A setting that holds an executor, given and written as its name, or with settings of its own."""
