"""Rules of the best learning rate and batch size from any table of a sweep:

    rate = kappa N^lambda D^mu,   batch = kappa N^lambda D^mu.

One row is one run with its N, D, rate, error, and batch size where that was swept, too. Runs of the same N
and D are a cell. An error that is empty, NaN, infinite or a word such as `diverged` marks a run that broke
down. Rules are those of `sapis_lab.analysis.regime`, with what following them costs in every cell,

    ln L(rule) - ln L(optimum) = delta . H delta / 2,   delta = ln(rule / optimum),

H the curvature of the cell's bowl.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sapis_lab.analysis.bowl import LEAST, Bowls, Sweep
from sapis_lab.analysis.regime import ModelRule, Optimum, PowerRule, contrasts, find_optima
from sapis_lab.analysis.table import ALIKE, check_distinct, copies, positive_column
from sapis_lab.analysis.table_formats import frame_of, table_bytes
from sapis_lab.analysis.table_numbers import label_column, named_column, number_column
from sapis_lab.analysis.weighted import WeightedFit

Array = NDArray[np.float64]

FORMAT = 1
DIVERGED = {"", "nan", "inf", "+inf", "infinity", "none", "null", "na", "n/a", "-", "diverged", "failed"}
"""What stands for the error of a run that broke down, in lower case."""
BROKEN = "nothing, nan, inf or diverged mark a run that broke down"
LEAST_VALUES = 3
"""Different values of a setting in a cell without which it has no bowl."""
ROLES = {
    "n_params": "N",
    "n_frames": "D",
    "learning_rate": "the rate",
    "batch_size": "the batch size",
    "loss": "the loss",
    "model": "the models",
}
"""How messages call the columns."""
ALL = "all runs"
"""The label where no column names the model."""


@dataclass(frozen=True)
class SweepColumns:
    """Names of the columns of a table."""

    n_params: str
    n_frames: str
    learning_rate: str
    loss: str
    batch_size: str | None = None
    model: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The columns of what a rule is wanted for, by setting."""
        names = {"learning_rate": self.learning_rate}
        return names | ({"batch_size": self.batch_size} if self.batch_size else {})


@dataclass(frozen=True)
class SweepTable:
    """The runs of a table, cell by cell."""

    path: Path
    columns: SweepColumns
    sha256: str
    models: dict[str, tuple[Sweep, ...]]
    n_runs: int
    n_diverged: int
    n_copies: int
    """Rows that say again what an earlier one says, and count as nothing."""
    left_out: tuple[str, ...]
    """Cells with too few runs or values for a bowl, and why."""


@dataclass(frozen=True)
class Prediction:
    """A rule's value at one N and D."""

    n_params: float
    n_frames: float
    value: float
    interval: tuple[float, float] | None
    """95 %, of the rule; single optima scatter about it by tau."""
    beyond: dict[str, float]
    """By n_params and n_frames: the factor by which they lie beyond the cells; 1 within."""


@dataclass(frozen=True)
class ModelFit:
    """The rules of one model of a table."""

    model: str
    sweeps: tuple[Sweep, ...]
    rules: dict[str, PowerRule]
    """By setting."""
    fits: dict[str, WeightedFit]
    bowls: Bowls | None
    penalties: tuple[float | None, ...]
    """By cell: the error at the rule over that at the optimum, minus 1; None where there is no bowl."""

    @property
    def rule(self) -> ModelRule:
        """As a study takes it."""
        return ModelRule(self.model, self.model, self.rules)

    def predict(self, setting: str, n_params: float, n_frames: float) -> Prediction:
        """The value of a setting's rule."""
        optima = self.rules[setting].optima
        sizes = {k: np.array([getattr(o, k) for o in optima], float) for k in ("n_params", "n_frames")}
        middle, _ = contrasts(sizes["n_params"], sizes["n_frames"])
        logs = {"n_exponent": math.log(n_params), "d_exponent": math.log(n_frames)}
        row = np.array([1.0, *(logs[name] - m for name, m in middle.items())])
        limits = self.fits[setting].interval(row)
        asked = {"n_params": n_params, "n_frames": n_frames}
        return Prediction(
            n_params,
            n_frames,
            math.exp(self.fits[setting].value(row)),
            None if limits is None else (math.exp(limits[0]), math.exp(limits[1])),
            {k: float(max(asked[k] / v.max(), v.min() / asked[k], 1.0)) for k, v in sizes.items()},
        )


