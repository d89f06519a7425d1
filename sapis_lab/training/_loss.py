"""The loss of energies and forces, as sums and counts, so that any number of ranks gives the same mean.

L = lambda_E MSE(dE) + lambda_F (1/n_atoms) sum_i |dF_i|^2,      dE, dF over the training force RMS (dE in
units of RMS times 1 Å).
"""

from __future__ import annotations

from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import Prediction
from sapis_lab.training._config import LossConfig


def loss_sums(
    prediction: Prediction, batch: AtomsBatch, *, scale: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Weighted sums of squared errors: lambda_E sum dE^2 over the B frames, lambda_F sum |dF_i|^2 over the A
    atoms."""
    assert batch.energy is not None and batch.forces is not None
    energy_error = (prediction.energy - batch.energy) / scale
    if config.energy_error == "per_atom":
        energy_error = energy_error / batch.n_atoms
    force_error = (prediction.forces - batch.forces) / scale
    return (
        config.energy_weight * energy_error.square().sum(),
        config.force_weight * force_error.square().sum(),
    )


def loss(prediction: Prediction, batch: AtomsBatch, *, scale: Tensor, config: LossConfig) -> Tensor:
    """The loss of one batch on one rank."""
    energy, force = loss_sums(prediction, batch, scale=scale, config=config)
    return energy / batch.n_frames + force / batch.num_nodes
