"""What the runs say of their law, and so of N* at a cost."""

from __future__ import annotations

import numpy as np

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.posterior import Posterior, posterior
from sapis_lab.policies._base import Prices, Runs


def posterior_of(runs: Runs) -> Posterior:
    """What the runs say about their law."""
    return posterior(runs.n_params, runs.n_frames, runs.loss)


def log_optimum(belief: Posterior, runs: Runs, prices: Prices, cost: float) -> Array:
    """ln N* of each draw at `cost`, (R,), wherever it lies within e^4 of the middle of what was run."""
    middle = np.log(np.sqrt(runs.n_params.min() * runs.n_params.max()))
    x = np.linspace(middle - 6.0, middle + 8.0, 113)
    loss = belief.log_loss(np.exp(x), prices.frames(np.exp(x), cost))
    k = np.clip(loss.argmin(axis=1), 1, len(x) - 2)
    rows = np.arange(len(loss))
    left, here, right = loss[rows, k - 1], loss[rows, k], loss[rows, k + 1]
    curve = np.maximum(left - 2 * here + right, 1e-300)
    return x[k] + np.clip(0.5 * (left - right) / curve, -1, 1) * (x[1] - x[0])
