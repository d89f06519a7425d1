"""Free energies of states from samples of all of them: the self-consistent equations of MBAR, solved here.

    f_k = -ln Σ_n c_n exp(-u_k(x_n)) / Σ_j N_j exp(f_j - u_j(x_n))

(Shirts & Chodera, J. Chem. Phys. 129, 124105, 2008, eq. 11; WHAM without bins). The fixed point is found by
plain iteration, mixed with what the last steps tell (Anderson, J. ACM 12, 547, 1965). It shares no code with
pymbar, whose answers it checks (`mbar`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_MEMORY = 8
_NOTHING = 1e-12
"""Gap of an overlap matrix below which states share nothing."""


class Solved(NamedTuple):
    """Free energies of K states and what samples weigh."""

    f: np.ndarray
    """(K,) in units of kT, the first is zero."""
    log_weights: np.ndarray
    """(N,) ln of c_n / Σ_j N_j exp(f_j - u_j(x_n)): times exp(-u) it weighs a sample in the state u."""
    n_iterations: int
    residual: float
    """Largest change of an f in one more plain iteration."""

    def free_energy(self, u: np.ndarray) -> float:
        """Of the state with reduced energies u (N,) at the samples; infinite where none is in it."""
        return -log_sum(self.log_weights - u)


def self_consistent(
    u: np.ndarray,
    n_samples: np.ndarray,
    *,
    counts: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-9,
    most: int = 50_000,
) -> Solved:
    """The solution for K states.

    Args:
        u: (K, N) reduced energies U_k(x_n)/kT of all samples in all states.
        n_samples: (K,) how many of them were drawn from each state; zero is allowed.
        counts: (N,) how often each sample counts; once where not given. Of each state they add up to its
        n_samples.   start: (K,) of the iteration.

    Raises:
        ValueError: energies are not numbers, or there is no solution within `most` iterations.
    """
    n_samples = np.asarray(n_samples, dtype=np.float64)
    if u.ndim != 2 or u.shape[0] != len(n_samples) or int(n_samples.sum()) != u.shape[1]:
        raise ValueError(f"u has shape {u.shape}, wanted ({len(n_samples)}, {int(n_samples.sum())})")
    if np.isnan(u).any():
        raise ValueError(f"{int(np.isnan(u).any(0).sum())} samples have an energy that is not a number")
    c = np.ones(u.shape[1]) if counts is None else counts
    sampled = n_samples > 0
    lowest = u[sampled].min(0)
    boltzmann = np.exp(lowest - u[sampled])
    log_n = np.log(n_samples[sampled])

    def denominator(f: np.ndarray) -> tuple[np.ndarray, float]:
        a = log_n + f
        return np.exp(a - a.max()) @ boltzmann, float(a.max())

    def once(f: np.ndarray) -> np.ndarray:
        below, top = denominator(f)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = -np.log(boltzmann @ (c / below)) + top
        if not np.isfinite(new).all():
            raise ValueError(
                "the states do not overlap at all: free energies between them are beyond numbers"
            )
        return np.asarray(new - new[0])

    f = np.zeros(int(sampled.sum())) if start is None else np.asarray(start)[sampled] - start[sampled][0]
    f, n, residual = _fixed_point(once, f, tolerance=tolerance, most=most)
    below, top = denominator(f)
    if start is None:  # a start is of the same states, which were looked at
        _want_connected(boltzmann * np.exp(log_n + f - top)[:, None] / below, n_samples[sampled])
    log_weights = np.log(np.maximum(c, 1e-300)) - np.log(below) - top + lowest
    log_weights = np.where(c > 0, log_weights, -np.inf)
    every = np.array([-log_sum(log_weights - row) for row in u])
    every[sampled] = f - f[0] + (every[sampled][0])
    return Solved(every - every[0], log_weights + every[0], n, residual)


def _want_connected(shares: np.ndarray, n_samples: np.ndarray) -> None:
    """Refuse states that fall into groups without a sample in common: each group has a free energy of its
    own, and any difference between them solves the equations.   shares: (K, N) N_k W_k(x_n)."""
    if overlap_gap((shares @ shares.T) / n_samples[:, None]) < _NOTHING:
        raise ValueError(
            "the states fall into groups that do not overlap: no sample of one could be of another; put "
            "states between them"
        )


def _fixed_point(once: Any, f: np.ndarray, *, tolerance: float, most: int) -> tuple[np.ndarray, int, float]:
    steps: list[np.ndarray] = []
    images: list[np.ndarray] = []
    least, residual = np.inf, np.inf
    for n in range(1, most + 1):
        image = once(f)
        step = image - f
        residual = float(np.abs(step).max())
        if residual < tolerance:
            return image, n, residual
        if residual > 10 * least:  # mixing led astray: begin again from here
            steps, images = [], []
        least = min(least, residual)
        steps, images = [*steps[-_MEMORY:], step], [*images[-_MEMORY:], image]
        if len(steps) < 3:
            f = image
            continue
        change = np.diff(np.array(steps), axis=0).T
        mix = np.linalg.lstsq(change, step, rcond=1e-10)[0]
        f = image - np.diff(np.array(images), axis=0).T @ mix
        f = f - f[0]
    raise ValueError(
        f"the free energies of {len(f)} states have not settled within {most} iterations (the last changed "
        f"them by {residual:.1e} kT): neighbouring states hardly overlap; take more of them, or more samples"
    )


def log_sum(x: np.ndarray) -> float:
    """ln Σ exp(x); -inf of none."""
    top = float(x.max(initial=-np.inf))
    return top if not np.isfinite(top) else top + float(np.log(np.exp(x - top).sum()))


def overlap(u: np.ndarray, n_samples: np.ndarray, solved: Solved) -> np.ndarray:
    """(K, K) share of the samples of state i that could as well be of state j; rows add up to 1
    (Klimovich, Shirts & Mobley, J. Comput. Aided Mol. Des. 29, 397, 2015)."""
    w = np.exp(solved.log_weights + solved.f[:, None] - u)
    return np.asarray((w @ w.T) * n_samples)


def overlap_gap(matrix: np.ndarray) -> float:
    """1 minus the second eigenvalue of an overlap matrix: 0 where the states fall into two groups that share
    nothing. Small is bad; large proves nothing about what is slow within states."""
    values = np.sort(np.linalg.eigvals(matrix).real)
    return float(1 - values[-2]) if len(values) > 1 else 1.0
