"""Which law a set of points asks for: criteria, forecasts of points left out, and tests.

Akaike's criterion for small samples (Hurvich & Tsai 1989), with the errors that the fit allows for:

    AICc = min_sigma [-2 ln likelihood] + 2 k + 2 k (k + 1) / (n - k - 1) + constant,   k = p + 1.

For least squares errors are normal, which gives the usual n ln(2 F / n). A fit whose Huber threshold follows
the residuals expects runs that diverged; there errors have Student's density with four degrees of freedom,
under which such a run costs every law about the same and leaves sigma alone, whereas under normal errors, or
under the exponential tails that go with Huber's loss, two of them in 36 decide between laws. With a fixed
threshold the density is exp(-rho_delta / lambda) / Z(lambda), of which that fit is the most probable one.

Among the laws within 2 of the smallest AICc the one with the fewest parameters is taken: an interaction that
is not there makes extrapolation two to three times worse, one that is there and left out seldom does. An
interaction whose exponent is all but 0 is a floor in disguise, with an exponent more to follow the noise
with: the law with a floor takes its place where that is nearly as good.

Forecasts do not rest on one law: each is weighed by exp(-AICc/2) (Burnham & Anderson 2002, section 2.9).
`sapis selftest forecasts` holds both against simulated truths and published tables.

The likelihood ratio of a term that may be absent is no chi-square, since its exponent does not exist without
it (Davies 1987): its 95 % point is 6.0-7.5 instead of 3.8, so it is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from scipy.special import gammaln

from sapis_lab.analysis.fit import LawFit, Robust, fit_points
from sapis_lab.analysis.identify import MIN_EXPONENT
from sapis_lab.analysis.laws import Array, Law
from sapis_lab.analysis.refit import FEW_STEPS, Setting, noise_scale, refit, simulated, statistic
from sapis_lab.analysis.solve import huber, race

SLACK = 2.0
MOST_RIVALS = 4
"""Other laws that the sentence about a choice names."""
MANY = 100
"""Points beyond which one of them is left out by its leverage."""
FIRST_LOOK, CLEAR = 99, 0.2
"""Simulations after which a test of many points ends where none, or more than this part, reached the
ratio."""
TAILS = 4
"""Degrees of freedom of the errors that a fit with a threshold from its residuals expects."""
DISGUISED = 10.0
"""AICc by which a floor may lose to an interaction with an exponent below `MIN_EXPONENT`."""
FLOORED = {"n+d+nd": "n+d+e"}
"""The law with a floor in the place of the interaction."""
NEW_SHARES = (0.03, 0.3)
NEW_EXPONENTS = (0.02, 0.15, 0.4, 1.0, 2.0)
"""Where the terms that only the larger law has begin in a simulated test."""
EXACT = 1e-10
"""Noise of ln L below which data are exact: rounding errors of fits decide nothing."""


def aicc(fit: LawFit) -> float | None:
    """AICc of the fit; None when there are too few points for it to exist (n <= p + 2)."""
    n, k = len(fit.points), fit.law.n_parameters + 1
    if n - k - 1 <= 0:
        return None
    r = (fit.residuals * np.sqrt(fit.points.weights))[None]
    deviance = float(deviances(r, robust=fit.robust)[0])
    return deviance + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def deviances(residuals: Array, *, robust: Robust) -> Array:
    """min over sigma of -2 ln likelihood of each row of standardised residuals, (B,), less n + n ln 2 pi."""
    n, size = residuals.shape[1], np.abs(residuals)
    rms = np.sqrt(np.maximum((size**2).mean(axis=1), EXACT**2))
    if robust == "none":
        return np.asarray(2.0 * n * np.log(rms))
    typical = np.maximum(np.median(size, axis=1) / 0.6745, EXACT)
    low, high = np.log(np.minimum(typical, rms)) - 3.0, np.log(rms) + 1.0
    ratio = (np.sqrt(5.0) - 1.0) / 2.0

    def value(log_sigma: Array) -> Array:
        sigma = np.exp(log_sigma)
        if robust == "auto":
            cost = (TAILS + 1) * np.log1p((residuals / sigma[:, None]) ** 2 / TAILS).sum(axis=1)
            log_Z = 0.5 * np.log(TAILS * np.pi) + gammaln(TAILS / 2) - gammaln((TAILS + 1) / 2)
        else:
            part = float(robust) / sigma
            cost = 2 * huber(residuals, float(robust)).sum(axis=1) / sigma**2
            log_Z = np.log(
                np.sqrt(2 * np.pi) * (2 * stats.norm.cdf(part) - 1) + 2 / part * np.exp(-(part**2) / 2)
            )
        return np.asarray(cost + 2 * n * (log_sigma + log_Z))

    a, b = high - ratio * (high - low), low + ratio * (high - low)
    f_a, f_b = value(a), value(b)
    for _ in range(40):  # golden section: the deviance has one minimum in ln sigma
        left = f_a < f_b
        high, low = np.where(left, b, high), np.where(left, low, a)
        a, b = np.where(left, high - ratio * (high - low), b), np.where(left, a, low + ratio * (high - low))
        new = value(np.where(left, a, b))
        f_a, f_b = np.where(left, new, f_b), np.where(left, f_a, new)
    return np.asarray(np.minimum(f_a, f_b) - n * (1.0 + np.log(2 * np.pi)))


def akaike_weights(scores: Mapping[str, float | None]) -> dict[str, float]:
    """exp(-AICc/2) of each law over their sum; laws without an AICc have none."""
    known = {name: score for name, score in scores.items() if score is not None}
    best = min(known.values(), default=0.0)
    raw = {name: float(np.exp(-0.5 * (score - best))) for name, score in known.items()}
    return {name: value / sum(raw.values()) for name, value in raw.items()}


def select(fits: Mapping[str, LawFit]) -> tuple[str | None, str]:
    """The chosen law's name and one sentence saying why; None when no law was fitted."""
    if not fits:
        return None, "no law could be fitted"
    simplest = min(fits, key=lambda name: fits[name].law.n_parameters)
    scores = {name: aicc(fit) for name, fit in fits.items()}
    known = {name: score for name, score in scores.items() if score is not None}
    missing = [name for name, score in scores.items() if score is None]
    named = ", ".join(missing[:MOST_RIVALS])
    named += f" and {len(missing) - MOST_RIVALS} more" if len(missing) > MOST_RIVALS else ""
    note = f"; AICc is undefined for {named} (too few points)" if missing else ""
    if not known:
        return simplest, f"{simplest} is the simplest law fitted{note}"
    best = min(known.values())
    chosen = min(
        (name for name in known if known[name] <= best + SLACK),
        key=lambda name: (fits[name].law.n_parameters, known[name]),
    )
    if len(known) == 1:
        return chosen, f"{chosen} is the only law {'with a defined AICc' if missing else 'fitted'}{note}"
    floored = FLOORED.get(chosen, "")
    gamma = fits[chosen].params.get("gamma", 1.0)
    if gamma < MIN_EXPONENT and known.get(floored, np.inf) <= known[chosen] + DISGUISED:
        worse = known[floored] - known[chosen]
        return (
            floored,
            f"{floored} stands for {chosen} ({-worse:+.1f} AICc), whose γ of {gamma:.2g} makes its "
            f"interaction a floor{note}",
        )
    rivals = sorted((name for name in known if name != chosen), key=lambda name: known[name])
    others = ", ".join(f"{name} {known[name] - known[chosen]:+.1f}" for name in rivals[:MOST_RIVALS])
    others += f" and {len(rivals) - MOST_RIVALS} more" if len(rivals) > MOST_RIVALS else ""
    return (
        chosen,
        f"{chosen} is the simplest law within {SLACK:g} of the best AICc ({others} relative to it){note}",
    )


