"""Errors over a split, accumulated in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch
from sapis_lab.batches import FixedBatches
from sapis_lab.tasks import Objective
from sapis_lab.training._ranks import ALONE, Ranks


def score(
    objective: Objective,
    batches: FixedBatches | list[AtomsBatch],
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The errors of the objective's model over all frames of `batches`, keys without the name of the split.

    The ranks take the batches in turn. Every batch's sums are kept apart until all are there and then added
    in the order of the batches, so that the result is the same, bit by bit, for any number of ranks.
    `between` is called before every batch.
    """
    table = torch.zeros(len(batches), objective.n_sums, dtype=torch.float64)
    for k in range(ranks.rank, len(batches), ranks.size):
        between()
        table[k] = objective.sums(batches[k].to(device))
    ranks.add(table)  # a row is zero on all ranks but one
    return objective.scores([sum(column) for column in table.T.tolist()])


def energy_residuals(
    objective: Objective,
    batches: FixedBatches,
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Label minus prediction of the energy of every frame of `batches`, (n,) float64, eV; NaN where a frame
    has no label. The ranks take the batches in turn, and all get the same; `between` is called before every
    batch."""
    table = torch.zeros(len(batches.ids), dtype=torch.float64)
    unlabelled = torch.zeros_like(table)
    for k in range(ranks.rank, len(batches), ranks.size):
        between()
        batch = batches[k].to(device)
        predicted = objective.found(batch, differentiable=False).energy
        assert predicted is not None and batch.energy is not None
        rows = slice(k * batches.batch_size, (k + 1) * batches.batch_size)
        labelled = batch.labelled("energy")
        left = (batch.energy.double() - predicted.double()).cpu()
        table[rows] = left if labelled is None else torch.where(labelled.cpu(), left, 0)
        unlabelled[rows] = 0 if labelled is None else (~labelled).double().cpu()
    ranks.add(table)
    ranks.add(unlabelled)
    return np.where(unlabelled.numpy() > 0, np.nan, table.numpy())
