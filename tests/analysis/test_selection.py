"""Forecasts of points left out, and tests against the smaller law."""

import numpy as np
import pytest

from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.selection import (
    SLACK,
    HeldOut,
    aicc,
    deviances,
    hold_out_largest,
    lack_of_fit,
    leave_one_out,
    likelihood_ratio,
    select,
)

TRUTH = {"A": 250.0, "B": 12.0, "C": 300.0, "E": 0.05, "alpha": 0.8, "beta": 0.75, "gamma": 0.6}
N, D = (a.ravel() for a in np.meshgrid(3e3 * np.geomspace(1, 300, 5), 50 * np.geomspace(1, 300, 5)))


def noisy(name, *, noise=0.02, seed=0, n=N, d=D):
    return LAWS[name].predict(TRUTH, n, d) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(len(n))
    )


def test_an_interaction_that_is_a_floor_in_disguise_gives_way_to_the_floor():
    """Scattered sizes and tokens as of language models: an exponent of 0.007 follows the noise better than
    none."""
    generator = np.random.default_rng(0)
    n, d = 10 ** generator.uniform(7.5, 10.2, 240), 10 ** generator.uniform(9, 11.5, 240)
    loss = (1.69 + 406.4 * n**-0.34 + 410.7 * d**-0.28) * np.exp(generator.normal(0, 0.003, 240))
    fits = {name: fit(name, n, d, loss) for name in ("n+d", "n+d+e", "n+d+nd")}
    assert fits["n+d+nd"].params["gamma"] < 0.01 and aicc(fits["n+d+nd"]) < aicc(fits["n+d+e"]) - SLACK
    chosen, note = select(fits)
    assert chosen == "n+d+e" and "makes its interaction a floor" in note
    assert select({name: fits[name] for name in ("n+d", "n+d+nd")})[0] == "n+d+nd"


def test_leaving_one_out_is_the_forecast_of_a_fit_without_it():
    loss = noisy("n+d+e")
    found = fit("n+d+e", N, D, loss, robust="none")
    errors = leave_one_out(found).errors
    for i in (0, 7, 24):
        rest = np.arange(len(N)) != i
        without = fit("n+d+e", N[rest], D[rest], loss[rest], robust="none")
        assert errors[i] == pytest.approx(np.log(without.predict(N[i], D[i]) / loss[i]), abs=1e-6)


def test_points_that_cannot_be_spared_have_no_forecast():
    few = slice(0, 20, 4)
    assert leave_one_out(fit("n+d", N[few], D[few], noisy("n+d")[few])) is None


@pytest.mark.parametrize(("block", "n_held"), [("n_params", 5), ("n_frames", 5), ("n_params*n_frames", None)])
def test_the_largest_points_are_forecast_from_the_smaller_ones(block, n_held):
    found = hold_out_largest(fit("n+d", N, D, noisy("n+d", noise=0.005)), block)
    assert isinstance(found, HeldOut)
    assert n_held is None or found.n_held == n_held
    assert found.rmse < 0.05


def test_a_law_without_the_floor_of_its_data_is_too_hopeful_about_the_largest_points():
    found = hold_out_largest(fit("n+d", N, D, noisy("n+d+e", noise=0.002)), "n_params*n_frames")
    assert found.bias < -0.02


def test_a_block_that_leaves_too_little_says_why():
    two = np.isin(N, np.unique(N)[:2])
    assert "needs at least 2 distinct N" in hold_out_largest(
        fit("n+d", N[two], D[two], noisy("n+d")[two]), "n_params"
    )


def test_lack_of_fit_is_seen_with_repeats_and_not_where_the_law_is_true():
    n, d = np.tile(N, 3), np.tile(D, 3)
    p_values = [
        lack_of_fit(fit("n+d", n, d, noisy("n+d", seed=seed, n=n, d=d))).p_value for seed in range(20)
    ]
    assert 0 < sum(p < 0.5 for p in p_values) < 20
    assert sum(p < 0.05 for p in p_values) <= 4
    wrong = lack_of_fit(fit("n+d", n, d, noisy("n+d+e", noise=0.005, n=n, d=d)))
    assert wrong.p_value < 1e-6
    assert wrong.dof == (21, 50)
    assert lack_of_fit(fit("n+d", N, D, noisy("n+d"))) is None


def test_an_interaction_that_is_there_is_found_and_one_that_is_not_is_not():
    p_values = {}
    for name, seed in (("n+d+nd", 0), ("n+d", 1)):
        loss = noisy(name, seed=seed)
        small, large = (fit(law, N, D, loss) for law in ("n+d", "n+d+nd"))
        p_values[name] = likelihood_ratio(
            small, large, n_simulations=99, generator=np.random.default_rng(0)
        ).p_value
    assert p_values["n+d+nd"] == 0.01
    assert p_values["n+d"] > 0.05


def test_p_values_of_a_true_smaller_law_are_spread_over_the_unit_interval():
    """The simulated test rejects a true law about as often as it should; chi-square would reject it four
    times as often."""
    p_values = []
    for seed in range(30):
        small, large = (fit(law, N, D, noisy("n+d", seed=seed), robust="none") for law in ("n+d", "n+d+nd"))
        p_values.append(
            likelihood_ratio(small, large, n_simulations=39, generator=np.random.default_rng(seed)).p_value
        )
    assert sum(p <= 0.1 for p in p_values) <= 8
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2)


def test_rounding_errors_of_exact_data_choose_no_law():
    generator = np.random.default_rng(0)
    scores = [
        deviances(size * generator.standard_normal((1, 25)), robust="auto")[0] for size in (1e-15, 1e-13)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
    least = [deviances(np.full((1, 9), size), robust="none")[0] for size in (0.0, 1e-12)]
    assert least[0] == least[1]


def test_laws_without_an_aicc_are_named_in_few_words():
    n, d = N[[0, 4, 20, 24]], D[[0, 4, 20, 24]]
    fits = {name: fit("n+d", n, d, noisy("n+d", n=n, d=d)) for name in map(str, range(20))}
    assert "undefined for 0, 1, 2, 3 and 16 more (too few points)" in select(fits)[1]
