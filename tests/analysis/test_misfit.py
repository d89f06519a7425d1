"""Lack of fit and unequal noise without repeats: level, power, and what is said."""

import numpy as np
import pytest

from sapis_lab.analysis.fit import Points, fit, fit_points
from sapis_lab.analysis.forms import FORMS
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.misfit import misfit, noise_of_repeats, noise_trend, precisions

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(3e3, 3e5, 6), np.geomspace(50, 5e3, 6)))
TRUTH = {"A": 20.0, "B": 2.0, "E": 0.05, "alpha": 0.5, "beta": 0.4}
CLEAN = LAWS["n+d+e"].predict(TRUTH, N, D)


def draws(n_sets, *, sigma=0.02):
    generator = np.random.default_rng(0)
    return [CLEAN * np.exp(sigma * generator.standard_normal(len(N))) for _ in range(n_sets)]


@pytest.mark.long
def test_a_law_that_holds_is_said_to_miss_as_often_as_the_level_says():
    found = [misfit(fit("n+d+e", N, D, loss)) for loss in draws(120)]
    rejected = np.mean([m.p_value < 0.05 for m in found])
    assert 0.01 <= rejected <= 0.10
    assert np.mean([m.found for m in found]) < 0.04
    assert np.median([m.noise for m in found]) == pytest.approx(0.02, rel=0.08)


@pytest.mark.long
def test_equal_noise_is_called_unequal_as_often_as_the_level_says():
    p = [noise_trend(fit("n+d+e", N, D, loss)).p_value for loss in draws(120)]
    assert np.mean(np.array(p) < 0.05) <= 0.09


def test_a_break_that_the_law_does_not_know_is_told_with_its_place():
    truth = {"A": 2.0, "B": 30.0, "alpha": 0.5, "beta": 0.6, "beta_0": 0.1, "D_b": 200.0}
    loss = FORMS["n+d:break-d"].predict(truth, N, D)
    loss = loss * np.exp(0.01 * np.random.default_rng(1).standard_normal(len(N)))
    found = misfit(fit("n+d", N, D, loss))
    assert found.found and found.p_value < 1e-6
    assert any(edge.variable == "D" and not edge.largest for edge in found.edges)
    assert "x the noise at the smallest D" in " ".join(edge.text for edge in found.edges)
    assert not misfit(fit("n+d:break-d", N, D, loss)).found


def test_repeats_measure_the_noise_and_test_the_law():
    generator = np.random.default_rng(4)
    n, d = np.tile(N, 3), np.tile(D, 3)
    loss = LAWS["n+d+e"].predict(TRUTH, n, d) * np.exp(0.03 * generator.standard_normal(len(n)))
    good, bad = fit("n+d+e", n, d, loss), fit("n+d", n, d, loss)
    assert noise_of_repeats(good) == pytest.approx(0.03, rel=0.2)
    assert misfit(good).p_repeats > 0.01 and not misfit(good).found
    assert misfit(bad).found
    assert noise_of_repeats(fit("n+d", N, D, CLEAN)) is None


@pytest.mark.parametrize("variable", ["N", "D"])
def test_noise_that_falls_with_a_size_is_found_and_weighed(variable):
    size = {"N": N, "D": D}[variable]
    sigma = 0.1 * (size / size.min()) ** -0.5
    loss = CLEAN * np.exp(sigma * np.random.default_rng(3).standard_normal(len(N)))
    found = fit("n+d+e", N, D, loss)
    noise = noise_trend(found)
    assert noise.unequal and noise.variable in (variable, "loss")
    if noise.variable == variable:
        assert noise.slope == pytest.approx(-0.5, abs=0.25)
    weight = precisions(found, noise)
    assert np.log(weight).mean() == pytest.approx(0.0, abs=1e-9)
    again = fit_points(LAWS["n+d+e"], Points(N, D, loss, weight))
    assert not noise_trend(again).unequal


def test_few_points_cannot_tell():
    few = np.arange(0, 36, 5)
    found = fit("n+d+e", N[few], D[few], CLEAN[few] * 1.01)
    assert misfit(found) is None and noise_trend(found) is None
