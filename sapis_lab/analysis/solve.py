"""Damped Newton for many small robust fits at once.

Minimises, for every problem b of a batch,

    F_b(theta) = sum_i W_bi rho(r_bi),   r_bi = ln L(theta; N_i, D_i) - ln L_bi,

with Huber's rho (Huber 1964). All problems share the points (N_i, D_i): starts of a global search, resamples
of a bootstrap, values of a profile. The parameters enter u_k = a_k - s_k z_k linearly and ln L is the
log-sum-exp of u, so the Hessian is exact and short. With w the shares of the terms, psi = rho', c = rho'' and
v_k = du_k / dtheta = (1 on a_k, -z_k on s_k),

    g = sum_k sum_i psi_i w_ik v_ik,      H = sum_kl sum_i [ (c_i - psi_i) w_ik w_il + delta_kl psi_i w_ik ]
    v_ik v_il^T.

z is the same for all problems, so every sum over points is a product of a (B, n) array with a few shared
columns of z and z^2: the batch runs at the speed of matrix products, and no (B, n, p) array is ever made.

Negative curvature is met by taking absolute pivots (in the manner of Gill & Murray 1974), steps that do not
descend by Levenberg-Marquardt damping. A threshold far below the residuals makes F nearly an L1 norm with a
kink at every point; such fits begin with a threshold of the size of their residuals and shrink it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapis_lab.analysis.forms import BentLaw
from sapis_lab.analysis.laws import Array, Law

DECREMENT = 1e-9
"""A Newton step that promises less than this part of F is the last: convergence is quadratic, so it leaves an
error of about its square."""
CHUNK = 100_000
"""Points times problems that are worked on together: their arrays then stay in the cache."""
SAME = 1e-6
"""Relative difference of objectives below which two starts are taken to have met."""
COMPACT = 0.8
"""Part of a chunk still unsolved below which the solved rest is dropped from the arrays."""
NEGLIGIBLE = 1e-10
"""Curvature of a parameter, relative to the largest, at which it no longer shows, where its gradient does not
either."""
SMALLEST_PIVOT = 1e-4
"""Of a matrix with unit diagonal, where a pivot is not positive."""
SMALLEST_ROOT = 1e-7
"""Of a pivot that counts as positive."""
FEW = 64
"""Problems up to which LAPACK, matrix after matrix, is faster than eliminating in all matrices at once."""
FINAL_CURVATURE = 0.01
"""Part of the majoriser that stands for the missing curvature of points beyond the threshold; see
`_influence`."""
MAX_STEPS = 150
SOON = 60
"""Steps after which starts that have not arrived go on only where the best of them has not either."""
LONGEST = 2.0
"""Longest step in any parameter: log amplitudes and exponents are of order one, and the expansion holds no
farther."""


@dataclass(frozen=True)
class Solutions:
    """Optima of a batch. B problems, p parameters."""

    theta: Array
    """(B, p) centred parameters."""
    objective: Array
    """(B,)"""
    converged: np.ndarray
    """(B,) bool: the Newton decrement vanished, or no further descent is possible."""
    at_bound: np.ndarray
    """(B,) bool: some parameter ended on its bound."""

    def __getitem__(self, which: np.ndarray | slice | list[int]) -> Solutions:
        return Solutions(
            self.theta[which], self.objective[which], self.converged[which], self.at_bound[which]
        )


def joined(*parts: Solutions) -> Solutions:
    """The solutions of several batches as one."""
    return Solutions(
        np.vstack([s.theta for s in parts]),
        np.concatenate([s.objective for s in parts]),
        np.concatenate([s.converged for s in parts]),
        np.concatenate([s.at_bound for s in parts]),
    )


def huber(r: Array, delta: float | Array) -> Array:
    """rho(r) = r^2/2 inside +-delta and delta(|r| - delta/2) outside, elementwise."""
    size = np.abs(r)
    inside = np.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def solve(
    law: Law,
    start: Array,
    *,
    z: Array,
    log_loss: Array,
    weight: Array | None = None,
    delta: float | Array = np.inf,
    spread: Array | None = None,
    fixed: np.ndarray | None = None,
    limits: tuple[Array, Array] | None = None,
    continuation: bool = True,
    max_steps: int = MAX_STEPS,
) -> Solutions:
    """The local optimum that each start leads to.

    Args:
        start: (B, p) centred parameters.   z: (n, K), `Law.coordinates`.
        log_loss: (n,) or (B, n), ln of the measured loss.   weight: (n,) or (B, n), or None for ones.
        delta: Huber threshold in log units, one or one a problem (B,); inf for least squares.
        spread: (n,) or None for ones; the threshold of point i is delta times this, 1/sqrt(weight) where
        weights are precisions. fixed: (p,) or (B, p) bool, parameters that keep their start.   limits: lower
        and upper ends of theta, `Law.bounds` by default. continuation: begin with a threshold of the size of
        the residuals and shrink it; needless for a start near the optimum.
    """
    B, n = start.shape[0], z.shape[0]
    lower, upper = law.bounds(log_loss, z) if limits is None else limits
    design: _Design | _BentDesign = _BentDesign(law, z) if isinstance(law, BentLaw) else _Design(law, z)
    thresholds = np.broadcast_to(np.asarray(delta, dtype=float), (B,))
    held = np.zeros(start.shape, dtype=bool) if fixed is None else np.broadcast_to(fixed, start.shape)
    begin = np.where(held, start, np.clip(start, lower, upper))
    theta, objective, converged = np.empty_like(begin), np.empty(B), np.empty(B, dtype=bool)
    size = max(32, CHUNK // n)
    for first in range(0, B, size):
        part = slice(first, min(first + size, B))
        y = np.broadcast_to(log_loss if log_loss.ndim == 1 else log_loss[part], (part.stop - first, n))
        W = None if weight is None else np.broadcast_to(weight if weight.ndim == 1 else weight[part], y.shape)
        problem = _Problem(design, y, W, thresholds[part], spread, held[part], lower, upper)
        theta[part], objective[part], converged[part] = problem.minimise(
            begin[part], continuation=continuation, max_steps=max_steps
        )
    at_bound = np.any(~held & ((theta <= lower) | (theta >= upper)), axis=1)
    return Solutions(theta, objective, converged, at_bound)


def race(
    law: Law,
    starts: Array,
    *,
    z: Array,
    log_loss: Array,
    weight: Array | None = None,
    delta: float | Array = np.inf,
    spread: Array | None = None,
    fixed: np.ndarray | None = None,
    limits: tuple[Array, Array] | None = None,
    continuation: bool = True,
    keep: int = 3,
    heat: int = 25,
    max_steps: int = MAX_STEPS,
) -> Solutions:
    """The best `keep` optima of each of B data sets from S starts each: theta (B, keep, p), best first.

    A few starts take many times the steps of the others and end in the same place or in a worse one, so all
    run for `heat` steps and only the best go on.

    Args:
        starts: (B, S, p).   log_loss: (B, n).   weight: (n,) or (B, n).   delta: one or (B,).   fixed: (p,)
        or (B, p). The rest as in `solve`.
    """
    B, S, p = starts.shape
    keep = min(keep, S)

    def run(begin: Array, steps: int) -> Solutions:
        m = begin.shape[1]
        found = solve(
            law,
            begin.reshape(-1, p),
            z=z,
            log_loss=np.repeat(log_loss, m, axis=0),
            weight=weight if weight is None or weight.ndim == 1 else np.repeat(weight, m, axis=0),
            delta=np.repeat(delta, m) if np.ndim(delta) else delta,
            spread=spread,
            limits=limits,
            fixed=fixed if fixed is None or fixed.ndim == 1 else np.repeat(fixed, m, axis=0),
            continuation=continuation,
            max_steps=steps,
        )
        shape = (B, m)
        found = Solutions(
            found.theta.reshape(*shape, p),
            found.objective.reshape(shape),
            found.converged.reshape(shape),
            found.at_bound.reshape(shape),
        )
        order = np.argsort(
            np.where(np.isfinite(found.objective), found.objective, np.inf), axis=1, kind="stable"
        )
        ranked = np.take_along_axis(found.objective, order, axis=1)
        # starts that met in one optimum go to the end, so that what is kept are different ones where there
        # are
        met = np.zeros(shape, dtype=bool)
        met[:, 1:] = ranked[:, 1:] <= ranked[:, :-1] * (1 + SAME)
        order = np.take_along_axis(order, np.argsort(met, axis=1, kind="stable"), axis=1)[:, :keep]
        pick = np.arange(B)[:, None], order
        return Solutions(
            found.theta[pick], found.objective[pick], found.converged[pick], found.at_bound[pick]
        )

    first = run(starts, heat if keep < S else max_steps)
    if first.converged.all() or keep == S:
        return first
    return run(first.theta, max_steps)


class _Design:
    """What a law and the points share between all problems: columns of z, and where their sums belong in
    gradient and Hessian."""

    def __init__(self, law: Law, z: Array) -> None:
        self.n_terms, self.n_parameters = law.n_terms, law.n_parameters
        self.slot = law.slots
        self.minus_z = [np.ascontiguousarray(-z[:, k]) for k in range(law.n_terms)]
        one = np.ones(len(z))
        self.gradient_columns, self.gradient_entries = [], []
        self.pairs: list[tuple[int, int, Array, list[tuple[int, int]]]] = []
        for k in range(law.n_terms):
            of_k = self._entries(k, one)
            self.gradient_columns.append(np.stack([column for _, column in of_k], axis=1))
            self.gradient_entries.append([i for i, _ in of_k])
            for l in range(k, law.n_terms):
                of_l = self._entries(l, one)
                both = [(i, j, a * b) for i, a in of_k for j, b in of_l]
                self.pairs.append(
                    (k, l, np.stack([c for _, _, c in both], axis=1), [(i, j) for i, j, _ in both])
                )

    def _entries(self, k: int, one: Array) -> list[tuple[int, Array]]:
        """Where du_k / dtheta is not zero, and what it is there."""
        slot = self.slot[k]
        return [(k, one)] if slot is None else [(k, one), (slot, self.minus_z[k])]

    def forward(self, theta: Array) -> tuple[Array, list[Array]]:
        """ln L, (B, n), and the shares of the terms, K arrays (B, n).

        No term is taken out of the logarithm first: with |a - ln L| <= 30, s <= 6 and |z| < 100 nothing
        overflows.
        """
        terms = []
        for k in range(self.n_terms):
            slot = self.slot[k]
            if slot is None:
                terms.append(np.exp(theta[:, k, None]))
            else:
                u = theta[:, slot, None] * self.minus_z[k]
                u += theta[:, k, None]
                terms.append(np.exp(u, out=u))
        total = terms[0] + terms[1] if self.n_terms > 1 else terms[0].copy()
        for term in terms[2:]:
            total += term
        inverse = 1.0 / total
        shares = [np.multiply(t, inverse, out=t) if t.shape == total.shape else t * inverse for t in terms]
        return np.log(total, out=total), shares

    def gradient(self, share: list[Array], psi: Array) -> tuple[Array, list[Array]]:
        """sum_k psi w_k v_k, (B, p), and the products psi w_k, which the Hessian needs again."""
        g = np.zeros((len(psi), self.n_parameters))
        pulls = [psi * w for w in share]
        for pull, columns, entries in zip(pulls, self.gradient_columns, self.gradient_entries, strict=True):
            sums = pull @ columns
            for e, i in enumerate(entries):
                g[:, i] += sums[:, e]
        return g, pulls

    def hessian(self, share: list[Array], pulls: list[Array], curvature: Array) -> Array:
        """sum_kl [(c - psi) w_k w_l + delta_kl psi w_k] v_k v_l^T, (p, p, B); `curvature` is c - psi, (B,
        n)."""
        H = np.zeros((self.n_parameters, self.n_parameters, len(curvature)))
        bent, last = None, -1
        for k, l, columns, entries in self.pairs:
            if bent is None or k != last:
                bent, last = curvature * share[k], k
            product = bent * share[l]
            if k == l:
                product += pulls[k]
            sums = product @ columns
            for e, (i, j) in enumerate(entries):
                H[i, j] += sums[:, e]
                if k != l:
                    H[j, i] += sums[:, e]
        return H


class _BentDesign:
    """The same of a bent law, whose derivatives stand in the place of shares and whose Hessian is Gauss and
    Newton's: sum_i W c J J^T."""

    def __init__(self, law: BentLaw, z: Array) -> None:
        self.law, self.z, self.n_parameters = law, z, law.n_parameters

    def forward(self, theta: Array) -> tuple[Array, list[Array]]:
        """ln L, (B, n), and its derivatives by the parameters, p arrays (B, n)."""
        log_loss, columns = self.law.columns(theta, self.z)
        return log_loss, [
            c if c.shape == log_loss.shape else np.broadcast_to(c, log_loss.shape).copy() for c in columns
        ]

    def gradient(self, columns: list[Array], psi: Array) -> tuple[Array, list[Array]]:
        """sum_i psi J, (B, p), and psi with J, (B, p, n), which the Hessian needs again."""
        J = np.stack(columns, axis=1)
        return (J @ psi[:, :, None])[:, :, 0], [psi, J]

    def hessian(self, columns: list[Array], pulls: list[Array], curvature: Array) -> Array:
        """sum_i c J J^T, (p, p, B); `curvature` is c - psi."""
        psi, J = pulls
        weighted = J * (curvature + psi)[:, None]
        return np.ascontiguousarray((weighted @ J.transpose(0, 2, 1)).transpose(1, 2, 0))


