"""The fit: known laws come back, the solver's derivatives are right, and bad input is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from sapis_lab.analysis.fit import fit, huber_thresholds
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS, TIED_LAWS, Centre
from sapis_lab.analysis.search import nonnegative_quadratic
from sapis_lab.analysis.solve import _Design, _Problem, huber

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
        assert value == pytest.approx(TRUTH[key], rel=1e-10)


@pytest.mark.parametrize("name", TIED_LAWS)
def test_tied_laws_come_back_with_one_exponent_for_both(name):
    law = TIED_LAWS[name]
    found = fit(name, N, D, law.predict(TRUTH, N, D), robust="none")
    assert "beta" not in found.params
    assert all(found.params[key] == pytest.approx(TRUTH[key], rel=1e-8) for key in found.params)


@pytest.mark.parametrize("name", COMPUTE_LAWS)
def test_laws_of_compute_come_back_from_a_frontier(name):
    compute = np.geomspace(1e15, 1e20, 9)
    truth = {"A": 50.0, "alpha": 0.15, "E": 0.03}
    loss = COMPUTE_LAWS[name].predict(truth, compute, 1.0)
    found = fit(name, compute, np.ones_like(compute), loss, robust="none")
    assert all(found.params[key] == pytest.approx(truth[key], rel=1e-8) for key in found.params)


def test_a_weight_of_two_is_a_point_given_twice():
    generator = np.random.default_rng(3)
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.03 * generator.standard_normal(len(N)))
    weight = generator.integers(1, 4, len(N))
    weighted = fit("n+d", N, D, loss, weight=weight, robust="none")
    repeated = fit("n+d", *(np.repeat(a, weight) for a in (N, D, loss)), robust="none")
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)
    assert weighted.params == pytest.approx(repeated.params, rel=1e-7)


def test_a_robust_fit_judges_a_residual_by_its_own_standard_deviation():
    """Points ten times as noisy with a hundredth of the weight are no outliers: the objective is that of
    residuals all alike."""
    generator = np.random.default_rng(4)
    sigma = np.where(np.arange(len(N)) % 2, 0.1, 0.01)
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(sigma * generator.standard_normal(len(N)))
    found = fit("n+d", N, D, loss, weight=(0.01 / sigma) ** 2, robust=0.02)
    assert found.objective == pytest.approx(huber(0.01 / sigma * found.residuals, 0.02).sum(), rel=1e-12)
    assert found.params["alpha"] == pytest.approx(TRUTH["alpha"], abs=0.05)


def test_a_term_that_is_absent_does_not_keep_a_fit_from_its_optimum():
    """The floor of data without one goes to nothing; the objective is that of the law without a floor all the
    same."""
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.01 * np.sin(3.0 * np.arange(len(N))))
    two, three = (fit(name, N, D, loss, robust="none") for name in ("n+d", "n+d+e"))
    assert three.objective <= two.objective * (1 + 1e-6)


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
    """A slow twin: scipy from sixty random starts per noisy lattice never finds a better least-squares
    optimum."""
    law, generator = LAWS[name], np.random.default_rng(5)
    centre = Centre.of(N, D)
    z = law.coordinates(N, D, centre=centre)

    def jacobian(theta, z, _):
        return law.jacobian(theta, z)

    for _ in range(3):
        y = np.log(law.predict(TRUTH, N, D)) + 0.03 * generator.standard_normal(len(N))
        found = fit(name, N, D, np.exp(y), robust="none")
        lower, upper = law.bounds(y, z)
        for _ in range(20):
            start = np.r_[
                y.mean() + generator.uniform(-3, 0.5, law.n_terms),
                generator.uniform(0.05, 2.0, law.n_parameters - law.n_terms),
            ]
            other = least_squares(
                law.residual, start, jac=jacobian, bounds=(lower, upper), args=(z, y), max_nfev=60
            )
            assert found.objective <= other.cost * (1 + 1e-6)


@pytest.mark.parametrize("delta", [np.inf, 0.02])
@pytest.mark.parametrize("name", [*LAWS, *TIED_LAWS])
def test_gradient_and_hessian_agree_with_central_differences(name, delta):
    law, generator = (LAWS | TIED_LAWS)[name], np.random.default_rng(2)
    centre = Centre.of(N, D)
    z, theta = law.coordinates(N, D, centre=centre), law.centred(TRUTH, centre=centre)[None]
    y = law.log_loss(theta, z)[0] + 0.05 * generator.standard_normal((1, len(N)))
    W = generator.integers(0, 3, (1, len(N))).astype(float)
    # beyond the threshold the Hessian is regularised on purpose
    W = np.where(np.abs(law.residual(theta, z, y)) <= delta, W, 0.0)
    design, (lower, upper) = _Design(law, z), law.bounds(y, z)
    problem = _Problem(
        design, y, W, np.array([delta]), None, np.zeros((1, law.n_parameters), bool), lower, upper
    )

    def derivatives(at):
        state = problem._evaluate(at, problem.target)
        gradient, pulls = design.gradient(state.share, state.psi)
        hessian = design.hessian(state.share, pulls, problem._curvature(state, np.array([True])) - state.psi)
        return gradient[0], hessian[:, :, 0], state.F[0]

    gradient, hessian, _ = derivatives(theta)
    step = 1e-5
    for i in range(law.n_parameters):
        e = step * np.eye(law.n_parameters)[i]
        up, down = (derivatives(theta + s * e) for s in (1, -1))
        assert gradient[i] == pytest.approx((up[2] - down[2]) / (2 * step), rel=1e-6, abs=1e-8)
        assert np.allclose(hessian[:, i], (up[0] - down[0]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_one_outlier_moves_a_robust_fit_less_than_least_squares():
    loss = LAWS["n+d"].predict(TRUTH, N, D) * np.exp(0.01 * np.random.default_rng(1).standard_normal(len(N)))
    loss[-1] *= 1.5
    errors = {
        r: abs(fit("n+d", N, D, loss, robust=r).params["alpha"] - TRUTH["alpha"]) for r in ("auto", "none")
    }
    assert errors["auto"] < 0.4 * errors["none"]


def test_the_threshold_is_1_345_sigma_of_normal_residuals():
    r = 0.03 * np.random.default_rng(0).standard_normal(20000)
    assert huber_thresholds(r[None], n_parameters=4)[0] == pytest.approx(1.345 * 0.03, rel=0.02)


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
        (lambda n, d, y: (n[:3], d[:3], y[:3]), "needs at least 2 distinct D"),
        (lambda n, d, y: (n[:1], d[:1], y[:1]), "needs at least 2 distinct N"),
        (
            lambda n, d, y: (np.full_like(n, 1e4), d, y),
            "law n\\+d needs at least 2 distinct N, got 1$",
        ),
        (
            lambda n, d, y: (n[[0, 5, 10]], d[[0, 5, 10]], y[[0, 5, 10]]),
            r"has 4 parameters and needs as many distinct .* got 3",
        ),
        (
            lambda n, d, y: (n, d, np.where(np.arange(len(y)) == 2, 0.0, y)),
            "loss must be finite and positive, got 0.0 at position 2",
        ),
        (
            lambda n, d, y: (n, d, np.where(np.arange(len(y)) == 2, np.nan, y)),
            "loss must be finite and positive, got nan",
        ),
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


def test_weights_and_groups_are_checked():
    loss = LAWS["n+d"].predict(TRUTH, N, D)
    with pytest.raises(ValueError, match="weight must be finite and positive, got 0.0 at position 1"):
        fit("n+d", N, D, loss, weight=np.where(np.arange(len(N)) == 1, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"group must have one entry a point, \(16\)?"):
        fit("n+d", N, D, loss, group=np.zeros(3))
