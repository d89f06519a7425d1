"""Intervals of a fitted law by the bootstrap (Efron & Tibshirani 1993; Davison & Hinkley 1997, section 6.3).

A lattice is a design: its (N, D) were chosen, so the plain choice keeps the points and resamples the residuals. Each residual
is divided by sqrt(1 - leverage), since a fit pulls itself towards points with much leverage, and the lot is centred. With few degrees of
freedom the spread of such samples is known poorly; they are widened by the ratio of Student's to the normal 97.5 % point, as a
t interval would be: at 3 % noise on a 3 x 3 lattice nominal 95 % intervals then cover 95-100 %, without it 90-97 %
(60 synthetic lattices per law). Rows resampling is kept as the alternative that assumes nothing of the noise.

Every resample starts from the optimum and from the other modes of the fit, and all of them are solved together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.solve import solve

Resampling = Literal["residuals", "rows"]
MAX_LEVERAGE = 0.95
"""A point fitted exactly has a residual of 0 / 0; its inflation stops here."""


@dataclass(frozen=True)
class Bootstrap:
    """Refits of resampled data, R of the `n_resamples` asked for."""

    resampling: Resampling
    theta: Array
    """(R, p) centred parameters of the refits that converged."""
    params: Array
    """(R, p) natural parameters, in the order of `Law.param_names`."""
    n_resamples: int
    n_failed: int
    """Resamples that could not determine the law or did not converge; left out of every interval."""
    n_at_bound: int
    """Refits with a parameter on its bound (an exponent of 0, an amplitude that vanished); kept."""


def bootstrap(fit: LawFit, *, n_resamples: int = 1000, resampling: Resampling = "residuals", generator: np.random.Generator) -> Bootstrap:
    """Refit the law to `n_resamples` resampled data sets.

    Raises:
        ValueError: the fit has no degree of freedom, so its residuals say nothing about the noise.
    """
    if fit.degrees_of_freedom < 1:
        raise ValueError(f"{len(fit.points)} points leave no degree of freedom to law {fit.law.name}; a bootstrap needs more points")
    n = len(fit.points)
    if resampling == "residuals":
        log_loss = fit.points.log_loss - fit.residuals + generator.choice(inflated_residuals(fit), size=(n_resamples, n))
        weight, usable = None, np.ones(n_resamples, dtype=bool)
    elif resampling == "rows":
        log_loss = fit.points.log_loss
        weight = generator.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
        usable = _determines_law(fit, weight)
    else:
        raise ValueError(f"resampling={resampling!r} is not known; wanted 'residuals' or 'rows'")

    theta, objective = np.empty((n_resamples, fit.law.n_parameters)), np.full(n_resamples, np.inf)
    converged, at_bound = np.zeros(n_resamples, dtype=bool), np.zeros(n_resamples, dtype=bool)
    for mode in fit.modes:
        start = np.repeat(mode.theta[None], n_resamples, axis=0)
        found = solve(fit.law, start, z=fit.z, log_loss=log_loss, weight=weight, delta=fit.delta)
        better = found.objective < objective
        theta[better], objective[better] = found.theta[better], found.objective[better]
        converged[better], at_bound[better] = found.converged[better], found.at_bound[better]
    kept = usable & converged & np.isfinite(theta).all(axis=1)
    return Bootstrap(
        resampling=resampling,
        theta=theta[kept],
        params=fit.law.natural(theta[kept], centre=fit.centre),
        n_resamples=n_resamples,
        n_failed=int((~kept).sum()),
        n_at_bound=int(at_bound[kept].sum()),
    )


def inflated_residuals(fit: LawFit) -> Array:
    """Residuals of ln L as the noise would have them: r / sqrt(1 - h), centred, times t_dof / t_inf at 97.5 %, (n,)."""
    _, share = fit.law.log_loss(fit.theta, fit.z)
    J = fit.law.jacobian(share, fit.z)
    leverage = np.einsum("np,pn->n", J, np.linalg.pinv(J))
    e = fit.residuals / np.sqrt(1.0 - np.clip(leverage, 0.0, MAX_LEVERAGE))
    return (e - e.mean()) * stats.t.ppf(0.975, fit.degrees_of_freedom) / stats.norm.ppf(0.975)


def intervals(boot: Bootstrap, names: tuple[str, ...], *, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Percentile interval of every parameter."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(boot.params, [tail, 100 - tail], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def band(fit: LawFit, boot: Bootstrap, n_params: ArrayLike, n_frames: ArrayLike, *, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile band of L(N, D) itself, not of a new measurement; N and D broadcast against each other."""
    N, D = np.broadcast_arrays(np.asarray(n_params, float), np.asarray(n_frames, float))
    log_loss, _ = fit.law.log_loss(boot.theta, fit.law.coordinates(N.ravel(), D.ravel(), centre=fit.centre))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(log_loss, [tail, 100 - tail], axis=0)
    return np.exp(low).reshape(N.shape), np.exp(high).reshape(N.shape)


def _determines_law(fit: LawFit, weight: Array) -> np.ndarray:
    """Which rows resamples hold enough distinct cells, sizes and data for the law, (R,) bool."""
    cells = np.stack([fit.points.n_params, fit.points.n_frames], axis=1)
    drawn = [cells[w > 0] for w in weight]
    p = fit.law.n_parameters
    return np.array([len(np.unique(c, axis=0)) >= p and all(len(np.unique(c[:, a])) >= 2 for a in (0, 1)) for c in drawn])
