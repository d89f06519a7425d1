"""Statistics of correlated samples."""

from __future__ import annotations

import numpy as np


def statistical_inefficiency(series: np.ndarray) -> float:
    """How many consecutive samples are worth one that is independent, 1 or more.

        g = 1 + 2 Σ_t (1 - t/n) C(t)

    with the normalized autocorrelation C, up to where it first falls below zero (Chodera et al., J. Chem.
    Theory Comput. 3, 26, 2007, section 2.4).

    Args:
        series: (n,), or (n, m) of several columns, of which the slowest counts.
    """
    columns = np.asarray(series, dtype=np.float64).reshape(len(series), -1)
    return max((_inefficiency(column) for column in columns.T), default=1.0)


def _inefficiency(series: np.ndarray) -> float:
    n = len(series)
    x = series - series.mean()
    variance = float(x @ x) / n
    if n < 3 or variance <= 1e-28 * float(np.abs(series).max(initial=0.0)) ** 2:
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(x, size)) ** 2
    c = np.fft.irfft(spectrum, size)[: n - 1] / (variance * np.arange(n, 1, -1))
    below = np.nonzero(c[1:] <= 0)[0]
    end = int(below[0]) + 1 if len(below) else n - 1
    t = np.arange(1, end)
    return max(1.0, 1.0 + 2.0 * float(((1 - t / n) * c[1:end]).sum()))


def blocked_counts(lengths: np.ndarray, blocks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(sum of lengths,) how often every sample is drawn when each series is made again from blocks of itself,
    with replacement (moving blocks on a circle), so that correlations within blocks stay.

    Args:
        lengths: (K,) of the series, one after the other.   blocks: (K,) lengths of their blocks.
    """
    counts = []
    for n, block in zip(lengths.tolist(), blocks.tolist(), strict=True):
        block = int(min(max(block, 1), n))
        n_blocks = -(-n // block)
        begins = generator.integers(n, size=n_blocks)
        drawn = ((begins[:, None] + np.arange(block)) % n).ravel()[:n]
        counts.append(np.bincount(drawn, minlength=n))
    return np.concatenate(counts).astype(np.float64)
