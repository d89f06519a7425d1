"""Damped Newton for many small robust fits at once.

Minimises, for every problem b of a batch,

    F_b(theta) = sum_i W_bi rho_delta(r_bi),   r_bi = ln L(theta; N_i, D_i) - ln L_bi,

with Huber's rho (Huber 1964). All problems share the points (N_i, D_i): starts of a global search, resamples of a
bootstrap. The parameters enter u_k = a_k - s_k z_k linearly and ln L is the log-sum-exp of u, so the Hessian is exact
and short: with w the shares of the terms, psi = rho' and c = rho'',

    H = sum_i W_i [ (c_i - psi_i) J_i J_i^T + psi_i sum_k w_ik v_ik v_ik^T ],   v_ik = du_ik / dtheta.

Negative curvature is met by taking absolute eigenvalues (saddle-free Newton, Dauphin et al. 2014, arXiv:1406.2572),
steps that do not descend by Levenberg-Marquardt damping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapis_lab.analysis.laws import Array, Law

MAX_EXPONENT = 6.0
AMPLITUDE_RANGE = 20.0
"""A term may fall e^-20 below, or rise e^20 above, the typical loss; beyond that it is absent or meaningless."""
GRADIENT_TOLERANCE = 1e-7
OBJECTIVE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Solutions:
    """Optima of a batch. B problems, p parameters."""

    theta: Array
    """(B, p) centred parameters."""
    objective: Array
    """(B,)"""
    converged: np.ndarray
    """(B,) bool: the gradient over the free parameters vanished, or no further descent is possible."""
    at_bound: np.ndarray
    """(B,) bool: some parameter ended on its bound."""


def bounds(law: Law, log_loss: Array) -> tuple[Array, Array]:
    """Lower and upper limits of theta, each (p,)."""
    typical = float(np.mean(log_loss))
    n_exponents = law.n_parameters - law.n_terms
    lower = np.r_[np.full(law.n_terms, typical - AMPLITUDE_RANGE), np.zeros(n_exponents)]
    upper = np.r_[np.full(law.n_terms, typical + AMPLITUDE_RANGE), np.full(n_exponents, MAX_EXPONENT)]
    return lower, upper


def huber(r: Array, delta: float) -> Array:
    """rho(r) = r^2/2 inside +-delta and delta(|r| - delta/2) outside, elementwise."""
    inside = np.minimum(np.abs(r), delta)
    return inside * (np.abs(r) - 0.5 * inside)


def solve(
    law: Law,
    start: Array,
    *,
    z: Array,
    log_loss: Array,
    weight: Array | None = None,
    delta: float = np.inf,
    max_steps: int = 150,
) -> Solutions:
    """The local optimum that each start leads to.

    Args:
        start: (B, p) centred parameters.   z: (n, K), `Law.coordinates`.
        log_loss: (n,) or (B, n), ln of the measured loss.   weight: (B, n) or None for ones.
        delta: Huber threshold in log units, inf for least squares.
    """
    B, n = start.shape[0], z.shape[0]
    y = np.broadcast_to(log_loss, (B, n))
    W = np.broadcast_to(1.0 if weight is None else weight, (B, n))
    lower, upper = bounds(law, log_loss)
    theta = np.clip(start, lower, upper)
    objective = np.full(B, np.inf)
    converged = np.zeros(B, dtype=bool)
    damping = np.full(B, 1e-4)
    active = np.arange(B)
    for _ in range(max_steps):
        t, y_a, W_a = theta[active], y[active], W[active]
        gradient, hessian, F = _derivatives(law, t, z, y_a, W_a, delta)
        objective[active] = F
        free = ~(((t <= lower) & (gradient > 0)) | ((t >= upper) & (gradient < 0)))
        gradient = np.where(free, gradient, 0.0)
        step = _newton_step(gradient, hessian, free, damping[active])
        proposal = np.clip(t + step, lower, upper)
        F_new = (W_a * huber(law.residual(proposal, z, y_a), delta)).sum(axis=1)
        better = F_new <= F
        theta[active[better]] = proposal[better]
        objective[active[better]] = F_new[better]
        damping[active] = np.where(better, np.maximum(damping[active] * 0.1, 1e-14), damping[active] * 10.0)
        # F / n is a squared residual, so its root is the natural scale of one component of the gradient
        flat = np.abs(gradient).max(axis=1) <= GRADIENT_TOLERANCE * np.sqrt(F * W_a.sum(axis=1)) + 1e-15
        settled = better & (F - F_new <= OBJECTIVE_TOLERANCE * F)
        stuck = damping[active] > 1e10
        converged[active] = flat | settled | stuck
        active = active[~converged[active]]
        if active.size == 0:
            break
    at_bound = np.any((theta <= lower) | (theta >= upper), axis=1)
    return Solutions(theta, objective, converged, at_bound)


def _derivatives(law: Law, theta: Array, z: Array, y: Array, W: Array, delta: float) -> tuple[Array, Array, Array]:
    """Gradient (B, p), Hessian (B, p, p) and objective (B,)."""
    predicted, share = law.log_loss(theta, z)
    r = predicted - y
    J = law.jacobian(share, z)
    psi = W * np.clip(r, -delta, delta)
    # A point beyond the threshold has no curvature of its own; a hundredth of the majoriser delta/|r| keeps H regular.
    size = np.abs(r)
    c = W * np.where(size <= delta, 1.0, 0.01 * delta / np.maximum(size, 1e-300))
    gradient = (psi[:, None, :] @ J)[:, 0]
    hessian = np.swapaxes(J * (c - psi)[..., None], 1, 2) @ J
    pull = psi[..., None] * share
    _add_term_curvature(law, hessian, pull, z)
    return gradient, hessian, (W * huber(r, delta)).sum(axis=1)


def _add_term_curvature(law: Law, hessian: Array, pull: Array, z: Array) -> None:
    """Add sum_i psi_i sum_k w_ik v_ik v_ik^T in place; v_ik = (1, -z_ik) on (a_k, s_k)."""
    for k in range(law.n_terms):
        hessian[:, k, k] += pull[..., k].sum(axis=1)
    for j, k in enumerate(law.with_exponent):
        s = law.n_terms + j
        first = pull[..., k] @ z[:, k]
        hessian[:, k, s] -= first
        hessian[:, s, k] -= first
        hessian[:, s, s] += pull[..., k] @ z[:, k] ** 2


def _newton_step(gradient: Array, hessian: Array, free: np.ndarray, damping: Array, *, longest: float = 2.0) -> Array:
    """-|H + damping|^-1 g over the free parameters, in units of each parameter's own curvature, (B, p)."""
    p = gradient.shape[1]
    diagonal = np.abs(hessian[:, range(p), range(p)])
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300))
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    scaled *= free[:, :, None] & free[:, None, :]
    scaled[:, range(p), range(p)] = np.where(free, scaled[:, range(p), range(p)], 1.0)
    value, vector = np.linalg.eigh(scaled)
    curvature = np.maximum(np.abs(value), 1e-13) + damping[:, None]
    along = np.einsum("bij,bi->bj", vector, gradient * scale)
    step = -np.einsum("bij,bj->bi", vector, along / curvature) * scale
    step = np.where(free, step, 0.0)
    # log amplitudes and exponents are of order one: a longer step leaves the region where the expansion holds
    return step * np.minimum(1.0, longest / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
