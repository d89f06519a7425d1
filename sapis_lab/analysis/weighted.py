"""Weighted least squares for few numbers with known errors, and a scatter beyond these.

    y = X theta + e,   cov(e) = S + tau^2 I,

S is the covariance of the y, tau^2 the scatter of Paule & Mandel, J. Res. NBS 87, 377 (1982): with it the
residuals' chi^2 equals its degrees of freedom. Intervals are from a parametric bootstrap of the studentised
coefficients, in which tau is estimated anew, since the numbers are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 1000
LEAST_VARIANCE = 1e-18

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WeightedFit:
    """Coefficients, the scatter, and draws of both for intervals."""

    solution: Array
    """theta, (p,)."""
    covariance: Array
    """Of theta, (p, p)."""
    tau: float
    dof: int
    draws: Array
    """Deviations of the coefficients of simulated data from theirs, (n_draws, p)."""
    draw_covariances: Array
    """(n_draws, p, p)."""

    def value(self, contrast: Array) -> float:
        """contrast . theta."""
        return float(contrast @ self.solution)

    def interval(self, contrast: Array) -> tuple[float, float] | None:
        """95 % interval of contrast . theta; None without degrees of freedom."""
        if self.dof <= 0:
            return None
        value, error = self.value(contrast), float(np.sqrt(contrast @ self.covariance @ contrast))
        own = np.sqrt(np.einsum("i,mij,j->m", contrast, self.draw_covariances, contrast))
        low, high = np.quantile(self.draws @ contrast / own, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return value - max(float(high), 0.0) * error, value - min(float(low), 0.0) * error


def weighted_fit(
    design: Array, y: Array, covariance: Array, *, generator: np.random.Generator, n_draws: int = DRAWS
) -> WeightedFit:
    """Fit y (n,) with its covariance (n, n) by the columns of the design (n, p)."""
    variances, X, y = _rotated(design, y, covariance)
    dof = len(y) - X.shape[1]
    tau2 = _scatters(X, y[None], variances)
    theta, _, normal = _solved(X, y[None], variances, tau2)
    inverse = np.linalg.inv(normal[0])
    p = X.shape[1]
    if dof <= 0:
        return WeightedFit(theta[0], inverse, 0.0, dof, np.empty((0, p)), np.empty((0, p, p)))
    spread = np.sqrt(variances + tau2[0])
    again = X @ theta[0] + spread * generator.standard_normal((n_draws, len(y)))
    drawn, _, normals = _solved(X, again, variances, _scatters(X, again, variances))
    return WeightedFit(
        theta[0],
        inverse,
        float(np.sqrt(tau2[0])),
        dof,
        drawn - theta[0],
        np.asarray(np.linalg.inv(normals), np.float64),
    )


def extra_scatter(design: Array, y: Array, covariance: Array) -> float:
    """tau of y (n,) about the design (n, p); 0 where its errors alone explain the residuals."""
    variances, X, y = _rotated(design, y, covariance)
    return float(np.sqrt(_scatters(X, y[None], variances)[0]))


def _rotated(design: Array, y: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """Variances, design and y where the errors are independent; tau^2 I stays what it is."""
    variances, vectors = np.linalg.eigh(covariance)
    return np.maximum(variances, LEAST_VARIANCE), vectors.T @ design, vectors.T @ y


def _solved(X: Array, y: Array, variances: Array, tau2: Array) -> tuple[Array, Array, Array]:
    """Coefficients (m, p), chi^2 (m,) and normal matrices (m, p, p) of many y (m, n), tau^2 (m,)."""
    weight = 1 / (variances + tau2[:, None])
    normal = np.einsum("ni,mn,nj->mij", X, weight, X)
    theta = np.linalg.solve(normal, np.einsum("ni,mn,mn->mi", X, weight, y)[..., None])[..., 0]
    return theta, np.sum(weight * (y - theta @ X.T) ** 2, axis=1), normal


def _scatters(X: Array, y: Array, variances: Array) -> Array:
    """tau^2 of many y (m, n), (m,), by bisection in its logarithm."""
    n, p = X.shape
    if n <= p:
        return np.zeros(len(y))
    none = _solved(X, y, variances, np.zeros(len(y)))[1] <= n - p
    residual = y - np.linalg.lstsq(X, y.T, rcond=None)[0].T @ X.T
    high = np.log(
        np.sum(residual**2, axis=1) / (n - p) * 2 + 10 * LEAST_VARIANCE
    )  # least squares' residuals bound it
    low = np.full(len(y), np.log(LEAST_VARIANCE))
    for _ in range(36):
        middle = (low + high) / 2
        above = _solved(X, y, variances, np.exp(middle))[1] > n - p
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(none, 0.0, np.exp(high))
