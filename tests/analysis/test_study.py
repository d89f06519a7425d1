"""From a runs table to answers: nothing is dropped silently, nothing depends on what else is in the table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import MODELS, runs_table

from sapis_lab.analysis import LawOptions, analyse, write_fit_json
from sapis_lab.analysis.result import Effort
from sapis_lab.analysis.study import best_rates
from sapis_lab.analysis.table import Columns, PointTable
from sapis_lab.analysis.table_fit import Questions, fit_points_of
from sapis_lab.config import ConfigError, load
from sapis_lab.quantities import Measure, declare

FAILED = "transformer-n1.0e5-d50-s0"
FEW = 100


@pytest.fixture(scope="module")
def runs():
    return runs_table(failed=(FAILED,))


@pytest.fixture(scope="module")
def study(runs):
    return analyse(runs, n_bootstrap=FEW)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "fit.json"
    write_fit_json(study, path)
    return json.loads(path.read_text())


def test_failed_rows_are_left_out_of_fits_and_listed_with_their_reason(study):
    assert study.failed["id"].tolist() == [FAILED]
    assert "NaN at step 120" in study.failed["failure"].iloc[0]
    assert len(study.models["transformer"].runs) == 15
    assert len(study.done) + len(study.failed) == len(study.runs)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_a_finished_row_without_a_usable_loss_is_listed_not_fitted(runs, value):
    spoiled = runs[runs["model"] == "geat-l1"].copy()
    spoiled.loc[0, "val_force_rmse"] = value
    study = analyse(spoiled, n_bootstrap=FEW, laws=("n+d",))
    assert spoiled["id"][0] in set(study.failed["id"])
    assert "val_force_rmse" in study.failed.set_index("id").loc[spoiled["id"][0], "failure"]


def test_removing_the_failed_row_changes_no_fit(runs, study):
    clean = analyse(runs[runs["status"] == "done"], n_bootstrap=FEW, laws=("n+d",))
    assert clean.sha256 == study.sha256
    for name in study.models:
        assert clean.models[name].laws["n+d"].intervals == study.models[name].laws["n+d"].intervals


def test_the_order_of_rows_does_not_change_the_fits(runs, study):
    shuffled = analyse(runs.sample(frac=1, random_state=1), n_bootstrap=FEW, laws=("n+d",))
    assert shuffled.sha256 == study.sha256
    for name in study.models:
        fits = [s.models[name].laws["n+d"].fit for s in (shuffled, study)]
        assert fits[0].params["alpha"] == pytest.approx(fits[1].params["alpha"], rel=1e-6)


def test_a_model_keeps_its_intervals_when_others_leave_the_study(runs, study):
    alone = analyse(runs[runs["model"] == "geat-l1"], n_bootstrap=FEW, laws=("n+d",))
    assert alone.models["geat-l1"].laws["n+d"].intervals == study.models["geat-l1"].laws["n+d"].intervals


def test_the_exponents_of_the_table_come_back():
    study = analyse(runs_table(noise=0.005), n_bootstrap=FEW)
    for name, model in study.models.items():
        assert model.selected == "n+d"
        for exponent in ("alpha", "beta"):
            assert model.laws["n+d"].fit.params[exponent] == pytest.approx(
                MODELS[name][4][exponent], abs=0.05
            )


def test_a_model_with_too_few_points_says_why_instead_of_crashing(runs, tmp_path):
    few = runs[(runs["model"] == "transformer") | (runs["model"] == "geat-l1") & (runs["n_frames"] == 50)]
    study = analyse(few, n_bootstrap=FEW, laws=("n+d",))
    model = study.models["geat-l1"]
    assert model.selected is None
    why = "needs at least 2 distinct D, got 1; widen lattice.n_frames"
    assert model.laws["n+d"].why_not == f"not fitted: {why}"
    assert any("not fitted" in line for line in model.identifiability)
    write_fit_json(study, tmp_path / "fit.json")


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_tables_of_any_length_are_analysed(runs, keep, tmp_path):
    study = analyse(runs.iloc[:keep], n_bootstrap=FEW)
    write_fit_json(study, tmp_path / "fit.json")
    assert json.loads((tmp_path / "fit.json").read_text())["table"]["n_done"] == keep


def test_a_saturated_lattice_gives_numbers_but_identifies_nothing(runs):
    corner = runs[(runs["n_params_target"] <= 1e4) & (runs["n_frames"] <= 100)]
    result = analyse(corner, n_bootstrap=FEW).models["geat-l2"].laws["n+d"]
    assert result.fit is not None
    assert result.intervals is None
    assert not any(v.identified for v in result.verdicts)


def test_a_table_where_everything_failed_is_analysed(runs, tmp_path):
    every = runs_table(failed=tuple(runs["id"]))
    study = analyse(every, n_bootstrap=FEW)
    assert len(study.failed) == len(every)
    assert study.comparisons == ()
    write_fit_json(study, tmp_path / "fit.json")


def test_the_reference_is_the_geat_of_the_largest_degree(study):
    assert study.reference == "geat-l2"
    assert {c.model for c in study.comparisons} == {"geat-l1", "nequip-l2", "transformer"}


def test_comparison_ratios_are_those_of_matching_cells(runs, study):
    comparison = next(c for c in study.comparisons if c.model == "transformer")
    assert comparison.loss.n_cells == 15
    cell = comparison.loss.cells.iloc[3]
    same = runs[
        (runs["n_params_target"] == cell["n_params_target"]) & (runs["n_frames"] == cell["n_frames"])
    ].set_index("model")
    assert cell["ratio"] == same.loc["transformer", "val_force_rmse"] / same.loc["geat-l2", "val_force_rmse"]
    low, high = comparison.loss.range
    assert low <= comparison.loss.geometric_mean <= high


def test_accuracy_per_flop_follows_its_definition(runs, study):
    comparison = next(c for c in study.comparisons if c.model == "transformer")
    cell = comparison.accuracy_per_flop_train.cells.iloc[0]
    same = runs[
        (runs["n_params_target"] == cell["n_params_target"]) & (runs["n_frames"] == cell["n_frames"])
    ].set_index("model")
    value = 1 / same["val_energy_mae"] / same["flops_train"]
    assert cell["ratio"] == pytest.approx(value["transformer"] / value["geat-l2"])


def test_costs_are_sums_over_finished_points(runs, study):
    done = runs[runs["status"] == "done"]
    totals = done.groupby("model")["flops_train"].sum()
    for row in study.costs.itertuples():
        assert row.flops_train == pytest.approx(totals[row.model])


def test_fit_json_holds_what_its_readers_need(written):
    assert written["quantity"] == "val_force_rmse"
    assert written["unit"] == "eV/Å"
    assert {k: written["table"][k] for k in ("n_rows", "n_done", "n_failed")} == {
        "n_rows": 64,
        "n_done": 63,
        "n_failed": 1,
    }
    assert len(written["table"]["sha256"]) == 64
    law = written["models"]["geat-l2"]["laws"]["n+d+nd"]
    assert set(law["params"]) == {"A", "B", "C", "alpha", "beta", "gamma"}
    assert set(law["identified"]) == {"n", "d", "nd"}
    assert law["n_bootstrap"] == FEW
    assert law["modes"][0]["objective"] == law["objective"]
    assert written["models"]["geat-l2"]["floor_band_note"]


def test_fit_json_is_the_same_bytes_every_time(runs, tmp_path):
    one = runs[runs["model"] == "transformer"]
    write_fit_json(analyse(one, n_bootstrap=FEW), tmp_path / "a.json")
    write_fit_json(analyse(one, n_bootstrap=FEW), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_analysis_is_the_same_after_a_round_trip_through_parquet(runs, study, tmp_path):
    runs.to_parquet(tmp_path / "runs.parquet")
    assert (
        analyse(pd.read_parquet(tmp_path / "runs.parquet"), n_bootstrap=FEW, laws=("n+d",)).sha256
        == study.sha256
    )


def test_of_several_learning_rates_the_best_on_validation_frames_is_used(runs, study):
    runs = runs[runs["model"] == "transformer"]
    ids = study.models["transformer"].runs["id"]
    worse = runs.copy()
    worse["id"], worse["learning_rate"] = worse["id"] + "-r0.5", 0.5 * worse["learning_rate"]
    worse["val_force_rmse"] *= 1.2
    worse["test_force_rmse"] *= 0.5
    both = pd.concat([worse, runs], ignore_index=True)
    for quantity in ("val_force_rmse", "test_force_rmse"):
        found = analyse(both, quantity=quantity, n_bootstrap=FEW, laws=("n+d",))
        assert sorted(found.done["id"]) == sorted(ids)
        assert found.n_other_rates == len(ids)


@pytest.fixture
def rates():
    """Two learning rates with three seeds each on one (N, D): each is the best of one seed at least."""
    one = runs_table(models=("transformer",), n_params=(1e4,), n_frames=(100,), seeds=(0, 1, 2))
    other = one.assign(id=one["id"] + "-r2", learning_rate=2 * one["learning_rate"])
    one["val_force_mae"], other["val_force_mae"] = [1.0, 1.0, 1.0], [0.5, 0.9, 2.0]
    one["test_force_mae"], other["test_force_mae"] = 2.0, 1.0
    table = pd.concat([one, other], ignore_index=True)
    return table.assign(test_600K_force_mae=table["test_force_mae"], train_force_mae=table["test_force_mae"])


def test_a_law_of_training_errors_wants_points_that_recorded_them():
    runs = runs_table(models=("transformer",))
    with pytest.raises(ValueError, match="no train_force_rmse: its points finished before"):
        analyse(runs, quantity="train_force_rmse", n_bootstrap=FEW, laws=("n+d",))
    runs["train_force_rmse"] = 0.9 * runs["val_force_rmse"]
    runs.loc[0, "train_force_rmse"] = float("nan")  # a point from before
    found = analyse(runs, quantity="train_force_rmse", n_bootstrap=FEW, laws=("n+d",))
    assert len(found.done) == len(runs) - 1 and found.models["transformer"].chosen is not None
    assert found.failed["failure"].tolist() == ["finished, but train_force_rmse = nan"]


def test_one_learning_rate_is_chosen_for_all_seeds(rates):
    for quantity in ("val_force_mae", "test_force_mae", "test_600K_force_mae", "train_force_mae"):
        assert best_rates(rates, quantity)["learning_rate"].tolist() == [5e-3] * 3
    rates.loc[5, "val_force_mae"] = 1.2
    assert best_rates(rates, "test_600K_force_mae")["learning_rate"].tolist() == [1e-2] * 3


def test_a_learning_rate_with_a_failed_seed_gives_way_to_one_without(rates):
    assert best_rates(rates.drop(index=5), "test_force_mae")["learning_rate"].tolist() == [5e-3] * 3
    both = best_rates(rates.drop(index=[1, 5]), "test_force_mae")
    assert both["learning_rate"].tolist() == [1e-2] * 2


def test_a_learning_rate_is_not_chosen_by_test_frames(rates):
    with pytest.raises(ValueError, match="several learning rates but no val_force_mae"):
        best_rates(rates.drop(columns="val_force_mae"), "test_600K_force_mae")
    for error in ("dipole_rmse", "gap_mae"):  # whatever is learnt, a property by declaration included
        declare(Measure("gap_mae", "gap MAE", "eV"))
        with pytest.raises(ValueError, match=f"several learning rates but no val_{error}"):
            best_rates(rates.assign(**{f"test_{error}": 1.0}), f"test_{error}")
    alone = rates[rates["learning_rate"] == 5e-3].drop(columns="val_force_mae")
    assert len(best_rates(alone, "test_600K_force_mae")) == 3


def test_without_points_of_the_reference_nothing_is_compared_yet(runs, tmp_path):
    study = analyse(runs[runs["model"] != "geat-l2"], reference="geat-l2", n_bootstrap=FEW, laws=("n+d",))
    assert study.reference is None and study.comparisons == ()
    write_fit_json(study, tmp_path / "fit.json")


def test_missing_columns_and_repeated_ids_are_refused(runs):
    with pytest.raises(ValueError, match="lacks the columns n_frames"):
        analyse(runs.drop(columns="n_frames"))
    with pytest.raises(ValueError, match="repeats the ids"):
        analyse(pd.concat([runs, runs.iloc[:1]]))
    with pytest.raises(ValueError, match="did you mean 'val_force_rmse'"):
        analyse(runs, quantity="val_force_rms")


def test_options_are_checked_before_anything_runs():
    assert LawOptions(robust=0.01).robust == 0.01
    for wrong in (
        {"laws": ["n+e+d"]},
        {"quantity": "loss"},
        {"quantity": "n_params"},
        {"bootstrap": 3},
        {"robust": -1.0},
        {"boot": 100},
    ):
        with pytest.raises(ConfigError):
            load(LawOptions, wrong, source="study.yaml, law")


def test_analysis_figures_and_report_do_not_import_torch():
    heavy = "{'torch', 'lightning', 'optuna', 'matplotlib.pyplot'}"
    code = (
        f"import sys, sapis_lab.analysis, sapis_lab.figures, sapis_lab.report; print(sorted({heavy} & "
        f"set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_forecast_as_a_table_of_the_same_points_forecasts_it():
    laws = ("n+d", "n+d+nd")
    model = analyse(runs_table(models=("geat-l2",)), laws=laws, n_bootstrap=20).models["geat-l2"]
    points = model.fit.points
    questions = Questions(((2e5, 3e3),), noise="equal")
    table = PointTable(points, None, Path("runs.csv"), Columns("N", "D", "loss"), "0" * 64)
    wanted = fit_points_of(table, laws=[*laws, "n+d+e"], effort=Effort(n_bootstrap=0), questions=questions)
    run, same = model.forecast(2e5, 3e3), wanted.forecasts[0]
    assert (run.value, run.low, run.high) == pytest.approx((same.value, same.low, same.high), rel=1e-6)
    assert run.weights == pytest.approx(same.weights, rel=1e-4, abs=1e-9)
    twice = model.forecast_twice()
    assert twice.n_params == 2 * points.n_params.max() and twice.n_frames == 2 * points.n_frames.max()
