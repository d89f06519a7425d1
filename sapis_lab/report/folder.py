"""From `runs.parquet` and `study.yaml` of a results folder to `fit.json`, `figures/` and `report.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sapis_lab.analysis.options import LawOptions
from sapis_lab.analysis.study import StudyAnalysis, analyse, write_fit_json
from sapis_lab.config import load, read_yaml
from sapis_lab.figures import draw_all
from sapis_lab.records import read_table
from sapis_lab.report.page import write_report


def analyse_folder(folder: Path, **options: Any) -> StudyAnalysis:
    """Write fit.json, figures/ and report.html of a results folder and return the analysis.

    Args:
        folder: results/NAME, holding runs.parquet and, for its name, question and `law:` section, study.yaml.
        options: fields of `LawOptions` that override the study's, such as quantity="test_force_rmse".

    Raises:
        ValueError: there is no runs table, or an option cannot be used.
    """
    folder = Path(folder)
    settings = analyse_options(folder, **options)
    study = analyse(
        read_table(folder),
        quantity=settings.quantity,
        laws=settings.laws,
        n_bootstrap=settings.bootstrap,
        n_simulations=settings.calibrate,
        robust=settings.robust,
        reference=settings.reference,
        seed=settings.seed,
    )
    write_fit_json(study, folder / "fit.json")
    draw_all(study, folder / "figures")
    write_report(folder)
    return study


def analyse_options(folder: Path, **options: Any) -> LawOptions:
    """The `law:` section of the folder's study.yaml with `options` laid on it; the defaults where there is neither."""
    path = folder / "study.yaml"
    section = (read_yaml(path).get("law") or {}) if path.exists() else {}
    return load(LawOptions, section | options, source=f"{path.name}, law")
