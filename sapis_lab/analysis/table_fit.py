"""`sapis fit TABLE`: all laws on any table of N, D and loss, with forecasts, as plain data
(`report.laws_text` prints them).

Every law asked for is fitted; intervals, bootstraps and tests are made for those that count: the sums of
powers that were asked for, the chosen law, and every law with a weight of at least `MIN_WEIGHT` in the
forecast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sapis_lab.analysis.fit import LawFit, Points, Robust
from sapis_lab.analysis.forecast import Forecast, forecast
from sapis_lab.analysis.forms import FORMS
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS, STEP_LAWS, TIED_LAWS, law_named
from sapis_lab.analysis.misfit import Misfit, Noise, misfit, noise_trend, precisions
from sapis_lab.analysis.repeats import RepeatedFit, fit_repeated
from sapis_lab.analysis.result import (
    Effort,
    LawResult,
    detailed,
    fit_only,
    identifiability,
    law_json,
    plain,
    streams,
    tested,
)
from sapis_lab.analysis.selection import MANY, aicc, akaike_weights, select
from sapis_lab.analysis.table import Columns, Missing, PointTable, check_differ, read_points

SCHEMA = 1
MIN_WEIGHT = 0.02
"""Weight in the average at which a law is looked at closely."""
NEGLIGIBLE_WEIGHT = 1e-3
"""Weight below which a law has no part in a forecast."""
MOST_POINTS, CELLS, ROUNDS = 3000, 225, 4
"""Points beyond which laws are fitted to means over this many cells; rounds of a Huber mean."""
FIRST_LAWS = (*LAWS, "pnorm+e", "n+d+e:cross", "n+d+e:break-d")
"""Of which the best follows the bends within the cells."""
BRIEF = 200
"""Resamples and simulations for a law without a part in a forecast, of many points."""
MOST_NAMED = 6
"""Laws that one line names."""
NoiseModel = Literal["auto", "equal"]


@dataclass(frozen=True)
class Held:
    """One run that was left out, and its forecast."""

    loss: float
    forecast: Forecast

    @property
    def error(self) -> float:
        """ln(forecast / measured)."""
        return float(np.log(self.forecast.value / self.loss))

    @property
    def inside(self) -> bool:
        """The interval holds the measured loss."""
        return self.forecast.low <= self.loss <= self.forecast.high


@dataclass(frozen=True)
class TableFit:
    """Every law on the points of one table."""

    table: PointTable
    robust: Robust
    effort: Effort
    seed: int
    laws: dict[str, LawResult]
    weights: dict[str, float]
    """exp(-AICc/2) of each law, over their sum."""
    selected: str
    selection_note: str
    repeated: RepeatedFit | None
    """The selected law with repeated data, where the table has a column of epochs."""
    misfit: Misfit | None = None
    """Of the selected law."""
    noise: Noise | None = None
    """How the noise changes over the points, of the law with the smallest AICc."""
    weighted: bool = False
    """The points were weighted by that noise."""
    forecasts: tuple[Forecast, ...] = ()
    held: tuple[Held, ...] = ()
    conditions: tuple[str, ...] = ()
    """Which rows were left out."""
    n_rows: int = 0
    """Points before they were gathered into cells; 0 where they were not."""

    @property
    def fits(self) -> dict[str, LawFit]:
        """The laws that could be fitted."""
        return {name: r.fit for name, r in self.laws.items() if r.fit is not None}

    @property
    def averaged(self) -> dict[str, float]:
        """The laws that have a part in a forecast, with their weights; none where nothing is known of the
        noise."""
        return averaged_laws(self.fits, self.weights)

    @property
    def close(self) -> dict[str, LawResult]:
        """The laws that intervals were made for, by AICc."""
        scores = {name: aicc(fit) for name, fit in self.fits.items() if self.laws[name].verdicts}
        order = sorted(scores, key=lambda name: np.inf if (s := scores[name]) is None else s)
        return {name: self.laws[name] for name in order}


@dataclass(frozen=True)
class Questions:
    """What a table is asked besides its laws."""

    targets: tuple[tuple[float, ...], ...] = ()
    """N and D, or N, D and S, of runs to forecast."""
    hold_out: tuple[str, ...] = ()
    """Rows to leave out and forecast, such as `n>1.2e9`; a row that meets one of them is out."""
    noise: NoiseModel = "auto"


def law_names(text: str, *, compute: bool = False, steps: bool = False) -> list[str]:
    """The laws that an option names: `all`, `sums`, `tied`, or names with commas between them.

    Raises:
        ValueError: a law is not known, or is none of a column of compute.
    """
    if text == "all":
        return list(COMPUTE_LAWS if compute else STEP_LAWS | LAWS if steps else LAWS | TIED_LAWS | FORMS)
    groups = {"sums": LAWS, "tied": TIED_LAWS}
    names = (
        list(groups[text]) if text in groups else [law_named(name.strip()).name for name in text.split(",")]
    )
    for name in names:
        if name in STEP_LAWS and not steps:
            raise ValueError(f"law {name!r} is of steps, and no column of them is named (--steps)")
        if (name in COMPUTE_LAWS) != compute:
            wanted = ", ".join(COMPUTE_LAWS if compute else [*LAWS, *TIED_LAWS, *FORMS])
            raise ValueError(
                f"law {name!r} is no law of {'compute' if compute else 'N and D'}; wanted all or one of "
                f"{wanted}"
            )
    return list(dict.fromkeys(names))


def fit_table(
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
) -> TableFit:
    """Read a table (`missing` and `sheet` as in `read_points`) and fit every law to it.

    Args:
        told: is called with what is being done.

    Raises:
        ValueError: the table cannot be read, or no law can be fitted to it.
    """
    return fit_points_of(
        read_points(path, columns, missing=missing, sheet=sheet),
        laws=laws,
        robust=robust,
        effort=effort,
        seed=seed,
        questions=questions,
        told=told,
    )


def fit_points_of(
    table: PointTable,
    *,
    laws: Sequence[str],
    robust: Robust = "auto",
    effort: Effort | None = None,
    seed: int = 0,
    questions: Questions | None = None,
    told: Callable[[str], None] | None = None,
) -> TableFit:
    """Fit every law to the points of a table; see `fit_table`."""
    effort, questions, told = effort or Effort(all_tests=True), questions or Questions(), told or _silent
    out = left_out(table.points, questions.hold_out)
    inside = replace(table, points=table.points.take(~out), epochs=_taken(table.epochs, ~out))
    n_rows = len(inside.points)
    if n_rows > 1:
        check_differ(inside)
    _check_steps(inside, questions)
    if n_rows > MOST_POINTS and table.epochs is None and _alone(table.points):
        inside = replace(inside, points=gathered(inside.points))
    found, points, noise, weighted = _fitted(inside, laws, robust, questions.noise, told)
    fits = {name: r.fit for name, r in found.items() if r.fit is not None}
    selected, note = select(fits)
    if selected is None:
        raise ValueError(f"{table.path}: no law can be fitted: {_why_none(found, table.columns)}")
    weights = akaike_weights({name: aicc(f) for name, f in fits.items()}) or {selected: 1.0}

    close = _looked_at(found, weights, selected, len(inside.points), effort, seed, told)
    found = found | close
    part = averaged_laws(fits, weights)
    forecasts: list[Forecast] = []
    held: list[Held] = []
    if part:
        told("forecasts")
        forecasts = [forecast(fits, part, *target) for target in questions.targets]
        held = [
            Held(float(loss), forecast(fits, part, *sizes))
            for *sizes, loss in zip(*_sizes(table.points.take(out)), strict=True)
        ]
    elif questions.targets or out.any():
        raise ValueError(
            f"{table.path}: {len(points)} points leave no law a degree of freedom; a forecast needs more of "
            f"them"
        )
    return TableFit(
        inside,
        robust,
        effort,
        seed,
        found,
        weights,
        selected,
        note,
        _repeated(selected, inside, robust),
        misfit(fits[selected]),
        noise,
        weighted,
        tuple(forecasts),
        tuple(held),
        questions.hold_out,
        n_rows if n_rows != len(inside.points) else 0,
    )


def _check_steps(table: PointTable, questions: Questions) -> None:
    """ValueError where a forecast is of another number of training steps than the only one there is."""
    steps = table.points.steps
    if steps is None or np.ptp(steps):
        return
    for _, _, *of_steps in questions.targets:
        if any(wanted != steps[0] for wanted in of_steps):
            raise ValueError(
                f"{table.path}: all points have S = {steps[0]:.6g} training steps, which no law of steps can "
                f"be fitted to; --predict asks for S = {of_steps[0]:.6g}, wanted steps={steps[0]:.6g}"
            )


def _looked_at(
    found: Mapping[str, LawResult],
    weights: Mapping[str, float],
    selected: str,
    n_points: int,
    effort: Effort,
    seed: int,
    told: Callable[[str], None],
) -> dict[str, LawResult]:
    """The laws that count, with intervals and tests: sums, the chosen one, and those with a weight."""
    generator = streams(seed)
    brief = replace(effort, n_bootstrap=min(effort.n_bootstrap, BRIEF), n_test=min(effort.n_test, BRIEF))

    def of(name: str) -> Effort:
        """What a law is worth: of many points, one that is far from the best by all measures gets less."""
        far = n_points > MANY and weights.get(name, 1.0) < NEGLIGIBLE_WEIGHT and name != selected
        return brief if far else effort

    sums = LAWS | COMPUTE_LAWS | STEP_LAWS
    close: dict[str, LawResult] = {}
    for name, result in found.items():
        counts = name in sums or name == selected or weights.get(name, 0.0) >= MIN_WEIGHT
        if counts and result.fit is not None:
            told(f"intervals of {name}")
            close[name] = detailed(result.fit, effort=of(name), generator=generator(name))
    for name in close:
        told(f"tests of {name}")
        close[name] = tested(close[name], close, of(name), generator)
    return close


def _alone(points: Points) -> bool:
    """N and D say all about a point."""
    return points.group is None and points.steps is None


def gathered(points: Points) -> Points:
    """Means over cells of alike N and D, at most `CELLS` of them, with weights: what laws are fitted to when
    points are very many.

    ln L bends within a cell. So a first law is fitted to plain means, and the means are made again of what
    the points differ from it by. They are Huber's, so that runs which diverged do not move them.
    """
    x, y = np.log(points.n_params), np.log(points.n_frames)
    side = int(np.sqrt(CELLS))
    label = np.zeros(len(points), dtype=int)
    for v in (x, y):
        levels = np.unique(v)
        edges = levels[1:] if len(levels) <= side else np.linspace(v.min(), v.max(), side + 1)[1:-1]
        label = label * (side + 1) + np.searchsorted(edges, v, side="right")
    label = np.unique(label, return_inverse=True)[1]
    rough = _gathered(points, label, None)
    first = _best({name: fit_only(name, rough, robust="auto") for name in FIRST_LAWS})
    return rough if first is None else _gathered(points, label, first)


def _gathered(points: Points, label: np.ndarray, law: LawFit | None) -> Points:
    """Huber means of ln L over cells, those of the differences from a law where there is one."""
    x, y, w = np.log(points.n_params), np.log(points.n_frames), points.weights
    known = np.zeros(len(points)) if law is None else np.log(law.predict(points.n_params, points.n_frames))
    rest, part = points.log_loss - known, np.ones(len(points))
    mean = _means(rest, w, label)
    for _ in range(ROUNDS):
        r = np.abs(rest - mean[label]) * np.sqrt(w)
        limit = 1.345 * np.median(r) / 0.6745 + 1e-12
        part = np.minimum(1.0, limit / np.maximum(r, 1e-300))
        mean = _means(rest, w * part, label)
    weight = np.bincount(label, w * part)
    n, d = (np.exp(_means(v, w * part, label)) for v in (x, y))
    mean = mean if law is None else mean + np.log(law.predict(n, d))
    return Points(n, d, np.exp(mean), weight / weight.mean())


def _means(values: np.ndarray, weight: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.asarray(np.bincount(label, weight * values) / np.bincount(label, weight))


def _silent(_: str) -> None:
    return None


def _fitted(
    table: PointTable,
    laws: Sequence[str],
    robust: Robust,
    noise_model: NoiseModel,
    told: Callable[[str], None],
) -> tuple[dict[str, LawResult], Points, Noise | None, bool]:
    """Every law fitted, the points with the weights that were used, and what their noise is like."""

    def every(points: Points) -> dict[str, LawResult]:
        results = {}
        for name in laws:
            told(f"fitting {name}")
            results[name] = fit_only(name, points, robust=robust)
        return results

    points = table.points
    found = every(points)
    best = _best(found)
    noise = None if best is None else noise_trend(best)
    if (
        best is None
        or noise is None
        or noise_model == "equal"
        or points.weight is not None
        or not noise.unequal
    ):
        return found, points, noise, False
    points = replace(points, weight=precisions(best, noise))
    return every(points), points, noise, True


def _best(found: Mapping[str, LawResult]) -> LawFit | None:
    scored = [(score, r.fit) for r in found.values() if r.fit and (score := aicc(r.fit)) is not None]
    return min(scored, key=lambda pair: pair[0])[1] if scored else None


def averaged_laws(fits: Mapping[str, LawFit], weights: Mapping[str, float]) -> dict[str, float]:
    """The laws that have a part in a forecast, with their weights: none that is negligible, and none without
    a degree of freedom for the noise."""
    return {name: w for name, w in weights.items() if w >= NEGLIGIBLE_WEIGHT and _has_noise(fits[name])}


def _has_noise(fit: LawFit) -> bool:
    groups = fit.points.group
    return fit.degrees_of_freedom >= 1 and (groups is None or len(np.unique(groups)) > 1)


def together(lines: Iterable[tuple[str, str]]) -> list[str]:
    """`law: text` for each of the lines, in their order, with all laws of one text before it."""
    laws: dict[str, list[str]] = {}
    for law, text in lines:
        laws.setdefault(text, []).append(law)
    return [f"{listed(list(dict.fromkeys(names)))}: {text}" for text, names in laws.items()]


def listed(names: list[str]) -> str:
    """The names with commas between them; of more than `MOST_NAMED` the first ones and how many follow."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:4])} and {len(names) - 4} more"


