"""The fit: known laws come back, the solver's derivatives are right, and bad input is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from sapis_lab.analysis.fit import fit, huber_threshold
from sapis_lab.analysis.laws import LAWS, Centre
from sapis_lab.analysis.search import nonnegative_quadratic
from sapis_lab.analysis.solve import _derivatives, bounds, huber

TRUTH = {"A": 20.0, "B": 2.0, "C": 3.0, "E": 0.02, "alpha": 0.7, "beta": 0.6, "gamma": 0.3}


def lattice(n=4, decades_n=2.0, decades_d=1.2):
    grid = np.meshgrid(3e3 * np.geomspace(1, 10**decades_n, n), 50 * np.geomspace(1, 10**decades_d, n))
    return grid[0].ravel(), grid[1].ravel()


N, D = lattice()


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("robust", ["auto", "none", 0.01])
def test_fit_recovers_a_known_law_from_exact_data(name, robust):
    found = fit(name, N, D, LAWS[name].predict(TRUTH, N, D), robust=robust)
    assert found.converged, found.message
    for key, value in found.params.items():
        assert value == pytest.approx(TRUTH[key], rel=1e-8)


@given(alpha=st.floats(0.15, 1.2), beta=st.floats(0.15, 1.2), balance=st.floats(-1.5, 1.5))
@settings(max_examples=30, deadline=None)
def test_fit_recovers_any_two_term_law_whose_terms_both_show(alpha, beta, balance):
    truth = {"A": 0.1 * np.exp(balance) * 3e4**alpha, "B": 0.1 * 200**beta, "alpha": alpha, "beta": beta}
    found = fit("n+d", N, D, LAWS["n+d"].predict(truth, N, D))
    assert [found.params[k] for k in truth] == pytest.approx(list(truth.values()), rel=1e-6)


def test_the_unit_of_the_loss_moves_only_the_amplitudes():
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.03 * np.random.default_rng(0).standard_normal(len(N)))
    ev, mev = fit("n+d", N, D, loss), fit("n+d", N, D, 1000 * loss)
    assert mev.params["alpha"] == pytest.approx(ev.params["alpha"], rel=1e-7)
    assert mev.params["A"] == pytest.approx(1000 * ev.params["A"], rel=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_no_start_leads_below_the_optimum_that_the_fit_reports(name):
    """A slow twin: scipy from sixty random starts per noisy lattice never finds a better least-squares optimum."""
    law, generator = LAWS[name], np.random.default_rng(5)
    centre = Centre.of(N, D)
    z = law.coordinates(N, D, centre=centre)

    def jacobian(theta, z, _):
        return law.jacobian(law.log_loss(theta, z)[1], z)

    for _ in range(3):
        y = np.log(law.predict(TRUTH, N, D)) + 0.03 * generator.standard_normal(len(N))
        found = fit(name, N, D, np.exp(y), robust="none")
        lower, upper = bounds(law, y)
        for _ in range(20):
            start = np.r_[y.mean() + generator.uniform(-3, 0.5, law.n_terms), generator.uniform(0.05, 2.0, law.n_parameters - law.n_terms)]
            other = least_squares(law.residual, start, jac=jacobian, bounds=(lower, upper), args=(z, y), max_nfev=60)
            assert found.objective <= other.cost * (1 + 1e-6)


@pytest.mark.parametrize("delta", [np.inf, 0.02])
@pytest.mark.parametrize("name", LAWS)
def test_gradient_and_hessian_agree_with_central_differences(name, delta):
    law, generator = LAWS[name], np.random.default_rng(2)
    centre = Centre.of(N, D)
    z, theta = law.coordinates(N, D, centre=centre), law.centred(TRUTH, centre=centre)[None]
    y = law.log_loss(theta, z)[0] + 0.05 * generator.standard_normal((1, len(N)))
    W = generator.integers(0, 3, (1, len(N))).astype(float)
    inside = np.abs(law.residual(theta, z, y)) <= delta
    gradient, hessian, _ = _derivatives(law, theta, z, y, np.where(inside, W, 0.0), delta)
    W = np.where(inside, W, 0.0)  # beyond the threshold the Hessian is regularised on purpose
    step = 1e-5
    for i in range(law.n_parameters):
        e = step * np.eye(law.n_parameters)[i]
        up, down = (_derivatives(law, theta + s * e, z, y, W, delta) for s in (1, -1))
        assert gradient[0, i] == pytest.approx((up[2] - down[2])[0] / (2 * step), rel=1e-6, abs=1e-8)
        assert np.allclose(hessian[0, :, i], (up[0] - down[0])[0] / (2 * step), rtol=1e-6, atol=1e-7)


def test_one_outlier_moves_a_robust_fit_less_than_least_squares():
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.01 * np.random.default_rng(1).standard_normal(len(N)))
    loss[-1] *= 1.5
    errors = {r: abs(fit("n+d", N, D, loss, robust=r).params["alpha"] - TRUTH["alpha"]) for r in ("auto", "none")}
    assert errors["auto"] < 0.4 * errors["none"]


def test_the_threshold_is_1_345_sigma_of_normal_residuals():
    r = 0.03 * np.random.default_rng(0).standard_normal(20000)
    assert huber_threshold(r, n_parameters=4) == pytest.approx(1.345 * 0.03, rel=0.02)


def test_huber_loss_is_smooth_at_the_threshold():
    r = 0.1 + np.array([-1e-6, 1e-6])
    assert np.diff(huber(r, 0.1))[0] == pytest.approx(0.1 * 2e-6, rel=1e-4)


def test_nonnegative_amplitudes_agree_with_scipy():
    from scipy.optimize import nnls

    generator = np.random.default_rng(3)
    for _ in range(30):
        basis, target = generator.standard_normal((8, 3)), generator.standard_normal(8)
        x, _ = nonnegative_quadratic((basis.T @ basis)[None], (basis.T @ target)[None])
        assert np.allclose(x[0], nnls(basis, target)[0], atol=1e-7)


def test_residuals_are_measured_over_predicted():
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.05 * np.random.default_rng(4).standard_normal(len(N)))
    found = fit("n+d", N, D, loss)
    assert np.allclose(found.residuals, np.log(loss / found.predict(N, D)))


def test_modes_are_distinct_and_the_best_comes_first():
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.05 * np.random.default_rng(4).standard_normal(len(N)))
    found = fit("n+d+nd+e", N, D, loss)
    assert [m.objective for m in found.modes] == sorted(m.objective for m in found.modes)
    assert found.modes[0].params == found.params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d, y: (n[:3], d[:3], y[:3]), "needs at least 2 distinct n_frames"),
        (lambda n, d, y: (n[:1], d[:1], y[:1]), "needs at least 2 distinct n_params"),
        (lambda n, d, y: (np.full_like(n, 1e4), d, y), "needs at least 2 distinct n_params, got 1; widen lattice.n_params"),
        (lambda n, d, y: (n[[0, 5, 10]], d[[0, 5, 10]], y[[0, 5, 10]]), r"has 4 parameters and needs as many distinct .* got 3"),
        (lambda n, d, y: (n, d, np.where(np.arange(len(y)) == 2, 0.0, y)), "loss must be finite and positive, got 0.0 at position 2"),
        (lambda n, d, y: (n, d, np.where(np.arange(len(y)) == 2, np.nan, y)), "loss must be finite and positive, got nan"),
        (lambda n, d, y: (n, d, y[:-1]), "1-D of one length"),
    ],
)
def test_points_that_cannot_determine_the_law_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit("n+d", *change(N, D, LAWS["n+d"].predict(TRUTH, N, D)))


@pytest.mark.parametrize("robust", ["huber", 0.0, -1.0])
def test_an_unusable_robust_setting_is_refused(robust):
    with pytest.raises(ValueError, match="robust"):
        fit("n+d", N, D, LAWS["n+d"].predict(TRUTH, N, D), robust=robust)
