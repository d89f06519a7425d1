"""Time scales of trajectories of an angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def autocorrelation(values: np.ndarray) -> np.ndarray:
    """(F,) < x(t) x(t + s) > / < x² > of the deviations from the mean, over all time origins; each lag has
    its own number of origins.

    Args:
        values: (F,) or (F, k), which are summed over k.
    """
    x = np.asarray(values, dtype=float).reshape(len(values), -1)
    x = x - x.mean(0)
    n = len(x)
    spectrum = np.fft.rfft(x, n=2 * n, axis=0)
    found = np.fft.irfft((np.abs(spectrum) ** 2), n=2 * n, axis=0)[:n].sum(1) / (n - np.arange(n))
    if not found[0] > 0:
        raise ValueError("the values do not change; they have no correlation function")
    return found / found[0]


def circle(angle: np.ndarray) -> np.ndarray:
    """(F, 2 k) cosines and sines of angles (F,) or (F, k): features that know that -π is π."""
    a = np.asarray(angle, dtype=float).reshape(len(angle), -1)
    return np.concatenate([np.cos(a), np.sin(a)], axis=1)


def tica_timescales(trajectories: Sequence[np.ndarray], *, lag: int) -> np.ndarray:
    """Time scales of the slowest linear combinations of features, in steps, descending: t = -lag / ln λ with
    λ the eigenvalues of C(lag) v = λ C(0) v, symmetrised over the direction of time (Pérez-Hernández et al.,
    J. Chem. Phys. 139, 015102, 2013).

    Args:
        trajectories: each (F, k) features, such as `circle`.   lag: steps.

    Raises:
        ValueError: no trajectory is longer than the lag.
    """
    long = [np.asarray(x, dtype=float) for x in trajectories if len(x) > lag]
    if not long or lag < 1:
        raise ValueError(f"lag={lag} steps, wanted at least 1 and less than the longest trajectory")
    early, late = np.concatenate([x[:-lag] for x in long]), np.concatenate([x[lag:] for x in long])
    mean = (early.mean(0) + late.mean(0)) / 2
    early, late = early - mean, late - mean
    instant = (early.T @ early + late.T @ late) / (2 * len(early))
    delayed = (early.T @ late + late.T @ early) / (2 * len(early))
    size, axes = np.linalg.eigh(instant)
    kept = size > 1e-10 * size.max()
    white = axes[:, kept] / np.sqrt(size[kept])
    return _timescales(np.linalg.eigvalsh(white.T @ delayed @ white), lag)


def markov_timescales(trajectories: Sequence[np.ndarray], *, lag: int, n_states: int) -> np.ndarray:
    """Implied time scales of a reversible Markov state model, in steps, descending (Prinz et al., J. Chem.
    Phys. 134, 174105, 2011): t = -lag / ln λ_k, with transitions counted both ways.

    Args:
        trajectories: each (F,) states, 0 to n_states - 1.   lag: steps.
    """
    counts = np.zeros((n_states, n_states))
    for states in trajectories:
        np.add.at(counts, (states[:-lag], states[lag:]), 1.0)
    counts = counts + counts.T
    visited = counts.sum(1) > 0
    counts = counts[np.ix_(visited, visited)]
    if not counts.size:
        raise ValueError(f"lag={lag} steps leaves no transition; wanted a lag below the longest trajectory")
    weight = np.sqrt(counts.sum(1))
    return _timescales(np.linalg.eigvalsh(counts / np.outer(weight, weight))[:-1], lag)


def angle_states(angle: np.ndarray, *, n_states: int = 18) -> np.ndarray:
    """(F,) the equal bin from -π to π of every angle."""
    wrapped = (np.asarray(angle) + np.pi) % (2 * np.pi)
    return np.minimum((wrapped / (2 * np.pi) * n_states).astype(int), n_states - 1)


def _timescales(eigenvalues: np.ndarray, lag: int) -> np.ndarray:
    """Of eigenvalues that are not positive nothing slow is known: they have no time scale."""
    known = np.sort(eigenvalues[(eigenvalues > 1e-12) & (eigenvalues < 1 - 1e-12)])[::-1]
    return -lag / np.log(known)
