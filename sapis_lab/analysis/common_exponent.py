"""Do groups of points share one exponent, whatever their other parameters are? One test for all groups.

Under the hypothesis the exponent has one value v in every group and all else is free; the statistic is

    S = min_v sum_g T_g(v),   T_g(v) = 2 (F_g(v) - F_g) / lambda_g,

with T_g the profile statistic of group g (`refit`), each group judged by its own noise. For many points S is
a chi-square of one less than the number of groups; here its distribution is simulated: data sets of every
group from the fits with the common exponent, with normal noise, all fitted again freely and with a common
exponent (parametric bootstrap; Davison & Hinkley 1997, section 4.2.3), so that few points, Huber's thresholds
and an exponent that cannot be negative are in it. Where runs err together T_g is divided as in `profile`.

The minimum lies between the smallest and the largest of the free exponents. It is looked for on a grid there,
on a finer one about the best value, and where a parabola has it; T is fitted exactly at each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.laws import Array, Law
from sapis_lab.analysis.profile import own_refit, variance_inflation
from sapis_lab.analysis.refit import (
    FEW_STEPS,
    Refits,
    Setting,
    constrained,
    noise_scale,
    refit,
    simulated,
    statistic,
)

N_COARSE, N_FINE = 7, 5
N_SIMULATIONS = 199


@dataclass(frozen=True)
class CommonExponentTest:
    """The hypothesis that an exponent is the same in all groups."""

    law: str
    exponent: str
    value: float
    """The common exponent that describes the groups best."""
    statistic: float
    critical: float
    """Its 95 % point in simulated data of groups with that exponent."""
    p_value: float
    n_groups: int
    n_simulations: int


@dataclass(frozen=True)
class _Group:
    """One group's data sets, B of them, all fitted freely."""

    setting: Setting
    refits: Refits
    inflation: float

    def constrained(self, position: int, value: Array) -> tuple[Array, Array]:
        """T, (B, V), and optima, (B, V, p), with the exponent at each of these values, (B, V)."""
        B, V = value.shape
        law, z = self.setting.law, self.setting.z
        batch = _repeated(self.refits, V)
        at = value.reshape(-1)
        # along its profile the other parameters follow, to first order, as the curvature says
        W = np.ones(len(z)) if self.refits.weight is None else self.refits.weight
        J = law.jacobian(self.refits.theta, z) * np.sqrt(W)[..., None]
        scale = np.maximum(np.linalg.norm(J, axis=1), 1e-12)
        J = J / scale[:, None]
        inverse = np.linalg.pinv(np.einsum("bni,bnj->bij", J, J), rcond=1e-10)[:, :, position]
        direction = inverse / scale / np.maximum(inverse[:, [position]] / scale[:, [position]], 1e-300)
        follow = batch.theta + np.repeat(direction, V, axis=0) * (at - batch.theta[:, position])[:, None]
        lower, upper = law.bounds(self.refits.log_loss.mean(axis=0), z)
        found = constrained(
            self.setting,
            batch,
            position=position,
            value=at,
            starts=np.clip(follow, lower, upper)[:, None],
            max_steps=FEW_STEPS,
        )
        T = statistic(batch, found.objective).reshape(B, V) / self.inflation
        return T, found.theta.reshape(B, V, -1)


