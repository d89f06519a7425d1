"""What a training learns, one task a file: energies and what follows from them, properties alone.

Training knows steps, schedules, checkpoints and records. What it trains is a task's: which frames and labels,
which model with which heads, the loss of a batch, the scores of a split.
"""

from sapis_lab.tasks._base import (
    HOPELESS,
    Found,
    Objective,
    PointSettings,
    Task,
    TaskConfig,
    energy_loss,
    loss_sums,
    mean_loss,
)
from sapis_lab.tasks._references import refitted_references

__all__ = [
    "HOPELESS",
    "Found",
    "Objective",
    "PointSettings",
    "Task",
    "TaskConfig",
    "energy_loss",
    "loss_sums",
    "mean_loss",
    "refitted_references",
]
