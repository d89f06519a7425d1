"""How often training diverges: many seeds, at the model's default learning rate and at multiples of it
(`sapis selftest stability`).

Every run is one of `accuracy_run`: `seconds` of CPU time of one thread, rate = peak x min(1, t / 0.05 T),
then cosine to zero, in the time t used of the budget T; gradients clipped, batches of 5; scored with the last
weights. Optimiser and rate are those of `configs/train/default.yaml`; the loss is a third of the package's
default (10 E + F against 30 E + 3 F, clipped at 10 against 30), which neither Adam nor SOAP sees.

A run is `diverged` when a loss or an error is not finite, when its validation force RMSE ends no lower than
the RMS of the training forces, or when its validation force MAE ends above twice the least of its own curve.
Diverged runs count as infinitely bad in the median.

Finished runs are lines of a JSON-lines file and not made again; a process that failed leaves a line too, and
is tried again. A run is known by its settings and the contents of its data, not by the version of the code:
`again` measures anew.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sapis_lab.bench.accuracy import Bench, rounded_rate
from sapis_lab.bench.accuracy_log import Record, RunLog
from sapis_lab.bench.adapters import Code, find_code
from sapis_lab.bench.step import model_config
from sapis_lab.config import dump, expand_use, home, load
from sapis_lab.screen import new_table
from sapis_lab.training import TrainConfig

FILE = Path("results") / "stability" / "runs.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is run."""

    model: str = "geat"
    """a kind of this package with options, `geat:lmax=1`"""
    data: str = "acac"
    """`acac` (configs/data/acac-300K.yaml), `ethanol` (rmd17-ethanol.yaml), or the path of a batch file"""
    n_seeds: int = 20
    """seeds 0 .. n_seeds - 1, of the weights and of the order of the frames"""
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    """of the default rate"""
    seconds: float = 30.0
    """CPU time of every run"""
    n_params: float = 1e5
    batch_size: int = 5
    workers: int = 2
    """runs at a time, each a process of one thread"""
    again: bool = False
    """runs that are in the file are made once more"""


def default_training() -> TrainConfig:
    """`configs/train/default.yaml`."""
    settings: TrainConfig = load(
        TrainConfig, {**expand_use("default", "train"), "steps": 1}, source="configs/train/default.yaml"
    )
    return settings


def default_rate(model: str, n_params: float) -> float:
    """The peak rate that `configs/train/default.yaml` gives a model of this size."""
    return default_training().rate_of(model_config(model), n_params)


def code_of(model: str) -> Code:
    """The model of this package under its name in the accuracy bench, where a plain `nequip` is a peer's."""
    text = model.replace(":", ",")
    code = find_code(text)
    return code if code.adapter == "sapis" else find_code(f"sapis-{text}")


def run_stability(
    plan: Plan,
    *,
    file: Path | None,
    cache: Path | None,
    save: Callable[[dict[str, Any]], None],
    console: Console,
) -> int:
    """Make the runs that `file` lacks, print the table; the exit status, 1 where a run diverged or failed.

    Args:
        file: of the finished runs, `results/stability/runs.jsonl` of the project.   cache: folder of the
        batch files, `.sapis/bench`. save: called with all results at the end.

    Raises:
        ValueError: a model or data set that is not there.
    """
    code, rate = code_of(plan.model), default_rate(plan.model, plan.n_params)
    bench = Bench(
        RunLog(file or home() / FILE),
        None,
        cache or home() / ".sapis" / "bench",
        n_params=plan.n_params,
        batch_size=plan.batch_size,
        workers=plan.workers,
        again=plan.again,
        any_processor=True,
        optimizer=dump(default_training().optimizer),
    )
    bench.add_data(plan.data)
    rates = {factor: rounded_rate(factor * rate) for factor in plan.factors}
    # seed by seed, so that a run that is stopped has as many of every rate
    records = bench.run(
        [(code, plan.data, r, plan.seconds, seed) for seed in range(plan.n_seeds) for r in rates.values()]
    )
    rows = [
        summary([r for r in records if r["rate"] == value], factor=factor, rate=value)
        for factor, value in rates.items()
    ]
    facts = {
        "model": code.name,
        "data": plan.data,
        "default_rate": rate,
        "seconds": plan.seconds,
        "n_seeds": plan.n_seeds,
    }
    save({**facts, "n_params": plan.n_params, "batch_size": plan.batch_size, "rows": rows, "runs": records})
    _print(rows, records, plan, rate, console)
    return int(any(row["diverged"] or row["failed"] for row in rows))


def summary(records: Sequence[Record], *, factor: float, rate: float) -> dict[str, Any]:
    """Counts and validation force errors (eV/Å) of the runs at one rate; an error is None where it would be
    infinite or there is none."""
    done, lost = ([r for r in records if r["status"] == status] for status in ("done", "diverged"))
    errors = [r["validation"]["force_mae"] for r in done]
    median = statistics.median(errors + [math.inf] * len(lost)) if done or lost else math.inf
    return {
        "factor": factor,
        "rate": rate,
        "runs": len(records),
        "diverged": len(lost),
        "failed": len(records) - len(done) - len(lost),
        "median_force_mae": median if math.isfinite(median) else None,
        "worst_force_mae": max(errors, default=None),
        "diverged_seeds": [r["seed"] for r in lost],
        "steps": statistics.mean(r["steps"] for r in done) if done else None,
    }


def _print(
    rows: Sequence[Mapping[str, Any]], records: Sequence[Record], plan: Plan, rate: float, console: Console
) -> None:
    size = next((f"{r['params']:,}" for r in records if "params" in r), f"about {plan.n_params:g}")
    console.print(
        f"{plan.model}, {size} parameters, {plan.data}, seeds 0 to {plan.n_seeds - 1}, {plan.seconds:g} CPU "
        f"s each; default rate {rate:g}; "
        "validation force MAE in meV/Å",
        soft_wrap=True,
    )
    table = new_table("of default", "rate", "runs", "diverged", "failed", "median", "worst", "steps")
    for row in rows:
        table.add_row(
            f"{row['factor']:g}x",
            f"{row['rate']:g}",
            str(row["runs"]),
            str(row["diverged"]),
            str(row["failed"]),
            _mev(row["median_force_mae"]),
            _mev(row["worst_force_mae"]),
            "-" if row["steps"] is None else f"{row['steps']:,.0f}",
        )
    console.print(table)
    for record in records:
        if record["status"] != "done":
            message = (
                f"{record['status']}  rate {record['rate']:g}, seed {record['seed']}: {record['reason']}"
            )
            console.print(Text(message, style="red"), soft_wrap=True)
    meaning = "median: diverged runs count as infinite; worst: of the runs that did not diverge"
    console.print(Text(meaning, style="dim"), soft_wrap=True)


def _mev(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f}"
