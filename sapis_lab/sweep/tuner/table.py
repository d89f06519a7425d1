"""What came of a tuning: one row per trial (`trials.csv`), the best settings (`best.yaml`), and the table
that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sapis_lab.config import ConfigError
from sapis_lab.files import write_text
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, read_csv, read_raw
from sapis_lab.screen import new_table
from sapis_lab.sweep.tuner import tickets
from sapis_lab.sweep.tuner.outcome import outcome
from sapis_lab.sweep.tuner.space import Cell, study_settings
from sapis_lab.text import for_spreadsheets

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from pandas import DataFrame
    from rich.console import Console

    from sapis_lab.sweep.study import Study

TRIALS, BEST = "trials.csv", "best.yaml"
FIXED = (
    "cell",
    "trial",
    "state",
    "model",
    "family",
    "n_params_target",
    "n_params",
    "n_frames",
    "seed",
    "steps",
    "batch_size",
    "learning_rate",
    "attempts",
    "reason",
)
"""Columns before the objectives and the tuned settings. N, D, steps, batch size and rate are those of the
record, where there is one."""


def trials_table(
    cells: Sequence[Cell],
    studies: Sequence[OptunaStudy],
    *,
    folder: Path,
    keys: Sequence[str],
    names: Sequence[str],
) -> DataFrame:
    """One row per ticket, in the order of cells and tickets.

    Args:
        folder: of the trials' folders.   keys: the objectives.   names: the tuned settings.
    """
    import pandas as pd

    rows = []
    for cell, study in zip(cells, studies, strict=True):
        for name, trials in sorted(tickets.attempts(study).items()):
            rows.append(_row(cell, folder / name, trials, keys, names))
    columns = list(dict.fromkeys([*FIXED, *keys, *names]))
    return pd.DataFrame(rows, columns=columns)


def _row(
    cell: Cell, folder: Path, trials: Sequence[Any], keys: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    last, planned = trials[-1], cell.base.planned
    state = {
        "COMPLETE": "done",
        "PRUNED": "pruned",
        "FAIL": "failed",
        "RUNNING": "running",
        "WAITING": "waiting",
    }[last.state.name]
    reason = last.user_attrs.get(tickets.REASON, "")
    if state == "pruned" and reason:
        state = "diverged"
    if state == "failed" and not reason:
        state = "waiting"  # it will be put back
    row = {
        "cell": cell.id,
        "trial": folder.name,
        "state": state,
        "model": planned.model,
        "family": planned.family,
        "seed": "",
        "n_params_target": planned.n_params_target,
        "n_params": planned.n_params,
        "n_frames": planned.n_frames,
        "attempts": sum(t.state.name != "WAITING" for t in trials),
        "reason": reason,
    }
    row |= {name: last.params[name] for name in names if name in last.params}
    if state == "done":
        row |= dict(zip(keys, last.values, strict=True))
    if (folder / RECORD).exists() and outcome(folder, keys) is not None:
        raw = read_raw(folder / RECORD)
        row |= {
            k: raw[k]
            for k in (
                "n_params_target",
                "n_params",
                "n_frames",
                "seed",
                "steps",
                "batch_size",
                "learning_rate",
            )
        }
    return row


def write_trials(table: DataFrame, folder: Path) -> None:
    """Write trials.csv in one step, every float with all its digits, no text as a spreadsheet would calculate
    it."""
    write_text(folder / TRIALS, for_spreadsheets(table).to_csv(index=False, lineterminator="\n"))


def read_trials(folder: Path) -> DataFrame:
    """The table of `results/NAME/tune`. ConfigError when there is none."""
    if not (folder / TRIALS).exists():
        raise ConfigError(f"{folder / TRIALS}: no such file; nothing was tuned yet")
    return read_csv(
        folder / TRIALS, columns=FIXED[:3], then=f"write it anew with: sapis tune {folder.parent.name}"
    )


def best_rows(table: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Of every cell the best trial, or with several objectives those that no other one beats in all of them,
    by the first objective."""
    import pandas as pd

    done = table[table["state"] == "done"]
    parts = []
    for _, rows in done.groupby("cell", sort=False):
        front = rows[
            [
                not _beaten(value, rows[list(keys)].to_numpy(float))
                for value in rows[list(keys)].to_numpy(float)
            ]
        ]
        parts.append(front.sort_values(list(keys)).head(1 if len(keys) == 1 else len(front)))
    return pd.concat(parts) if parts else done


def _beaten(value: Any, others: Any) -> bool:
    """Whether a row of `others` (n, k) is nowhere worse than `value` (k,) and somewhere better."""
    return bool(((others <= value).all(1) & (others < value).any(1)).any())


def write_best(
    table: DataFrame,
    folder: Path,
    *,
    study: Study,
    cells: Sequence[Cell],
    keys: Sequence[str],
    names: Sequence[str],
) -> None:
    """Write best.yaml: by cell the trial, its objectives, and its settings as they are given to `--set`."""
    by_id = {cell.id: cell for cell in cells}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in best_rows(table, keys).to_dict("records"):
        values = {name: _plain(row[name]) for name in names}
        entry = {
            "trial": row["trial"],
            **{k: float(row[k]) for k in keys},
            "set": study_settings(study, by_id[row["cell"]], values),
        }
        found.setdefault(row["cell"], []).append(entry)
    head = (
        f"# The best settings of every (model, N, D); use them as in: sapis study run {study.name} --set "
        f"KEY=VALUE\n"
    )
    write_text(folder / BEST, head + yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def print_table(
    table: DataFrame, console: Console, *, title: str, keys: Sequence[str], names: Sequence[str]
) -> None:
    """How many trials of every cell have ended how, and the best of them."""
    from rich.text import Text

    console.print(Text(title), soft_wrap=True)
    heads = [_head(k) for k in keys]
    last = "best" if len(keys) == 1 else "Pareto front"
    ends = ("done", "pruned", "diverged", "failed")
    shown = new_table("model, N, D", *ends, "open", last, *heads, *names, left=("model, N, D", last))
    best = best_rows(table, keys)
    for cell, rows in table.groupby("cell", sort=False):
        states: Mapping[str, int] = rows["state"].value_counts().to_dict()
        n_open = states.get("running", 0) + states.get("waiting", 0)
        counts = [str(states.get(s, 0)) for s in ends] + [str(n_open)]
        mine = best[best["cell"] == cell].to_dict("records")
        for at, row in enumerate(mine):
            values = [f"{row[k] * quantity(k).display_factor:.4g}" for k in keys] + [
                tickets.shown(_plain(row[n])) for n in names
            ]
            shown.add_row(
                *([cell, *counts] if at == 0 else [""] * 6), "t" + row["trial"].rsplit("-t", 1)[1], *values
            )
        if not mine:
            shown.add_row(str(cell), *counts, "", *[""] * (len(keys) + len(names)))
    console.print(shown)
    for row in table[table["state"] == "failed"].to_dict("records"):
        console.print(Text(f"  failed  {row['trial']}: {row['reason']}", style="red"), soft_wrap=True)


def _head(key: str) -> str:
    q = quantity(key)
    unit = q.display_unit or q.unit
    return f"{key} ({unit})" if unit else key
