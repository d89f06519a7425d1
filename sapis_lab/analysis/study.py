"""From the runs table of a study to its answers: laws with intervals and verdicts per model, comparisons,
costs.

The table has one row a point. Rows that failed, or that finished without a usable loss, are carried along and
listed; they never enter a fit. A model with too few points for a law gets a sentence instead of numbers, so a
half-finished study can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sapis_lab.analysis.allocation import Allocation, allocation
from sapis_lab.analysis.compare import (
    CELL,
    CellRatios,
    Comparison,
    compare,
    cost_table,
    default_reference,
)
from sapis_lab.analysis.efficiency import EqualError, equal_error, reach
from sapis_lab.analysis.exponents import ExponentTest, exponent_tests
from sapis_lab.analysis.fit import LawFit, Points, Robust
from sapis_lab.analysis.forecast import Forecast, forecast
from sapis_lab.analysis.identify import MIN_FLOOR
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.result import Effort, LawResult, fit_laws, law_json, plain
from sapis_lab.analysis.selection import aicc, akaike_weights, select
from sapis_lab.analysis.table_fit import averaged_laws, forecast_json
from sapis_lab.analysis.uncertainty import band, floor_band
from sapis_lab.files import write_text
from sapis_lab.quantities import Quantity
from sapis_lab.quantities import quantity as quantity_named
from sapis_lab.targets import ENERGY_MAE, LOSS

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
    allocation: Allocation

    @property
    def chosen(self) -> LawResult | None:
        return self.laws[self.selected] if self.selected else None

    @property
    def fit(self) -> LawFit | None:
        """The fit of the chosen law."""
        return self.chosen.fit if self.chosen else None

    @property
    def floor_open(self) -> bool:
        """The chosen law has no floor, and the points do not exclude one: bands then include the law with a
        floor."""
        return floor_open(self.chosen, self.floor)

    def band(self, n_params: ArrayLike, n_frames: ArrayLike) -> tuple[Array, Array] | None:
        """95 % band of the chosen law in the unit of the loss, with the floor's where `floor_open`; None
        without a bootstrap."""
        if self.chosen is None or self.fit is None or self.chosen.bootstrap is None:
            return None
        if self.floor_open and self.floor.fit is not None and self.floor.bootstrap is not None:
            return floor_band(
                self.fit, self.chosen.bootstrap, self.floor.fit, self.floor.bootstrap, n_params, n_frames
            )
        return band(self.fit, self.chosen.bootstrap, n_params, n_frames)

    def forecast(self, n_params: float, n_frames: float) -> Forecast | str:
        """A run at N and D with its noise, by every law that was fitted and averaged over them by their
        Akaike weights, as `sapis fit TABLE --predict` forecasts it; or a sentence on why there is none."""
        results = self.laws | {self.floor.law: self.floor}
        fits = {name: r.fit for name, r in results.items() if r.fit is not None}
        if not fits or self.selected is None:
            why = (next(iter(results.values())).why_not or "").removeprefix("not fitted: ")
            return f"no law could be fitted to {_points(len(self.runs))}: {why}"
        weights = akaike_weights({name: aicc(fit) for name, fit in fits.items()}) or {self.selected: 1.0}
        part = averaged_laws(fits, weights)
        if not part:
            return (
                f"{_points(len(self.runs))} leave no law a degree of freedom to know the noise from; "
                f"a forecast needs more of them"
            )
        return forecast(fits, part, n_params, n_frames)

    def forecast_twice(self) -> Forecast | str:
        """The forecast at twice the largest N and twice the largest D of the finished points."""
        if not len(self.runs):
            return "no point has finished"
        return self.forecast(*(2.0 * float(self.runs[size].max()) for size in ("n_params", "n_frames")))

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
    efficiency: tuple[EqualError, ...]
    """Every other model's cost over that of the reference at equal error, for the loss and for the energy
    MAE."""
    exponent_tests: tuple[ExponentTest, ...]
    history: pd.DataFrame | None = None
    """Decisions of the adaptive scaler, one row a step (`scale/history.csv` of the results folder)."""

    @property
    def sha256(self) -> str:
        """Identity of the numbers used: sha256 over id, model, N, D and loss of every usable row, ordered by
        id."""
        columns = ["id", "model", "n_params", "n_frames", self.quantity.key]
        rows = self.done[columns].sort_values("id").itertuples(index=False)
        text = "\n".join(f"{i},{m},{int(n)},{int(d)},{float(loss)!r}" for i, m, n, d, loss in rows)
        return hashlib.sha256(text.encode()).hexdigest()


def analyse(
    runs: pd.DataFrame,
    *,
    quantity: str = LOSS,
    laws: Sequence[str] = ("n+d", "n+d+nd"),
    n_bootstrap: int = 1000,
    n_simulations: int = 0,
    robust: Robust = "auto",
    reference: str | None = None,
    label_flops: float = 0.0,
    seed: int = 0,
) -> StudyAnalysis:
    """Fit every law to every model of a runs table and compare the models.

    Args:
        runs: one row a point, the columns of `records`.   quantity: the loss, a key of `quantities`.
        n_bootstrap: resamples behind every band.   n_simulations: data sets behind each end of an interval; 0
        takes the F distribution. reference: the model others are divided by; the largest-l_max geat when not
        given. While it has no finished point, nothing
            is compared.
        label_flops: cost of making one labelled frame, which counts in the split of a budget.

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
        name: _analyse_model(
            name, rows, done[done["model"] == name], measured, laws, effort, robust, label_flops, seed
        )
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
        efficiency=_efficiency(models, reference, quantity, laws, robust, seed),
        exponent_tests=exponent_tests(
            {name: model.laws for name, model in models.items() if len(model.runs)}
        ),
    )


