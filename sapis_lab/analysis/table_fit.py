"""`sapis fit TABLE`: all laws on any table of N, D and loss, as plain data (`report.laws_text` prints
them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapis_lab.analysis.fit import Robust
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS, TIED_LAWS, law_named
from sapis_lab.analysis.repeats import RepeatedFit, fit_repeated
from sapis_lab.analysis.result import Effort, LawResult, fit_laws, identifiability, law_json, plain
from sapis_lab.analysis.selection import select
from sapis_lab.analysis.table import Columns, PointTable, read_points

SCHEMA = 1


@dataclass(frozen=True)
class TableFit:
    """Every law on the points of one table."""

    table: PointTable
    robust: Robust
    effort: Effort
    seed: int
    laws: dict[str, LawResult]
    selected: str
    selection_note: str
    repeated: RepeatedFit | None
    """The selected law with repeated data, where the table has a column of epochs."""


def law_names(text: str, *, compute: bool = False) -> list[str]:
    """The laws that an option names: `all`, `tied`, or names with commas between them.

    Raises:
        ValueError: a law is not known, or is none of a column of compute.
    """
    if text == "all":
        return list(COMPUTE_LAWS if compute else LAWS)
    names = list(TIED_LAWS) if text == "tied" else [law_named(name.strip()).name for name in text.split(",")]
    for name in names:
        if (name in COMPUTE_LAWS) != compute:
            wanted = ", ".join(COMPUTE_LAWS if compute else [*LAWS, *TIED_LAWS])
            raise ValueError(
                f"law {name!r} is no law of {'compute' if compute else 'N and D'}; wanted all or one of "
                f"{wanted}"
            )
    return list(dict.fromkeys(names))


def fit_table(
    path: Path,
    columns: Columns,
    *,
    laws: Sequence[str],
    robust: Robust = "auto",
    effort: Effort | None = None,
    seed: int = 0,
) -> TableFit:
    """Read a table and fit every law to it.

    Raises:
        ValueError: the table cannot be read, or no law can be fitted to it.
    """
    table, effort = read_points(path, columns), effort or Effort(all_tests=True)
    found = fit_laws(table.points, laws, robust=robust, effort=effort, seed=seed)
    selected, note = select({name: r.fit for name, r in found.items() if r.fit is not None})
    if selected is None:
        reasons = "; ".join(
            f"{r.law}: {(r.why_not or '').removeprefix('not fitted: ')}" for r in found.values()
        )
        raise ValueError(f"{table.path}: no law can be fitted: {reasons}")
    repeated = None
    if table.epochs is not None:
        points = table.points
        repeated = fit_repeated(
            selected, points.n_params, points.n_frames, table.epochs, points.loss, robust=robust
        )
    return TableFit(table, robust, effort, seed, found, selected, note, repeated)


def table_json(fits: TableFit) -> dict[str, Any]:
    """What `--json` writes; infinite ends of intervals are null."""
    table, repeated = fits.table, fits.repeated
    return plain(
        {
            "schema": SCHEMA,
            "file": str(table.path),
            "sha256": table.sha256,
            "columns": vars(table.columns),
            "n_points": len(table.points),
            "n_copies": table.n_copies,
            "n_cells": table.points.n_cells,
            "robust": fits.robust,
            "seed": fits.seed,
            "n_simulations": fits.effort.n_simulations,
            "laws": {name: law_json(result) for name, result in fits.laws.items()},
            "identifiability": identifiability(fits.laws),
            "selected": fits.selected,
            "selection_note": fits.selection_note,
            "repeated": None
            if repeated is None
            else {
                "law": repeated.fit.law.name,
                "params": repeated.fit.params | {"R_star": repeated.r_star},
                "intervals": repeated.intervals | {"R_star": repeated.r_star_interval},
                "open": {"R_star": repeated.r_star_open},
                "objective": repeated.fit.objective,
                "converged": repeated.fit.converged,
            },
        }
    )
