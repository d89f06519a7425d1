"""Published errors beside those of a study: what `published:` of its settings lists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sapis_lab.quantities import Quantity, quantity


def published_rows(study: Mapping[str, Any], runs: pd.DataFrame, measured: Quantity) -> dict[str, Any] | None:
    """Published errors and this study's own, as text for a table; None where the study names none.

    For every number of labels that is named, the rows are the published models, then the models of the study
    at that D: each at the size that is best by `measured`, the mean over its seeds, and behind it, for every
    error, how many times the least published one it is.

    Returns:
        `heads`, the errors with their units; `rows`, with model, n_frames, size (N as text), `cells`,
        source, seeds and whether it is published.
    """
    entries = study.get("published") or []
    if not entries:
        return None
    keys = list(dict.fromkeys(key for entry in entries for key in entry["errors"]))
    shown = [quantity(key) for key in keys]
    rows: list[dict[str, Any]] = []
    for n_frames in dict.fromkeys(entry["n_frames"] for entry in entries):
        of_others = [entry for entry in entries if entry["n_frames"] == n_frames]
        least = {
            key: min(entry["errors"][key] for entry in of_others if key in entry["errors"])
            for key in keys
            if any(key in entry["errors"] for entry in of_others)
        }
        for entry in of_others:
            cells = [_text(entry["errors"].get(q.key), q) for q in shown]
            rows.append(_row(entry["model"], n_frames, cells, source=entry["source"], published=True))
        for model, own in best_runs(runs, n_frames, measured).items():
            cells = [_text(own.get(q.key), q, least.get(q.key)) for q in shown]
            size = f"{round(own['n_params']):,}"
            rows.append(_row(model, n_frames, cells, size=size, seeds=int(own["seeds"])))
    return {"heads": [f"{q.label} ({q.display_unit or q.unit})" for q in shown], "rows": rows}


def _row(model: str, n_frames: int, cells: list[str], **more: Any) -> dict[str, Any]:
    usual = {"source": "", "published": False, "size": "", "seeds": None}
    return {"model": model, "n_frames": n_frames, "cells": cells} | usual | more


def best_runs(runs: pd.DataFrame, n_frames: int, measured: Quantity) -> dict[str, dict[str, Any]]:
    """By model, the means over the seeds of the size and rate with the least mean of `measured`."""
    done = runs[(runs["status"] == "done") & (runs["n_frames"] == n_frames)]
    found = {}
    for model, some in done.groupby("model", sort=False):
        groups = some.groupby(["n_params", "learning_rate"])
        means = groups.mean(numeric_only=True).reset_index().assign(seeds=groups.size().to_numpy())
        if measured.key in means and means[measured.key].notna().any():
            found[str(model)] = means.loc[means[measured.key].idxmin()].to_dict()
    return found


def _text(value: float | None, q: Quantity, least: float | None = None) -> str:
    if value is None or math.isnan(value):
        return "–"
    ratio = "" if least is None else f" ({value / least:.2f})"
    return f"{q.display_factor * value:.3g}{ratio}"
