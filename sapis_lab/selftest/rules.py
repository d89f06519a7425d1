"""The table of `sapis selftest rules`: how often 95 % intervals hold the true exponents of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.rule_coverage import (
    EXPONENTS,
    LEVEL,
    WANTED,
    RuleCoverage,
    World,
    measure_rules,
)

COLUMNS = (
    *("cells", "decades", "rates", "batches", "seeds", "floor", "noise", "scatter", "cliff", "setting"),
    *("λ", "μ", "width λ", "width μ", "bias λ", "bias μ", "CPU s", ""),
)
WIDTHS = (7, 9, 10, 9, 7, 7, 8, 9, 7, 15, 7, 7, 9, 9, 9, 9, 7, 16)
LEGEND = (
    "Share of 95 % intervals of the exponents of N (λ) and D (μ) that hold the truth, in %; wanted 93-97 "
    "where a design identifies them.\nWidth: median of the intervals; bias: mean of the estimate minus the "
    "truth; rates: number and the factor between them.\nStandard error of a share near 95 %: "
)


def run_rules(
    designs: Sequence[World],
    *,
    n_sets: int,
    seed: int,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Measure and print every design, its rows as soon as they are known; 1 if an identified one deviates,
    else 0."""
    console.print(Text(_line(COLUMNS), "dim"), soft_wrap=True)
    found: list[RuleCoverage] = []
    for world in designs:
        m = measure_rules(world, n_sets=n_sets, seed=seed)
        found.append(m)
        for row in _rows(m):
            console.print(Text(_line(row), "red" if row[-1] == "OUTSIDE" else ""), soft_wrap=True)
        cells = [asdict(c) | {"deviates": c.identified and c.deviates()} for c in found]
        save({"wanted": WANTED, "n_sets": n_sets, "seed": seed, "worlds": cells})
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / n_sets)
    console.print(Text(f"{LEGEND}{error:.1f} %.", "dim"), soft_wrap=True)
    known = [m for m in found if m.identified]
    outside = sum(m.deviates() for m in known)
    shares = [s for m in known for by in m.covered.values() for s in by.values()]
    mean = f"; mean coverage {100 * float(np.mean(shares)):.1f} %" if shares else ""
    words = f"{len(known)} of {len(found)} designs identify their exponents"
    console.print(Text(f"{words}; outside 93-97 % by more than two standard errors: {outside}{mean}"))
    return 1 if outside else 0


def _rows(m: RuleCoverage) -> list[tuple[str, ...]]:
    w = m.world
    head = (
        f"{w.side}x{w.side}",
        f"{w.decades:g}",
        f"{w.rates} x {w.ratio:g}",
        f"{w.batches}",
        f"{w.seeds}",
        f"{w.floor:g}",
        f"{100 * w.noise:g} %",
        f"{w.scatter:g}",
        f"{w.cliff:g}",
    )
    word = "not identified" if not m.identified else "OUTSIDE" if m.deviates() else "ok"
    rows = []
    for setting in w.settings:
        rows.append(
            (
                *head,
                setting.replace("_", " "),
                *(f"{100 * m.covered[setting][e]:.1f}" for e in EXPONENTS),
                *(f"{m.width[setting][e]:.3f}" for e in EXPONENTS),
                *(f"{m.bias[setting][e]:+.4f}" for e in EXPONENTS),
                f"{m.seconds:.0f}",
                word,
            )
        )
    return rows


def _line(cells: Sequence[str]) -> str:
    return "".join(f"{c:<{w}}" for c, w in zip(cells, WIDTHS, strict=True))
