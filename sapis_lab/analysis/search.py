"""Where a fit may start: a grid over the exponents, the amplitudes projected out.

For given exponents the law is linear in its amplitudes, so the best non-negative ones follow from a small
quadratic problem (variable projection, Golub & Pereyra 1973). Its objective is the relative error, sum_i W_i
(L_pred/L_i - 1)^2, which agrees with the log error to first order. With K <= 4 terms the non-negative problem
is solved exactly, by trying every subset of non-zero amplitudes.

Which cells become starts matters more than how fine the grid is: the few best cells are neighbours in one
valley (5 % of three-term fits missed their optimum that way), while the best cell for *each* value of each
exponent, the profile path, visits every valley.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from sapis_lab.analysis.forms import BentLaw, bent_starts
from sapis_lab.analysis.laws import Array, Law

GRID = np.geomspace(0.02, 3.0, 18)
N_PLAIN = 5
"""Starts of the sum of the same terms that a bent law takes over."""
ABSENT = 1e-3
"""A start needs a finite log amplitude; a term found absent begins at this part of the loss, where it is
largest, and may vanish again."""


def starts_for(law: Law, *, z: Array, log_loss: Array, weight: Array | None = None) -> Array:
    """Starts for a global fit of any law, (n_starts, p)."""
    if not isinstance(law, BentLaw):
        return profile_starts(law, z=z, log_loss=log_loss, weight=weight)
    plain = Law(law.name, law.terms)
    found = profile_starts(plain, z=z, log_loss=log_loss, weight=weight)
    # the best and others far from it: a bend turns what a term has to do
    chosen = np.unique(np.linspace(0, len(found) - 1, N_PLAIN).astype(int))
    return bent_starts(law, found[chosen], z=z, log_loss=log_loss)


def profile_starts(
    law: Law, *, z: Array, log_loss: Array, weight: Array | None = None, grid: Array = GRID
) -> Array:
    """Starts for a global fit, (n_starts, p): the profile path of every exponent through the grid."""
    J = len(law.exponent_names)
    exponents = grid[
        np.stack(np.meshgrid(*[np.arange(len(grid))] * J, indexing="ij"), axis=-1).reshape(-1, J)
    ]
    amplitudes, objective = project_amplitudes(law, exponents, z=z, log_loss=log_loss, weight=weight)
    on_grid = objective.reshape([len(grid)] * J)
    cells: set[int] = set()
    for j in range(J):
        others = np.moveaxis(np.arange(objective.size).reshape(on_grid.shape), j, 0).reshape(len(grid), -1)
        cells |= set(others[np.arange(len(grid)), objective[others].argmin(axis=1)].tolist())
    chosen = sorted(cells, key=lambda cell: objective[cell])
    found, powers = amplitudes[chosen], exponents[chosen]
    decay = law.exponents(np.hstack([found, powers]))
    largest = (-decay[:, None, :] * z).max(axis=1)
    smallest = np.mean(log_loss) + np.log(ABSENT) - largest
    return np.hstack([np.maximum(np.log(np.maximum(found, 1e-300)), smallest), powers])


def project_amplitudes(
    law: Law, exponents: Array, *, z: Array, log_loss: Array, weight: Array | None = None
) -> tuple[Array, Array]:
    """Best non-negative amplitudes for each row of exponents, (G, K), and the relative squared error / 2,
    (G,).

    Args:
        exponents: (G, J).   z: (n, K).   log_loss: (n,).   weight: (n,).
    """
    weight = np.ones(len(log_loss)) if weight is None else weight
    root = np.sqrt(weight)
    # An exponent takes few values: its column of the basis is made once for each of them.
    basis, which = [], []
    for k, slot in enumerate(law.slots):
        values, index = np.unique(
            np.zeros(len(exponents)) if slot is None else exponents[:, slot - law.n_terms],
            return_inverse=True,
        )
        basis.append(np.exp(-values[:, None] * z[:, k] - log_loss) * root)
        which.append(index)
    gram, linear = (
        np.empty((len(exponents), law.n_terms, law.n_terms)),
        np.empty((len(exponents), law.n_terms)),
    )
    for k in range(law.n_terms):
        linear[:, k] = (basis[k] @ root)[which[k]]
        for l in range(k, law.n_terms):
            gram[:, k, l] = gram[:, l, k] = (basis[k] @ basis[l].T)[which[k], which[l]]
    amplitudes, value = nonnegative_quadratic(gram, linear)
    return amplitudes, value + 0.5 * weight.sum()


def nonnegative_quadratic(gram: Array, linear: Array) -> tuple[Array, Array]:
    """argmin over x >= 0 of x'Gx/2 - b'x, (G, K), and its value, (G,); exact, by enumerating the active
    sets."""
    n_problems, K = linear.shape
    best, value = np.zeros((n_problems, K)), np.zeros(n_problems)
    for size in range(1, K + 1):
        for subset in combinations(range(K), size):
            s = list(subset)
            block = gram[:, s][:, :, s]
            scale = 1.0 / np.sqrt(block[:, range(size), range(size)])
            scaled = block * scale[:, :, None] * scale[:, None, :]
            scaled[:, range(size), range(size)] += 1e-12  # equal exponents make two columns equal
            x = np.linalg.solve(scaled, (linear[:, s] * scale)[..., None])[..., 0] * scale
            candidate = -0.5 * (x * linear[:, s]).sum(axis=1)
            improves = (x >= 0).all(axis=1) & (candidate < value)
            value[improves] = candidate[improves]
            best[improves] = 0.0
            best[np.ix_(improves, s)] = x[improves]
    return best, value
