"""All that is said of a set of points: each law with intervals, verdicts, forecasts and tests, and which law
the points ask for."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sapis_lab.analysis.fit import LawFit, Points, Robust, TooFewPoints, fit_points
from sapis_lab.analysis.identify import TermVerdict, identify
from sapis_lab.analysis.laws import law_named
from sapis_lab.analysis.profile import Profile, degrees_of_freedom, profiles
from sapis_lab.analysis.selection import (
    HeldOut,
    LackOfFit,
    LeaveOneOut,
    LikelihoodRatio,
    aicc,
    blocks_of,
    hold_out_largest,
    lack_of_fit,
    leave_one_out,
    likelihood_ratio,
)
from sapis_lab.analysis.uncertainty import Bootstrap, Resampling, bootstrap, intervals

INTERACTION_TESTS = {"n+d+nd": "n+d", "n+d+nd+e": "n+d+e"}
"""The law without the interaction, for each law with it."""
FLOOR_TESTS = {"n+d+e": "n+d", "n+d+nd+e": "n+d+nd"}


@dataclass(frozen=True)
class LawResult:
    """One law for one set of points: either a fit with all that belongs to it, or why there is none."""

    law: str
    fit: LawFit | None = None
    profiles: dict[str, Profile] | None = None
    bootstrap: Bootstrap | None = None
    intervals: dict[str, tuple[float, float]] | None = None
    """95 % profile-likelihood intervals of all parameters; None where no degree of freedom is left."""
    verdicts: tuple[TermVerdict, ...] = ()
    loo: LeaveOneOut | None = None
    held_out: tuple[HeldOut | str, ...] = ()
    lack_of_fit: LackOfFit | None = None
    interaction: LikelihoodRatio | None = None
    """The test against the law without the interaction; made where it could change the verdict, or on
    request."""
    floor: LikelihoodRatio | None = None
    why_not: str | None = None
    lacking: tuple[str, ...] = ()
    """Of which the points must hold more values for a fit: n_params, n_frames."""

    @property
    def identified(self) -> bool:
        """Every term is identified."""
        return self.fit is not None and all(v.identified for v in self.verdicts)


@dataclass(frozen=True)
class Effort:
    """How much is computed for intervals and tests."""

    n_bootstrap: int = 1000
    resampling: Resampling = "residuals"
    n_simulations: int = 0
    """Data sets behind each critical value of a profile; 0 takes the F distribution."""
    n_test: int = 299
    """Data sets behind each likelihood-ratio test."""
    all_tests: bool = False
    """Test every nested pair, not only an interaction that all else identifies."""


def fit_laws(
    points: Points,
    laws: Sequence[str],
    *,
    robust: Robust = "auto",
    effort: Effort | None = None,
    seed: int = 0,
    stream: str = "",
) -> dict[str, LawResult]:
    """Every law on the same points. Random numbers depend on seed, stream and law alone: one law more moves
    no other interval."""
    effort, generator = effort or Effort(), streams(seed, stream)

    found = {
        law: fit_law(law, points, robust=robust, effort=effort, generator=generator(law)) for law in laws
    }
    return {law: tested(result, found, effort, generator) for law, result in found.items()}


def streams(seed: int, stream: str = "") -> Callable[[str], np.random.Generator]:
    """Random numbers by name: those of one law do not depend on which others are fitted."""

    def generator(what: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(f"{stream}/{what}".encode())])

    return generator


def fit_law(
    law: str, points: Points, *, robust: Robust, effort: Effort, generator: np.random.Generator
) -> LawResult:
    """One law on one set of points, with intervals and verdicts where the points allow them."""
    found = fit_only(law, points, robust=robust)
    return found if found.fit is None else detailed(found.fit, effort=effort, generator=generator)


def fit_only(law: str, points: Points, *, robust: Robust) -> LawResult:
    """One law fitted, without intervals."""
    try:
        return LawResult(law, fit_points(law_named(law), points, robust=robust))
    except TooFewPoints as error:
        return LawResult(law, why_not=f"not fitted: {error.reason}", lacking=error.lacking)
    except ValueError as error:
        return LawResult(law, why_not=f"not fitted: {error}")


def detailed(fitted: LawFit, *, effort: Effort, generator: np.random.Generator) -> LawResult:
    """All that belongs to a fit, but for the tests against smaller laws."""
    boot, curves, limits = None, None, None
    if fitted.degrees_of_freedom >= 1 and effort.n_bootstrap:
        boot = bootstrap(
            fitted, n_resamples=effort.n_bootstrap, resampling=effort.resampling, generator=generator
        )
    if degrees_of_freedom(fitted) >= 1:
        curves = profiles(fitted, n_simulations=effort.n_simulations, generator=generator)
        limits = {name: profile.interval for name, profile in curves.items()}
    return LawResult(
        fitted.law.name,
        fitted,
        curves,
        boot,
        limits,
        identify(fitted, limits),
        leave_one_out(fitted),
        tuple(hold_out_largest(fitted, block) for block in blocks_of(fitted.law)),
        lack_of_fit(fitted),
    )


def tested(result: LawResult, found: Mapping[str, LawResult], effort: Effort, generator: Any) -> LawResult:
    """The result with the tests against the smaller laws, and the interaction's verdict in their light."""
    if result.fit is None:
        return result
    tests: dict[str, LikelihoodRatio | None] = {"interaction": None, "floor": None}
    for kind, pairs in (("interaction", INTERACTION_TESTS), ("floor", FLOOR_TESTS)):
        smaller = found.get(pairs.get(result.law, ""))
        term = {"interaction": "nd", "floor": "e"}[kind]
        needed = (
            effort.all_tests
            or kind == "interaction"
            and any(v.identified for v in result.verdicts if v.term == term)
        )
        if smaller is not None and smaller.fit is not None and needed:
            stream = generator(f"{result.law}/{kind}")
            tests[kind] = likelihood_ratio(
                smaller.fit, result.fit, n_simulations=effort.n_test, generator=stream
            )
    p_values = {
        term: t.p_value for term, t in (("nd", tests["interaction"]), ("e", tests["floor"])) if t is not None
    }
    verdicts = identify(result.fit, result.intervals, p_values=p_values)
    return replace(result, verdicts=verdicts, interaction=tests["interaction"], floor=tests["floor"])


