"""Which terms of a fitted law the data support, and in what words to say that they do not.

A fit always returns numbers. A term's numbers may be printed as a result only if

- the lattice has at least `MIN_DEGREES_OF_FREEDOM` distinct (N, D) more than the law has parameters (seeds
  repeat a cell),
- the term carries a visible share of the loss somewhere on the lattice,
- the 95 % interval of its exponent stays clear of 0 (an exponent of 0 is a floor, not a power) and is no
  wider than 0.5,
- the scaled Fisher information is not singular: its condition number is below 1e5, or the term has no part in
  its weakest direction,
- a simulated likelihood-ratio test against the law without the term, where one was made, rejects that law at
  5 %.

On fifteen published (N, D) lattices the exponent of a free interaction went to 0 in thirteen: without these
gates a tool prints a gamma for each of them. The thresholds are conventions; they are constants here so that
a reader finds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.laws import MAX_EXPONENT, SYMBOLS, Array, Term, size_symbol

MIN_DEGREES_OF_FREEDOM = 3
MIN_EXPONENT = 0.01
"""A lower bound below this counts as 0: over three decades such a term changes by less than 7 %."""
MAX_WIDTH = 0.5
MIN_SHARE = 1e-3
MIN_FLOOR = 0.01
"""A floor whose lower bound is below this part of the smallest measured loss is not told apart from none."""
MAX_CONDITION = 1e5
WEAK_COMPONENT = 0.3
MAX_P_VALUE = 0.05

Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class TermVerdict:
    """Whether one term is identified; `text` is the sentence that reports print."""

    term: str
    identified: bool
    reasons: tuple[str, ...]
    text: str


def identify(
    fit: LawFit, intervals: Intervals | None, *, p_values: Mapping[str, float] | None = None
) -> tuple[TermVerdict, ...]:
    """A verdict for every term of the law, in its order. Without intervals (no degree of freedom) nothing is
    identified.

    Args:
        p_values: of the simulated likelihood-ratio tests against the laws without a term, by the term's name,
            where they were made.
    """
    condition, weakest = fisher_condition(fit)
    share = fit.law.log_loss(fit.theta, fit.z)[1].max(axis=0)
    verdicts = []
    for k, term in enumerate(fit.law.terms):
        reasons = []
        if fit.points.n_cells - fit.law.n_parameters < MIN_DEGREES_OF_FREEDOM:
            distinct = "C" if size_symbol(fit.law) == "C" else "(N, D)"
            reasons.append(f"{fit.points.n_cells} distinct {distinct} for {fit.law.n_parameters} parameters")
        if share[k] < MIN_SHARE:
            reasons.append(f"its amplitude {term.amplitude} vanishes")
        elif condition > MAX_CONDITION and weakest[k] > WEAK_COMPONENT:
            reasons.append(f"Fisher condition number {condition:.1e}")
        if intervals is None:
            reasons.append("no interval")
        else:
            reasons += _interval_reasons(term, intervals, smallest_loss=float(fit.points.loss.min()))
        p_value = (p_values or {}).get(term.name)
        if p_value is not None and p_value > MAX_P_VALUE:
            reasons.append(f"p = {p_value:.2g} against the law without it")
        verdicts.append(_verdict(term, fit, intervals, reasons))
    return tuple(verdicts)


def fisher_condition(fit: LawFit) -> tuple[float, Array]:
    """Condition number of J^T J with unit diagonal, and each term's part in its weakest direction, (K,), at
    most 1."""
    J = fit.jacobian * np.sqrt(fit.points.weights)[:, None]
    scaled = J / np.maximum(np.linalg.norm(J, axis=0), 1e-12)
    value, vector = np.linalg.eigh(scaled.T @ scaled)
    weak = np.abs(vector[:, 0]) / np.abs(vector[:, 0]).max()
    part = weak[: fit.law.n_terms].copy()
    for k, slot in enumerate(fit.law.slots):
        if slot is not None:
            part[k] = max(part[k], weak[slot])
    return float(value[-1] / max(value[0], 1e-300)), part


def _interval_reasons(term: Term, intervals: Intervals, *, smallest_loss: float) -> list[str]:
    if term.exponent is None:
        near_zero = intervals[term.amplitude][0] < MIN_FLOOR * smallest_loss
        return ["not told apart from no floor"] if near_zero else []
    low, high = intervals[term.exponent]
    reasons = []
    if low < MIN_EXPONENT:
        reach = "contains 0" if low <= 0 else f"reaches below {MIN_EXPONENT:g}"
        reasons.append(f"interval {reach}, so the term is not told apart from a floor")
    if high - low > MAX_WIDTH:
        reasons.append(f"interval wider than {MAX_WIDTH}")
    return reasons


def _verdict(term: Term, fit: LawFit, intervals: Intervals | None, reasons: list[str]) -> TermVerdict:
    name = term.exponent or term.amplitude
    symbol = SYMBOLS.get(name, name)
    limits = None if intervals is None else intervals[name]
    is_exponent = term.exponent is not None
    if reasons or limits is None:
        shown = f": {interval_text(limits, digits='.2g', exponent=is_exponent)}" if limits else ""
        return TermVerdict(
            term.name, False, tuple(reasons), f"{symbol} not identified{shown} ({'; '.join(reasons)})"
        )
    digits = ".2f" if term.exponent else ".3g"
    shown = interval_text(limits, digits=digits, exponent=is_exponent)
    return TermVerdict(term.name, True, (), f"{symbol} = {fit.params[name]:{digits}} {shown}")


def interval_text(limits: tuple[float, float], *, digits: str, exponent: bool = True) -> str:
    """[low, high]; an end at the largest exponent that fits look for is no measured limit and prints as
    such."""
    low, high = limits
    open_end = exponent and high >= MAX_EXPONENT
    top = "∞" if math.isinf(high) else f"≥ {MAX_EXPONENT:g}" if open_end else f"{high:{digits}}"
    return f"[{low:{digits}}, {top}]"