# -------------------------------------------------------------------------------------------- points left out


@dataclass(frozen=True)
class LeaveOneOut:
    """Each point forecast by a fit to all others."""

    errors: Array
    """ln(forecast / measured), (n,)."""
    n_failed: int
    """Refits that did not converge; their errors are kept."""

    @property
    def rmse(self) -> float:
        return float(np.sqrt(np.mean(self.errors**2)))


def leave_one_out(fit: LawFit) -> LeaveOneOut | None:
    """Forecast errors of every point; None where a point cannot be spared.

    Each refit is searched anew from the modes of the fit. Of more than `MANY` points one changes a fit too
    little for that: there the error is r / (1 - h), with h the leverage (weighted as Huber's loss weighs).
    """
    n = len(fit.points)
    if n - 1 <= fit.law.n_parameters:
        return None
    if n > MANY:
        return LeaveOneOut(_by_leverage(fit), 0)
    setting = Setting.of(fit)
    weight = fit.points.weights * (1.0 - np.eye(n))
    found = refit(setting, np.broadcast_to(fit.points.log_loss, (n, n)), weight=weight, delta=fit.delta)
    predicted = fit.law.log_loss(found.theta, fit.z)[0]
    return LeaveOneOut(
        predicted[np.arange(n), np.arange(n)] - fit.points.log_loss, int((~found.converged).sum())
    )


