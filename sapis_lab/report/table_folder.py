r"""What `sapis fit TABLE --out FOLDER` writes: the laws of a table, or of groups of its rows, in files.

    fit.json           all numbers, as --json writes them
    forecast.csv       runs that were asked for, each law and the average (where there are any)
    held_out.csv       runs that were left out beside their forecasts (where there are any)
    tables/            laws.csv: every law with its parameters and intervals; laws.tex: the close ones
    figures/           figures as PDF, SVG, PNG, with the plotted numbers as CSV and the caption as text;
                       of groups also those of each, in groups/NUMBER-NAME/
    report.html        all of it on one page that opens offline

A folder that holds anything else is refused before anything is computed; files of an earlier answer in it are
written anew, and those that the new one has no numbers for go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab.analysis.forecast import Forecast, farthest
from sapis_lab.analysis.laws import COMPUTE_LAWS, SYMBOLS
from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table_fit import TableFit, table_json
from sapis_lab.analysis.table_groups import GroupsFit, groups_json
from sapis_lab.config import ConfigError
from sapis_lab.figures import draw_groups, draw_table
from sapis_lab.files import is_temporary, make_folder, read_json, write_text
from sapis_lab.report.laws_text import SHOWN, parameter_cell
from sapis_lab.report.table_page import write_groups_page, write_table_page
from sapis_lab.report.tables import latex, tabular
from sapis_lab.text import for_spreadsheets

FIT = "fit.json"
OURS = {FIT, "forecast.csv", "held_out.csv", "tables", "figures", "report.html"}
KEYS = {"schema", "file", "columns"}
"""What every fit.json of a table has, and none of a study."""


def check_out(folder: Path) -> None:
    """ConfigError where `folder` may not become, or be written again as, the answer of a table."""
    if not folder.exists() and not folder.is_symlink():
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise ConfigError(f"--out {folder}: {above} is no folder, nothing can lie in it")
        return
    if not folder.is_dir():
        raise ConfigError(
            f"--out {folder}: wanted a folder, got {'a file' if folder.is_file() else 'no folder'}"
        )
    there = sorted(path.name for path in folder.iterdir() if not is_temporary(path))
    if not there:
        return
    strange = [name for name in there if name not in OURS]
    if not strange and FIT in there:
        known = read_json(folder / FIT, then="name another folder")
        if set(known) >= KEYS and "models" not in known:
            return
        strange = [FIT]
    what = ", ".join(strange[:3] or there[:3]) + (" and more" if len(strange or there) > 3 else "")
    raise ConfigError(
        f"--out {folder}: the folder holds {what}, which no fit of a table has written; name a new or an "
        f"empty folder"
    )


def write_table_folder(fits: TableFit, folder: Path) -> Path:
    """Write the answer of one table into `folder`; the report."""
    _write_json(table_json(fits), folder)
    forecast, held = forecast_frame(fits), held_frame(fits)
    for name, table in (("forecast.csv", forecast), ("held_out.csv", held)):
        _write_csv(table, folder / name)
    _write_laws({"": fits}, folder / "tables")
    draw_table(fits, folder / "figures")
    return write_table_page(fits, folder)


def write_groups_folder(found: GroupsFit, folder: Path, *, told: Callable[[str], None] | None = None) -> Path:
    """Write the answer of the groups of a table into `folder`; the report. `told` is called with what is
    being drawn."""
    _write_json(groups_json(found), folder)
    parts = [forecast_frame(fits).assign(group=name) for name, fits in found.groups.items()]
    parts = [part for part in parts if len(part)]
    _write_csv(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), folder / "forecast.csv")
    _write_csv(pd.DataFrame(), folder / "held_out.csv")
    _write_laws(found.groups, folder / "tables")
    draw_groups(found, folder / "figures", told=told)
    return write_groups_page(found, folder)


def _write_json(found: Mapping[str, Any], folder: Path) -> None:
    make_folder(folder)
    write_text(folder / FIT, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as a file for people; an empty one removes the file of an earlier answer."""
    if table.empty:
        path.unlink(missing_ok=True)
        return
    text = for_spreadsheets(table).to_csv(index=False, lineterminator="\n", float_format="%.10g")
    write_text(path, text)


