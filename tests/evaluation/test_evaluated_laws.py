"""What an evaluation measures is a quantity like any other: laws are fitted to it, figures and reports show
it."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "analysis"))

from synthetic_runs import MODELS, runs_table  # noqa: E402

from sapis_lab.analysis.study import analyse, best_rates, fit_json, write_fit_json  # noqa: E402
from sapis_lab.figures import Drawing, draw  # noqa: E402
from sapis_lab.quantities import quantity  # noqa: E402
from sapis_lab.records import read_table, write_table  # noqa: E402
from sapis_lab.report.evaluated import evaluated_rows  # noqa: E402
from sapis_lab.report.tables import write_tables  # noqa: E402

TAIL = "errors-hot_test_300K_force_error_q99"


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Training errors that follow no law, and a quantile of an evaluation that does."""
    table = runs_table(models=("geat-l2",), seeds=(0, 1))
    return table.assign(**{TAIL: table["val_force_rmse"], "val_force_rmse": 0.5})


def test_a_law_is_fitted_and_shown(runs: pd.DataFrame, tmp_path: Path) -> None:
    study = analyse(runs, quantity=TAIL, n_bootstrap=100)
    model = study.models["geat-l2"]
    assert model.fit is not None
    assert model.fit.params["alpha"] == pytest.approx(MODELS["geat-l2"][4]["alpha"], abs=0.1)
    label = "est 300K 99 % quantile of the force error of an atom (hot)"
    drawing = draw("loss_vs_data", study)
    assert isinstance(drawing, Drawing) and label in drawing.caption
    write_fit_json(study, tmp_path / "fit.json")
    write_tables(fit_json(study), runs, tmp_path / "tables")
    heads = (tmp_path / "tables" / "points.tex").read_text()
    assert "quantile of the force error of an atom (hot) (meV/" in heads.replace("\\%", "%")


def test_of_several_rates_one_is_chosen_by_validation_frames(runs: pd.DataFrame) -> None:
    other = runs.assign(id=runs["id"] + "-r2", learning_rate=2 * runs["learning_rate"], val_force_rmse=0.4)
    other[TAIL] *= 2  # worse by what is evaluated, on test frames
    chosen = best_rates(pd.concat([runs, other], ignore_index=True), TAIL)
    assert set(chosen["learning_rate"]) == set(other["learning_rate"])


def test_a_table_says_what_its_columns_are(runs: pd.DataFrame, tmp_path: Path) -> None:
    from sapis_lab.quantities import declared

    (found,) = declared([TAIL, "val_force_rmse", "n_params"])
    assert found == quantity(TAIL) and found.evaluation == "errors-hot"
    write_table(runs, tmp_path)
    assert read_table(tmp_path)[TAIL].equals(runs[TAIL])


def test_the_report_sets_what_was_evaluated_beside_the_error() -> None:
    table = runs_table(models=("geat-l2",), seeds=(0, 1))
    table["dynamics_time_to_failure"] = 1 / table["val_force_rmse"]
    table.loc[0, "dynamics_time_to_failure"] = float("nan")
    (row,) = evaluated_rows(table, quantity("val_force_rmse"))
    assert row["quantity"] == "time to failure (ps)" and row["n"] == len(table) - 1 and row["rank"] == "-1.00"
    cells = table.groupby(["n_params", "n_frames"])[["val_force_rmse", "dynamics_time_to_failure"]].mean()
    least = cells["val_force_rmse"].idxmin()
    assert row["best"] == f"{cells.loc[least, 'dynamics_time_to_failure']:.3g}"
    assert row["where"] == f"N = {round(least[0]):,}, D = {least[1]:,}"


def test_what_baselines_have_and_times_of_a_machine_are_not_in_that_table() -> None:
    table = runs_table(models=("geat-l2",), seeds=(0, 1))
    table["baselines_test_force_mae_of_mean"] = 0.5
    assert evaluated_rows(table, quantity("val_force_rmse")) == []