def law_json(result: LawResult) -> dict[str, Any]:
    """One law as plain data; infinite ends of intervals are left to the writer."""
    if result.fit is None:
        return {"why_not": result.why_not}
    fitted, boot, loo = result.fit, result.bootstrap, result.loo
    names = fitted.law.param_names
    return {
        "params": fitted.params,
        "intervals": result.intervals,
        "interval_kind": "profile",
        "open": None
        if result.profiles is None
        else {n: [p.open_low, p.open_high] for n, p in result.profiles.items()},
        "bootstrap_intervals": intervals(boot, names) if boot is not None and len(boot.params) else None,
        "resampling": boot.resampling if boot else None,
        "identified": {v.term: v.identified for v in result.verdicts},
        "notes": [v.text for v in result.verdicts],
        "objective": fitted.objective,
        "converged": fitted.converged,
        "message": fitted.message,
        "modes": [{"objective": m.objective, "params": m.params} for m in fitted.modes],
        "aicc": aicc(fitted),
        "loo": None if loo is None else loo.rmse,
        "held_out": [h if isinstance(h, str) else vars(h) for h in result.held_out],
        "lack_of_fit": None if result.lack_of_fit is None else vars(result.lack_of_fit),
        "interaction_test": None if result.interaction is None else vars(result.interaction),
        "floor_test": None if result.floor is None else vars(result.floor),
        "robust_delta": fitted.delta,
        "residual_sd_log": fitted.residual_sd,
        "n_points": len(fitted.points),
        "n_bootstrap": boot.n_resamples if boot else 0,
        "n_bootstrap_failed": boot.n_failed if boot else 0,
        "n_bootstrap_at_bound": boot.n_at_bound if boot else 0,
    }


def identifiability(results: Mapping[str, LawResult]) -> dict[str, dict[str, Any]]:
    """For every law, each term by its exponent (a floor by its amplitude): whether it is identified, why not,
    and the sentence."""
    return {
        law: {
            name: {"identified": v.identified, "reasons": list(v.reasons), "text": v.text}
            for v, name in zip(
                result.verdicts, (t.exponent or t.amplitude for t in result.fit.law.terms), strict=True
            )
        }
        for law, result in results.items()
        if result.fit is not None
    }


def plain(value: Any) -> Any:
    """JSON's own types, all the way down; non-finite numbers become null, since JSON has no others."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or isinstance(value, float) and not math.isfinite(value):
        return None
    return value
