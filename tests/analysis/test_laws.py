"""The laws: values against the formula written out, derivatives against central differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab.analysis.laws import LAWS, Centre, law_named

TRUTH = {"A": 20.0, "B": 2.0, "C": 3.0, "E": 0.02, "alpha": 0.7, "beta": 0.6, "gamma": 0.3}
N, D = (a.ravel() for a in np.meshgrid(np.geomspace(3e3, 3e5, 4), np.geomspace(50, 800, 3)))
exponents = st.floats(0.05, 2.0)
amplitudes = st.floats(1e-3, 1e2)


def test_the_full_law_is_the_formula_written_out():
    written = 20.0 * N**-0.7 + 2.0 * D**-0.6 + 3.0 * (N * D) ** -0.3 + 0.02
    assert np.allclose(LAWS["n+d+nd+e"].predict(TRUTH, N, D), written, rtol=1e-13)


def test_predictions_broadcast_sizes_against_data():
    assert LAWS["n+d"].predict(TRUTH, np.array([1e3, 1e4])[:, None], np.array([10, 20, 30])).shape == (2, 3)


@pytest.mark.parametrize("name", LAWS)
def test_centred_parameters_give_the_natural_prediction(name):
    law, centre = LAWS[name], Centre.of(N, D)
    theta = law.centred(TRUTH, centre=centre)
    log_loss, share = law.log_loss(theta, law.coordinates(N, D, centre=centre))
    assert np.allclose(np.exp(log_loss), law.predict(TRUTH, N, D), rtol=1e-12)
    assert np.allclose(share.sum(axis=-1), 1.0)


@pytest.mark.parametrize("name", LAWS)
@given(
    values=st.fixed_dictionaries(
        {k: (exponents if k in ("alpha", "beta", "gamma") else amplitudes) for k in TRUTH}
    )
)
@settings(max_examples=25, deadline=None)
def test_natural_and_centred_parameters_are_inverse(name, values):
    law, centre = LAWS[name], Centre.of(N, D)
    back = law.natural(law.centred(values, centre=centre), centre=centre)
    assert np.allclose(back, [values[k] for k in law.param_names], rtol=1e-10)


@pytest.mark.parametrize("name", LAWS)
def test_jacobian_agrees_with_central_differences(name):
    law, centre = LAWS[name], Centre.of(N, D)
    z, theta = law.coordinates(N, D, centre=centre), law.centred(TRUTH, centre=centre)
    jacobian = law.jacobian(theta, z)
    step = 1e-5
    for i in range(law.n_parameters):
        e = step * np.eye(law.n_parameters)[i]
        difference = (law.log_loss(theta + e, z)[0] - law.log_loss(theta - e, z)[0]) / (2 * step)
        assert np.allclose(jacobian[:, i], difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_slopes_agree_with_central_differences(name):
    law, step = LAWS[name], 1e-5
    along_n, along_d = law.slopes(TRUTH, N, D)
    difference_n = (law.predict(TRUTH, N * np.exp(step), D) - law.predict(TRUTH, N * np.exp(-step), D)) / (
        2 * step
    )
    difference_d = (law.predict(TRUTH, N, D * np.exp(step)) - law.predict(TRUTH, N, D * np.exp(-step))) / (
        2 * step
    )
    assert np.allclose(along_n, difference_n, rtol=1e-7)
    assert np.allclose(along_d, difference_d, rtol=1e-7)


def test_an_unknown_law_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"n\+d\+x.*n\+d\+nd"):
        law_named("n+d+x")
