"""Where a fit may start: a grid over the exponents, the amplitudes projected out.

For given exponents the law is linear in its amplitudes, so the best non-negative ones follow from a small quadratic
problem (variable projection, Golub & Pereyra 1973). Its objective is the relative error, sum_i (L_pred/L_i - 1)^2, which
agrees with the log error to first order. With K <= 4 terms the non-negative problem is solved exactly, by trying
every subset of non-zero amplitudes.

Which cells become starts matters more than how fine the grid is: the few best cells are neighbours in one valley (5 % of
three-term fits missed their optimum that way), while the best cell for *each* value of each exponent, the profile
path, visits every valley.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from sapis_lab.analysis.laws import Array, Law

GRID = np.geomspace(0.02, 3.0, 18)


def profile_starts(law: Law, *, z: Array, log_loss: Array, grid: Array = GRID) -> Array:
    """Starts for a global fit, (n_starts, p): the profile path of every exponent through the grid."""
    n_exponents = len(law.with_exponent)
    exponents = np.array(list(product(grid, repeat=n_exponents)))
    amplitudes, objective = project_amplitudes(law, exponents, z=z, log_loss=log_loss)
    cells = set()
    for j in range(n_exponents):
        for value in grid:
            on_slice = np.flatnonzero(exponents[:, j] == value)
            cells.add(int(on_slice[objective[on_slice].argmin()]))
    chosen = sorted(cells, key=lambda cell: objective[cell])
    # A start needs a finite log amplitude; a term found absent begins at a thousandth of the loss and may vanish again.
    smallest = np.exp(np.mean(log_loss)) * 1e-3
    return np.hstack([np.log(np.maximum(amplitudes[chosen], smallest)), exponents[chosen]])


def project_amplitudes(law: Law, exponents: Array, *, z: Array, log_loss: Array) -> tuple[Array, Array]:
    """Best non-negative amplitudes for each row of exponents, (G, K), and the relative squared error / 2, (G,).

    Args:
        exponents: (G, J).   z: (n, K).   log_loss: (n,).
    """
    decay = np.zeros((len(exponents), law.n_terms))
    decay[:, law.with_exponent] = exponents
    basis = np.exp(-decay[:, None, :] * z - log_loss[:, None])
    gram = np.swapaxes(basis, 1, 2) @ basis
    amplitudes, value = nonnegative_quadratic(gram, basis.sum(axis=1))
    return amplitudes, value + 0.5 * len(log_loss)


def nonnegative_quadratic(gram: Array, linear: Array) -> tuple[Array, Array]:
    """argmin over x >= 0 of x'Gx/2 - b'x, (G, K), and its value, (G,); exact, by enumerating the active sets."""
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
