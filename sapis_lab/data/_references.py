"""Reference energies per element, so that a model learns energies of the order of chemical bonds.

E ≈ Σ_s n_s e_s over the training frames. When all frames have one composition (or proportional ones) the
counts have rank one and only the total is determined, so the solution is made in two steps: the mean energy
is reproduced exactly, and what composition explains beyond it is fitted with a ridge, in the directions of e
that leave the mean untouched.
"""

from __future__ import annotations

import numpy as np


def fit_references(counts: np.ndarray, energies: np.ndarray, *, ridge: float = 1e-6) -> np.ndarray:
    """Energies per atom of each element, (n_species,), eV, with  mean(counts @ e) = mean(energies)  to
    rounding.

    Minimises |E - X e|² + λ |e - e₀|² subject to x̄·e = Ē, with x̄ the mean counts and e₀ = ΣE / Σn for every
    element: then x̄·e₀ = Ē, and the rest d = e - e₀ lies in the plane x̄·d = 0, where it is an ordinary ridge
    problem. For one composition X d = 0 and the answer is e₀; λ = ridge Σ n² does not bias a well-determined
    fit visibly.

    Args:
        counts: (n_frames, n_species), atoms of each element in each frame; every element occurs.
        energies: (n_frames,), eV, total energies.
        ridge: dimensionless weight of |d|² against the sum of squared counts.
    """
    X, E = np.asarray(counts, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    if X.ndim != 2 or E.shape != (len(X),) or not len(X):
        raise ValueError(
            f"counts {X.shape} and energies {E.shape}: wanted (n_frames, n_species) and (n_frames,) with at "
            f"least one frame"
        )
    if (X.sum(0) == 0).any():
        raise ValueError(
            f"species column {int(np.argmax(X.sum(0) == 0))} has no atom in any frame; its reference energy "
            f"is undetermined"
        )
    mean = X.mean(0)
    e0 = np.full(X.shape[1], E.mean() / mean.sum())
    residual = E - X @ e0
    # Orthonormal basis of the plane normal to the mean composition: the last columns of a complete QR of x̄.
    plane = np.linalg.qr(mean[:, None], mode="complete")[0][:, 1:]
    A = X @ plane
    u = np.linalg.solve(A.T @ A + ridge * (X**2).sum() * np.eye(A.shape[1]), A.T @ residual)
    return e0 + plane @ u
