"""Whether the runs that `sapis design` buys forecast better than others for the same price (`sapis selftest
design`): tables whose losses are known are replayed, each loss seen when its run is paid.

    farseer         arXiv:2604.22753, "Spend Less, Fit Better": 404 runs to buy, cost 6 N D, and seven far
                    larger ones to forecast, whose N and D are known. R^2 of the seven losses, cut to [-1, 1],
                    when 1, 5 and 10 % of the pool's cost is spent; one campaign that goes on, as there
    the others      as farseer, with the largest 5 % of the table by N D as the targets, 95 % as the pool

Beside ours stand runs drawn at random and the cheapest runs, fitted by the same laws, each as many as fit
into the budget (the published ones stop at the first that does not); what cannot be fitted counts as -1, as
there. Repeats differ by the seed. Rows that are copies of others are one run to buy: farseer's are 400.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.next_runs import Pool, believe, campaign
from sapis_lab.analysis.table import Columns, read_points
from sapis_lab.screen import new_table

Method = Literal["design", "random", "cheapest"]
METHODS: tuple[Method, ...] = ("design", "random", "cheapest")
SHARES = (0.01, 0.05, 0.10)
LARGEST = 0.05
TABLES = {
    "farseer": ("farseer/train.csv", "farseer/test.csv", ("N", "D", "loss")),
    "kyo_takano_llm": ("kyo_takano_llm/df.csv", None, ("N", "D", "loss")),
    "optimetal_2b": ("optimetal_2b/grid.csv", None, ("n_params", "n_frames", "loss")),
}
PUBLISHED = {
    "random": (-0.77, 0.78, 0.79),
    "cheapest": (-0.89, 0.41, 0.68),
    "D-optimal": (-0.11, 0.49, 0.87),
    "V-optimal": (0.67, 0.87, 0.92),
    "their method": (0.60, 0.88, 0.93),
}
"""R^2 on farseer at 1, 5 and 10 % of the cost (arXiv:2604.22753, table 2)."""
PUBLISHED_ALL = 0.91


@dataclass(frozen=True)
class Replay:
    """A table whose losses are known."""

    name: str
    pool: Pool
    loss: Array
    targets: Array
    """(T, 2), N and D."""
    target_loss: Array


@dataclass(frozen=True)
class Score:
    """Of one forecast of the targets."""

    r2: float
    """Cut to [-1, 1]."""
    rms: float
    """Of ln(forecast / measured)."""
    n_runs: int
    inside: float
    """Part of the targets inside their 95 % intervals."""


def run_design(
    tables: Sequence[str],
    *,
    n_repeats: int,
    data: Path,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Replay the tables and print the scores; 0."""
    unknown = [name for name in tables if name not in TABLES]
    if unknown:
        raise ValueError(f"table {unknown[0]!r} is not known; wanted {', '.join(TABLES)}")
    results: dict[str, Any] = {}
    for name in tables:
        began = time.process_time()
        replay = replay_of(name, data / "scaling")
        scores = {m: [scored(replay, m, seed) for seed in range(n_repeats)] for m in METHODS}
        everything = score(replay, np.arange(len(replay.pool)))
        seconds = time.process_time() - began
        _print(replay, scores, everything, console, seconds)
        results[name] = {
            "shares": SHARES,
            "methods": {m: [[vars(s) for s in one] for one in all_of] for m, all_of in scores.items()},
            "all": vars(everything),
            "published": PUBLISHED | {"all": PUBLISHED_ALL} if name == "farseer" else None,
            "cpu_seconds": seconds,
        }
        save({"tables": results, "n_repeats": n_repeats})
    return 0


def replay_of(name: str, folder: Path) -> Replay:
    """A table as pool and targets."""
    pool_file, target_file, names = TABLES[name]
    points = read_points(folder / pool_file, Columns(*names)).points
    if target_file is not None:
        targets = read_points(folder / target_file, Columns(*names)).points
    else:
        size = points.n_params * points.n_frames
        largest = np.argsort(-size, kind="stable")[: max(2, round(LARGEST * len(points)))]
        held = size >= size[largest].min()
        points, targets = points.take(~held), points.take(held)
    pool = Pool(points.n_params, points.n_frames, 6.0 * points.n_params * points.n_frames)
    wanted = np.stack([targets.n_params, targets.n_frames], axis=1)
    return Replay(name, pool, points.loss, wanted, targets.loss)


