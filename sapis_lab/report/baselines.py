"""Errors of models beside those of baselines: what the evaluations `baselines` and
`classical` measured at the same D."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from sapis_lab.quantities import Quantity, quantity
from sapis_lab.report.published import best_runs


def baseline_rows(runs: pd.DataFrame, measured: Quantity) -> dict[str, Any] | None:
    """Test errors of baselines, force fields and the study's own models, as text for a table; None where no
    point has baselines of this error.

    For every D the rows are the baselines, then the models: each at the size that is best by `measured`, the
    mean over its seeds, and over the least baseline.

    Returns:
        `head`, the error with its unit; `rows`, with n_frames, name, size (N as text), text, ratio and
        whether it is a model.
    """
    error = measured.on_test
    pattern = re.compile(rf"((?:baselines|classical)(?:-[A-Za-z0-9.]+)?)_{re.escape(error)}_of_(\w+)")
    columns = {c: match for c in runs.columns if (match := pattern.fullmatch(c)) and runs[c].notna().any()}
    if not columns or error not in runs:
        return None
    shown = quantity(error)
    named = len({match[1].partition("-")[2] for match in columns.values()}) > 1
    rows: list[dict[str, Any]] = []
    for n_frames, some in runs[runs["status"] == "done"].groupby("n_frames"):
        there = {c: some[c].dropna() for c in columns}
        least = min((float(values.iloc[0]) for values in there.values() if len(values)), default=None)
        if least is None:
            continue
        for column, values in there.items():
            if len(values):
                name = columns[column][2].replace("_", " ")
                name = f"{name} ({columns[column][1]})" if named else name
                rows.append(_row(n_frames, name, "", float(values.iloc[0]), None, shown))
        for model, own in best_runs(runs, int(str(n_frames)), measured).items():
            if (value := own.get(error)) is not None and value == value:
                size = f"{round(own['n_params']):,}"
                rows.append(_row(n_frames, model, size, value, value / least if least else None, shown))
    return {"head": shown.axis, "rows": rows} if rows else None


def _row(
    n_frames: Any, name: str, size: str, value: float, ratio: float | None, shown: Quantity
) -> dict[str, Any]:
    return {
        "n_frames": int(n_frames),
        "name": name,
        "size": size,
        "text": f"{shown.display_factor * value:.3g}",
        "ratio": "" if ratio is None else f"{ratio:.2f}",
        "is_model": bool(size),
    }
