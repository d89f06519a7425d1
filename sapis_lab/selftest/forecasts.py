"""The table of `sapis selftest forecasts`: how well laws are chosen, and what their forecasts are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.forecast_check import FACTORS, WAYS, Judged, Replayed, World, judge, replay
from sapis_lab.analysis.table import Columns, read_points
from sapis_lab.screen import new_table
from sapis_lab.selftest.fits import gadre_runs

LEVEL, WANTED = 0.95, (0.93, 0.97)
REACHES = (10.0, 100.0)
LEGEND = (
    "Runs of 10 and 100 times the largest compute: rms of ln(forecast/truth) in %, and the share of 95 % "
    "intervals that hold a new run, in %. truth: the law that the data come from; former: AICc of least "
    "squares over four sums of powers; chosen: of the fit that was made over all laws; average: all laws by "
    "their Akaike weights."
)


def run_forecasts(
    worlds: Sequence[World],
    *,
    n_sets: int,
    seed: int,
    data: Path | None,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Judge every world and every published table; 1 if the average covers less or more than it says where
    the truth is among the laws, else 0."""
    judged: list[Judged] = []
    replayed: list[Replayed] = []

    def keep() -> None:
        save(
            {
                "n_sets": n_sets,
                "seed": seed,
                "wanted": WANTED,
                "worlds": [_json(j) for j in judged],
                "tables": [vars(r) for r in replayed],
            }
        )

    for world in worlds:
        judged.append(judge(world, n_sets=n_sets, seed=seed))
        console.print(Text(_line(judged[-1])), soft_wrap=True)
        keep()
    for factor in FACTORS:
        console.print()
        console.print(_table(judged, factor))
    console.print(Text(LEGEND, "dim"))
    for name, points in _published(data):
        for reach in REACHES:
            found = replay(name, points, reach=reach)
            if found is not None:
                replayed.append(found)
                keep()
    if replayed:
        console.print()
        console.print(_replays(replayed))
    slack = 2.0 * float(np.sqrt(LEVEL * (1 - LEVEL) / n_sets))
    outside = [
        f"{j.world.name} at {s.factor:g} x: {100 * s.coverage:.1f} %"
        for j in judged
        if j.world.law is not None
        for s in j.scores["average"]
        if not WANTED[0] - slack <= s.coverage <= WANTED[1] + slack
    ]
    known = [s for j in judged if j.world.law is not None for s in j.scores["average"]]
    if known:
        mean = 100 * float(np.mean([s.coverage for s in known]))
        console.print(
            Text(
                f"Intervals of the average hold a new run in {mean:.1f} % where the truth is among the laws; "
                f"outside of 93-97 % by more than two standard errors: {'; '.join(outside) or 'none'}"
            ),
            soft_wrap=True,
        )
    return 1 if outside else 0


def _line(j: Judged) -> str:
    chosen = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(j.laws["chosen"].items())[:3])
    more = ""
    if j.same_law is not None:
        exponents = ", ".join(f"{name} {100 * share:.0f} %" for name, share in j.moved.items())
        more = (
            f"; the law of the same runs undiverged {100 * j.same_law:.0f} %, exponents within one standard "
            f"error of theirs {exponents}"
        )
    return f"{j.world.name} ({j.world.law or 'no law'}): chosen {chosen}{more}; {j.seconds:.0f} CPU s"


def _table(judged: Sequence[Judged], factor: float) -> Any:
    """Error and coverage of every way at one distance."""
    ways = ("truth", *WAYS)
    grid = new_table(f"{factor:g} x", *ways, left=[f"{factor:g} x"])
    for j in judged:
        cells = []
        for way in ways:
            found = [s for s in j.scores.get(way, ()) if s.factor == factor]
            cells.append(f"{100 * found[0].error:.1f}  {100 * found[0].coverage:5.1f}" if found else "–")
        grid.add_row(j.world.name, *cells)
    return grid


def _replays(replayed: Sequence[Replayed]) -> Any:
    grid = new_table("table", "reach", "runs", *WAYS, "chosen law", left=["table", "chosen law"])
    for r in replayed:
        cells = [
            f"{100 * r.error[way]:.2f} ({100 * r.bias[way]:+.2f})  {100 * r.coverage[way]:3.0f}"
            for way in WAYS
        ]
        laws = f"{r.laws['chosen']}, was {r.laws['former']}"
        grid.add_row(r.table, f"{r.reach:g} x", f"{r.n_fitted} > {r.n_forecast}", *cells, laws)
    return grid


def _published(data: Path | None) -> Iterator[tuple[str, Points]]:
    """The tables of $SAPIS_DATA/scaling."""
    folder = None if data is None else data / "scaling"
    if folder is None or not folder.is_dir():
        return
    for name, path, columns in (
        ("kyo-takano", "kyo_takano_llm/df.csv", ("N", "D", "loss")),
        ("optimetal", "optimetal_2b/grid.csv", ("n_params", "n_frames", "loss")),
        ("farseer", "farseer/train.csv", ("N", "D", "loss")),
    ):
        if (folder / path).is_file():
            yield name, read_points(folder / path, Columns(*columns)).points
    if (folder / "gadre_overtraining" / "models").is_dir():
        for name, runs in gadre_runs(folder / "gadre_overtraining").groupby("data"):
            yield f"gadre {name}", Points(*(runs[c].to_numpy(float) for c in ("n", "d", "loss")))


def _json(j: Judged) -> dict[str, Any]:
    return vars(j) | {
        "world": {"name": j.world.name, "law": j.world.law, "n_diverged": j.world.n_diverged},
        "scores": {way: [vars(s) for s in scores] for way, scores in j.scores.items()},
    }
