"""What the evaluations of a study measured on its points, beside the error that its law describes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sapis_lab.quantities import Quantity, evaluated_quantities
from sapis_lab.report.published import best_runs

FEWEST = 5
"""Points without which a rank correlation is not shown."""


def evaluated_rows(runs: pd.DataFrame, measured: Quantity) -> list[dict[str, Any]]:
    """One row a measured quantity and model, its cells as text: how many points have it, its least and
    largest value over them, the mean over the seeds of the cell (N, D) that is best by `measured`, and
    Spearman's rank correlation with `measured` over the points. Baselines have a table of their own."""
    done = runs[runs["status"] == "done"]
    rows = []
    for shown in evaluated_quantities(done.columns):
        if shown.evaluation.partition("-")[0] == "baselines":
            continue
        for model, some in done.groupby("model", sort=False):
            values = some[shown.key].dropna()
            if values.empty:
                continue
            best = _best(some, measured)
            rows.append(
                {
                    "quantity": shown.axis,
                    "model": str(model),
                    "n": len(values),
                    "range": f"{_text(values.min(), shown)} to {_text(values.max(), shown)}",
                    "best": _text(best.get(shown.key), shown),
                    "where": f"N = {round(best['n_params']):,}, D = {round(best['n_frames']):,}"
                    if best
                    else "",
                    "rank": _rank_correlation(some, shown.key, measured.key),
                }
            )
    return rows


def _best(runs: pd.DataFrame, measured: Quantity) -> dict[str, Any]:
    cells = [cell for d in runs["n_frames"].unique() for cell in best_runs(runs, int(d), measured).values()]
    return min(cells, key=lambda cell: float(cell[measured.key]), default={})


def _where(cell: dict[str, Any]) -> str:
    return f"N = {round(cell['n_params']):,}, D = {round(cell['n_frames']):,}" if cell else ""


def _text(value: float | None, shown: Quantity) -> str:
    return "–" if value is None or value != value else f"{shown.display_factor * value:.3g}"


def _rank_correlation(runs: pd.DataFrame, key: str, other: str) -> str:
    pairs = runs[[key, other]].dropna()
    if key == other or len(pairs) < FEWEST or (pairs.nunique() < 2).any():
        return ""
    return f"{pairs[key].corr(pairs[other], method='spearman'):+.2f}"
