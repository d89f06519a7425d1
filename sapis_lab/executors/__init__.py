"""Executors: where jobs run, one module per kind.

`ExecutorConfig` is the contract: what a kind says of the machine that its jobs run on, and the `Executor`
that it builds (`sapis_lab.jobs.executor`). No kind is imported here.
"""

from sapis_lab.executors._base import Capacity, DeviceChoice, ExecutorChoice, ExecutorConfig, executor
from sapis_lab.executors._slurm_options import SlurmOptions

__all__ = ["Capacity", "DeviceChoice", "ExecutorChoice", "ExecutorConfig", "SlurmOptions", "executor"]
