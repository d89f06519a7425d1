"""From `runs.parquet` and `study.yaml` of a results folder to `fit.json`, `figures/`, `tables/` and
`report.html`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab import outside
from sapis_lab.analysis.options import LawOptions
from sapis_lab.analysis.result import plain
from sapis_lab.analysis.study import StudyAnalysis, analyse, fit_json, write_fit_json
from sapis_lab.config import home, load, read_yaml
from sapis_lab.records import read_csv, read_table
from sapis_lab.report.page import write_report
from sapis_lab.report.tables import write_tables

HISTORY = [
    "step",
    "action",
    "n_params",
    "n_frames",
    "seed",
    "flops",
    "flops_total",
    "predicted",
    "predicted_low",
    "predicted_high",
]
HISTORY += ["measured", "reason"]


def analyse_folder(folder: Path, **options: Any) -> StudyAnalysis:
    """Write fit.json, figures/, tables/ and report.html of a results folder and return the analysis.

    Args:
        folder: results/NAME, holding runs.parquet and, for its name, question and `law:` section, study.yaml.
            Where the adaptive scaler has run there is scale/history.csv.
        options: fields of `LawOptions` that override the study's, such as quantity="test_force_rmse".

    Raises:
        ValueError: there is no runs table, or an option cannot be used.
    """
    from sapis_lab.figures import draw_all  # brings matplotlib, which printed answers do without

    folder = Path(folder)
    runs = read_table(folder)  # before the settings, which may name an error that the table declares
    settings = analyse_options(folder, **options)
    study = analyse(
        runs,
        quantity=settings.quantity,
        laws=settings.laws,
        n_bootstrap=settings.bootstrap,
        n_simulations=settings.calibrate,
        robust=settings.robust,
        reference=settings.reference,
        label_flops=settings.label_flops,
        seed=settings.seed,
    )
    study = replace(study, history=read_history(folder / "scale" / "history.csv"))
    write_fit_json(study, folder / "fit.json")
    write_tables(plain(fit_json(study)), runs, folder / "tables", study=_settings_of(folder))
    draw_all(study, folder / "figures")
    write_report(folder)
    return study


def read_history(path: Path) -> pd.DataFrame | None:
    """The decisions of the adaptive scaler, one row a step; None where it has not run.

    Raises:
        ValueError: a column is missing.
    """
    if not path.exists():
        return None
    return read_csv(path, columns=HISTORY, then="run `sapis scale` again")


def analyse_options(folder: Path, **options: Any) -> LawOptions:
    """The `law:` section of the folder's study.yaml with `options` laid on it; the defaults where there is
    neither."""
    study = _settings_of(folder)
    if isinstance(place := study.get("kinds"), str):  # figures of the study's own
        outside.add(home() / place)
    section = study.get("law") or {}
    return load(LawOptions, section | options, source="study.yaml, law")


def _settings_of(folder: Path) -> dict[str, Any]:
    path = folder / "study.yaml"
    return read_yaml(path) if path.exists() else {}