def split_failed(runs: pd.DataFrame, quantity: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Usable rows, and the others with a reason in `failure`. A loss must be finite and positive to have a
    logarithm."""
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

    Rates are no repeats of a point: averaging over them would fit how badly the worst rate does. The rate is
    chosen once for all seeds (the best of each seed would be a minimum over noise), by its mean error over
    them on validation frames, also when the law is fitted to an error on other frames or to what an
    evaluation measures. A rate at which fewer seeds finished than at another is not chosen: it would be
    judged by its lucky ones.

    Raises:
        ValueError: there are several rates, and the column of the validation error is missing.
    """
    cell = ["model", *RATE_CELL]
    if (done.groupby(cell)["learning_rate"].nunique() <= 1).all():
        return done
    measured = quantity_named(quantity)
    judge = LOSS if measured.evaluation else measured.on_validation
    if judge not in done:
        raise ValueError(
            f"the runs table holds several learning rates but no {judge}, by which one of them is chosen; "
            f"rebuild the table"
        )
    rates = done.groupby([*cell, "learning_rate"], sort=False, as_index=False).agg(
        n=(judge, "count"), error=(judge, "mean")
    )
    best = rates.sort_values(["n", "error"], ascending=[False, True], kind="stable").drop_duplicates(cell)
    chosen = pd.MultiIndex.from_frame(best[[*cell, "learning_rate"]])
    return done[pd.MultiIndex.from_frame(done[[*cell, "learning_rate"]]).isin(chosen)]


def _checked(runs: pd.DataFrame, quantity: str) -> pd.DataFrame:
    missing = [c for c in [*REQUIRED, *COSTS, quantity] if c not in runs]
    if missing == [quantity] and quantity_named(quantity).split == "train":
        raise ValueError(
            f"the runs table has no {quantity}: its points finished before errors on training frames were "
            f"recorded, or did not learn it; train them again, or take another quantity"
        )
    if missing:
        raise ValueError(
            f"the runs table lacks the columns {', '.join(missing)}; rebuild it from the records of the study"
        )
    repeated = runs["id"][runs["id"].duplicated()].tolist()
    if repeated:
        raise ValueError(
            f"the runs table repeats the ids {', '.join(map(str, repeated[:5]))}; a point is one row"
        )
    return runs.reset_index(drop=True)


def floor_open(chosen: LawResult | None, floor: LawResult) -> bool:
    """The chosen law has no floor, and one of more than a hundredth of the smallest loss is not excluded."""
    if chosen is None or chosen.fit is None or "E" in chosen.fit.law.param_names:
        return False
    if (
        floor.fit is None
        or floor.intervals is None
        or floor.bootstrap is None
        or len(floor.bootstrap.params) < 2
    ):
        return False
    return floor.intervals["E"][1] > MIN_FLOOR * float(floor.fit.points.loss.min())


def _efficiency(
    models: dict[str, ModelAnalysis],
    reference: str | None,
    quantity: str,
    laws: Sequence[str],
    robust: Robust,
    seed: int,
) -> tuple[EqualError, ...]:
    """Every model against the reference at equal error: the study's loss by the laws at hand, the energy MAE
    by its own."""
    found: list[EqualError] = []
    for error in dict.fromkeys((quantity, ENERGY_MAE)):
        reached = {}
        for name, model in models.items():
            if (
                reference is None
                or error not in model.runs
                or model.fit is None
                or model.chosen is None
                or model.chosen.bootstrap is None
            ):
                continue
            fitted = (model.fit, model.chosen.bootstrap) if error == quantity else None
            reached[name] = reach(
                model.runs, quantity=error, laws=laws, robust=robust, seed=seed, fitted=fitted
            )
        base = reached.get(reference or "")
        if base is not None:
            others = [r for name, r in reached.items() if r is not None and name != reference]
            found += [ratio for other in others for ratio in equal_error(other, base, quantity=error)]
    return tuple(found)


def _analyse_model(
    name: str,
    rows: pd.DataFrame,
    done: pd.DataFrame,
    quantity: Quantity,
    laws: Sequence[str],
    effort: Effort,
    robust: Robust,
    label_flops: float,
    seed: int,
) -> ModelAnalysis:
    points = Points(*(done[c].to_numpy(dtype=float) for c in ("n_params", "n_frames", quantity.key)))
    wanted = dict.fromkeys([*laws, FLOOR_LAW])
    # The random stream depends on what is fitted alone: adding a model or a law to a study moves no other
    # interval.
    every = fit_laws(points, list(wanted), robust=robust, effort=effort, seed=seed, stream=name)
    every = {law: _advised(result) for law, result in every.items()}
    results, floor = {law: every[law] for law in laws}, every[FLOOR_LAW]
    selected, note = select({law: r.fit for law, r in results.items() if r.fit is not None})
    chosen = results[selected] if selected else None
    return ModelAnalysis(
        name=name,
        family=str(rows["family"].iloc[0]),
        runs=done,
        laws=results,
        selected=selected,
        selection_note=note,
        floor=floor,
        floor_note=_floor_note(floor, quantity),
        allocation=allocation(done, chosen, floor, floor_open=floor_open(chosen, floor), label=label_flops),
    )


def _advised(result: LawResult) -> LawResult:
    """Where points lack, which setting of the study makes more."""
    if not result.lacking:
        return result
    keys = " or ".join(f"lattice.{name}" for name in result.lacking)
    return replace(result, why_not=f"{result.why_not}; widen {keys}")


def _floor_note(floor: LawResult, quantity: Quantity) -> str:
    """How far a floor could spoil extrapolation: it is the one error that a small lattice cannot see."""
    if floor.fit is None or floor.intervals is None:
        return f"A floor was not examined: {floor.why_not or 'no degree of freedom for ' + FLOOR_LAW}."
    low, high = (quantity.display_factor * e for e in floor.intervals["E"])
    unit = quantity.display_unit or quantity.unit
    if next(v for v in floor.verdicts if v.term == "e").identified:
        return (
            f"With a floor (law {FLOOR_LAW}) E = [{low:.3g}, {high:.3g}] {unit}; a law without one is too "
            f"hopeful beyond this lattice."
        )
    return (
        f"The points allow a floor of up to {high:.3g} {unit} (law {FLOOR_LAW}); beyond this lattice the "
        f"loss may flatten there."
    )


# --------------------------------------------------------------------------------------------------- fit.json


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
        "equal_error": [_equal_error_json(e) for e in analysis.efficiency],
        "exponent_tests": [vars(test) for test in analysis.exponent_tests],
        "costs": analysis.costs.to_dict(orient="records"),
        "failed": analysis.failed[["id", "model", "failure"]].to_dict(orient="records"),
    }


