"""How gradients become steps, one optimiser a file.

The learning rate comes from the schedule of `train:`, gradients are clipped before an optimiser sees them,
and models compute with W = m p (`Model.multipliers`), so that an optimiser treats every parameter alike.
"""

from sapis_lab.optimizers._base import OptimizerConfig

__all__ = ["OptimizerConfig"]