def common_exponent_test(
    fits: Mapping[str, LawFit],
    exponent: str,
    *,
    n_simulations: int = N_SIMULATIONS,
    generator: np.random.Generator,
) -> CommonExponentTest:
    """The test of one exponent of a law that all groups are fitted with.

    Raises:
        ValueError: there are fewer than two groups, their laws differ, or one leaves no degree of freedom.
    """
    each = list(fits.values())
    law = _checked(fits)
    position = law.param_names.index(exponent)
    settings = [Setting.scouted(fit) for fit in each]
    groups = [
        _Group(
            setting,
            own_refit(fit),
            float(variance_inflation(fit, np.eye(law.n_parameters))[position]),
        )
        for fit, setting in zip(each, settings, strict=True)
    ]
    value, observed = _least(groups, position)
    null: list[_Group] = []
    for fit, group in zip(each, groups, strict=True):
        truth = group.constrained(position, value[:, None])[1][0, 0]
        data = simulated(fit, truth, sigma=noise_scale(fit), n_sets=n_simulations, generator=generator)
        starts = np.broadcast_to(truth, (n_simulations, 1, law.n_parameters))
        again = refit(group.setting, data, starts=starts, max_steps=FEW_STEPS)
        null.append(_Group(group.setting, again, 1.0))
    simulated_statistic = _least(null, position)[1]
    reached = int((simulated_statistic >= observed[0]).sum())
    return CommonExponentTest(
        law.name,
        exponent,
        float(value[0]),
        float(observed[0]),
        float(np.quantile(simulated_statistic, 0.95)),
        (1 + reached) / (n_simulations + 1),
        len(each),
        n_simulations,
    )


def _checked(fits: Mapping[str, LawFit]) -> Law:
    names = list(fits)
    if len(names) < 2:
        raise ValueError(f"a common exponent needs at least 2 groups, got {len(names)}")
    laws = {fit.law.name for fit in fits.values()}
    if len(laws) > 1:
        raise ValueError(f"groups must be fitted with one law, got {', '.join(sorted(laws))}")
    few = [name for name, fit in fits.items() if fit.degrees_of_freedom < 1]
    if few:
        raise ValueError(f"no degree of freedom is left in {', '.join(few)}; leave such groups out")
    return fits[names[0]].law


def _least(groups: Sequence[_Group], position: int) -> tuple[Array, Array]:
    """The common value with the least sum of T, and that sum, (B,) each."""

    def total(value: Array) -> Array:
        return np.sum([group.constrained(position, value)[0] for group in groups], axis=0)

    free = np.stack([group.refits.theta[:, position] for group in groups])
    low, high = free.min(axis=0), free.max(axis=0)
    rows = np.arange(len(low))
    v = _between(low, high, N_COARSE)
    S = total(v)
    k = S.argmin(axis=1)
    fine = _between(v[rows, np.maximum(k - 1, 0)], v[rows, np.minimum(k + 1, N_COARSE - 1)], N_FINE)
    v, S = np.concatenate([v, fine], axis=1), np.concatenate([S, total(fine)], axis=1)
    order = np.argsort(v, axis=1, kind="stable")
    v, S = np.take_along_axis(v, order, axis=1), np.take_along_axis(S, order, axis=1)
    last = _vertex(v, S)[:, None]
    v, S = np.concatenate([v, last], axis=1), np.concatenate([S, total(last)], axis=1)
    k = S.argmin(axis=1)
    return v[rows, k], S[rows, k]


def _between(low: Array, high: Array, n: int) -> Array:
    return low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, n)


def _vertex(v: Array, S: Array) -> Array:
    """Where the parabola through the least value and its neighbours is least, (B,), v ascending."""
    rows, k = np.arange(len(v)), S.argmin(axis=1)
    # the fine grid repeats values of the coarse one: neighbours must differ
    left = np.where(v < v[rows, k][:, None], v, -np.inf).argmax(axis=1)
    right = np.where(v > v[rows, k][:, None], v, np.inf).argmin(axis=1)
    a, b, c = v[rows, left], v[rows, k], v[rows, right]
    fa, fb, fc = S[rows, left], S[rows, k], S[rows, right]
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * ((b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa))
        at = b - shift / ((b - a) * (fb - fc) - (b - c) * (fb - fa))
    inside = np.isfinite(at) & (at > a) & (at < c) & (a < b) & (b < c)
    return np.where(inside, at, b)


def _repeated(refits: Refits, n: int) -> Refits:
    """Each data set n times, one after the other."""
    together = refits.weight is None or refits.weight.ndim == 1
    return Refits(
        **{
            name: value if name == "weight" and together else np.repeat(value, n, axis=0)
            for name, value in vars(refits).items()
        }
    )
