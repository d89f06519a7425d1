"""Errors of energies and forces over a split, accumulated in float64.

energy MAE and RMSE per frame (eV) and MAE per atom (eV); force MAE and RMSE per component (eV/Å; the mean is over 3N).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import predict
from sapis_lab.models import Model


def score(model: Model, batches: Iterable[AtomsBatch], *, device: torch.device) -> dict[str, float]:
    """The errors of `model` over all frames of `batches`, keys without the prefix of the split."""
    sums = dict.fromkeys(("energy_abs", "energy_sq", "energy_per_atom", "force_abs", "force_sq"), 0.0)
    n_frames = n_components = 0
    for batch in batches:
        batch = batch.to(device)
        prediction = predict(model, batch)
        energy_error = (prediction.energy - batch.energy).double()
        force_error = (prediction.forces - batch.forces).double()
        sums["energy_abs"] += float(energy_error.abs().sum())
        sums["energy_sq"] += float(energy_error.square().sum())
        sums["energy_per_atom"] += float((energy_error.abs() / batch.n_atoms).sum())
        sums["force_abs"] += float(force_error.abs().sum())
        sums["force_sq"] += float(force_error.square().sum())
        n_frames, n_components = n_frames + batch.n_frames, n_components + force_error.numel()
    return {
        "force_rmse": math.sqrt(sums["force_sq"] / n_components),
        "force_mae": sums["force_abs"] / n_components,
        "energy_rmse": math.sqrt(sums["energy_sq"] / n_frames),
        "energy_mae": sums["energy_abs"] / n_frames,
        "energy_mae_per_atom": sums["energy_per_atom"] / n_frames,
    }
