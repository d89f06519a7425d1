"""Intervals hold the truth about as often as they say, and verdicts say what the points cannot tell."""

import numpy as np
import pytest

from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.identify import fisher_condition, identify, interval_text
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.selection import aicc, select
from sapis_lab.analysis.uncertainty import band, bootstrap, inflated_residuals, intervals

TRUTH = {"A": 20.0, "B": 2.0, "C": 3.0, "E": 0.02, "alpha": 0.7, "beta": 0.6, "gamma": 0.3}


def lattice(n=4, decades=2.0):
    grid = np.meshgrid(3e3 * np.geomspace(1, 10**decades, n), 50 * np.geomspace(1, 10**decades, n))
    return grid[0].ravel(), grid[1].ravel()


def noisy(name, N, D, *, noise, seed, truth=TRUTH):
    return LAWS[name].predict(truth, N, D) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(len(N))
    )


def bootstrapped(name, N, D, loss, *, n_resamples=300, resampling="residuals", robust="auto"):
    found = fit(name, N, D, loss, robust=robust)
    return found, bootstrap(
        found, n_resamples=n_resamples, resampling=resampling, generator=np.random.default_rng(0)
    )


@pytest.mark.parametrize(
    ("resampling", "n", "at_least"), [("residuals", 3, 0.88), ("residuals", 5, 0.88), ("rows", 5, 0.80)]
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(resampling, n, at_least):
    """Of 40 lattices a sound 95 % interval may miss a few; rows resampling is known to cover less
    (0.82-0.97)."""
    N, D = lattice(n, decades=1.5)
    covered = {"alpha": 0, "beta": 0}
    n_sets = 40
    for seed in range(n_sets):
        found, boot = bootstrapped(
            "n+d", N, D, noisy("n+d", N, D, noise=0.03, seed=seed), n_resamples=200, resampling=resampling
        )
        limits = intervals(boot, found.law.param_names)
        for key in covered:
            covered[key] += limits[key][0] <= TRUTH[key] <= limits[key][1]
    assert all(count >= at_least * n_sets for count in covered.values()), covered


def test_the_band_holds_the_law_and_narrows_with_less_noise():
    N, D = lattice(4)
    widths = []
    for noise in (0.04, 0.01):
        found, boot = bootstrapped("n+d", N, D, noisy("n+d", N, D, noise=noise, seed=3))
        low, high = band(found, boot, N, D)
        assert ((low < found.predict(N, D)) & (found.predict(N, D) < high)).mean() > 0.9
        widths.append(np.log(high / low).mean())
    assert widths[1] < 0.5 * widths[0]


def test_a_band_has_the_shape_of_its_arguments():
    N, D = lattice(3)
    found, boot = bootstrapped("n+d", N, D, noisy("n+d", N, D, noise=0.04, seed=3), n_resamples=100)
    assert band(found, boot, 1e4, 100.0)[0].shape == ()
    assert band(found, boot, np.array([1e4, 2e4])[:, None], np.array([50.0, 100.0, 200.0]))[1].shape == (2, 3)


def test_the_bootstrap_repeats_with_its_seed_and_counts_what_failed():
    N, D = lattice(3)
    found, boot = bootstrapped("n+d", N, D, noisy("n+d", N, D, noise=0.03, seed=0), resampling="rows")
    again = bootstrap(found, n_resamples=300, resampling="rows", generator=np.random.default_rng(0))
    assert np.array_equal(boot.params, again.params)
    assert len(boot.params) + boot.n_failed == boot.n_resamples == 300
    assert np.isfinite(boot.params).all()


def test_resampled_residuals_have_the_spread_of_the_noise():
    N, D = lattice(8)
    found = fit("n+d", N, D, noisy("n+d", N, D, noise=0.03, seed=0), robust="none")
    assert inflated_residuals(found).std() == pytest.approx(0.03, rel=0.2)
    assert abs(inflated_residuals(found).mean()) < 1e-12


def test_a_saturated_fit_has_no_bootstrap():
    N, D = lattice(2)
    found = fit("n+d", N, D, noisy("n+d", N, D, noise=0.0, seed=0))
    assert found.residual_sd is None
    with pytest.raises(ValueError, match="no degree of freedom"):
        bootstrap(found, generator=np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(3))
def test_an_absent_interaction_is_not_identified_while_the_others_are(seed):
    N, D = lattice(5)
    found, boot = bootstrapped("n+d+nd", N, D, noisy("n+d", N, D, noise=0.02, seed=seed))
    verdict = {v.term: v for v in identify(found, intervals(boot, found.law.param_names))}
    assert not verdict["nd"].identified
    assert verdict["nd"].text.startswith("γ not identified: [")
    two, boot = bootstrapped("n+d", N, D, noisy("n+d", N, D, noise=0.02, seed=seed))
    assert all(v.identified for v in identify(two, intervals(boot, two.law.param_names)))


def test_a_strong_interaction_on_a_wide_lattice_is_identified():
    truth = {"A": 250.0, "B": 12.0, "C": 300.0, "alpha": 0.8, "beta": 0.75, "gamma": 0.6}
    N, D = lattice(6, decades=3)
    found, boot = bootstrapped("n+d+nd", N, D, noisy("n+d+nd", N, D, noise=0.01, seed=0, truth=truth))
    verdicts = identify(found, intervals(boot, found.law.param_names))
    assert all(v.identified for v in verdicts), [v.text for v in verdicts]


def test_a_term_that_does_not_show_is_not_identified_even_in_the_two_term_law():
    N, D = lattice(4)
    loss = noisy("n+d", N, D, noise=0.02, seed=0, truth=TRUTH | {"A": 1e-6})
    found, boot = bootstrapped("n+d", N, D, loss)
    verdict = {v.term: v for v in identify(found, intervals(boot, found.law.param_names))}
    assert not verdict["n"].identified
    assert verdict["d"].identified


def test_too_few_degrees_of_freedom_identify_nothing():
    N, D = lattice(3)
    found, boot = bootstrapped("n+d+nd+e", N, D, noisy("n+d", N, D, noise=0.02, seed=0), n_resamples=100)
    verdicts = identify(found, intervals(boot, found.law.param_names))
    assert not any(v.identified for v in verdicts)
    assert "9 distinct (N, D) for 7 parameters" in verdicts[0].text


def test_seeds_do_not_count_as_further_cells():
    N, D = (np.repeat(a, 3) for a in lattice(3))
    found, boot = bootstrapped("n+d+nd+e", N, D, noisy("n+d", N, D, noise=0.02, seed=0), n_resamples=100)
    assert found.degrees_of_freedom == 20
    assert (
        "9 distinct (N, D) for 7 parameters"
        in identify(found, intervals(boot, found.law.param_names))[0].text
    )


def test_a_diagonal_design_is_ill_conditioned():
    N = np.geomspace(1e3, 1e5, 8)
    D = N / 50
    truth = {"A": 20.0, "B": 2.0, "alpha": 0.6, "beta": 0.6}
    found = fit("n+d", N, D, LAWS["n+d"].predict(truth, N, D))
    assert fisher_condition(found)[0] > 1e5


def test_an_interval_that_runs_into_the_search_limit_says_so():
    assert interval_text((0.15, 6.0), digits=".2g") == "[0.15, ≥ 6]"
    assert interval_text((0.0, 1.3), digits=".2g") == "[0, 1.3]"


def test_aicc_takes_the_simple_law_for_simple_data_and_the_larger_one_when_it_is_needed():
    N, D = lattice(5)
    simple = {name: fit(name, N, D, noisy("n+d", N, D, noise=0.02, seed=0)) for name in ("n+d", "n+d+nd")}
    assert select(simple)[0] == "n+d"
    floor = {name: fit(name, N, D, noisy("n+d+e", N, D, noise=0.005, seed=0)) for name in ("n+d", "n+d+e")}
    assert select(floor)[0] == "n+d+e"


def test_aicc_is_undefined_for_too_few_points_and_selection_says_so():
    N, D = lattice(3)
    loss = noisy("n+d", N, D, noise=0.02, seed=0)
    fits = {name: fit(name, N, D, loss) for name in ("n+d", "n+d+nd+e")}
    assert aicc(fits["n+d+nd+e"]) is None
    chosen, note = select(fits)
    assert chosen == "n+d"
    assert "undefined for n+d+nd+e" in note


def test_a_floor_above_the_largest_exponent_is_a_measured_limit():
    assert interval_text((7.0, 12.5), digits=".3g", exponent=False) == "[7, 12.5]"
    N, D = lattice(4)
    found = fit("n+d+e", N, D, noisy("n+d+e", N, D, noise=0.001, seed=0, truth=TRUTH | {"E": 12.0}))
    limits = {"alpha": (0.6, 0.8), "beta": (0.5, 0.7), "E": (11.9, 12.1)}
    texts = [v.text for v in identify(found, limits | dict.fromkeys(("A", "B"), (1.0, 30.0)))]
    assert any(text.startswith("E = 12 ") for text in texts)
    assert any(text.endswith("[11.9, 12.1]") for text in texts) and not any("≥" in text for text in texts)
