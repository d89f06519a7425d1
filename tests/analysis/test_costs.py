"""Costs of a study: (kappa N + fixed) D^q recovered, and which of them have a best split."""

import numpy as np
import pandas as pd
import pytest

from sapis_lab.analysis.costs import cost_model


def lattice(power_d, *, noise=0.0, kappa=120.0, fixed=6e5):
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(2e3, 5e4, 4), np.array([25.0, 50, 100, 200, 400])))
    cost = (kappa * N + fixed) * D**power_d * np.exp(noise * np.random.default_rng(0).standard_normal(N.size))
    return pd.DataFrame({"n_params": N, "n_frames": D, "flops_train": cost})


@pytest.mark.parametrize("power_d", [0.0, 1.0])
def test_the_parts_of_a_cost_are_recovered(power_d):
    found = cost_model(lattice(power_d), "flops_train")
    assert (found.kappa, found.fixed, found.power_d) == (pytest.approx(120.0), pytest.approx(6e5), power_d)
    assert found.residual_sd < 1e-12
    assert found.of(1e4, [10.0, 20.0]) == pytest.approx((120e4 + 6e5) * np.array([10.0, 20.0]) ** power_d)


def test_resampled_costs_cover_the_true_ones():
    inside = 0
    for seed in range(100):
        runs = lattice(1.0)
        runs["flops_train"] *= np.exp(0.05 * np.random.default_rng(seed).standard_normal(len(runs)))
        found = cost_model(runs, "flops_train", n_draws=200, generator=np.random.default_rng(seed))
        low, high = np.percentile(found.draws[:, 0], [2.5, 97.5])
        inside += low <= 120.0 <= high
    assert 88 <= inside <= 100


def test_a_part_that_is_not_there_is_zero_and_never_negative():
    constant = cost_model(lattice(1.0, kappa=0.0, noise=0.01), "flops_train")
    assert constant.kappa >= 0 and constant.kappa * 5e4 < 0.05 * constant.fixed
    proportional = cost_model(lattice(1.0, fixed=0.0, noise=0.01), "flops_train")
    assert proportional.fixed >= 0 and proportional.fixed < 0.05 * proportional.kappa * 2e3


def test_only_a_cost_in_proportion_to_the_data_has_a_best_split():
    cost = cost_model(lattice(1.0), "flops_train").per_budget(label=1e6)
    assert cost.of(1e4, 10.0) == pytest.approx((120e4 + 6e5 + 1e6) * 10)
    with pytest.raises(ValueError, match="fixed number of steps"):
        cost_model(lattice(0.0), "flops_train").per_budget()
    with pytest.raises(ValueError, match=r"as D\^0\.50"):
        cost_model(lattice(0.5), "flops_train").per_budget()
    with pytest.raises(ValueError, match="does not grow with N"):
        cost_model(lattice(1.0, kappa=0.0), "flops_train").per_budget()


def test_one_amount_of_data_says_nothing_of_its_power():
    runs = lattice(1.0)
    assert cost_model(runs[runs["n_frames"] == 50], "flops_train").power_d == 0.0