def _sizes(fits: TableFit, found: Forecast) -> dict[str, float]:
    if fits.selected in COMPUTE_LAWS:
        return {"c": found.n_params}
    steps = {} if found.steps is None else {"steps": found.steps}
    return {"n": found.n_params, "d": found.n_frames} | steps


def forecast_frame(fits: TableFit) -> pd.DataFrame:
    """One row a target and law, the average first: sizes, law, weight, forecast with its interval, and the
    factor by which the target lies beyond the points in the size that is farthest."""
    rows = []
    for f in fits.forecasts:
        at = _sizes(fits, f)
        beyond = {"beyond": farthest(f.distance, compute=fits.selected in COMPUTE_LAWS)[1]}
        rows.append(
            at | {"law": "average", "weight": 1.0, "value": f.value, "low": f.low, "high": f.high} | beyond
        )
        for name, one in f.laws.items():
            about = {"law": name, "weight": f.weights[name], "value": one.value}
            rows.append(at | about | {"low": one.low, "high": one.high} | beyond)
    return pd.DataFrame(rows)


def held_frame(fits: TableFit) -> pd.DataFrame:
    """One row a run that was left out: sizes, measured loss, averaged forecast with its interval, error as
    ln(forecast / measured), and whether the interval holds the run."""
    return pd.DataFrame(
        [
            _sizes(fits, h.forecast)
            | {
                "measured": h.loss,
                "forecast": h.forecast.value,
                "low": h.forecast.low,
                "high": h.forecast.high,
            }
            | {"error": h.error, "inside": h.inside}
            for h in fits.held
        ]
    )


def laws_frame(fits: TableFit) -> pd.DataFrame:
    """One row a law, the best one first: AICc and weight, then every parameter with its interval and whether
    its term is identified; empty where a law has none, or no interval was made."""
    rows = []
    for name, result in fits.laws.items():
        row: dict[str, Any] = {"law": name, "chosen": name == fits.selected, "why_not": result.why_not}
        if result.fit is not None:
            row |= {"n_parameters": result.fit.law.n_parameters, "aicc": aicc(result.fit)}
            row |= {"weight": fits.weights.get(name), "loo": None if result.loo is None else result.loo.rmse}
            for parameter, value in result.fit.params.items():
                row[parameter] = value
                if result.intervals is not None and parameter in result.intervals:
                    row[f"{parameter}_low"], row[f"{parameter}_high"] = result.intervals[parameter]
            row |= {f"identified_{v.term}": v.identified for v in result.verdicts}
        rows.append(row)
    table = pd.DataFrame(rows)
    if "aicc" not in table:
        return table
    return table.sort_values("aicc", kind="stable", na_position="last", ignore_index=True)


def _write_laws(groups: Mapping[str, TableFit], folder: Path) -> None:
    """laws.csv and laws.tex of one table, or of groups by their names."""
    make_folder(folder)
    named = list(groups) != [""]
    frames = [laws_frame(fits) for fits in groups.values()]
    if named:
        for name, frame in zip(groups, frames, strict=True):
            frame.insert(0, "group", name)
    _write_csv(pd.concat(frames, ignore_index=True), folder / "laws.csv")
    names = [
        n
        for n in SHOWN
        if any(r.fit and n in r.fit.law.param_names for f in groups.values() for r in f.close.values())
    ]
    heads = [*(["group"] if named else []), "law", "AICc", "weight", *(f"${_symbol(n)}$" for n in names)]
    rows = []
    for name, fits in groups.items():
        best = min((s for f in fits.fits.values() if (s := aicc(f)) is not None), default=None)
        for law, result in fits.close.items():
            assert result.fit is not None
            score = aicc(result.fit)
            row = [latex(name)] if named else []
            row += [latex(law) + ("*" if law == fits.selected else "")]
            row += ["--" if score is None or best is None else f"${score - best:+.1f}$"]
            row += [f"{fits.weights.get(law, 0.0):.2f}"]
            rows.append([*row, *(latex(parameter_cell(result, n).plain) for n in names)])
    text = tabular(heads, rows, ("l" if named else "") + "lrr" + "l" * len(names))
    write_text(folder / "laws.tex", text)


def _symbol(name: str) -> str:
    return f"\\{name}" if name in SYMBOLS else name