def _why_none(found: Mapping[str, LawResult], columns: Columns) -> str:
    """Why there is no law, and which columns of the table need other values."""
    reasons = [(r.law, (r.why_not or "").removeprefix("not fitted: ")) for r in found.values()]
    names = vars(columns)
    lacking = dict.fromkeys(names[role] for r in found.values() for role in r.lacking)
    wanted = " or ".join(f"column {name!r}" for name in lacking)
    where = f"; more rows are needed, with other values in {wanted}" if lacking else ""
    return "; ".join(together(reasons)) + where


def _repeated(selected: str, table: PointTable, robust: Robust) -> RepeatedFit | None:
    if table.epochs is None or selected in FORMS:
        return None
    points, epochs = table.points, table.epochs
    try:
        return fit_repeated(selected, points.n_params, points.n_frames, epochs, points.loss, robust=robust)
    except ValueError as error:
        raise ValueError(f"{table.path}, column {table.columns.epochs!r}: {error}") from None


def _taken(values: np.ndarray | None, which: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[which]


def _sizes(points: Points) -> tuple[np.ndarray, ...]:
    steps = () if points.steps is None else (points.steps,)
    return points.n_params, points.n_frames, *steps, points.loss


_CONDITION = re.compile(r"\s*(nd|n|d|c|steps|loss)\s*(>=|<=|>|<)\s*(\S+)\s*", re.IGNORECASE)


def left_out(points: Points, conditions: Sequence[str]) -> np.ndarray:
    """Which points meet one of the conditions, (n,) bool.

    Raises:
        ValueError: a condition cannot be read, or leaves no point on one side.
    """
    out = np.zeros(len(points), dtype=bool)
    for text in conditions:
        match = _CONDITION.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            limit = float(match[3])
        except ValueError:
            raise ValueError(
                f"--hold-out {text!r}: wanted a condition on n, d, nd, c or loss, such as n>1.2e9"
            ) from None
        if match[1].lower() == "steps" and points.steps is None:
            raise ValueError(f"--hold-out {text!r}: no column of steps is named (--steps)")
        value = {
            "steps": points.steps if points.steps is not None else points.n_params,
            "n": points.n_params,
            "c": points.n_params,
            "d": points.n_frames,
            "nd": points.n_params * points.n_frames,
            "loss": points.loss,
        }[match[1].lower()]
        meets = {">": value > limit, ">=": value >= limit, "<": value < limit, "<=": value <= limit}[match[2]]
        if not meets.any():
            span = f"{match[1]} goes from {value.min():g} to {value.max():g}"
            raise ValueError(f"--hold-out {text!r}: no row is like that; {span}")
        out |= meets
    if out.all() and len(out):
        raise ValueError(f"--hold-out {', '.join(conditions)}: every row is left out, none to fit remains")
    return out


def forecast_json(found: Forecast) -> dict[str, Any]:
    """A forecast as plain data: the average, and each law with its weight."""
    return {
        "n": found.n_params,
        "d": found.n_frames,
        **({} if found.steps is None else {"steps": found.steps}),
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "law": "average",
        "laws": {
            name: {"value": f.value, "low": f.low, "high": f.high, "weight": found.weights[name]}
            for name, f in found.laws.items()
        },
        "distance": found.distance,
    }


def table_json(fits: TableFit) -> dict[str, Any]:
    """What `--json` writes; infinite ends of intervals are null."""
    table, repeated = fits.table, fits.repeated
    return plain(
        {
            "schema": SCHEMA,
            "file": str(table.path),
            "sha256": table.sha256,
            "columns": vars(table.columns),
            "n_points": fits.n_rows or len(table.points),
            "n_gathered": len(table.points) if fits.n_rows else None,
            "n_copies": table.n_copies,
            "n_dropped": table.n_dropped,
            "n_reduced": table.n_reduced,
            "n_cells": table.points.n_cells,
            "robust": fits.robust,
            "seed": fits.seed,
            "n_simulations": fits.effort.n_simulations,
            "laws": {name: law_json(result) for name, result in fits.laws.items()},
            "weights": fits.weights,
            "identifiability": identifiability(fits.close),
            "selected": fits.selected,
            "selection_note": fits.selection_note,
            "misfit": None
            if fits.misfit is None
            else vars(fits.misfit)
            | {"found": fits.misfit.found, "edges": [vars(e) | {"text": e.text} for e in fits.misfit.edges]},
            "noise": None
            if fits.noise is None
            else vars(fits.noise) | {"unequal": fits.noise.unequal, "weighted": fits.weighted},
            "forecast": [forecast_json(f) for f in fits.forecasts],
            "held_out": {
                "conditions": list(fits.conditions),
                "points": [
                    forecast_json(h.forecast) | {"loss": h.loss, "error": h.error, "inside": h.inside}
                    for h in fits.held
                ],
            },
            "repeated": None
            if repeated is None
            else {
                "law": repeated.fit.law.name,
                "params": repeated.fit.params | {"R_star": repeated.r_star},
                "intervals": repeated.intervals | {"R_star": repeated.r_star_interval},
                "open": {"R_star": repeated.r_star_open},
                "objective": repeated.fit.objective,
                "converged": repeated.fit.converged,
            },
        }
    )
