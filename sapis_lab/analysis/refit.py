"""Refits of many data sets on the points of one fit: simulated, resampled or with points left out.

Each data set is raced from the same few starts: the optimum and the other modes of the fit, and some of the
profile path of the exponents, so that a refit finds another valley where its data prefer one. (For a
three-term law on 5 x 5 points over three decades, 8 % of data sets have their optimum in another valley than
the truth; from the truth alone they would all be missed.)

    T = 2 (F_0 - F_1) / lambda

compares the optimum F_0 under a constraint with the free one F_1. lambda is the dispersion of the objective:
the residual variance for least squares, and for Huber's loss sum psi^2 / (n - p) / mean psi' with his
correction for small n (Huber 1981, eq. 7.6.9), which makes T a chi-square of one degree of freedom for large
n (Schrader & Hettmansperger 1980), and F of 1 and n - p for small n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sapis_lab.analysis.fit import (
    FAR,
    HIDDEN,
    NARROW,
    THRESHOLD_ROUNDS,
    LawFit,
    Robust,
    huber_thresholds,
)
from sapis_lab.analysis.laws import Array, Law
from sapis_lab.analysis.search import starts_for
from sapis_lab.analysis.solve import MAX_STEPS, Solutions, race, solve

N_STARTS = 6
"""Starts from the profile path, beside the modes of the fit."""
KEPT = 2
"""Modes of each refit that its constrained fits start from."""
FEW_STEPS = 60
"""Enough for simulated data: the rare refit that would go on changes its objective in the sixth digit."""
RIVAL = 20.0
"""Likelihood ratio, n ln(F/F_best), below which another optimum may be the best one of other data."""
N_SCOUTS = 24
"""Simulated data sets on which the starts of many refits are chosen."""


@dataclass(frozen=True)
class Setting:
    """What refits share with the fit they belong to."""

    law: Law
    z: Array
    weight: Array | None
    robust: Robust
    starts: Array
    """(S, p)"""

    @classmethod
    def of(cls, fit: LawFit, *, law: Law | None = None) -> Setting:
        """The setting of a fit; of its points and centre under another law where one is given."""
        law = law or fit.law
        z = fit.points.coordinates(law, fit.centre)
        starts = spread_out(
            starts_for(law, z=z, log_loss=fit.points.log_loss - fit.residuals, weight=fit.points.weight)
        )
        if law == fit.law:
            starts = np.vstack([[m.theta for m in fit.modes], starts])
        return cls(law, z, fit.points.weight, fit.robust, starts)

    @classmethod
    def scouted(cls, fit: LawFit) -> Setting:
        """The setting of a fit with as few starts as many refits need, found by trying all on a few simulated
        data sets.

        Refits start from their truth besides, so where a law has one valley, as n+d+e mostly has, no start is
        left.
        """
        setting = cls.of(fit)
        every = np.vstack(
            [setting.starts, starts_for(fit.law, z=fit.z, log_loss=fit.points.log_loss - fit.residuals)]
        )
        data = simulated(
            fit, fit.theta, sigma=noise_scale(fit), n_sets=N_SCOUTS, generator=np.random.default_rng(0)
        )
        return replace(setting, starts=every[needed_starts(setting, every, data, truth=fit.theta)])

    @property
    def spread(self) -> Array | None:
        return None if self.weight is None else 1.0 / np.sqrt(self.weight)


def needed_starts(setting: Setting, starts: Array, log_loss: Array, *, truth: Array) -> list[int]:
    """Positions of a few of the starts, (S, p), that with the truth find the best optimum of every data set,
    (B, n)."""
    B, S = len(log_loss), len(starts)
    every = np.vstack([truth, starts])
    found = solve(
        setting.law,
        np.tile(every, (B, 1)),
        z=setting.z,
        log_loss=np.repeat(log_loss, S + 1, axis=0),
        weight=setting.weight,
        max_steps=FEW_STEPS,
    )
    n, F = log_loss.shape[1], found.objective.reshape(B, S + 1)
    best = F.min(axis=1, keepdims=True)
    hit = best * (1 + 1e-6) >= F
    missed, chosen = ~hit[:, 0], []
    while missed.any():
        chosen.append(int(hit[missed, 1:].sum(axis=0).argmax()))
        missed &= ~hit[:, 1 + chosen[-1]]
    # a second valley that is never the best one in a few data sets is the best in some of many
    close = n * np.log(np.maximum(F, 1e-300) / np.maximum(best, 1e-300)) < RIVAL
    often = (close & ~hit & (F[:, :1] * (1 + 1e-6) < F))[:, 1:].sum(axis=0)
    if often.any():
        chosen.append(int(often.argmax()))
    return chosen


def spread_out(starts: Array, most: int = N_STARTS) -> Array:
    """At most `most` of the starts, which come best first: the best and evenly chosen others."""
    return (
        starts
        if len(starts) <= most
        else starts[np.unique(np.linspace(0, len(starts) - 1, most).astype(int))]
    )


@dataclass(frozen=True)
class Refits:
    """Free optima of B data sets."""

    log_loss: Array
    """(B, n)"""
    weight: Array | None
    """(n,) or (B, n)"""
    theta: Array
    """(B, p)"""
    modes: Array
    """(B, keep, p), the optimum first."""
    objective: Array
    """(B,)"""
    converged: np.ndarray
    """(B,) bool"""
    at_bound: np.ndarray
    """(B,) bool"""
    delta: Array
    """(B,) Huber thresholds."""
    dispersion: Array
    """(B,)"""


def refit(
    setting: Setting,
    log_loss: Array,
    *,
    starts: Array | None = None,
    weight: Array | None = None,
    delta: float | None = None,
    max_steps: int = MAX_STEPS,
) -> Refits:
    """Fit the law to each row of `log_loss`, (B, n), as the fit of the setting was made.

    Args:
        starts: (B, S, p) of each data set besides those of the setting.   weight: (B, n), instead of the
        setting's. delta: the Huber threshold, where it shall not be found anew for each data set.
    """
    law, z = setting.law, setting.z
    B, n = log_loss.shape
    common = np.broadcast_to(setting.starts, (B, *setting.starts.shape))
    begin = common if starts is None else np.concatenate([starts, common], axis=1)
    W = setting.weight if weight is None else weight
    fixed_delta = (
        delta
        if delta is not None
        else np.inf
        if setting.robust in ("auto", "none")
        else float(setting.robust)
    )
    found = race(
        law,
        begin,
        z=z,
        log_loss=log_loss,
        weight=W,
        delta=fixed_delta,
        spread=setting.spread,
        keep=KEPT,
        max_steps=max_steps,
    )
    thresholds = np.full(B, fixed_delta)
    root = 1.0 if W is None else np.sqrt(W)
    if setting.robust == "auto" and delta is None:
        found, thresholds = _settled(setting, found, log_loss, W, max_steps)
        residuals = (law.log_loss(found.theta[:, 0], z)[0] - log_loss) * root
        hidden = np.flatnonzero(np.abs(residuals).max(axis=1) > FAR * thresholds)
        if hidden.size:
            # as `fit` looks again where runs that diverged may have drawn least squares off
            y, W_hidden = log_loss[hidden], W if W is None or W.ndim == 1 else W[hidden]
            narrow = race(
                law,
                begin[hidden],
                z=z,
                log_loss=y,
                weight=W_hidden,
                delta=NARROW * thresholds[hidden],
                spread=setting.spread,
                keep=KEPT,
                max_steps=max_steps,
            )
            other, smaller = _settled(setting, narrow, y, W_hidden, max_steps)
            better = smaller < HIDDEN * thresholds[hidden]
            rows = hidden[better]
            for name in ("theta", "objective", "converged", "at_bound"):
                getattr(found, name)[rows] = getattr(other, name)[better]
            thresholds[rows] = smaller[better]
    residuals = (law.log_loss(found.theta[:, 0], z)[0] - log_loss) * root
    return Refits(
        log_loss,
        W,
        found.theta[:, 0],
        found.theta,
        found.objective[:, 0],
        found.converged[:, 0],
        found.at_bound[:, 0],
        thresholds,
        dispersion(residuals, thresholds, n_parameters=law.n_parameters),
    )


def _settled(
    setting: Setting, found: Solutions, log_loss: Array, W: Array | None, max_steps: int
) -> tuple[Solutions, Array]:
    """The optima (B, keep, p) under the thresholds that their own residuals ask for, and these, (B,)."""
    law, z = setting.law, setting.z
    root, thresholds = 1.0 if W is None else np.sqrt(W), np.full(len(log_loss), np.inf)
    for _ in range(THRESHOLD_ROUNDS):
        residuals = (law.log_loss(found.theta[:, 0], z)[0] - log_loss) * root
        thresholds = huber_thresholds(residuals, n_parameters=law.n_parameters)
        found = race(
            law,
            found.theta,
            z=z,
            log_loss=log_loss,
            weight=W,
            delta=thresholds,
            spread=setting.spread,
            continuation=False,
            keep=KEPT,
            max_steps=max_steps,
        )
    return found, thresholds


def constrained(
    setting: Setting,
    refits: Refits,
    *,
    position: int | np.ndarray,
    value: Array | float,
    starts: Array,
    max_steps: int = MAX_STEPS,
) -> Solutions:
    """The best fits with one parameter held at `value`, (B,) each, from the modes of the refits, the starts
    of the setting and `starts`.

    Args:
        position: of the parameter in theta, one or (B,).   value: one or (B,).   starts: (B, S, p).
    """
    B, p = refits.theta.shape
    begin = np.concatenate(
        [refits.modes, starts, np.broadcast_to(setting.starts, (B, *setting.starts.shape))], axis=1
    )
    fixed = np.arange(p) == np.broadcast_to(position, (B,))[:, None]
    begin = np.where(fixed[:, None], np.broadcast_to(value, (B,))[:, None, None], begin)
    found = race(
        setting.law,
        begin,
        z=setting.z,
        log_loss=refits.log_loss,
        weight=refits.weight,
        delta=refits.delta,
        spread=setting.spread,
        fixed=fixed,
        continuation=False,
        keep=KEPT,
        max_steps=max_steps,
    )
    return Solutions(found.theta[:, 0], found.objective[:, 0], found.converged[:, 0], found.at_bound[:, 0])


def statistic(refits: Refits, objective: Array) -> Array:
    """T of constrained optima, (B,); never below 0."""
    return np.maximum(2.0 * (objective - refits.objective) / refits.dispersion, 0.0)


def dispersion(residuals: Array, delta: Array, *, n_parameters: int) -> Array:
    """lambda of each row of standardised residuals, (B,).

    Beside a threshold below sigma / 2 too few residuals lie inside to count; then the density at 0 is taken
    from a window of that width, without the p residuals that such a fit makes zero.
    """
    n = residuals.shape[1]
    free = max(n - n_parameters, 1)
    size = np.abs(residuals)
    limit = delta[:, None]
    squares = (np.minimum(size, limit) ** 2).sum(axis=1)
    window = np.maximum(delta, 0.5 * huber_thresholds(residuals, n_parameters=n_parameters) / 1.345)
    narrow = window > delta
    counted = (size <= window[:, None]).sum(axis=1)
    inside = np.where(narrow, np.maximum(counted - n_parameters, 1) / free, counted / n)
    share = np.where(narrow, inside * delta / np.where(narrow, window, 1.0), inside)
    correction = 1.0 + n_parameters / n * (1.0 - inside) / inside
    return np.maximum(squares / free / share * correction, 1e-300)


def noise_scale(fit: LawFit) -> float:
    """Standard deviation of normal noise (at weight 1) that would leave residuals as large as the fit's."""
    r = (fit.residuals * np.sqrt(fit.points.weights))[None]
    return float(noise_scales(r, np.array([fit.delta]), n_parameters=fit.law.n_parameters)[0])


def noise_scales(residuals: Array, delta: Array, *, n_parameters: int) -> Array:
    """The same of each row of standardised residuals, (B,): their rms for least squares, from their median
    under Huber's loss."""
    n = residuals.shape[1]
    rms = np.sqrt((residuals**2).sum(axis=1) / max(n - n_parameters, 1))
    return np.where(np.isinf(delta), rms, huber_thresholds(residuals, n_parameters=n_parameters) / 1.345)


def simulated(
    fit: LawFit, theta: Array, *, sigma: float, n_sets: int, generator: np.random.Generator
) -> Array:
    """Data sets of the law at `theta`, (p,) or (n_sets, p), with normal noise, (n_sets, n)."""
    predicted = fit.law.log_loss(theta, fit.z)[0]
    scale = sigma if fit.spread is None else sigma * fit.spread
    return predicted + scale * generator.standard_normal((n_sets, len(fit.points)))
