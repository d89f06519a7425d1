"""`sapis fit TABLE --by COLUMN`: the laws of every group of rows (a model, say), and how exponents differ
between groups, as plain data (`report.groups_text` prints them).

Every group is fitted as a table of its own (`table_fit`). What compares groups is the common law, the one
with the lowest sum of AICc among those fitted to all of them: exponents of different laws are not the same
quantity. Beside the tests of pairs (`exponents`) stands one of all groups at once for each exponent
(`common_exponent`), and, where a number belongs to each group, such as l_max, a line through the exponents:

    s_g = a + b x_g,   weights 1 / sigma_g^2,   sigma_g = (high - low) / (sqrt(cut_low) + sqrt(cut_high)),

with the ends and critical values of the profile interval of s_g. The variances are taken as known;
where the exponents scatter about the line by more than they allow, the error of b is widened by
sqrt(chi^2 / (groups - 2)) (Birge 1932), and never made smaller.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sapis_lab.analysis.common_exponent import N_SIMULATIONS, CommonExponentTest, common_exponent_test
from sapis_lab.analysis.exponents import ExponentTest, common_law, exponent_tests
from sapis_lab.analysis.fit import Robust
from sapis_lab.analysis.laws import law_named
from sapis_lab.analysis.profile import degrees_of_freedom
from sapis_lab.analysis.result import Effort, LawResult, detailed, plain
from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table import Columns, Missing, PointTable, read_groups
from sapis_lab.analysis.table_fit import Questions, TableFit, fit_points_of, table_json

LEVEL = 0.95
LEAST_IN_A_TREND = 3
"""Groups below which a line has nothing to be tested against."""


@dataclass(frozen=True)
class GroupExponent:
    """One exponent of the common law in one group, with its 95 % profile interval."""

    group: str
    exponent: str
    value: float
    low: float
    high: float
    identified: bool
    closed: bool
    """The interval ends on both sides."""
    error: float
    """Its standard error: the width of the interval in units of its critical values; inf where it is open."""
    dof: int
    """Degrees of freedom of the noise of the group."""
    against: float | None
    """The number of the group."""


@dataclass(frozen=True)
class Trend:
    """An exponent against the number of its group: value = intercept + slope x."""

    exponent: str
    slope: float
    low: float
    high: float
    """The 95 % interval of the slope."""
    p_value: float
    """Of no slope."""
    intercept: float
    scatter: float
    """sqrt(chi^2 / (groups - 2)) about the line; above 1 the interval is wider by it."""
    groups: tuple[str, ...]
    """Those with a closed interval of the exponent."""


@dataclass(frozen=True)
class GroupsFit:
    """Every group of a table, and what compares them."""

    path: Path
    columns: Columns
    groups: dict[str, TableFit]
    left_out: dict[str, str]
    """Groups that no law could be fitted to, with the reasons."""
    common: str
    """The law that exponents are compared under."""
    exponents: tuple[GroupExponent, ...]
    pairwise: tuple[ExponentTest, ...]
    common_exponent: tuple[CommonExponentTest, ...]
    trends: tuple[Trend, ...]
    no_trend: dict[str, str]
    """Exponents without a line, with the reasons; empty where no column of numbers is named."""

    def common_result(self, group: str) -> LawResult:
        """The common law on the points of a group."""
        return self.groups[group].laws[self.common]


def fit_table_groups(
    path: Path,
    columns: Columns,
    *,
    laws: Sequence[str],
    robust: Robust = "auto",
    effort: Effort | None = None,
    seed: int = 0,
    missing: Missing = "refuse",
    sheet: str | None = None,
    questions: Questions | None = None,
    told: Callable[[str], None] | None = None,
) -> GroupsFit:
    """Read a table (`missing` and `sheet` as in `read_points`) and fit every group of its rows.

    Raises:
        ValueError: the table cannot be read, or fewer than two groups can be fitted.
    """
    return fit_groups(
        read_groups(path, columns, missing=missing, sheet=sheet),
        laws=laws,
        robust=robust,
        effort=effort,
        seed=seed,
        questions=questions,
        told=told,
    )


def fit_groups(
    tables: Mapping[str, PointTable],
    *,
    laws: Sequence[str],
    robust: Robust = "auto",
    effort: Effort | None = None,
    seed: int = 0,
    questions: Questions | None = None,
    n_simulations: int = N_SIMULATIONS,
    told: Callable[[str], None] | None = None,
) -> GroupsFit:
    """Fit every group; see `fit_table` for the rest.

    Args:
        tables: the points of each group, as `read_groups` gives them.   n_simulations: data sets behind each
            test of a common exponent.

    Raises:
        ValueError: fewer than two groups can be fitted, or no law to all of them.
    """
    effort = effort or Effort(all_tests=True)
    say = told or (lambda _: None)
    fits, left_out = _each(
        tables, laws=laws, robust=robust, effort=effort, seed=seed, questions=questions, say=say
    )
    first = next(iter(tables.values()))
    where = f"{first.path}, column {first.columns.by!r}"
    if len(fits) < 2:
        reasons = "".join(f"; {name}: {reason}" for name, reason in left_out.items())
        raise ValueError(
            f"{where}: {len(fits)} of {len(tables)} groups can be fitted, wanted at least 2 to compare"
            f"{reasons}"
        )
    law = common_law({name: fit.laws for name, fit in fits.items()}, needed="fit")
    if law is None:
        raise ValueError(f"{where}: no law could be fitted to all of {', '.join(fits)}")

    def generator(what: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(f"groups/{what}".encode())])

    for name, fit in fits.items():
        if fit.laws[law].profiles is None:
            say(f"{name}: intervals of {law}")
            fits[name] = _with_intervals(fit, law, effort, generator(name))
    exponents = law_named(law).exponent_names
    each = {name: fit.fits[law] for name, fit in fits.items()}
    tests = []
    for exponent in exponents:
        say(f"common {exponent}")
        tests.append(
            common_exponent_test(each, exponent, n_simulations=n_simulations, generator=generator(exponent))
        )
    found = tuple(_exponents(fits, law))
    lines = {e: trend([g for g in found if g.exponent == e]) for e in exponents}
    if first.columns.against is None:
        lines = {}
    return GroupsFit(
        first.path,
        first.columns,
        fits,
        left_out,
        law,
        found,
        exponent_tests({name: {law: fit.laws[law]} for name, fit in fits.items()}),
        tuple(tests),
        tuple(line for line in lines.values() if isinstance(line, Trend)),
        {name: line for name, line in lines.items() if isinstance(line, str)},
    )


def _each(
    tables: Mapping[str, PointTable], *, say: Callable[[str], None], **how: Any
) -> tuple[dict[str, TableFit], dict[str, str]]:
    """The groups that could be fitted with a degree of freedom to spare, and why the others could not."""
    fits, left_out = {}, {}
    for name, table in tables.items():
        try:
            fit = fit_points_of(table, told=_about(name, say), **how)
        except ValueError as error:
            left_out[name] = str(error).removeprefix(f"{table.path}: ")
            continue
        if not any(aicc(f) is not None and degrees_of_freedom(f) >= 1 for f in fit.fits.values()):
            runs = "" if table.points.group is None else f" of {len(np.unique(table.points.group))} runs"
            left_out[name] = f"{len(table.points)} points{runs} are too few to know the noise about any law"
            continue
        fits[name] = fit
    return fits, left_out


def _about(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: say(f"{name}: {text}")


def _with_intervals(fit: TableFit, law: str, effort: Effort, generator: np.random.Generator) -> TableFit:
    found = detailed(fit.fits[law], effort=replace(effort, n_bootstrap=0), generator=generator)
    return replace(fit, laws=fit.laws | {law: found})


def _exponents(fits: Mapping[str, TableFit], law: str) -> list[GroupExponent]:
    found = []
    for name, table_fit in fits.items():
        result = table_fit.laws[law]
        assert result.fit is not None and result.profiles is not None
        identified = {v.term: v.identified for v in result.verdicts}
        for exponent in result.fit.law.exponent_names:
            profile = result.profiles[exponent]
            closed = not (profile.open_low or profile.open_high)
            width = (profile.high - profile.low) / np.sqrt(profile.cuts).sum()
            terms = [t.name for t in result.fit.law.terms if t.exponent == exponent]
            found.append(
                GroupExponent(
                    name,
                    exponent,
                    result.fit.params[exponent],
                    profile.low,
                    profile.high,
                    all(identified[term] for term in terms),
                    closed,
                    float(width) if closed else np.inf,
                    degrees_of_freedom(result.fit),
                    table_fit.table.against,
                )
            )
    return found


def trend(exponents: Sequence[GroupExponent]) -> Trend | str:
    """The line through one exponent of the groups against their numbers, or why there is none."""
    used = [e for e in exponents if e.closed and e.error > 0 and e.against is not None]
    x = np.array([e.against for e in used], dtype=float)
    if len(np.unique(x)) < LEAST_IN_A_TREND:
        return (
            f"a line needs at least {LEAST_IN_A_TREND} groups with different numbers and closed intervals, "
            f"got {len(np.unique(x))}"
        )
    y, weight = np.array([e.value for e in used]), np.array([e.error for e in used]) ** -2.0
    middle = float((weight * x).sum() / weight.sum())
    spread = float((weight * (x - middle) ** 2).sum())
    slope = float((weight * (x - middle) * y).sum() / spread)
    intercept = float((weight * y).sum() / weight.sum()) - slope * middle
    chi2 = float((weight * (y - intercept - slope * x) ** 2).sum())
    scatter = float(np.sqrt(chi2 / (len(used) - 2)))
    # what the groups scatter by beyond their errors is known from the groups alone, however many runs each
    # has (Hartung & Knapp 2001)
    error, dof = (
        max(scatter, 1.0) / np.sqrt(spread),
        len(used) - 2 if scatter > 1 else sum(e.dof for e in used),
    )
    half = float(stats.t.ppf(0.5 + LEVEL / 2, dof)) * error
    p_value = float(2.0 * stats.t.sf(abs(slope) / error, dof))
    return Trend(
        used[0].exponent,
        slope,
        slope - half,
        slope + half,
        p_value,
        intercept,
        scatter,
        tuple(e.group for e in used),
    )


def groups_json(found: GroupsFit) -> dict[str, Any]:
    """What `--json` writes of groups; infinite ends of intervals are null."""
    return plain(
        {
            "schema": 1,
            "file": str(found.path),
            "columns": vars(found.columns),
            "groups": {
                name: table_json(fit) | {"against": fit.table.against} for name, fit in found.groups.items()
            },
            "left_out": found.left_out,
            "common_law": found.common,
            "exponents": [vars(e) for e in found.exponents],
            "pairwise": [vars(t) for t in found.pairwise],
            "common_exponent": [vars(t) for t in found.common_exponent],
            "trend": [vars(t) | {"against": found.columns.against} for t in found.trends],
            "no_trend": found.no_trend,
        }
    )
