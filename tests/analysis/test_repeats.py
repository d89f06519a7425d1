"""Laws of repeated data: limits of D_eff, and R* from data that repeat."""

import numpy as np
import pytest

from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.repeats import effective_frames, fit_repeated

TRUTH = {"A": 20.0, "B": 2.0, "alpha": 0.7, "beta": 0.6}
N, U, EPOCHS = (
    a.ravel()
    for a in np.meshgrid(
        3e3 * np.geomspace(1, 100, 3), 50 * np.geomspace(1, 100, 4), [1.0, 4.0, 16.0, 64.0], indexing="ij"
    )
)


def test_one_epoch_is_worth_its_frames_and_endless_ones_no_more_than_r_star_times_them():
    assert effective_frames(100.0, 1.0, 5.0) == 100.0
    assert effective_frames(100.0, 1e6, 5.0) == pytest.approx(600.0)
    assert effective_frames(100.0, 3.0, 1e9) == pytest.approx(300.0)


def test_r_star_and_the_law_come_back_with_intervals_that_hold_them():
    loss = LAWS["n+d"].predict(TRUTH, N, effective_frames(U, EPOCHS, 8.0)) * np.exp(
        0.01 * np.random.default_rng(0).standard_normal(len(N))
    )
    found = fit_repeated("n+d", N, U, EPOCHS, loss)
    assert found.r_star_interval[0] < 8.0 < found.r_star_interval[1]
    assert found.r_star_interval[1] < 2 * found.r_star_interval[0]
    assert found.r_star_open == (False, False)
    for key in ("alpha", "beta"):
        assert found.intervals[key][0] < TRUTH[key] < found.intervals[key][1]


def test_repeats_as_good_as_new_frames_leave_r_star_open_above():
    loss = LAWS["n+d"].predict(TRUTH, N, U * EPOCHS) * np.exp(
        0.01 * np.random.default_rng(1).standard_normal(len(N))
    )
    assert fit_repeated("n+d", N, U, EPOCHS, loss, robust="none").r_star_open[1]


def test_without_repeats_r_star_is_refused():
    with pytest.raises(ValueError, match="no point has more than one epoch"):
        fit_repeated("n+d", N, U, np.ones_like(N), np.ones_like(N))
