"""What can be asked of a campaign that ran: its decisions made again, the run that would teach most, and how
it compares with grids."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.optimum import Cost
from sapis_lab.config import ConfigError, plainly
from sapis_lab.files import write_text
from sapis_lab.policies import Prices, Rules, Runs
from sapis_lab.quantities import quantity
from sapis_lab.records import read_table
from sapis_lab.scaling.campaign import FOLDER, recorded_study
from sapis_lab.scaling.design import next_points
from sapis_lab.scaling.history import read_history, replayed, same
from sapis_lab.screen import new_table
from sapis_lab.sweep.folder import results_folder
from sapis_lab.sweep.lock import refuse_if_running
from sapis_lab.sweep.plan import infos


def print_replay(name: str, console: Console) -> int:
    """Decide the whole history again and compare; the exit status, 1 where a decision differs."""
    folder = results_folder(name)
    if (folder / "study.yaml").exists():
        recorded_study(folder)  # which may name a folder with the kind of its policy
    pairs = replayed(folder / FOLDER)
    differing = [entry.step for entry, again in pairs if not same(entry.decision, again)]
    for entry, again in pairs:
        mark = (
            "same"
            if same(entry.decision, again)
            else f"now {again.action} N={again.n_params:.4g} D={again.n_frames:.0f}"
        )
        d = entry.decision
        console.print(
            Text(f"{entry.step:3d} {d.action:8s} N={d.n_params:.4g} D={d.n_frames:.0f}: {mark}"),
            soft_wrap=True,
        )
    console.print(
        Text(
            f"{len(pairs) - len(differing)} of {len(pairs)} decisions are made again from the table as they "
            f"were"
        )
    )
    return int(bool(differing))


def print_design(
    name: str, console: Console, *, target: tuple[float, float] | None = None, n_shown: int = 8
) -> None:
    """Which run to add to `results/NAME`, scaled or not, to learn most per FLOP about N* at the next cost, or
    about L at a target (N, D).

    Raises:
        ConfigError: no finished runs, those of several models, or a cost that does not grow with D.
    """
    folder = results_folder(name)
    study = recorded_study(folder)
    table = read_table(folder)
    table = table[table["status"] == "done"]
    if table["model"].nunique() != 1:
        raise ConfigError(
            f"{folder}/runs.parquet: wanted the runs of one model, got "
            f"{', '.join(sorted(table['model'].unique()))}"
        )
    n, d, flops, loss = (
        table[c].to_numpy(float) for c in ("n_params", "n_frames", "flops_train", study.law.quantity)
    )
    runs = Runs(n, d, loss, flops, table["seed"].to_numpy(int), np.zeros(len(table), bool))
    plainly(lambda: Cost.from_runs(n, d, flops), about=f"{folder}/runs.parquet")
    power, log_kappa = np.polyfit(np.log(n), np.log(flops / d), 1)
    prices = Prices(float(np.exp(log_kappa)), float(power))
    budget = None if target else 2.0 * float(flops.max())
    rules = Rules(most_frames=plainly(lambda: next(iter(infos(study).values())).n_train))
    design = plainly(
        lambda: next_points(runs, prices, budget=budget, target=target, rules=rules),
        about=f"{folder}/runs.parquet",
    )
    title = f"{design.quantity}: known to a factor {math.exp(design.sd):.3f}"
    console.print(Text(f"{title}; the next run, by what it teaches per FLOP"), soft_wrap=True)
    screen = new_table("N", "D", "seed", "FLOPs", "variance less by", "per FLOP")
    for c in design.candidates[:n_shown]:
        screen.add_row(
            f"{c.n_params:.0f}",
            f"{c.n_frames:.0f}",
            f"{c.seed}",
            f"{c.cost:.3g}",
            f"{100 * c.reduction:.1f} %",
            f"{c.per_cost:.2f}",
        )
    console.print(screen)


def print_comparison(name: str, others: Sequence[str], console: Console) -> None:
    """The campaign `results/NAME` beside the grids `results/OTHER`: what all their runs of its model cost
    together, and the best of them.

    Chosen is the run with the lowest loss that the law describes; its error on test frames, which chose
    nothing, stands beside it. Written to `scale/comparison.json`.

    Raises:
        ConfigError: results that are not there, or without a run of the campaign's model.
    """
    folder = results_folder(name)
    refuse_if_running(folder)  # comparison.json is written there
    rows = read_history(folder / FOLDER)
    study = recorded_study(folder)
    key, label = study.law.quantity, study.models[0].label
    test = quantity(key).on_test
    found = [_best_of(name, folder, label, key, test)]
    found[0]["total_flops"] = rows[-1].flops_total
    found += [_best_of(other, results_folder(other), label, key, test) for other in others]
    q = quantity(key)
    console.print(
        Text(f"{label}: all FLOPs that were spent, and the best run that they bought"), soft_wrap=True
    )
    columns = ("results", "runs", "FLOPs of all", "N", "D", "its FLOPs", q.label, "on test frames")
    screen = new_table(*columns, left=["results"])
    for best in found:
        errors = [
            f"{best[k] * q.display_factor:.1f} {q.display_unit or q.unit}" if best.get(k) else ""
            for k in ("loss", "test_loss")
        ]
        screen.add_row(
            best["results"],
            f"{best['n_runs']}",
            f"{best['total_flops']:.4g}",
            f"{best['n_params']}",
            f"{best['n_frames']}",
            f"{best['flops']:.3g}",
            *errors,
        )
    console.print(screen)
    write_text(
        folder / FOLDER / "comparison.json",
        json.dumps({"quantity": key, "model": label, "found": found}, indent=1) + "\n",
    )


def _best_of(name: str, folder: Path, label: str, key: str, test: str) -> dict[str, Any]:
    table = read_table(folder)
    table = table[(table["status"] == "done") & (table["model"] == label)]
    if not len(table):
        raise ConfigError(f"{folder}/runs.parquet has no finished run of {label}")
    best = table.loc[table[key].idxmin()]
    return {
        "results": name,
        "n_runs": len(table),
        "total_flops": float(table["flops_train"].sum()),
        "n_params": int(best["n_params"]),
        "n_frames": int(best["n_frames"]),
        "seed": int(best["seed"]),
        "steps": int(best["steps"]),
        "flops": float(best["flops_train"]),
        "loss": float(best[key]),
        "test_loss": float(best[test]) if test in table else None,
    }
