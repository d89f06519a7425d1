"""Forecasts of runs: against Student's interval where the law is linear, coverage, averages, bad targets."""

import numpy as np
import pytest
from scipy import stats

from sapis_lab.analysis.fit import Points, fit, fit_points
from sapis_lab.analysis.forecast import average, distance, forecast, forecast_law, predictive, target
from sapis_lab.analysis.forecast_check import WORLDS, judge, replay
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.profile import own_refit
from sapis_lab.analysis.refit import Setting, refit

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(3e3, 3e5, 5), np.geomspace(50, 5e3, 5)))
TRUTH = {"A": 20.0, "B": 2.0, "E": 0.05, "alpha": 0.5, "beta": 0.4}


def noisy(seed, *, noise=0.02):
    return LAWS["n+d+e"].predict(TRUTH, N, D) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(len(N))
    )


def test_of_a_power_law_the_interval_is_students_of_a_new_observation():
    """ln L = a - alpha ln C is linear in its parameters, so the interval is known in closed form."""
    C = np.geomspace(1e3, 1e6, 12)
    y = 3.0 - 0.4 * np.log(C) + 0.05 * np.random.default_rng(0).standard_normal(12)
    found = fit("c", C, np.ones(12), np.exp(y), robust="none")
    at = 1e9
    got = forecast_law(found, at, 1.0)
    X = np.stack([np.ones(12), np.log(C)], axis=1)
    coefficients, rss, _, _ = np.linalg.lstsq(X, y, rcond=None)
    x = np.array([1.0, np.log(at)])
    h = x @ np.linalg.inv(X.T @ X) @ x
    half = stats.t.ppf(0.975, 10) * np.sqrt(rss[0] / 10 * (1 + h))
    assert np.log(got.value) == pytest.approx(x @ coefficients, abs=1e-6)
    assert np.log(got.high) - np.log(got.value) == pytest.approx(half, rel=2e-3)
    assert np.log(got.value) - np.log(got.low) == pytest.approx(half, rel=2e-3)


def test_intervals_of_a_law_with_a_floor_hold_a_new_run_as_often_as_they_say():
    law, n_sets = LAWS["n+d+e"], 400
    generator = np.random.default_rng(1)
    clean = np.log(law.predict(TRUTH, N, D))
    y = clean + 0.02 * generator.standard_normal((n_sets, len(N)))
    pilot = fit_points(law, Points(N, D, np.exp(clean + 0.02 * generator.standard_normal(len(N)))))
    setting = Setting.of(pilot)
    far = law.coordinates(np.array([3e6]), np.array([5e4]), centre=pilot.centre)[0]
    found = predictive(setting, refit(setting, y), target=far, dof=len(N) - law.n_parameters)
    low, high = found.interval()
    new = np.log(law.predict(TRUTH, 3e6, 5e4)) + 0.02 * generator.standard_normal(n_sets)
    inside = np.mean((low <= new) & (new <= high))
    assert 0.95 - 3.0 * np.sqrt(0.95 * 0.05 / n_sets) <= inside <= 0.985


def test_the_distribution_of_a_forecast_rises_and_has_its_median_at_the_forecast():
    found = fit("n+d+e", N, D, noisy(0))
    setting = Setting(found.law, found.z, None, found.robust, np.empty((0, found.law.n_parameters)))
    far = found.law.coordinates(np.array([3e6]), np.array([5e4]), centre=found.centre)[0]
    p = predictive(setting, own_refit(found), target=far, dof=20)
    axis = np.linspace(p.value[0, 0], p.value[0, -1], 200)[None]
    cdf = p.cdf(axis)[0]
    assert (np.diff(cdf) >= 0).all() and cdf[0] < 0.05 and cdf[-1] > 0.95
    assert p.cdf(p.best[:, None])[0, 0] == pytest.approx(0.5, abs=1e-6)


