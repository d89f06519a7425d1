"""The best split of a budget: against its closed form, against a search by brute force, and what it says of a
fit."""

import numpy as np
import pytest

from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS
from sapis_lab.analysis.optimum import Cost, optimum, optimum_band, waste
from sapis_lab.analysis.uncertainty import bootstrap

TRUTH = {"A": 100.0, "B": 50.0, "C": 30.0, "E": 0.02, "alpha": 0.5, "beta": 0.4, "gamma": 0.15}
BUDGETS = np.geomspace(1e6, 1e18, 5)


def test_two_terms_have_the_closed_form():
    cost = Cost(6.0)
    found = optimum(LAWS["n+d"], TRUTH, BUDGETS, cost)
    a, b = TRUTH["alpha"], TRUTH["beta"]
    G, x = (a * TRUTH["A"] / (b * TRUTH["B"])) ** (1 / (a + b)), BUDGETS / cost.kappa
    assert np.allclose(found.n_params, G * x ** (b / (a + b)), rtol=1e-9)
    assert np.allclose(found.n_frames, x ** (a / (a + b)) / G, rtol=1e-9)
    assert np.allclose(cost.of(found.n_params, found.n_frames), BUDGETS, rtol=1e-12)
    assert not found.at_edge.any()


@pytest.mark.parametrize("name", ["n+d+nd", "n+d+e", "n+d+nd+e"])
def test_neither_interaction_nor_floor_moves_the_split_where_cost_is_the_product(name):
    plain, other = (optimum(LAWS[law], TRUTH, BUDGETS, Cost(6.0)) for law in ("n+d", name))
    assert np.allclose(other.n_params, plain.n_params, rtol=1e-9)
    assert (other.loss > plain.loss).all()


@pytest.mark.parametrize("label", [0.0, 1e5, 1e9])
def test_no_other_split_of_the_budget_is_better(label):
    cost = Cost(6.0, label=label)
    found = optimum(LAWS["n+d+nd+e"], TRUTH, BUDGETS, cost)
    for k, budget in enumerate(BUDGETS):
        N = found.n_params[k] * np.geomspace(1e-3, 1e3, 2001)
        loss = LAWS["n+d+nd+e"].predict(TRUTH, N, budget / (cost.kappa * N + cost.label))
        assert found.loss[k] <= loss.min() * (1 + 1e-12)


def test_dear_labels_ask_for_fewer_frames_and_larger_models():
    cheap, dear = (optimum(LAWS["n+d"], TRUTH, 1e12, Cost(6.0, label=label)) for label in (0.0, 1e9))
    assert dear.n_frames[0] < 0.1 * cheap.n_frames[0]
    assert dear.n_params[0] > cheap.n_params[0]


def test_waste_is_the_extra_budget_that_makes_up_for_a_wrong_split():
    cost, law = Cost(6.0), LAWS["n+d"]
    best = optimum(law, TRUTH, 1e12, cost)
    N = best.n_params[0] * 1.3
    loss = law.predict(TRUTH, N, 1e12 / (6.0 * N))
    enough = np.geomspace(1.0, 1.3, 4001)
    budget = enough[np.searchsorted(optimum(law, TRUTH, 1e12 / enough, cost).loss, loss)]
    assert waste(TRUTH["alpha"] + TRUTH["beta"], np.log(1.3)) == pytest.approx(budget - 1, rel=0.1)


def test_a_band_of_the_optimum_holds_the_truth_and_has_the_shape_of_the_budgets():
    n, d = (a.ravel() for a in np.meshgrid(3e3 * np.geomspace(1, 300, 5), 50 * np.geomspace(1, 300, 5)))
    loss = LAWS["n+d"].predict(TRUTH, n, d) * np.exp(0.02 * np.random.default_rng(0).standard_normal(len(n)))
    found = fit("n+d", n, d, loss)
    draws = bootstrap(found, n_resamples=300, generator=np.random.default_rng(0))
    budget = np.geomspace(1e8, 1e10, 3)
    bands = optimum_band(found, draws, budget, Cost(6.0))
    truth = optimum(LAWS["n+d"], TRUTH, budget, Cost(6.0))
    assert bands.n_params[0].shape == (3,)
    assert ((bands.n_params[0] < truth.n_params) & (truth.n_params < bands.n_params[1])).all()
    assert ((bands.loss[0] < truth.loss) & (truth.loss < bands.loss[1])).all()
    assert (bands.waste < 0.2).all()


def test_the_cost_of_runs_is_found_and_one_at_fixed_steps_refused():
    n, d = (a.ravel() for a in np.meshgrid([1e3, 1e4], [10.0, 100.0, 1000.0]))
    assert Cost.from_runs(n, d, 60.0 * n * d).kappa == pytest.approx(60.0)
    with pytest.raises(ValueError, match="fixed steps"):
        Cost.from_runs(n, d, 1e5 * n)


def test_costs_and_laws_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="kappa > 0"):
        Cost(0.0)
    with pytest.raises(ValueError, match="nothing to trade"):
        optimum(COMPUTE_LAWS["c"], {"A": 1.0, "alpha": 0.1}, 1e9, Cost(6.0))
