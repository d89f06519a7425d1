"""Errors of means of correlated numbers, and how far two histograms are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean with its standard error."""

    value: float
    error: float
    """NaN where there are fewer than two blocks."""


def block_mean(values: np.ndarray, *, n_blocks: int = 10) -> Mean:
    """The mean of correlated numbers, its error from the spread of the means of consecutive blocks (Flyvbjerg
    & Petersen, J. Chem. Phys. 91, 461, 1989, at one length): right where a block is much longer than the
    correlation time.

    Args:
        values: (n,) in order of time; what does not fill a block is left out at the start.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < n_blocks or n_blocks < 1:
        raise ValueError(f"{len(values)} values are too few for {n_blocks} blocks; lower n_blocks")
    length = len(values) // n_blocks
    means = values[len(values) - n_blocks * length :].reshape(n_blocks, length).mean(1)
    error = float(means.std(ddof=1) / np.sqrt(n_blocks)) if n_blocks > 1 else float("nan")
    return Mean(float(means.mean()), error)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in nats, 0 to ln 2 (Lin, IEEE Trans. Inf. Theory 37, 145, 1991),

        JS = H((p + q)/2) - (H(p) + H(q))/2,        H(p) = -Σ p ln p.

    Two samples of n independent numbers from one distribution over m bins are (m - 1)/4n apart on average:
    that is the floor of a comparison.

    Args:
        p, q: counts or densities of the same bins, any shape; each is normalised.
    """
    p, q = (np.asarray(x, dtype=float).ravel() for x in (p, q))
    if p.shape != q.shape:
        raise ValueError(f"histograms have {len(p)} and {len(q)} bins, wanted the same")
    if min(p.min(), q.min()) < 0 or not (p.sum() > 0 and q.sum() > 0):
        raise ValueError("histograms want counts that are not negative, and at least one")
    p, q = p / p.sum(), q / q.sum()
    return float(max(0.0, _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2))


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def block_bootstrap(
    blocks: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    measure: Callable[[np.ndarray, np.ndarray], float],
    *,
    n_samples: int = 200,
    seed: int = 0,
) -> Mean:
    """A measure of two sums of histograms, its error from drawing whole blocks (replicas, or pieces of a
    trajectory) again with replacement (Künsch, Ann. Stat. 17, 1217, 1989).

    Args:
        blocks, others: the histograms of the blocks of either side, all of one shape.
    """
    generator = np.random.default_rng(seed)
    a, b = np.asarray(blocks, dtype=float), np.asarray(others, dtype=float)
    value = measure(a.sum(0), b.sum(0))
    if len(a) < 2 and len(b) < 2:
        return Mean(value, float("nan"))
    drawn = [
        measure(
            a[generator.integers(len(a), size=len(a))].sum(0),
            b[generator.integers(len(b), size=len(b))].sum(0),
        )
        for _ in range(n_samples)
    ]
    return Mean(value, float(np.std(drawn, ddof=1)))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of (n,) numbers, ties at their mean rank; NaN where one side is all
    alike."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    if len(x) < 2 or not (np.ptp(x) and np.ptp(y)):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
