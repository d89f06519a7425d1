"""Errors of energies and forces over a split, accumulated in float64.

energy MAE and RMSE per frame (eV) and MAE per atom (eV); force MAE and RMSE per component (eV/Å; the mean is
over 3N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import predict
from sapis_lab.models import Model
from sapis_lab.training._batches import FixedBatches
from sapis_lab.training._ranks import ALONE, Ranks


def score(
    model: Model,
    batches: FixedBatches | list[AtomsBatch],
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The errors of `model` over all frames of `batches`, keys without the prefix of the split.

    The ranks take the batches in turn. Every batch's sums are kept apart until all are there and then added
    in the order of the batches, so that the result is the same, bit by bit, for any number of ranks.
    `between` is called before every batch.
    """
    table = torch.zeros(len(batches), 7, dtype=torch.float64)
    for k in range(ranks.rank, len(batches), ranks.size):
        between()
        table[k] = _sums(model, batches[k].to(device))
    ranks.add(table)  # a row is zero on all ranks but one
    energy_abs, energy_sq, energy_per_atom, force_abs, force_sq, n_frames, n_components = (
        sum(c) for c in table.T.tolist()
    )
    return {
        "force_rmse": math.sqrt(force_sq / n_components),
        "force_mae": force_abs / n_components,
        "energy_rmse": math.sqrt(energy_sq / n_frames),
        "energy_mae": energy_abs / n_frames,
        "energy_mae_per_atom": energy_per_atom / n_frames,
    }


def _sums(model: Model, batch: AtomsBatch) -> Tensor:
    """(7,) float64: sums of |dE|, dE^2, |dE|/n, |dF|, dF^2, and the numbers of frames and of force
    components."""
    assert batch.energy is not None and batch.forces is not None
    prediction = predict(model, batch)
    energy = (prediction.energy - batch.energy).double()
    force = (prediction.forces - batch.forces).double()
    sums = [
        energy.abs().sum(),
        energy.square().sum(),
        (energy.abs() / batch.n_atoms).sum(),
        force.abs().sum(),
        force.square().sum(),
    ]
    return torch.tensor([*(float(s) for s in sums), batch.n_frames, force.numel()], dtype=torch.float64)