@dataclass
class _State:
    """Where B problems stand."""

    r: Array
    """(B, n) residuals."""
    share: list[Array]
    """Shares of the K terms, (B, n) each."""
    psi: Array
    """(B, n) W rho'."""
    q: Array | None
    """(B, n) min(1, delta/|r|); None for least squares."""
    F: Array
    """(B,) objectives."""

    def take(self, rows: np.ndarray) -> _State:
        return _State(
            self.r[rows],
            [w[rows] for w in self.share],
            self.psi[rows],
            None if self.q is None else self.q[rows],
            self.F[rows],
        )

    def put_back(self, rows: np.ndarray, old: _State) -> None:
        """Undo the step of these rows."""
        pairs = [
            (self.r, old.r),
            (self.psi, old.psi),
            (self.F, old.F),
            *zip(self.share, old.share, strict=True),
        ]
        for new, before in pairs + ([(self.q, old.q)] if self.q is not None and old.q is not None else []):
            new[rows] = before[rows]


class _Problem:
    """A chunk of problems and what of it is still unsolved. Every array below loses the rows that are
    done."""

    def __init__(
        self,
        design: _Design | _BentDesign,
        y: Array,
        W: Array | None,
        delta: Array,
        spread: Array | None,
        held: np.ndarray,
        lower: Array,
        upper: Array,
    ) -> None:
        self.design, self.y, self.W, self.target, self.spread, self.held = (
            design,
            y,
            W,
            delta.copy(),
            spread,
            held,
        )
        self.lower, self.upper = lower, upper
        self.robust = bool(np.isfinite(delta).any())

    def minimise(
        self, theta: Array, *, continuation: bool, max_steps: int
    ) -> tuple[Array, Array, np.ndarray]:
        """Optima (B, p), objectives (B,), and whether each converged (B,)."""
        B = len(theta)
        result, value, converged = theta.copy(), np.empty(B), np.zeros(B, dtype=bool)
        active, pending = np.arange(B), np.ones(B, dtype=bool)
        delta = self.target.copy()
        state = self._evaluate(theta, delta)
        if self.robust and continuation:
            delta = np.maximum(delta, 0.8 * np.median(np.abs(state.r), axis=1))
            state = self._judged(state.r, state.share, delta)
        damping = np.full(B, 1e-4)
        # F of rounding errors alone: there is nothing left to descend
        exact = 0.5 * state.r.shape[1] * (4e-16 * np.maximum(np.abs(self.y).max(axis=1), 1.0)) ** 2
        for _ in range(max_steps):
            final, F = delta <= self.target, state.F
            g, pulls = self.design.gradient(state.share, state.psi)
            free = ~(self.held | ((theta <= self.lower) & (g > 0)) | ((theta >= self.upper) & (g < 0)))
            H = self.design.hessian(state.share, pulls, self._curvature(state, final) - state.psi)
            # A term that has vanished from the loss rests: its long steps would only shorten those of the
            # others.
            diagonal = np.abs(np.einsum("iib->bi", H))
            free &= (diagonal > NEGLIGIBLE * diagonal.max(axis=1, keepdims=True)) | (
                np.abs(g) > DECREMENT * F[:, None]
            )
            g = np.where(free, g, 0.0)
            step, convex = newton_step(g, H, free, damping)
            promise = -0.5 * (step * g).sum(axis=1)
            proposal = np.where(self.held, theta, np.clip(theta + step, self.lower, self.upper))
            # Convergence is quadratic: a step that promises next to nothing is taken without evaluating it.
            done = final & ((convex & (promise <= DECREMENT * F) & (damping <= 1e-2)) | (exact >= F))
            last = pending & done
            if last.any():
                out = active[last]
                result[out], value[out], converged[out] = (
                    proposal[last],
                    np.maximum(F[last] - promise[last], 0.0),
                    True,
                )
                pending = pending & ~done
                if not pending.any():
                    return result, value, converged
                if pending.mean() <= COMPACT:
                    active, theta, delta, damping, exact, proposal, final = (
                        a[pending] for a in (active, theta, delta, damping, exact, proposal, final)
                    )
                    state = state.take(pending)
                    self._drop(pending)
                    pending, F = np.ones(len(active), dtype=bool), state.F
            new = self._evaluate(proposal, delta)
            better = new.F <= F
            gained = F - new.F
            kept = np.flatnonzero(~better)
            if kept.size:
                proposal[kept] = theta[kept]
                new.put_back(kept, state)
            theta, state = proposal, new
            damping = np.where(better, np.maximum(damping * 0.1, 1e-14), np.minimum(damping * 10.0, 1e12))
            settled = (better & (gained <= 1e-13 * state.F)) | (damping > 1e10)
            if not final.all():
                shrink = ~final & ((better & (gained < 0.2 * state.F)) | settled)
                if shrink.any():
                    delta = np.where(shrink, np.maximum(self.target, 0.15 * delta), delta)
                    state = self._judged(state.r, state.share, delta)
                    damping = np.where(shrink, np.minimum(damping, 1e-6), damping)
                    settled &= ~shrink
            settled &= final & pending
            if settled.any():
                out = active[settled]
                result[out], value[out], converged[out] = theta[settled], state.F[settled], True
                pending = pending & ~settled
                if not pending.any():
                    return result, value, converged
        out = active[pending]
        result[out], value[out] = theta[pending], state.F[pending]
        return result, value, converged

    def _evaluate(self, theta: Array, delta: Array) -> _State:
        r, share = self.design.forward(theta)
        r -= self.y
        return self._judged(r, share, delta)

    def _judged(self, r: Array, share: list[Array], delta: Array) -> _State:
        """The residuals with what Huber's loss makes of them: with q = min(1, delta/|r|), psi = q r and rho =
        psi (r - psi/2)."""
        if not self.robust:
            psi = r.copy() if self.W is None else r * self.W
            return _State(r, share, psi, None, 0.5 * np.einsum("bn,bn->b", psi, r))
        q = np.abs(r)
        q += 1e-300
        limit = delta[:, None] if self.spread is None else delta[:, None] * self.spread
        np.divide(limit, q, out=q)
        np.minimum(q, 1.0, out=q)
        psi = q * r
        pull = psi if self.W is None else psi * self.W
        F = np.einsum("bn,bn->b", pull, r) - 0.5 * np.einsum("bn,bn->b", pull, psi)
        return _State(r, share, pull, q, F)

    def _curvature(self, state: _State, final: np.ndarray) -> Array:
        """What stands for W rho'', (B, n).

        A point beyond the threshold has no curvature of its own, and H would be singular with few points
        inside. A part of the majoriser's, delta/|r|, keeps it positive: a large part while the threshold
        shrinks, a small one at the end, where it would slow the convergence.
        """
        if state.q is None:
            return np.ones_like(state.r) if self.W is None else self.W
        part: float | Array = (
            FINAL_CURVATURE if final.all() else np.where(final, FINAL_CURVATURE, 0.3)[:, None]
        )
        c = np.floor(state.q)
        c *= 1.0 - part
        c += part * state.q
        if self.W is not None:
            c *= self.W
        return c

    def _drop(self, keep: np.ndarray) -> None:
        self.y, self.target, self.held = self.y[keep], self.target[keep], self.held[keep]
        if self.W is not None:
            self.W = self.W[keep]


