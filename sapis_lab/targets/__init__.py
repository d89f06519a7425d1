"""What is learnt and scored, one target a file: energies, forces, stress, dipoles, any property.

A target says whatever the rest must know of it: its place in a data set, its part of the loss, the errors
that it is scored by with their names, labels and units. Loss, batches, scores, records, tables and figures
follow from the list of targets of a training; nothing else holds a list of measured errors. No torch here:
what is computed with tensors uses their methods alone.
"""

from sapis_lab.targets._base import (
    HeadTarget,
    Measure,
    Per,
    Predicted,
    PropertyName,
    Rows,
    Target,
    usual_measures,
)
from sapis_lab.targets.energy import EnergyTarget
from sapis_lab.targets.forces import ForcesTarget

LOSS = "val_force_rmse"
"""The error that a law describes, and a search makes small, where nothing else is named."""

ENERGY_MAE = "val_energy_mae"
"""The error behind accuracy per FLOP."""

__all__ = [
    "ENERGY_MAE",
    "LOSS",
    "EnergyTarget",
    "ForcesTarget",
    "HeadTarget",
    "Measure",
    "Per",
    "Predicted",
    "PropertyName",
    "Rows",
    "Target",
    "usual_measures",
]
