"""Where things lie in a results folder.

results/NAME/
  study.yaml        resolved settings
  provenance.json   commit, versions, host, device, command, times
  points.json       the lattice: every point with its N, D and fingerprint, and what it was made from
  points/ID/        config.yaml; progress.json while it runs, then record.json or failure.txt; log.txt;
                    last.ckpt
  runs.parquet, runs.csv, fit.json, figures/, report.html
  evaluations/ID/   what is asked of the evaluation of a point, and raw arrays; scores lie in
                    points/ID/evaluation/
  answers.json      sha256 of the records and of the answers made from them (`whole`)
"""

from __future__ import annotations

from pathlib import Path

from sapis_lab.config import home


def results_folder(name: str) -> Path:
    """`results/NAME/` of the project."""
    return home() / "results" / name


def point_folder(folder: Path, id: str) -> Path:
    return folder / "points" / id
