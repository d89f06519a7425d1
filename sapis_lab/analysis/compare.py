"""What models cost and how they compare where comparison is fair: at equal (N target, D, seed).

Ratios are taken cell by cell and averaged as logarithms, so that a factor of 2 and a factor of 1/2 cancel.
Accuracy per FLOP, (1 / MAE_E) / FLOPs, is compared only within cells: between unequal budgets it always
favours the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sapis_lab.targets import ENERGY_MAE

CELL = ["n_params_target", "n_frames", "seed"]


@dataclass(frozen=True)
class CellRatios:
    """A model's value over the reference's, in every cell where both were measured."""

    cells: pd.DataFrame
    """Columns n_params_target, n_frames, seed, ratio."""

    @property
    def n_cells(self) -> int:
        return len(self.cells)

    @property
    def geometric_mean(self) -> float:
        return float(np.exp(np.log(self.cells["ratio"]).mean()))

    @property
    def range(self) -> tuple[float, float]:
        return float(self.cells["ratio"].min()), float(self.cells["ratio"].max())


@dataclass(frozen=True)
class Comparison:
    """One model against the reference."""

    model: str
    reference: str
    loss: CellRatios
    """Error of the model over error of the reference."""
    accuracy_per_flop_train: CellRatios | None
    accuracy_per_flop_inference: CellRatios | None
    cpu_seconds_train: CellRatios | None


def compare(done: pd.DataFrame, *, quantity: str, reference: str) -> tuple[Comparison, ...]:
    """Every other model against `reference`; models that share no cell with it are left out."""
    found = []
    for model in dict.fromkeys(done["model"]):
        loss = cell_ratios(done, done[quantity], model=model, reference=reference)
        if model == reference or loss is None:
            continue

        def ratio(values: pd.Series | None, model: str = model) -> CellRatios | None:
            return None if values is None else cell_ratios(done, values, model=model, reference=reference)

        found.append(
            Comparison(
                model=model,
                reference=reference,
                loss=loss,
                accuracy_per_flop_train=ratio(accuracy_per_flop(done, "flops_train")),
                accuracy_per_flop_inference=ratio(accuracy_per_flop(done, "flops_inference_per_frame")),
                cpu_seconds_train=ratio(done.get("cpu_seconds_train")),
            )
        )
    return tuple(found)


def accuracy_per_flop(done: pd.DataFrame, flops: str) -> pd.Series | None:
    """(1 / energy MAE) / FLOPs of every point, 1/(eV FLOP); None where the table lacks either column."""
    if ENERGY_MAE not in done or flops not in done:
        return None
    return 1.0 / (done[ENERGY_MAE] * done[flops])


def cell_ratios(done: pd.DataFrame, values: pd.Series, *, model: str, reference: str) -> CellRatios | None:
    """Ratio model / reference of `values` (aligned with `done`) in the cells that both have; None if there is
    none."""
    table = done[[*CELL, "model"]].assign(value=pd.to_numeric(values))
    table = table[np.isfinite(table["value"]) & (table["value"] > 0)]
    ours, theirs = (table[table["model"] == name].drop(columns="model") for name in (model, reference))
    both = ours.merge(theirs, on=CELL, suffixes=("", "_reference")).sort_values(CELL, ignore_index=True)
    if both.empty:
        return None
    return CellRatios(both[CELL].assign(ratio=both["value"] / both["value_reference"]))


def default_reference(done: pd.DataFrame) -> str | None:
    """The geat with the largest l_max, else the first model of the table; None for an empty table."""
    if done.empty:
        return None
    geat = done[done["family"] == "geat"]
    if geat.empty:
        return str(done["model"].iloc[0])
    return str(geat.sort_values("lmax", ascending=False, kind="stable", na_position="last")["model"].iloc[0])


def cost_table(done: pd.DataFrame, *, quantity: str) -> pd.DataFrame:
    """One row a model: points, totals of training cost, and its lowest loss with the cost of that point."""
    rows = []
    for model, runs in done.groupby("model", sort=False):
        best = runs.loc[runs[quantity].idxmin()]
        rows.append(
            {
                "model": model,
                "n_points": len(runs),
                "cpu_seconds_train": runs["cpu_seconds_train"].sum(),
                "seconds_train": runs["seconds_train"].sum(),
                "flops_train": runs["flops_train"].sum(),
                "flops_per_cpu_second": runs["flops_train"].sum() / runs["cpu_seconds_train"].sum(),
                "best_id": best["id"],
                "best_loss": best[quantity],
                "best_flops_train": best["flops_train"],
                "best_cpu_seconds_train": best["cpu_seconds_train"],
            }
        )
    return pd.DataFrame(rows)
