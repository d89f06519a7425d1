"""Do exponents differ between models? Pairwise tests from the profiles of two fits, corrected for their
number.

Two models have one common exponent v where T_1(v) + T_2(v) is least; that least value is the statistic of the
hypothesis of equal exponents, and is judged as F with 1 and dof_1 + dof_2 degrees of freedom. Each T is first
divided by its calibrated critical value over that of F, on the side where the other exponent lies, so that a
test of one exponent against a known number has the level of its interval. P-values are corrected by the
method of Holm (1979): ascending p_(i) becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1.

All models are described by one law, the one with the lowest sum of AICc: exponents of different laws are not
the same quantity. An exponent is tested only between models whose intervals of it are closed and exclude 0;
how wide they are is in the test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sapis_lab.analysis.identify import MIN_EXPONENT
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.profile import Profile, degrees_of_freedom
from sapis_lab.analysis.result import LawResult
from sapis_lab.analysis.selection import aicc

LEVEL = 0.95
N_VALUES = 2001


@dataclass(frozen=True)
class ExponentTest:
    """The hypothesis that two models have one exponent."""

    law: str
    exponent: str
    model: str
    other: str
    difference: float
    """Exponent of `model` minus that of `other`."""
    low: float
    high: float
    """Its 95 % interval, from those of the two exponents (Zou & Donner 2008)."""
    statistic: float
    p_value: float
    p_holm: float
    """Corrected for all tests of the study."""


def common_law(
    models: Mapping[str, Mapping[str, LawResult]], *, needed: Literal["profiles", "fit"] = "profiles"
) -> str | None:
    """The law with the lowest sum of AICc among those fitted to every model (with profiles, where they are
    needed); the first one where AICc is undefined."""
    shared = [
        law
        for law in next(iter(models.values()), {})
        if all(law in m and getattr(m[law], needed) for m in models.values())
    ]
    known: dict[str, float] = {}
    for law in shared:
        scores = [aicc(fit) for m in models.values() if (fit := m[law].fit) is not None]
        if None not in scores:
            known[law] = sum(score for score in scores if score is not None)
    return min(known, key=lambda law: known[law]) if known else next(iter(shared), None)


def exponent_tests(models: Mapping[str, Mapping[str, LawResult]]) -> tuple[ExponentTest, ...]:
    """Every pair of models, every exponent that both have measured.

    Args:
        models: the laws fitted to each model, by name of the model and of the law.
    """
    law = common_law(models)
    if law is None:
        return ()
    found = []
    for one, two in itertools.combinations(models, 2):
        a, b = models[one][law], models[two][law]
        assert a.fit is not None and b.fit is not None and a.profiles and b.profiles
        for name in a.fit.law.exponent_names:
            pair = a.profiles[name], b.profiles[name]
            if any(p.open_low or p.open_high or p.low < MIN_EXPONENT for p in pair):
                continue
            dof = degrees_of_freedom(a.fit), degrees_of_freedom(b.fit)
            best = a.fit.params[name], b.fit.params[name]
            T = equality_statistic(pair, best, dof)
            found.append(
                (
                    law,
                    name,
                    one,
                    two,
                    best[0] - best[1],
                    *difference_interval(pair, best),
                    T,
                    float(stats.f.sf(T, 1, sum(dof))),
                )
            )
    corrected = holm([row[-1] for row in found])
    return tuple(ExponentTest(*row, p) for row, p in zip(found, corrected, strict=True))


def equality_statistic(
    profiles: tuple[Profile, Profile], best: tuple[float, float], dof: tuple[int, int]
) -> float:
    """min_v T_1(v) + T_2(v), each scaled to the critical value of F at its end towards the other.

    Args:
        best: the exponents of the two fits, where their profiles are 0.
    """
    v = np.linspace(min(best), max(best), N_VALUES)
    total = np.zeros(N_VALUES)
    for profile, mine, other, n in zip(profiles, best, best[::-1], dof, strict=True):
        cut = profile.cuts[0] if other < mine else profile.cuts[1]
        total += signed_root(profile, mine)(v) ** 2 * float(stats.f.ppf(LEVEL, 1, n)) / cut
    return float(total.min())


def difference_interval(profiles: tuple[Profile, Profile], best: tuple[float, float]) -> tuple[float, float]:
    """The interval of best[0] - best[1]: the distances of the ends of the two intervals from their centres
    add as squares."""
    (a, b), d = profiles, best[0] - best[1]
    low = d - np.hypot(best[0] - a.low, b.high - best[1])
    high = d + np.hypot(a.high - best[0], best[1] - b.low)
    return float(low), float(high)


def signed_root(profile: Profile, best: float) -> Callable[[Array], Array]:
    """v -> +-sqrt(T(v)), interpolated between the values of the profile: nearly straight, which T is not."""
    closed = [
        (end, cut)
        for end, cut, still_open in zip(profile.interval, profile.cuts, _open(profile), strict=True)
        if not still_open
    ]
    value = np.r_[profile.value, best, [end for end, _ in closed]]
    root = np.sqrt(np.maximum(np.r_[profile.statistic, 0.0, [cut for _, cut in closed]], 0.0)) * np.sign(
        value - best
    )
    order = np.argsort(value, kind="stable")

    def at(v: Array) -> Array:
        return np.interp(v, value[order], root[order])

    return at


def _open(profile: Profile) -> tuple[bool, bool]:
    return profile.open_low, profile.open_high


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given."""
    m, order = len(p_values), np.argsort(p_values, kind="stable")
    factor = np.arange(m, 0, -1)
    raised = np.minimum(np.maximum.accumulate(factor * np.asarray(p_values, dtype=float)[order]), 1.0)
    result = np.empty(m)
    result[order] = raised
    return result.tolist()
