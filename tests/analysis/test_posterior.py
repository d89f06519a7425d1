"""The posterior on the grid: it finds known laws, predicts as often as it says, and says what another run
would teach."""

import numpy as np
import pytest

from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.optimum import Cost, optimum
from sapis_lab.analysis.posterior import UNION, Prior, posterior

N, D = (a.ravel() for a in np.meshgrid([3e3, 1e4, 3e4], [1e2, 3e2, 1e3], indexing="ij"))
PLAIN = {"A": 0.5 * 1e4**0.6, "alpha": 0.6, "B": 0.5 * 300**0.5, "beta": 0.5}


def measured(law, params, n, d, *, noise=0.03, seed=0):
    loss = LAWS[law].predict(params, n, d)
    return loss * np.exp(np.random.default_rng(seed).normal(0, noise, np.shape(loss)))


def test_it_finds_the_exponents_of_a_law_with_little_noise():
    found = posterior(N, D, measured("n+d", PLAIN, N, D, noise=1e-3))
    for name in ("alpha", "beta"):
        draws = found.column(name)
        assert abs(draws.mean() - PLAIN[name]) < 3 * draws.std() + 0.02
        assert draws.std() < 0.06
    assert found.probability["n+d"] > 0.5


def test_a_posterior_much_narrower_than_a_cell_of_the_first_grid_is_resolved():
    """Noise of 1e-4 leaves the exponents a thousandth of a cell; the draws have the spread of least
    squares."""
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(3e3, 3e5, 6), np.geomspace(1e2, 1e4, 6), indexing="ij")
    )
    loss = measured("n+d", PLAIN, n, d, noise=1e-4)
    found = posterior(n, d, loss, laws=("n+d",), prior=Prior(noise_weight=1e-9))
    params = np.array([PLAIN[k] for k in ("A", "B", "alpha", "beta")])

    def log_loss(p):
        return np.log(p[0] * n ** -p[2] + p[1] * d ** -p[3])

    jacobian = np.stack(
        [(log_loss(params * (1 + h)) - log_loss(params * (1 - h))) / 2e-6 for h in 1e-6 * np.eye(4)], axis=1
    )
    expected = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))[2:] * 1e-4 * params[2:]
    for name, sd in zip(("alpha", "beta"), expected, strict=True):
        draws = found.column(name)
        assert abs(draws.mean() - PLAIN[name]) < 4 * sd
        assert draws.std() == pytest.approx(sd, rel=0.4)


def test_equal_tables_give_equal_draws():
    loss = measured("n+d", PLAIN, N, D)
    first, again = posterior(N, D, loss), posterior(N, D, loss)
    assert np.array_equal(first.params, again.params) and np.array_equal(first.noise, again.noise)


def test_a_floor_is_seen_where_it_is_and_amplitudes_are_never_negative():
    params = {"A": 0.35 * 1e4**0.6, "alpha": 0.6, "B": 0.35 * 300**0.5, "beta": 0.5, "E": 0.3}
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e6, 6), np.geomspace(30, 3e4, 6), indexing="ij")
    )
    found = posterior(n, d, measured("n+d+e", params, n, d, noise=0.01))
    assert found.probability["n+d+e"] > 0.9
    assert np.quantile(found.column("E"), 0.025) < 0.3 < np.quantile(found.column("E"), 0.975)
    assert (found.params >= 0).all()


def test_a_predicted_interval_holds_a_measurement_as_often_as_it_says():
    """At four times the largest N and D, 95 % intervals of 60 data sets."""
    inside = 0
    for seed in range(60):
        low, high = posterior(N, D, measured("n+d", PLAIN, N, D, seed=seed)).predict(1.2e5, 4e3)[1:]
        inside += low <= measured("n+d", PLAIN, 1.2e5, 4e3, seed=1000 + seed) <= high
    assert inside >= 51  # 57 expected; fewer than 52 of 60 has a probability of 2 % at 95 %


def test_the_optimum_of_the_draws_surrounds_the_true_one():
    cost = Cost(6.0)
    best = optimum(LAWS["n+d"], PLAIN, 1e10, cost).n_params[0]
    draws = np.log(posterior(N, D, measured("n+d", PLAIN, N, D)).optimum(1e10, cost).n_params[:, 0])
    assert abs(draws.mean() - np.log(best)) < 2.5 * draws.std()


def test_the_prior_on_the_ratio_is_dropped_where_the_data_object():
    unequal = {"A": 0.5 * 1e4**1.2, "alpha": 1.2, "B": 0.5 * 300**0.25, "beta": 0.25}
    assert not posterior(N, D, measured("n+d", unequal, N, D, noise=0.005)).ratio_prior
    assert posterior(N, D, measured("n+d", PLAIN, N, D)).ratio_prior


def test_a_term_that_a_law_lacks_has_no_part_in_its_predictions():
    found = posterior(N, D, measured("n+d", PLAIN, N, D), laws=("n+d",))
    assert np.allclose(found.column("C"), 0) and np.allclose(found.column("E"), 0)
    params = dict(zip(UNION.param_names, found.params[0], strict=True))
    plain = {k: params[k] for k in ("A", "B", "alpha", "beta")}
    assert np.allclose(np.exp(found.log_loss(N, D)[0]), LAWS["n+d"].predict(plain, N, D))


def test_what_a_measurement_teaches_is_what_it_teaches_when_it_is_made():
    """The predicted shrinking of Var(ln N*), against the mean over 40 measurements drawn from the posterior
    itself."""
    loss = measured("n+d", PLAIN, N, D)
    found = posterior(N, D, loss, laws=("n+d",), n_draws=512)
    star = np.log(found.optimum(1e10, Cost(6.0)).n_params[:, 0])
    place = (3e3, 1e3)
    expected = float(found.information(star, *place)[0]) / star.var()
    outcomes = np.exp(found.log_loss(*place)[:, 0] + found.noise * found.normal)[::13]
    after = []
    for outcome in outcomes:
        more = posterior(np.r_[N, place[0]], np.r_[D, place[1]], np.r_[loss, outcome], laws=("n+d",))
        after.append(np.log(more.optimum(1e10, Cost(6.0)).n_params[:, 0]).var())
    assert 1 - np.mean(after) / star.var() == pytest.approx(expected, abs=0.12)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="needs 4 runs with two sizes and two amounts of data, got 3 runs"):
        posterior(N[:3], D[:3], N[:3])