def test_an_average_lies_among_its_laws_and_holds_what_they_disagree_about():
    fits = {name: fit(name, N, D, noisy(2)) for name in ("n+d", "n+d+e", "n+d+nd")}
    found = forecast(fits, dict.fromkeys(fits, 1.0), 3e6, 5e4)
    values = [law.value for law in found.laws.values()]
    assert min(values) <= found.value <= max(values)
    assert found.low < min(values) and found.high > max(values)
    assert found.weights == pytest.approx(dict.fromkeys(fits, 1 / 3))
    alone = forecast(fits, {"n+d+e": 1.0}, 3e6, 5e4)
    assert alone.value == pytest.approx(alone.laws["n+d+e"].value, rel=1e-4)
    assert alone.high == pytest.approx(alone.laws["n+d+e"].high, rel=2e-3)


def test_the_distance_says_how_far_beyond_the_points_a_target_lies():
    points = Points(N, D, noisy(0))
    assert distance(points, 3e6, 5e3) == pytest.approx({"n": 10.0, "d": 1.0, "nd": 10.0})
    assert distance(points, 1e4, 100.0) == {"n": 1.0, "d": 1.0, "nd": 1.0}
    assert distance(points, 3e2, 5e3)["n"] == pytest.approx(10.0)


def test_laws_without_a_degree_of_freedom_have_no_interval():
    few = np.array([0, 4, 20, 24, 12])
    found = fit("n+d+e", N[few], D[few], noisy(0)[few])
    with pytest.raises(ValueError, match="5 points leave no degree of freedom to law n\\+d\\+e"):
        forecast_law(found, 3e6, 5e4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n=7e9", "got n, wanted such as n=7e9,d=4e12"),
        ("n=7e9,d=many", "got 'd=many'"),
        ("n=7e9,d=-1", "d is -1, wanted a positive number"),
        ("n=7e9,d=inf", "d is inf"),
        ("7e9,4e12", "got '7e9'"),
        ("n=1,d=2,c=3", "got c, d, n"),
    ],
)
def test_a_target_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        target(text)


def test_targets_are_read():
    assert target(" N=7e9 , d=4e12") == (7e9, 4e12)
    assert target("c=1e22", compute=True) == (1e22, 1.0)
    with pytest.raises(ValueError, match="wanted such as c=1e22"):
        target("n=1,d=2", compute=True)


def test_averages_of_several_data_sets_are_those_of_each():
    law = LAWS["n+d"]
    pilot = fit("n+d", N, D, noisy(0))
    setting = Setting.of(pilot)
    fits = refit(setting, np.log([noisy(1), noisy(2)]))
    far = law.coordinates(np.array([3e6]), np.array([5e4]), centre=pilot.centre)[0]
    p = predictive(setting, fits, target=far, dof=21)
    best, low, high = average({"n+d": p}, {"n+d": np.array([1.0, 0.5])})
    assert best == pytest.approx(p.best, abs=2e-3)
    assert (low < best).all() and (best < high).all()


def test_two_diverged_runs_neither_choose_the_law_nor_move_its_exponents():
    judged = judge(WORLDS[-1], n_sets=24, laws=("n+d", "n+d+e", "n+d+nd", "n+d:tied", "kaplan", "n+d:cross"))
    assert judged.laws["chosen"]["n+d+e"] > 0.8
    assert judged.laws["former"].get("n+d+e", 0.0) < 0.5
    assert judged.moved["alpha"] > 0.7 and judged.moved["beta"] > 0.6
    chosen, former = judged.scores["chosen"][0], judged.scores["former"][0]
    assert chosen.error < 0.4 * former.error


def test_the_average_covers_where_a_chosen_law_does_not():
    judged = judge(WORLDS[5], n_sets=30, laws=(*LAWS, "pnorm+e", "n+d+e:cross"))
    assert judged.scores["average"][1].coverage >= 0.9
    assert judged.scores["average"][1].coverage >= judged.scores["former"][1].coverage
    assert set(judged.scores) == {"former", "chosen", "average", "truth"}


def test_a_table_is_replayed_from_its_smaller_runs():
    found = replay("made up", Points(N, D, noisy(3)), reach=10.0)
    assert found.n_fitted + found.n_forecast == len(N)
    assert found.error["average"] < 0.1 and found.coverage["average"] > 0.7
    assert replay("made up", Points(N, D, noisy(3)), reach=1e4) is None