@dataclass(frozen=True)
class RuleFits:
    """The rules of a table."""

    table: SweepTable
    models: dict[str, ModelFit]


# ------------------------------------------------------------------------------------------------- the table


def read_sweep(path: Path, columns: SweepColumns) -> SweepTable:
    """The runs of a table.

    Raises:
        ValueError: a column or an entry cannot be read, or no cell has enough runs; the message names it.
    """
    path = Path(path)
    data = table_bytes(path)
    frame, sha256 = frame_of(data, path), hashlib.sha256(data).hexdigest()
    named = {role: name for role, name in asdict(columns).items() if name is not None}
    for role, name in named.items():
        named_column(frame, name, path, role=ROLES.get(role, role))
    check_distinct({role: name for role, name in named.items() if role != "model"}, path, ROLES)
    if frame.empty:
        raise ValueError(f"{path}: the table has no rows")
    numbers = {
        name: positive_column(frame, name, path)
        for role, name in named.items()
        if role not in ("loss", "model")
    }
    loss = _losses(frame, path, columns.loss)
    first = ~copies(frame, numbers | {columns.loss: loss})
    label = label_column(frame, columns.model, path) if columns.model else np.full(len(frame), ALL)
    runs = pd.DataFrame({"model": label, **{role: numbers[n] for role, n in named.items() if n in numbers}})
    runs = runs.assign(loss=loss)[first]
    models, left_out = {}, []
    for model, rows in runs.groupby("model", sort=False):
        sweeps = []
        for (n, d), cell in rows.groupby(["n_params", "n_frames"]):
            sweep, why = _sweep(float(n), float(d), cell, columns)
            if why:
                left_out.append(f"{'' if model == ALL else f'{model}, '}N = {n:.6g}, D = {d:.6g}: {why}")
            else:
                sweeps.append(sweep)
        if not sweeps:
            some = left_out[-1]
            raise ValueError(f"{path}: no cell of {model} has enough runs for a bowl; for example {some}")
        _check_differ(sweeps, path, columns.loss, str(model))
        models[str(model)] = tuple(sweeps)
    diverged = int(np.isnan(runs["loss"]).sum())
    return SweepTable(
        path, columns, sha256, models, len(runs), diverged, int((~first).sum()), tuple(left_out)
    )


def _check_differ(sweeps: list[Sweep], path: Path, column: str, model: str) -> None:
    """ValueError where no setting makes a difference."""
    span = max(float(np.ptp(np.log(sweep.loss))) for sweep in sweeps)
    if span < ALIKE:
        raise ValueError(
            f"{path}, column {column!r}: the losses of {model} are alike within {span:.1g} in each of "
            f"{len(sweeps)} cells, whatever the setting; a best setting needs losses that differ"
        )


def _losses(frame: pd.DataFrame, path: Path, name: str) -> Array:
    """Errors, NaN for runs that broke down."""
    column = frame[name]
    text = column.astype(str).str.strip().str.lower()
    broken = column.isna() | text.isin(DIVERGED)
    if broken.all():
        return np.full(len(column), np.nan)
    rest = frame.assign(**{name: column.astype(object).mask(broken, "")})
    return number_column(rest, name, path, role="the error", empty="nan", advice=BROKEN)


def _sweep(n: float, d: float, cell: pd.DataFrame, columns: SweepColumns) -> tuple[Sweep, str]:
    x, loss = np.log(cell[list(columns.settings)].to_numpy(float)), cell["loss"].to_numpy(float)
    ended = np.isfinite(loss)
    sweep = Sweep(n, d, x[ended], loss[ended], x[~ended])
    if not ended.any():
        return sweep, f"none of its {len(loss)} runs has a number in column {columns.loss!r}"
    for k, name in enumerate(columns.settings.values()):
        values = len(np.unique(sweep.x[:, k].round(9)))
        if values < LEAST_VALUES:
            what = f"{values} different value{'' if values == 1 else 's'}"
            return (
                sweep,
                f"column {name!r} has {what} among the finished runs, wanted at least {LEAST_VALUES}",
            )
    if len(sweep.loss) < LEAST[x.shape[1]]:
        return sweep, f"{len(sweep.loss)} finished runs, wanted at least {LEAST[x.shape[1]]}"
    return sweep, ""


