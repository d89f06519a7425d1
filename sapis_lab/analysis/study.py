"""From the runs table of a study to its answers: laws with intervals and verdicts per model, comparisons, costs.

The table has one row a point. Rows that failed, or that finished without a usable loss, are carried along and listed; they never
enter a fit. A model with too few points for a law gets a sentence instead of numbers, so a half-finished study can be read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sapis_lab.analysis.compare import CELL, CellRatios, Comparison, compare, cost_table, default_reference
from sapis_lab.analysis.fit import LawFit, Points, Robust
from sapis_lab.analysis.result import Effort, LawResult, fit_laws, law_json, plain
from sapis_lab.analysis.selection import select
from sapis_lab.config import write_text
from sapis_lab.quantities import Quantity
from sapis_lab.quantities import quantity as quantity_named

SCHEMA = 1
FLOOR_LAW = "n+d+e"
RATE_CELL = ["n_params_target", "n_frames"]
REQUIRED = ["id", "status", "failure", "model", "family", "lmax", "n_params", "learning_rate", *CELL]
COSTS = ["flops_train", "flops_inference_per_frame", "cpu_seconds_train", "seconds_train"]


@dataclass(frozen=True)
class ModelAnalysis:
    """All about one model of the study."""

    name: str
    family: str
    runs: pd.DataFrame
    """Its usable rows."""
    laws: dict[str, LawResult]
    selected: str | None
    """The law chosen by AICc; None when none could be fitted."""
    selection_note: str
    floor: LawResult
    floor_note: str

    @property
    def chosen(self) -> LawResult | None:
        return self.laws[self.selected] if self.selected else None

    @property
    def fit(self) -> LawFit | None:
        """The fit of the chosen law."""
        return self.chosen.fit if self.chosen else None

    @property
    def identifiability(self) -> list[str]:
        """What the reports print: one line for every term of every law, or why a law is missing."""
        lines = []
        for result in self.laws.values():
            if result.fit is None:
                lines.append(f"{result.law}: {result.why_not}")
            lines += [f"{result.law}: {v.text}" for v in result.verdicts]
        return lines


@dataclass(frozen=True)
class StudyAnalysis:
    """Everything that figures and reports say about a runs table."""

    quantity: Quantity
    law_default: str
    runs: pd.DataFrame
    """The whole table."""
    done: pd.DataFrame
    """Rows that enter fits and comparisons."""
    failed: pd.DataFrame
    """Rows left out; `failure` always holds the reason."""
    n_other_rates: int
    """Finished rows set aside because another learning rate was chosen for their (model, N, D)."""
    models: dict[str, ModelAnalysis]
    reference: str | None
    comparisons: tuple[Comparison, ...]
    costs: pd.DataFrame

    @property
    def sha256(self) -> str:
        """Identity of the numbers used: sha256 over id, model, N, D and loss of every usable row, ordered by id."""
        columns = ["id", "model", "n_params", "n_frames", self.quantity.key]
        rows = self.done[columns].sort_values("id").itertuples(index=False)
        text = "\n".join(f"{i},{m},{int(n)},{int(d)},{float(loss)!r}" for i, m, n, d, loss in rows)
        return hashlib.sha256(text.encode()).hexdigest()


def analyse(
    runs: pd.DataFrame,
    *,
    quantity: str = "val_force_rmse",
    laws: Sequence[str] = ("n+d", "n+d+nd"),
    n_bootstrap: int = 1000,
    n_simulations: int = 0,
    robust: Robust = "auto",
    reference: str | None = None,
    seed: int = 0,
) -> StudyAnalysis:
    """Fit every law to every model of a runs table and compare the models.

    Args:
        runs: one row a point, the columns of `records`.   quantity: the loss, a key of `quantities`.
        n_bootstrap: resamples behind every band.   n_simulations: data sets behind each end of an interval; 0 takes the F distribution.
        reference: the model others are divided by; the largest-l_max geat when not given. While it has no finished point, nothing
            is compared.

    Raises:
        ValueError: columns are missing, or ids repeat.
    """
    measured = quantity_named(quantity)
    runs = _checked(runs, quantity)
    finished, failed = split_failed(runs, quantity)
    done = best_rates(finished, quantity)
    reference = reference or default_reference(done)
    if reference not in set(done["model"]):
        reference = None
    effort = Effort(n_bootstrap=n_bootstrap, n_simulations=n_simulations)
    models = {
        name: _analyse_model(name, rows, done[done["model"] == name], measured, laws, effort, robust, seed)
        for name, rows in runs.groupby("model", sort=False)
    }
    return StudyAnalysis(
        quantity=measured,
        law_default=laws[0],
        runs=runs,
        done=done,
        failed=failed,
        n_other_rates=len(finished) - len(done),
        models=models,
        reference=reference,
        comparisons=compare(done, quantity=quantity, reference=reference) if reference else (),
        costs=cost_table(done, quantity=quantity),
    )


def split_failed(runs: pd.DataFrame, quantity: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Usable rows, and the others with a reason in `failure`. A loss must be finite and positive to have a logarithm."""
    loss = pd.to_numeric(runs[quantity])
    finished = runs["status"] == "done"
    usable = finished & np.isfinite(loss.astype(float)) & (loss > 0)
    failed = runs[~usable].copy()
    unusable = [f"finished, but {quantity} = {value}" for value in failed[quantity]]
    reason = failed["failure"].astype(object).where(failed["failure"].notna(), "no reason recorded")
    failed["failure"] = np.where(failed["status"] == "done", unusable, reason)
    return runs[usable].copy(), failed


