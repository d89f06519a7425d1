"""Errors over a split, accumulated in float64."""

from __future__ import annotations

from collections.abc import Callable

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