# --------------------------------------------------------------------------------------------------- the fit


def fit_rule_table(path: Path, columns: SweepColumns, *, seed: int = 0) -> RuleFits:
    """The rules of every model of a table.

    Raises:
        ValueError: the table cannot be read, or its cells identify no rule.
    """
    sweeps = read_sweep(path, columns)
    generator = np.random.default_rng(seed)
    models = {}
    for model, cells in sweeps.models.items():
        found = find_optima(cells)
        rules, fits = {}, {}
        for k, name in enumerate(columns.settings):
            try:
                rules[name], fits[name] = found.rule(k, generator=generator)
            except ValueError as error:
                where = f"columns {columns.n_params!r} and {columns.n_frames!r}"
                raise ValueError(f"{sweeps.path}, {where}: {model}: {error}") from None
            _check_inside(rules[name], sweeps.path, columns.settings[name], model)
        penalties = tuple(_penalty(found.bowls, i, cell, rules) for i, cell in enumerate(cells))
        models[model] = ModelFit(model, cells, rules, fits, found.bowls, penalties)
    return RuleFits(sweeps, models)


def _check_inside(rule: PowerRule, path: Path, column: str, model: str) -> None:
    """ValueError where every cell's best run lies at the edge of its search, so that no minimum is seen."""
    optima = rule.optima
    if all(o.method == "best trial" and at_edge(o) for o in optima):
        best = sorted({f"{o.value:.4g}" for o in optima}, key=float)
        where = best[0] if len(best) == 1 else f"{best[0]} to {best[-1]}"
        cells = "the one cell" if len(optima) == 1 else f"all {len(optima)} cells"
        raise ValueError(
            f"{path}, column {column!r}: in {cells} of {model} the best run lies at the edge of what was "
            f"tried ({where}), so that no minimum is seen; widen the search there"
        )


def _penalty(bowls: Bowls | None, i: int, cell: Sweep, rules: dict[str, PowerRule]) -> float | None:
    if bowls is None or any(rule.optima[i].method == "best trial" for rule in rules.values()):
        return None
    at = np.log([rule.at(cell.n_params, cell.n_frames) for rule in rules.values()])
    delta = at - bowls.bowls[i].optimum
    return math.expm1(min(float(delta @ bowls.bowls[i].hessian @ delta) / 2, 50.0))


# ---------------------------------------------------------------------------------------------------- as JSON


def rules_json(fits: RuleFits, predictions: dict[str, dict[str, list[Prediction]]]) -> dict[str, Any]:
    """All numbers, with no NaN in them. `predictions` by model and setting."""
    source = fits.table
    return {
        "format": FORMAT,
        "table": str(source.path),
        "sha256": source.sha256,
        "columns": asdict(source.columns),
        "n_runs": source.n_runs,
        "n_diverged": source.n_diverged,
        "n_copies": source.n_copies,
        "left_out": list(source.left_out),
        "models": {name: _model_json(m, predictions.get(name, {})) for name, m in fits.models.items()},
    }


def _model_json(m: ModelFit, predictions: dict[str, list[Prediction]]) -> dict[str, Any]:
    known = [p for p in m.penalties if p is not None]
    noise = None
    if m.bowls is not None:
        noise = {
            "sd_ln_loss": m.bowls.noise,
            "dof": m.bowls.noise_dof,
            "from_repeats": m.bowls.from_repeats,
        }
    return {
        "rules": {name: asdict(rule) for name, rule in m.rules.items()},
        "noise": noise,
        "fits": []
        if m.bowls is None
        else [{"depth": t, "freedom": f, "weight": w} for (t, f), w in m.bowls.weights.items()],
        "cells": [
            {
                "n_params": s.n_params,
                "n_frames": s.n_frames,
                "n_runs": len(s.loss),
                "n_diverged": len(s.failed),
                "penalty": p,
                "hessian": None if m.bowls is None else m.bowls.bowls[i].hessian.tolist(),
            }
            for i, (s, p) in enumerate(zip(m.sweeps, m.penalties, strict=True))
        ],
        "penalty": {"worst": max(known), "median": float(np.median(known))} if known else None,
        "predictions": {name: [asdict(p) for p in some] for name, some in predictions.items()},
    }


def at_edge(o: Optimum) -> bool:
    """The optimum lies at or beyond the edge of what was tried."""
    return "edge" in o.note or "outside" in o.note
