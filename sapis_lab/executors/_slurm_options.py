"""What may be asked of Slurm: the section `run.slurm` of a study file. Nothing of an executor is imported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from sapis_lab.config import Config

_OURS = {
    "array",
    "chdir",
    "error",
    "input",
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "time",
    "wrap",
}
"""Flags on which the way back from the queue depends."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000)]
"""One line without control characters: sbatch reads its flags line by line."""


class SlurmOptions(Config):
    """What is asked of Slurm for every job, which runs one point at a time; no part of a result's
    identity."""

    partition: Text | None = None
    """Partition, or several with commas; the cluster's default when not given."""
    time: int = Field(default=120, ge=1, le=525_600)
    """Time limit of a job, minutes. A job that comes near it saves, goes back into the queue and
    continues."""
    signal_seconds: int = Field(default=120, ge=10, le=65_535)
    """How long before the time limit a job is told to save, s."""
    nodes: int = Field(default=1, ge=1, le=10_000)
    """Nodes of a job, over which the devices of a point are spread evenly."""
    cpus: int | None = Field(default=None, ge=1, le=10_000)
    """Cores of a job on each node; one per device there when not given."""
    gpus: int | None = Field(default=None, ge=0, le=10_000)
    """GPUs of a job on each node; one per device there with run.device=cuda, and none otherwise, when not
    given."""
    memory: float | None = Field(default=None, ge=0.001, le=1e6)
    """Memory of a job on each node, GB; the cluster's default when not given."""
    account: Text | None = None
    """Account to charge."""
    qos: Text | None = None
    """Quality of service."""
    constraint: Text | None = None
    """Features of the nodes."""
    at_once: int = Field(default=256, ge=1, le=10**6)
    """Jobs of one array that may run at a time."""
    bundle_minutes: float = Field(default=10.0, ge=0, le=525_600)
    """Points are bundled into jobs until each has this much expected work, minutes; 0: a job for every
    point."""
    flags: dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], bool | int | Text] = {}
    """Further flags of sbatch by their long names, such as `{exclusive: true, mail-type: END}`; passed on as
    they are."""

    @field_validator("flags")
    @classmethod
    def _flags_are_free(cls, flags: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        for name, value in flags.items():
            if name in _OURS:
                raise ValueError(f"flags: --{name} is set by the program and cannot be given")
            if value is False:
                raise ValueError(f"flags: {name} is false; leave it out")
        return flags
