"""The table of `sapis selftest coverage`: how often 95 % intervals hold the true exponents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.coverage import LEVEL, WANTED, Cell, Coverage, measure

COLUMNS = (
    "law",
    "points",
    "decades",
    "noise",
    "fit",
    "α by F",
    "β by F",
    "α",
    "β",
    "chi²",
    "agree",
    "CPU s",
    "",
)
LEGEND = (
    "Share of 95 % intervals that hold the true exponent, in %; wanted 93-97 where the law is identifiable. "
    "α, β: critical values simulated for\n"
    "each data set, as `sapis fit` does; by F: those of F(1, n - p); chi²: n ln(F0/F1) against chi-square, "
    "the smaller of α and β. agree: data\n"
    "sets whose optimum and intervals came out the same through `fit` and `profiles`. "
    "Not identifiable: the Cramér-Rao interval of an exponent\n"
    "would not pass the verdict nine times in ten; there the tool reports a smaller law. "
    "Standard error of a share near 95 %: "
)


def run_coverage(
    designs: Sequence[Cell],
    *,
    n_sets: int,
    n_simulations: int,
    seed: int,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Measure and print every design, a row as soon as it is known; 1 if an identifiable one deviates, else
    0."""
    widths = (24, 7, 8, 6, 6, 7, 7, 6, 6, 6, 7, 7, 18)
    console.print(
        Text("".join(f"{c:<{w}}" for c, w in zip(COLUMNS, widths, strict=True)), "dim"), soft_wrap=True
    )
    found: list[Coverage] = []
    for cell in designs:
        m = measure(cell, n_sets=n_sets, n_simulations=n_simulations, seed=seed)
        found.append(m)
        word = "not identifiable" if not m.identifiable else "OUTSIDE" if m.deviates() else "ok"
        row = [
            cell.truth.name,
            f"{cell.side}x{cell.side}",
            f"{cell.decades:g}",
            f"{100 * cell.noise:g} %",
            "Huber" if cell.robust == "auto" else "LS",
            *(f"{100 * m.by_f[k]:.1f}" for k in ("alpha", "beta")),
            *(f"{100 * m.by_simulation[k]:.1f}" if m.by_simulation else "–" for k in ("alpha", "beta")),
            f"{100 * min(m.by_chi_square.values()):.1f}" if m.by_chi_square else "–",
            f"{m.n_agreed}/{m.n_checked}",
            f"{m.seconds:.0f}",
            word,
        ]
        console.print(
            Text(
                "".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)),
                "red" if word == "OUTSIDE" else "",
            ),
            soft_wrap=True,
        )
        save(
            {
                "wanted": WANTED,
                "n_sets": n_sets,
                "n_simulations": n_simulations,
                "seed": seed,
                "cells": [_json(c) for c in found],
            }
        )
    console.print(
        Text(f"{LEGEND}{100 * np.sqrt(LEVEL * (1 - LEVEL) / n_sets):.1f} %.", "dim"), soft_wrap=True
    )
    known = [m for m in found if m.identifiable]
    outside = [m for m in known if m.deviates()]
    strictly = sum(m.deviates(standard_errors=0.0) for m in known)
    counts = f"α or β outside 93-97 %: {strictly}, by more than two standard errors: {len(outside)}"
    console.print(Text(f"{len(known)} of {len(found)} cells identifiable; {counts}"))
    return 1 if outside else 0


def _json(m: Coverage) -> dict[str, Any]:
    cell = vars(m.cell) | {"truth": vars(m.cell.truth)}
    return vars(m) | {"cell": cell, "deviates": m.identifiable and m.deviates()}
