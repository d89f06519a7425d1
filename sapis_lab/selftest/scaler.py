"""What policies of scaling waste, on six synthetic worlds (`sapis selftest scaler`); the worlds are described
in `scaling.worlds`.

The constants of the policies were tuned on the seeds `TUNED_ON`; those from `FIRST_SEED` on, on which nothing
was, are reported. Wanted: the posterior policy wastes no more than 6 % on every world, and nowhere three
points more than the best fixed policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.config import kinds
from sapis_lab.policies import Rules, policy
from sapis_lab.scaling.worlds import KAPPA, LAST, NOISE, SHARES, STEPS, World, campaign
from sapis_lab.screen import new_table

TUNED_ON = range(1000, 1048)
FIRST_SEED = 3000
FIXED = ("null", "greedy", "jump")
WANTED, WANTED_BEYOND_BEST = 0.06, 0.03
_TOLD = ("growth", "sure", "measurements", "cheap", "overhead")
WITHOUT = "posterior without measurements"
"""The posterior policy without measurements: every run on the path."""


def run_scaler(
    policies: Sequence[str],
    worlds: Sequence[str],
    *,
    n_worlds: int,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Run all campaigns, print the table; the exit status, 1 where the posterior policy wastes more than is
    wanted.

    Raises:
        ValueError: an unknown policy or world.
    """
    for given, known in ((policies, (*kinds("policies"), WITHOUT)), (worlds, tuple(SHARES))):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not known; known are {', '.join(known)}")
    seeds = range(FIRST_SEED, FIRST_SEED + n_worlds)
    rows = []
    for world in worlds:
        for name in policies:
            began = time.process_time()
            rows.append(
                {
                    "world": world,
                    "policy": name,
                    **_measured(world, name, seeds),
                    "cpu_seconds": time.process_time() - began,
                }
            )
            row = rows[-1]
            message = (
                f"{world}, {name}: {100 * row['waste_last']:.1f} % (step 1 "
                f"{100 * row['waste_by_step'][0]:.0f} %)"
            )
            console.print(Text(message, style="dim"), soft_wrap=True)
    verdicts = _verdicts(rows)
    facts = {
        "n_worlds": n_worlds,
        "seeds": [seeds.start, seeds.stop - 1],
        "tuned_on_seeds": [TUNED_ON.start, TUNED_ON.stop - 1],
        "noise": NOISE,
        "steps": STEPS,
        "last": LAST,
        "kappa": KAPPA,
        "rules": {k: v for k, v in asdict(Rules()).items() if k in _TOLD},
        "shares": SHARES,
        "wanted": {"waste": WANTED, "beyond_best_fixed": WANTED_BEYOND_BEST},
    }
    save({**facts, "rows": rows, "verdicts": verdicts})
    _print(rows, verdicts, n_worlds, console)
    return int(any(not v["holds"] for v in verdicts))


def _measured(world: str, name: str, seeds: range) -> dict[str, Any]:
    rules = Rules(measure=name != WITHOUT)
    chosen = policy("posterior" if name == WITHOUT else name)
    runs = [campaign(World.named(world), chosen, seed=seed, rules=rules) for seed in seeds]
    waste = np.array([[step.waste for step in run] for run in runs])
    measured = np.array([[step.measured for step in run] for run in runs])
    cost = 2.0 ** np.arange(STEPS)
    last = waste[:, -LAST:].mean(axis=1)
    return {
        "waste_last": float(last.mean()),
        "waste_last_error": float(last.std(ddof=1) / np.sqrt(len(last))) if len(last) > 1 else None,
        "waste_last_median": float(np.median(waste[:, -LAST:])),
        "waste_last_p90": float(np.quantile(waste[:, -LAST:], 0.9)),
        "waste_by_step": waste.mean(axis=0).tolist(),
        "measured_by_step": measured.mean(axis=0).tolist(),
        "measured_of_all_runs": float((measured * cost).sum(axis=1).mean() / cost.sum()),
    }


def _verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the posterior policy on every world where fixed policies stand beside it."""
    found = []
    for world in dict.fromkeys(row["world"] for row in rows):
        by = {row["policy"]: row["waste_last"] for row in rows if row["world"] == world}
        fixed = [by[p] for p in FIXED if p in by]
        if "posterior" in by and fixed:
            beyond = by["posterior"] - min(fixed)
            holds = by["posterior"] <= WANTED and beyond <= WANTED_BEYOND_BEST
            found.append(
                {
                    "world": world,
                    "waste": by["posterior"],
                    "best_fixed": min(fixed),
                    "beyond": beyond,
                    "holds": holds,
                }
            )
    return found


def _print(
    rows: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]], n_worlds: int, console: Console
) -> None:
    title = f"compute waste, mean of the last {LAST} of {STEPS} doublings of {n_worlds} campaigns"
    console.print(Text(f"{title}; in brackets the first step"), soft_wrap=True)
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    table = new_table("world", *policies, left=["world"])
    for world in dict.fromkeys(row["world"] for row in rows):
        cells = {row["policy"]: row for row in rows if row["world"] == world}
        shown = [
            f"{100 * cells[p]['waste_last']:.1f} % ({100 * cells[p]['waste_by_step'][0]:.0f})"
            for p in policies
        ]
        table.add_row(world, *shown)
    console.print(table)
    for v in verdicts:
        text = f"{v['world']}: posterior {100 * v['waste']:.1f} %, best fixed {100 * v['best_fixed']:.1f} %: "
        console.print(
            Text(
                text
                + (
                    "as wanted"
                    if v["holds"]
                    else f"MORE than wanted ({100 * WANTED:.0f} %, or 3 points beyond the best)"
                )
            )
        )
