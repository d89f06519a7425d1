"""`sapis fit TABLE`: all laws on any table of N, D and loss, as plain data (`report.laws_text` prints
them)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapis_lab.analysis.fit import Robust
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS, TIED_LAWS, law_named
from sapis_lab.analysis.repeats import RepeatedFit, fit_repeated
from sapis_lab.analysis.result import Effort, LawResult, fit_laws, identifiability, law_json, plain
from sapis_lab.analysis.selection import select
from sapis_lab.analysis.table import Columns, Missing, PointTable, read_points

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
    missing: Missing = "refuse",
    sheet: str | None = None,
) -> TableFit:
    """Read a table (`missing` and `sheet` as in `read_points`) and fit every law to it.

    Raises:
        ValueError: the table cannot be read, or no law can be fitted to it.
    """
    table = read_points(path, columns, missing=missing, sheet=sheet)
    effort = effort or Effort(all_tests=True)
    found = fit_laws(table.points, laws, robust=robust, effort=effort, seed=seed)
    selected, note = select({name: r.fit for name, r in found.items() if r.fit is not None})
    if selected is None:
        raise ValueError(f"{table.path}: no law can be fitted: {_why_none(found, columns)}")
    repeated = None
    if table.epochs is not None:
        points = table.points
        try:
            repeated = fit_repeated(
                selected, points.n_params, points.n_frames, table.epochs, points.loss, robust=robust
            )
        except ValueError as error:
            raise ValueError(f"{table.path}, column {columns.epochs!r}: {error}") from None
    return TableFit(table, robust, effort, seed, found, selected, note, repeated)


def together(lines: Iterable[tuple[str, str]]) -> list[str]:
    """`law: text` for each of the lines, in their order, with all laws of one text before it."""
    laws: dict[str, list[str]] = {}
    for law, text in lines:
        laws.setdefault(text, []).append(law)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in laws.items()]


def _why_none(found: dict[str, LawResult], columns: Columns) -> str:
    """Why there is no law, and which columns of the table need other values."""
    reasons = [(r.law, (r.why_not or "").removeprefix("not fitted: ")) for r in found.values()]
    names = vars(columns)
    lacking = dict.fromkeys(names[role] for r in found.values() for role in r.lacking)
    wanted = " or ".join(f"column {name!r}" for name in lacking)
    where = f"; more rows are needed, with other values in {wanted}" if lacking else ""
    return "; ".join(together(reasons)) + where


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
            "n_dropped": table.n_dropped,
            "n_reduced": table.n_reduced,
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