def newton_step(
    gradient: Array, hessian: Array, free: np.ndarray, damping: Array
) -> tuple[Array, np.ndarray]:
    """-(H + damping)^-1 g over the free parameters, in units of each parameter's own curvature, (B, p), and
    where H is positive, (B,).

    Args:
        gradient: (B, p).   hessian: (p, p, B).   free: (B, p) bool.   damping: (B,).
    """
    p = gradient.shape[1]
    on = np.ascontiguousarray(free.T)
    diagonal = np.abs(hessian[range(p), range(p)])
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=0) + 1e-300))
    scaled = hessian * scale[:, None] * scale
    if not on.all():
        scaled *= on[:, None] & on
        scaled[range(p), range(p)] = np.where(on, scaled[range(p), range(p)], 1.0)
    downhill = -(gradient.T * scale)
    scaled[range(p), range(p)] += damping
    step, convex = _by_cholesky(scaled, downhill) or _ldl_solve(scaled, downhill)
    step = np.where(on, step * scale, 0.0).T
    return step * np.minimum(
        1.0, LONGEST / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300)
    ), convex


def _by_cholesky(matrix: Array, right: Array) -> tuple[Array, np.ndarray] | None:
    """What `_ldl_solve` gives where every matrix is positive, None where one is not: for a few problems in
    a fraction of its time."""
    if right.shape[1] > FEW:
        return None
    A = matrix.transpose(2, 0, 1)
    try:
        factor = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        return None
    if (np.einsum("bii->bi", factor) <= SMALLEST_ROOT).any():
        return None
    step: Array = np.linalg.solve(A, right.T[:, :, None])[:, :, 0].T
    return step, np.ones(right.shape[1], dtype=bool)