def scored(replay: Replay, method: Method, seed: int) -> list[Score]:
    """Of what a method has bought at each share of the cost of the pool."""
    generator = np.random.default_rng(seed)
    budgets = [share * float(replay.pool.price.sum()) for share in SHARES]
    if method == "design":
        bought = campaign(replay.pool, replay.loss, replay.targets, budgets=budgets, generator=generator)
    else:
        bought = _in_order(replay.pool, method, budgets, generator)
    return [score(replay, np.array(runs, dtype=int)) for runs in bought]


def _in_order(
    pool: Pool, method: Method, budgets: Sequence[float], generator: np.random.Generator
) -> list[list[int]]:
    """The runs that fit into each budget, one after the other: drawn at random, or the cheapest first."""
    order = generator.permutation(len(pool))
    if method == "cheapest":
        order = order[np.argsort(pool.price[order], kind="stable")]
    runs: list[int] = []
    found = []
    for budget in budgets:
        left = budget - float(pool.price[runs].sum())
        for x in order.tolist():
            if x not in runs and pool.price[x] <= left:
                runs, left = [*runs, x], left - float(pool.price[x])
        found.append(runs)
    return found


def score(replay: Replay, runs: np.ndarray) -> Score:
    """Of the forecasts that these runs of the pool make."""
    pool, measured = replay.pool, replay.target_loss
    points = Points(pool.n_params[runs], pool.n_frames[runs], replay.loss[runs])
    belief = believe(points, replay.targets)
    if not belief.fits:
        return Score(-1.0, float("nan"), len(runs), float("nan"))
    forecast, sd = belief.forecast(replay.targets)
    error = np.log(forecast / measured)
    r2 = 1.0 - ((forecast - measured) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    return Score(
        float(np.clip(r2, -1.0, 1.0)),
        float(np.sqrt(np.mean(error**2))),
        len(runs),
        float(np.mean(np.abs(error) <= belief.half_width * sd)),
    )


def _print(
    replay: Replay,
    scores: dict[Method, list[list[Score]]],
    everything: Score,
    console: Console,
    seconds: float,
) -> None:
    head = (
        f"{replay.name}: {len(replay.pool)} runs to buy, {len(replay.targets)} to forecast, "
        f"{len(scores['design'])} repeats, {seconds:.0f} s of CPU time"
    )
    console.print(Text(head), soft_wrap=True)
    percents = [f"{100 * share:g} %" for share in SHARES]
    grid = new_table("R^2", *percents, *(f"rms {p}" for p in percents), "runs", "inside", left=["R^2"])
    for method, repeats in scores.items():
        by_share = list(zip(*repeats, strict=True))
        r2 = [np.array([s.r2 for s in one]) for one in by_share]
        rms = [np.array([s.rms for s in one]) for one in by_share]
        inside = np.array([s.inside for one in by_share for s in one])
        grid.add_row(
            method,
            *(f"{a.mean():.2f} ± {a.std():.2f}" for a in r2),
            *(f"{np.nanmean(a):.4f}" if np.isfinite(a).any() else "–" for a in rms),
            " ".join(f"{np.mean([s.n_runs for s in one]):.0f}" for one in by_share),
            f"{np.nanmean(inside):.2f}" if np.isfinite(inside).any() else "–",
            style="bold" if method == "design" else "",
        )
    blank = [""] * len(SHARES)
    grid.add_row("all runs", *[f"{everything.r2:.2f}"] * 3, *[f"{everything.rms:.4f}"] * 3, "", "")
    if replay.name == "farseer":
        for name, values in PUBLISHED.items():
            grid.add_row(f"published: {name}", *(f"{v:.2f}" for v in values), *blank, "", "", style="dim")
        grid.add_row("published: all", *[f"{PUBLISHED_ALL:.2f}"] * 3, *blank, "", "", style="dim")
    console.print(grid)
    console.print()