def _by_leverage(fit: LawFit) -> Array:
    """ln(forecast / measured) of every point without it, (n,), to first order."""
    root = np.sqrt(fit.points.weights)
    r = fit.residuals * root
    size = np.maximum(np.abs(r), 1e-300)
    q = np.minimum(fit.delta / size, 1.0)
    J = fit.jacobian * (root * np.sqrt(q))[:, None]
    Q, R = np.linalg.qr(J / np.maximum(np.linalg.norm(J, axis=0), 1e-300))
    # a parameter that has no part in the loss has no part in its leverage either
    Q = Q[:, np.abs(np.diag(R)) > 1e-9]
    leverage = np.clip((Q**2).sum(axis=1), 0.0, 0.999)
    return np.asarray(-fit.residuals / (1.0 - leverage))


Block = Literal["n_params", "n_frames", "n_params*n_frames"]
"""What the largest points are the largest in."""
BLOCKS: tuple[Block, ...] = ("n_params", "n_frames", "n_params*n_frames")


def blocks_of(law: Law) -> tuple[Block, ...]:
    """The blocks that make sense for a law: those in the variables that it has."""
    return BLOCKS if any(t.power_d for t in law.terms) else ("n_params",)


@dataclass(frozen=True)
class HeldOut:
    """The largest points forecast by a fit to the smaller ones."""

    block: Block
    n_held: int
    rmse: float
    """Of ln(forecast / measured)."""
    bias: float
    """Mean of ln(forecast / measured): negative is too hopeful."""


def hold_out_largest(fit: LawFit, block: Block) -> HeldOut | str:
    """Fit without the largest N, D or N D and forecast those points; or why it cannot be done."""
    points = fit.points
    size = {
        "n_params": points.n_params,
        "n_frames": points.n_frames,
        "n_params*n_frames": points.n_params * points.n_frames,
    }[block]
    levels = np.unique(size)
    # of a lattice the last row; of scattered sizes as many as would make one row of eight; of compute a
    # quarter
    n_held = len(levels) // 4 if block == "n_params*n_frames" else len(levels) // 8
    held = size >= levels[-max(1, n_held)]
    out = points.take(held)
    try:
        small = fit_points(fit.law, points.take(~held), robust=fit.robust)
    except ValueError as error:
        return f"{block}: {error}"
    errors = np.log(small.predict(out.n_params, out.n_frames, out.steps)) - out.log_loss
    return HeldOut(block, int(held.sum()), float(np.sqrt(np.mean(errors**2))), float(errors.mean()))


# ------------------------------------------------------------------------------------------------------ tests


@dataclass(frozen=True)
class LackOfFit:
    """Scatter about the law against scatter of repeats."""

    F: float
    dof: tuple[int, int]
    p_value: float