def _ldl_solve(matrix: Array, right: Array) -> tuple[Array, np.ndarray]:
    """Solutions (p, B) of many small symmetric systems, (p, p, B) and (p, B), and which matrices are
    positive, (B,); overwrites both.

    Gaussian elimination, vectorised over the batch. A pivot that is not positive is replaced by its absolute
    value: with M = L D L^T the system solved is L |D| L^T, which is positive, so the solution descends. It
    takes a tenth of the time of eigenvectors, and no more steps.
    """
    p = len(right)
    positive = np.ones(right.shape[1], dtype=bool)
    for j in range(p):
        positive &= matrix[j, j] > SMALLEST_ROOT**2
        matrix[j, j] = np.where(
            matrix[j, j] > SMALLEST_ROOT**2, matrix[j, j], np.maximum(np.abs(matrix[j, j]), SMALLEST_PIVOT)
        )
        if j + 1 < p:
            factor = matrix[j + 1 :, j] / matrix[j, j]
            matrix[j + 1 :, j + 1 :] -= factor[:, None] * matrix[j, j + 1 :]
            right[j + 1 :] -= factor * right[j]
    for j in reversed(range(p)):
        right[j] = (right[j] - (matrix[j, j + 1 :] * right[j + 1 :]).sum(axis=0)) / matrix[j, j]
    return right, positive
