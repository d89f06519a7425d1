"""`report.html` of a table: what was read, the laws, forecasts, figures and points, on one page that opens
offline; of groups of rows their exponents and tests.

It shares its look, its figures and its escaping with the report of a study (`page`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.analysis.forecast import Forecast
from sapis_lab.analysis.laws import COMPUTE_LAWS, SYMBOLS
from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.analysis.table_groups import GroupsFit
from sapis_lab.figures import group_folders
from sapis_lab.files import write_text
from sapis_lab.report.groups_text import notices, parameters, sentences_of_groups
from sapis_lab.report.laws_text import (
    SHOWN,
    beyond_text,
    largest_first,
    left_out_rows,
    parameter_cell,
    sentences_of,
    size_heads,
    sizes_at,
    warnings_of,
)
from sapis_lab.report.page import environment, figures, not_drawn, number

ORDER = [
    *("table_steps", "table_loss", "table_longer", "table_frontier"),
    *("table_laws", "table_residuals", "table_parity", "group_exponents"),
]
OPEN = 3
"""Groups up to which the page opens with the figures of each."""
MOST_DRAWN = 30
"""Groups whose figures the page holds; those of the others are files."""


def write_table_page(fits: TableFit, folder: Path) -> Path:
    """Write `report.html` of one table beside its figures; the path."""
    shown = fits.table
    return _write(
        folder,
        "table.html.j2",
        name=shown.path.name,
        source=_source(shown.path, shown.sha256),
        facts=_facts(fits),
        warnings=[*left_out_rows(shown), *warnings_of(fits)],
        verdict=list(sentences_of(fits)),
        laws=_laws(fits),
        not_fitted={name: r.why_not for name, r in fits.laws.items() if r.fit is None},
        sizes=size_heads(fits),
        forecasts=_forecasts(fits),
        held=_held(fits),
        conditions=", ".join(fits.conditions),
        points=_points(fits),
        columns={k: v for k, v in vars(shown.columns).items() if v},
    )


def write_groups_page(found: GroupsFit, folder: Path) -> Path:
    """Write `report.html` of groups beside their figure; the path."""
    names = parameters(found)
    rows = [
        {
            "group": name,
            "against": fit.table.against,
            "n": len(fit.table.points),
            "chosen": fit.selected,
            "cells": [_cell(found.common_result(name), p) for p in names],
        }
        for name, fit in found.groups.items()
    ]
    forecasts = [row | {"group": name} for name, fit in found.groups.items() for row in _forecasts(fit)]
    first = next(iter(found.groups.values())).table
    return _write(
        folder,
        "groups.html.j2",
        name=f"{found.path.name} by {found.columns.by}",
        source=_source(found.path, first.sha256),
        common=found.common,
        warnings=list(notices(found)),
        verdict=list(sentences_of_groups(found)),
        against=found.columns.against,
        by=found.columns.by,
        parameters=[SYMBOLS.get(p, p) for p in names],
        rows=rows,
        sizes=size_heads(next(iter(found.groups.values()))),
        forecasts=forecasts,
        parts=_parts(found, folder),
        open_parts=len(found.groups) <= OPEN,
        pairwise=found.pairwise,
        common_exponent=found.common_exponent,
        symbols=SYMBOLS,
    )


def _parts(found: GroupsFit, folder: Path) -> list[dict[str, Any]]:
    """Every group by itself: what its own law says, and its figures."""
    places = group_folders(found)
    parts: list[dict[str, Any]] = []
    for k, (name, fit) in enumerate(found.groups.items()):
        drawn = (
            _drawn(folder / "figures" / places[name]) if k < MOST_DRAWN else {"figures": [], "not_drawn": {}}
        )
        about = {"name": name, "law": fit.selected, "n": len(fit.table.points)}
        parts.append(
            about | {"folder": f"figures/{places[name]}", "verdict": list(sentences_of(fit))} | drawn
        )
    return parts


def _drawn(folder: Path) -> dict[str, Any]:
    """The figures of a folder in the order of the report, and why others are missing."""
    found = {figure["name"]: figure for figure in figures(folder)}
    missing = {name.removeprefix("table_"): why for name, why in not_drawn(folder).items()}
    return {"figures": [found[name] for name in ORDER if name in found], "not_drawn": missing}


def _write(folder: Path, template: str, **values: Any) -> Path:
    page = environment().get_template(template).render(**_drawn(folder / "figures"), **values)
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _source(path: Path, sha256: str) -> str:
    return f"{path}, sha256 {sha256}"


def _facts(fits: TableFit) -> list[tuple[str, str]]:
    """Numbers and what they count, at the head of the page."""
    points, heads = fits.table.points, size_heads(fits)
    residual = fits.fits[fits.selected].residual_sd
    facts = [
        (str(len(points)), "points"),
        (str(points.n_cells), "distinct " + (heads[0] if len(heads) == 1 else f"({', '.join(heads)})")),
        (str(len(fits.fits)), "laws fitted"),
        (fits.selected, "chosen law"),
    ]
    return facts + ([] if residual is None else [(f"{100 * residual:.2g} %", "scatter about it")])


def _cell(result: Any, name: str) -> dict[str, Any]:
    cell = parameter_cell(result, name)
    # a question mark is enough on a terminal
    open_ = cell.plain.startswith("?")
    return {
        "text": cell.plain.replace("?", "not identified:", 1) if open_ else cell.plain or "–",
        "open": open_,
    }


def _laws(fits: TableFit) -> dict[str, Any]:
    """Heads and rows of the laws that intervals were made for."""
    names = [n for n in SHOWN if any(r.fit and n in r.fit.law.param_names for r in fits.close.values())]
    best = min((s for f in fits.fits.values() if (s := aicc(f)) is not None), default=None)
    rows = []
    for name, result in fits.close.items():
        assert result.fit is not None
        score = aicc(result.fit)
        rows.append(
            {
                "law": name,
                "chosen": name == fits.selected,
                "aicc": "–" if score is None or best is None else f"{score - best:+.1f}",
                "weight": f"{fits.weights.get(name, 0.0):.2f}",
                "loo": "–" if result.loo is None else f"{result.loo.rmse:.4f}",
                "cells": [_cell(result, n) for n in names],
            }
        )
    others = [name for name in fits.fits if name not in fits.close]
    return {"heads": [SYMBOLS.get(n, n) for n in names], "rows": rows, "others": others}


def _at(fits: TableFit, found: Forecast) -> list[str]:
    return [number(v) for v in sizes_at(found, compute=fits.selected in COMPUTE_LAWS)]


def _forecasts(fits: TableFit) -> list[dict[str, Any]]:
    """The average at every target, and each law with a part in it."""
    rows = []
    for f in fits.forecasts:
        laws = [
            {"law": name, "weight": f"{f.weights[name]:.2f}", "value": f"{one.value:.5g}"}
            | {"interval": f"[{one.low:.5g}, {one.high:.5g}]"}
            for name, one in sorted(f.laws.items(), key=lambda pair: -f.weights[pair[0]])
        ]
        beyond = beyond_text(f.distance, compute=fits.selected in COMPUTE_LAWS)
        rows.append(
            {
                "at": _at(fits, f),
                "value": f"{f.value:.5g}",
                "interval": f"[{f.low:.5g}, {f.high:.5g}]",
                "beyond": beyond.replace(" x ", " × "),
                "laws": laws,
            }
        )
    return rows


def _held(fits: TableFit) -> dict[str, Any] | None:
    """The runs that were left out, the largest first, and how far off their forecasts are."""
    if not fits.held:
        return None
    rows = [
        {
            "at": _at(fits, h.forecast),
            "measured": f"{h.loss:.5g}",
            "value": f"{h.forecast.value:.5g}",
            "interval": f"[{h.forecast.low:.5g}, {h.forecast.high:.5g}]",
            "error": f"{100 * np.expm1(h.error):+.2f} %",
            "inside": h.inside,
        }
        for h in sorted(fits.held, key=largest_first)
    ]
    errors = np.array([h.error for h in fits.held])
    summary = (
        f"{len(rows)} runs; rms of ln(forecast/measured) {np.sqrt(np.mean(errors**2)):.4f}, mean "
        f"{errors.mean():+.4f}; {sum(h.inside for h in fits.held)} inside their intervals."
    )
    return {"rows": rows, "summary": summary}


def _points(fits: TableFit) -> list[list[tuple[str, str]]]:
    """Every point as cells of text and sort key: sizes, loss, law, residual."""
    fit = fits.fits[fits.selected]
    points, rows = fit.points, []
    names = ["n_params"] if fits.selected in COMPUTE_LAWS else ["n_params", "n_frames"]
    sizes = [getattr(points, name) for name in names] + ([] if points.steps is None else [points.steps])
    for *at, loss, law, r in zip(*sizes, points.loss, fit.fitted, fit.residuals, strict=True):
        cells = [(number(float(v)), f"{v:.10g}") for v in at]
        cells += [(f"{v:.5g}", f"{v:.10g}") for v in (loss, law)]
        rows.append([*cells, (f"{100 * r:+.2f} %", f"{r:.10g}")])
    return rows
