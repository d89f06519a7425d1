"""A whole study of dipole moments: its table, laws, figures and report are of that quantity, in its unit."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from labelled_files import DYNAMICS, MODEL

pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")

STUDY = {
    "question": "How do dipole moments of water scale?",
    "data": DYNAMICS,
    "models": [{**MODEL, "cutoff": 3.0}],
    "lattice": {"n_params": [1000], "n_frames": [6, 24]},
    "train": {
        "steps": 30,
        "batch_size": 6,
        "validations": 2,
        "learning_rate": 0.02,
        "targets": ["dipole", "charges"],
    },
    "law": {"quantity": "val_dipole_rmse", "laws": ["n+d"], "bootstrap": 100, "calibrate": 0},
}


@pytest.mark.long
def test_a_study_of_dipole_moments_reports_them_with_their_unit(project: Path, sapis) -> None:
    (project / "studies/water.yaml").write_text(yaml.safe_dump(STUDY))
    done = sapis("study", "run", "water", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = project / "results/water"
    runs = pd.read_parquet(folder / "runs.parquet")
    assert len(runs) == 2 and runs["status"].eq("done").all() and not runs.attrs
    errors = [c for c in runs if c.startswith("val_")]
    assert errors == [
        "val_force_rmse",
        "val_force_mae",
        "val_energy_rmse",
        "val_energy_mae",
        "val_energy_mae_per_atom",
        "val_dipole_rmse",
        "val_dipole_mae",
        "val_charge_rmse",
        "val_charge_mae",
    ]
    # N is that of trunk and heads together
    records = [json.loads(p.read_text()) for p in sorted((folder / "records").glob("*/record.json"))]
    assert {r["n_params"] for r in records} == set(runs["n_params"])
    fit = json.loads((folder / "fit.json").read_text())
    assert (fit["quantity"], fit["unit"]) == ("val_dipole_rmse", "e Å")
    page = (folder / "report.html").read_text()
    assert "validation dipole RMSE" in page and "me Å" in page
    assert (folder / "figures/loss_vs_data.txt").read_text().startswith("Validation dipole RMSE against ")
    plotted = pd.read_csv(folder / "figures/loss_vs_data.csv")
    points = plotted[plotted["part"] == "point"]["loss"]
    assert sorted(points) == pytest.approx(sorted(1e3 * runs["val_dipole_rmse"]), rel=1e-6)
