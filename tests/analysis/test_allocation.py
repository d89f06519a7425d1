"""The best split of a study's budget: known where it is known in closed form, and not stated where the points
do not support it."""

import numpy as np
import pytest
from synthetic_runs import MODELS, runs_table

from sapis_lab.analysis import analyse
from sapis_lab.analysis.costs import cost_model
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.optimum import optimum

WIDE = {"n_params": (1e3, 3e3, 1e4, 3e4, 1e5), "n_frames": (50, 100, 200, 400, 800)}


@pytest.fixture(scope="module")
def study():
    return analyse(runs_table(models=("geat-l2",), epochs=20, noise=0.02, **WIDE), n_bootstrap=200)


def test_the_split_is_that_of_the_true_law_within_its_band(study):
    found, runs = study.models["geat-l2"].allocation, study.models["geat-l2"].runs
    cost = cost_model(runs, "flops_train").per_budget()
    true = optimum(LAWS["n+d"], MODELS["geat-l2"][4], found.budget, cost)
    low, high = found.band.n_params
    assert (low * 0.95 < true.n_params).all() and (true.n_params < high * 1.05).all()
    row = found.at(found.largest)
    assert cost.of(row["n_params"], row["n_frames"]) == pytest.approx(found.largest, rel=1e-3)
    assert row["n_params_interval"][0] < row["n_params"] < row["n_params_interval"][1]


def test_the_compute_exponent_is_that_of_the_two_terms(study):
    value, low, high = study.models["geat-l2"].allocation.compute_exponent
    p = MODELS["geat-l2"][4]
    assert low < value < high
    assert value == pytest.approx(p["alpha"] * p["beta"] / (p["alpha"] + p["beta"]), rel=0.12)


def test_a_floor_that_is_not_excluded_widens_the_band(study):
    model = study.models["geat-l2"]
    assert model.floor_open and model.allocation.with_floor
    assert (model.allocation.loss[1] >= model.allocation.band.loss[1]).all()
    assert model.allocation.loss[1][-1] > 1.02 * model.allocation.band.loss[1][-1]
    low, high = model.band(1e6, 1e4)
    assert low < model.fit.predict(1e6, 1e4) < high


def test_labels_that_cost_something_move_the_split_to_large_models(study):
    dear = (
        analyse(
            runs_table(models=("geat-l2",), epochs=20, noise=0.02, **WIDE), n_bootstrap=200, label_flops=1e10
        )
        .models["geat-l2"]
        .allocation
    )
    free = study.models["geat-l2"].allocation
    budget = np.sqrt(dear.budget[0] * dear.budget[-1])
    assert dear.at(budget)["n_params"] > free.at(budget)["n_params"]


def test_at_fixed_steps_nothing_is_stated():
    study = analyse(runs_table(models=("geat-l2",), **WIDE), n_bootstrap=100)
    assert study.models["geat-l2"].allocation.band is None
    assert "fixed number of steps" in study.models["geat-l2"].allocation.why_not


def test_terms_that_the_points_do_not_bound_give_no_split():
    few = runs_table(models=("geat-l2",), epochs=20, n_params=(3e3, 1e4), n_frames=(50, 100, 200))
    assert "does not bound" in analyse(few, n_bootstrap=100).models["geat-l2"].allocation.why_not
