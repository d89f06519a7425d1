"""Tests of equal exponents: their level, their power, Holm's correction, and what is not tested."""

import numpy as np
import pytest
from scipy import stats

from sapis_lab.analysis.exponents import (
    common_law,
    difference_interval,
    equality_statistic,
    exponent_tests,
    holm,
)
from sapis_lab.analysis.fit import Points, fit
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.profile import profiles
from sapis_lab.analysis.result import Effort, fit_laws

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e5, 5), np.geomspace(50, 2000, 5)))
TRUE = {"A": 2.0, "B": 3.0, "alpha": 0.45, "beta": 0.5}


def points(params, seed, noise=0.03):
    return Points(
        N,
        D,
        LAWS["n+d"].predict(params, N, D)
        * np.exp(noise * np.random.default_rng(seed).standard_normal(N.size)),
    )


def laws_of(params, seed, laws=("n+d",)):
    return fit_laws(points(params, seed), laws, effort=Effort(n_bootstrap=0))


def steeper(alpha):
    """The same size of the term in N at N = 10⁴ with another exponent."""
    return TRUE | {"alpha": alpha, "A": TRUE["A"] * 1e4 ** (alpha - TRUE["alpha"])}


def profiled(seed, alpha=TRUE["alpha"]):
    p = points(steeper(alpha), seed, noise=0.04)
    f = fit("n+d", p.n_params, p.n_frames, p.loss)
    return profiles(f, ["alpha"])["alpha"], f.params["alpha"]


def p_value(one, two):
    T = equality_statistic((one[0], two[0]), (one[1], two[1]), (21, 21))
    return float(stats.f.sf(T, 1, 42))


def test_equal_exponents_are_rejected_as_often_as_promised_and_others_more_often():
    fits = [profiled(seed) for seed in range(40)]
    equal = [p_value(a, b) for a, b in zip(fits[::2], fits[1::2], strict=True)]
    equal += [p_value(a, b) for a, b in zip(fits[1::2], fits[2::2], strict=False)]
    assert np.mean(np.array(equal) < 0.05) <= 0.15
    assert 0.3 < np.mean(np.array(equal) < 0.5) < 0.72
    different = [p_value(a, profiled(100 + k, alpha=0.70)) for k, a in enumerate(fits[:10])]
    assert np.median(different) < 0.02


def test_an_exponent_equals_itself():
    one = profiled(0)
    assert equality_statistic((one[0], one[0]), (one[1], one[1]), (21, 21)) == pytest.approx(0, abs=1e-9)
    low, high = difference_interval((one[0], one[0]), (one[1], one[1]))
    assert low < 0 < high


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([], []), ([0.5, 0.9], [1.0, 1.0]), ([0.2], [0.2])],
)
def test_holm_raises_p_values_by_their_number(raw, wanted):
    assert holm(raw) == pytest.approx(wanted)


def test_pairs_of_all_models_are_tested_under_one_law():
    models = {"a": laws_of(TRUE, 0), "b": laws_of(steeper(0.7), 1), "c": laws_of(TRUE, 2)}
    tests = exponent_tests(models)
    assert {(t.model, t.other, t.exponent) for t in tests} == {
        (*pair, x) for pair in (("a", "b"), ("a", "c"), ("b", "c")) for x in ("alpha", "beta")
    }
    by_name = {(t.model, t.other, t.exponent): t for t in tests}
    assert by_name["a", "b", "alpha"].p_holm < 0.05 < by_name["a", "c", "alpha"].p_holm
    assert all(t.p_holm >= t.p_value and t.low <= t.difference <= t.high for t in tests)


def test_the_common_law_is_the_one_that_describes_all():
    models = {"a": laws_of(TRUE, 0, ("n+d", "n+d+e")), "b": laws_of(TRUE, 1, ("n+d", "n+d+e"))}
    assert common_law(models) == "n+d"
    assert common_law({}) is None


def test_an_open_exponent_is_not_tested():
    flat = TRUE | {"A": 1e-9}
    models = {"a": laws_of(TRUE, 0), "b": laws_of(flat, 1)}
    assert {t.exponent for t in exponent_tests(models)} == {"beta"}