def lack_of_fit(fit: LawFit) -> LackOfFit | None:
    """The classical F test of the law against free cell means; None without repeats, or without more cells
    than parameters.

    F = (SSR - SSPE) / (cells - p) / (SSPE / (n - cells)), with SSPE the squares about the cell means (Draper
    & Smith 1998, section 2.1).
    """
    points = fit.points
    n, m, p = len(points), points.n_cells, fit.law.n_parameters
    if n <= m or m <= p:
        return None
    w, y = points.weights, points.log_loss
    mean = np.bincount(points.cell, w * y) / np.bincount(points.cell, w)
    pure = float((w * (y - mean[points.cell]) ** 2).sum())
    if pure <= 0:
        return None
    F = max(2.0 * fit.least_squares - pure, 0.0) / (m - p) / (pure / (n - m))
    return LackOfFit(F, (m - p, n - m), float(stats.f.sf(F, m - p, n - m)))


@dataclass(frozen=True)
class LikelihoodRatio:
    """A larger law against a smaller one that it contains."""

    small: str
    large: str
    statistic: float
    """2 (F_small - F_large) / lambda."""
    critical: float
    """Its 95 % point in data simulated from the smaller law."""
    p_value: float
    n_simulations: int


def likelihood_ratio(
    small: LawFit, large: LawFit, *, n_simulations: int = 299, generator: np.random.Generator
) -> LikelihoodRatio | None:
    """Does the larger law describe the points better than chance would have it? None when it leaves no degree
    of freedom.

    Data sets are simulated from the smaller fit with normal noise; both laws are fitted to each as they were
    to the points.
    """
    if large.degrees_of_freedom < 1:
        return None
    settings = Setting.of(small), _with_starts_of(large, small)
    observed = _ratio(settings, small.points.log_loss[None])[0]
    sigma = noise_scale(small)

    def ratios(n_sets: int) -> Array:
        data = simulated(small, small.theta, sigma=sigma, n_sets=n_sets, generator=generator)
        return _ratio(settings, data)

    if len(small.points) > MANY and n_simulations > FIRST_LOOK:
        null = ratios(FIRST_LOOK)
        reached = int((null >= observed).sum())
        if reached and reached < CLEAR * FIRST_LOOK:
            null = np.r_[null, ratios(n_simulations - FIRST_LOOK)]
        n_simulations = len(null)
    else:
        null = ratios(n_simulations)
    p_value = (1 + int((null >= observed).sum())) / (n_simulations + 1)
    return LikelihoodRatio(
        small.law.name,
        large.law.name,
        float(observed),
        float(np.quantile(null, 0.95)),
        p_value,
        n_simulations,
    )


def _ratio(settings: tuple[Setting, Setting], log_loss: Array) -> Array:
    """2 (F_small - F_large) / lambda of every data set, (B,), both under the threshold that the larger law
    asks for."""
    small, large = settings
    full = refit(large, log_loss, max_steps=FEW_STEPS)
    starts = np.broadcast_to(small.starts, (len(log_loss), *small.starts.shape))
    found = race(
        small.law,
        starts,
        z=small.z,
        log_loss=log_loss,
        weight=small.weight,
        delta=full.delta,
        spread=small.spread,
        keep=2,
        max_steps=FEW_STEPS,
    )
    return statistic(full, found.objective[:, 0])


def _with_starts_of(large: LawFit, small: LawFit) -> Setting:
    """The setting of the larger fit, started besides where it equals the smaller fit and its new terms take
    some share of the loss.

    Data of the smaller law have their optimum there, and the new exponent may be anywhere.
    """
    setting = Setting.of(large)
    law, names = large.law, small.law.param_names
    new = [k for k, t in enumerate(law.terms) if t.amplitude not in names]
    extra = []
    for share in NEW_SHARES:
        for exponent in NEW_EXPONENTS if any(law.slots[k] is not None for k in new) else (0.0,):
            theta = np.empty(law.n_parameters)
            for i, name in enumerate(law.param_names):
                if name in names:
                    theta[i] = small.theta[names.index(name)] + (np.log1p(-share) if i < law.n_terms else 0.0)
                else:
                    theta[i] = (
                        np.log(share / len(new)) + small.points.log_loss.mean()
                        if i < law.n_terms
                        else exponent
                    )
            extra.append(theta)
    return Setting(
        law, setting.z, setting.weight, setting.robust, np.vstack([extra, [m.theta for m in large.modes]])
    )