def write_fit_json(analysis: StudyAnalysis, path: Path) -> None:
    """Write `fit.json` in one step; non-finite numbers become null, since JSON has no others."""
    write_text(
        path, json.dumps(plain(fit_json(analysis)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _model_json(model: ModelAnalysis) -> dict[str, Any]:
    return {
        "family": model.family,
        "n_points": len(model.runs),
        "laws": {name: law_json(result) for name, result in model.laws.items()},
        "selected": model.selected,
        "selection_note": model.selection_note,
        "identifiability": model.identifiability,
        "floor_band_note": model.floor_note,
        "floor_open": model.floor_open,
        "forecast": _forecast_json(model),
        "run_forecast": _run_forecast_json(model),
        "optimum": _optimum_json(model.allocation),
    }


def _forecast_json(model: ModelAnalysis) -> dict[str, Any] | None:
    """The loss at twice the largest N and D of the model: by the chosen law, its band, and the band that
    includes a floor."""
    if model.fit is None or model.chosen is None or model.chosen.bootstrap is None:
        return None
    N, D = 2 * float(model.runs["n_params"].max()), 2 * float(model.runs["n_frames"].max())
    own, whole = band(model.fit, model.chosen.bootstrap, N, D), model.band(N, D)
    assert whole is not None
    return {
        "n_params": N,
        "n_frames": D,
        "loss": float(model.fit.predict(N, D)),
        "interval": [float(v) for v in own],
        "interval_with_floor": [float(v) for v in whole] if model.floor_open else None,
    }


def _points(n: int) -> str:
    return "1 point" if n == 1 else f"{n} points"


def _run_forecast_json(model: ModelAnalysis) -> dict[str, Any]:
    """A run at twice the largest N and D, as `sapis fit TABLE --json` writes it, or why there is none."""
    found = model.forecast_twice()
    return {"why_not": found} if isinstance(found, str) else forecast_json(found)


def _optimum_json(found: Allocation) -> dict[str, Any]:
    """The split of the largest measured budget and of ten times that, or why there is none."""
    if found.band is None or found.cost is None:
        return {"why_not": found.why_not}
    return {
        "flops_per_parameter_and_frame": found.cost.kappa,
        "flops_per_frame": found.cost.label,
        "with_floor": found.with_floor,
        "compute_exponent": found.compute_exponent,
        "largest_measured": found.largest,
        "budgets": [found.at(found.largest), found.at(found.budget[-1])],
    }


def _equal_error_json(found: EqualError) -> dict[str, Any]:
    named = {key: getattr(found, key) for key in ("model", "reference", "quantity", "cost", "why_not")}
    columns = {key: getattr(found, key).tolist() for key in ("error", "ratio", "low", "high", "at_edge")}
    return named | {"middle": found.middle()} | columns


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    named = {
        "loss": comparison.loss,
        "accuracy_per_flop_train": comparison.accuracy_per_flop_train,
        "accuracy_per_flop_inference": comparison.accuracy_per_flop_inference,
        "cpu_seconds_train": comparison.cpu_seconds_train,
    }
    return {"model": comparison.model, "reference": comparison.reference} | {
        key: _ratios_json(r) for key, r in named.items()
    }


def _ratios_json(ratios: CellRatios | None) -> dict[str, Any] | None:
    if ratios is None:
        return None
    return {
        "geometric_mean": ratios.geometric_mean,
        "range": ratios.range,
        "n_cells": ratios.n_cells,
        "cells": ratios.cells.to_dict(orient="records"),
    }