def best_rates(done: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of one learning rate for every (model, N target, D), where a lattice holds several.

    Rates are no repeats of a point: averaging over them would fit how badly the worst rate does. The rate is chosen once for all seeds
    (the best of each seed would be a minimum over noise), by its mean error over them on validation frames, also when the law is
    fitted to a test error. A rate at which fewer seeds finished than at another is not chosen: it would be judged by its lucky ones.

    Raises:
        ValueError: there are several rates, and the column of the validation error is missing.
    """
    cell = ["model", *RATE_CELL]
    if (done.groupby(cell)["learning_rate"].nunique() <= 1).all():
        return done
    test = re.fullmatch(r"test(?:_[A-Za-z0-9]+?)?_((?:force|energy)_\w+)", quantity)
    judge = f"val_{test[1]}" if test else quantity
    if judge not in done:
        raise ValueError(f"the runs table holds several learning rates but no {judge}, by which one of them is chosen; rebuild the table")
    rates = done.groupby([*cell, "learning_rate"], sort=False, as_index=False).agg(n=(judge, "count"), error=(judge, "mean"))
    best = rates.sort_values(["n", "error"], ascending=[False, True], kind="stable").drop_duplicates(cell)
    chosen = pd.MultiIndex.from_frame(best[[*cell, "learning_rate"]])
    return done[pd.MultiIndex.from_frame(done[[*cell, "learning_rate"]]).isin(chosen)]


def _checked(runs: pd.DataFrame, quantity: str) -> pd.DataFrame:
    missing = [c for c in [*REQUIRED, *COSTS, quantity] if c not in runs]
    if missing:
        raise ValueError(f"the runs table lacks the columns {', '.join(missing)}; rebuild it from the records of the study")
    repeated = runs["id"][runs["id"].duplicated()].tolist()
    if repeated:
        raise ValueError(f"the runs table repeats the ids {', '.join(map(str, repeated[:5]))}; a point is one row")
    return runs.reset_index(drop=True)


def _analyse_model(
    name: str, rows: pd.DataFrame, done: pd.DataFrame, quantity: Quantity, laws: Sequence[str], effort: Effort, robust: Robust, seed: int
) -> ModelAnalysis:
    points = Points(*(done[c].to_numpy(dtype=float) for c in ("n_params", "n_frames", quantity.key)))
    wanted = dict.fromkeys([*laws, FLOOR_LAW])
    # The random stream depends on what is fitted alone: adding a model or a law to a study moves no other interval.
    every = fit_laws(points, list(wanted), robust=robust, effort=effort, seed=seed, stream=name)
    results, floor = {law: every[law] for law in laws}, every[FLOOR_LAW]
    selected, note = select({law: r.fit for law, r in results.items() if r.fit is not None})
    return ModelAnalysis(
        name=name,
        family=str(rows["family"].iloc[0]),
        runs=done,
        laws=results,
        selected=selected,
        selection_note=note,
        floor=floor,
        floor_note=_floor_note(floor, quantity),
    )


def _floor_note(floor: LawResult, quantity: Quantity) -> str:
    """How far a floor could spoil extrapolation: it is the one error that a small lattice cannot see."""
    if floor.fit is None or floor.intervals is None:
        return f"A floor was not examined: {floor.why_not or 'no degree of freedom for ' + FLOOR_LAW}."
    low, high = (quantity.display_factor * e for e in floor.intervals["E"])
    unit = quantity.display_unit or quantity.unit
    if next(v for v in floor.verdicts if v.term == "e").identified:
        return f"With a floor (law {FLOOR_LAW}) E = [{low:.3g}, {high:.3g}] {unit}; a law without one is too hopeful beyond this lattice."
    return f"The points allow a floor of up to {high:.3g} {unit} (law {FLOOR_LAW}); beyond this lattice the loss may flatten there."


# ----------------------------------------------------------------------------------------------------------- fit.json


def fit_json(analysis: StudyAnalysis) -> dict[str, Any]:
    """The analysis as plain data: what `fit.json` holds and the report reads."""
    return {
        "schema": SCHEMA,
        "quantity": analysis.quantity.key,
        "unit": analysis.quantity.unit,
        "law_default": analysis.law_default,
        "table": {
            "n_rows": len(analysis.runs),
            "n_done": len(analysis.done) + analysis.n_other_rates,
            "n_failed": len(analysis.failed),
            "n_other_rates": analysis.n_other_rates,
            "sha256": analysis.sha256,
        },
        "models": {name: _model_json(model) for name, model in analysis.models.items()},
        "reference": analysis.reference,
        "comparisons": [_comparison_json(c) for c in analysis.comparisons],
        "costs": analysis.costs.to_dict(orient="records"),
        "failed": analysis.failed[["id", "model", "failure"]].to_dict(orient="records"),
    }


def write_fit_json(analysis: StudyAnalysis, path: Path) -> None:
    """Write `fit.json` in one step; non-finite numbers become null, since JSON has no others."""
    write_text(path, json.dumps(plain(fit_json(analysis)), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _model_json(model: ModelAnalysis) -> dict[str, Any]:
    return {
        "family": model.family,
        "n_points": len(model.runs),
        "laws": {name: law_json(result) for name, result in model.laws.items()},
        "selected": model.selected,
        "selection_note": model.selection_note,
        "identifiability": model.identifiability,
        "floor_band_note": model.floor_note,
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    named = {
        "loss": comparison.loss,
        "accuracy_per_flop_train": comparison.accuracy_per_flop_train,
        "accuracy_per_flop_inference": comparison.accuracy_per_flop_inference,
        "cpu_seconds_train": comparison.cpu_seconds_train,
    }
    return {"model": comparison.model, "reference": comparison.reference} | {key: _ratios_json(r) for key, r in named.items()}


def _ratios_json(ratios: CellRatios | None) -> dict[str, Any] | None:
    if ratios is None:
        return None
    return {
        "geometric_mean": ratios.geometric_mean,
        "range": ratios.range,
        "n_cells": ratios.n_cells,
        "cells": ratios.cells.to_dict(orient="records"),
    }
