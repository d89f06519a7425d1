"""Cost at equal error: the true ratio from noise-free laws, a band that covers it, and honesty at the edges
of a lattice."""

import numpy as np
import pandas as pd
import pytest

from sapis_lab.analysis.efficiency import Level, equal_error, reach
from sapis_lab.analysis.laws import LAWS

BETTER = {"A": 2.4, "B": 1.6, "alpha": 0.46, "beta": 0.6}
N_SIZES, N_DATA = np.geomspace(1e3, 3e5, 5), np.array([50, 120, 300, 700, 1600])


def runs(model, params, *, noise=0.02, kappa=100.0, epochs=True, seed=0):
    N, D = (a.ravel() for a in np.meshgrid(N_SIZES, N_DATA))
    generator = np.random.default_rng(seed)
    loss = LAWS["n+d"].predict(params, N, D) * np.exp(noise * generator.standard_normal(N.size))
    flops = kappa * N * (D if epochs else 1000.0)
    about = {"model": model, "n_params": N, "n_frames": D, "val_force_rmse": loss, "flops_train": flops}
    return pd.DataFrame(about | {"cpu_seconds_train": flops / 1e6, "flops_inference_per_frame": kappa * N})


def ratios(worse, *, noise=0.02, kappa=100.0, epochs=True, seed=0):
    models = [
        runs("a", BETTER, noise=noise, epochs=epochs, seed=seed),
        runs("b", worse, noise=noise, kappa=kappa, epochs=epochs, seed=seed + 1),
    ]
    a, b = (reach(m, quantity="val_force_rmse", laws=["n+d"], robust="auto", seed=0) for m in models)
    return {e.cost: e for e in equal_error(b, a, quantity="val_force_rmse")}


def test_a_model_twice_as_dear_costs_twice_as_much():
    found = ratios(BETTER, noise=1e-4, kappa=200.0)
    assert np.allclose(found["flops_train"].ratio, 2.0, rtol=2e-3)
    assert np.allclose(found["n_frames"].ratio, 1.0, rtol=2e-3)


def test_a_larger_error_everywhere_costs_what_the_law_says():
    """L_b(N, D) = L_a(N / f^(1/alpha), D / f^(1/beta)), so the optimum moves along both axes and cost by the
    product."""
    factor = 1.3
    worse = BETTER | {"A": factor * BETTER["A"], "B": factor * BETTER["B"]}
    found = ratios(worse, noise=1e-4)["flops_train"]
    wanted = factor ** (1 / BETTER["alpha"] + 1 / BETTER["beta"])
    free = ~found.at_edge & (found.error < 0.6 * found.error[0]) & (found.error > 1.5 * found.error[-1])
    assert free.any()
    assert np.allclose(found.ratio[free], wanted, rtol=0.03)


def test_bands_cover_the_true_ratio():
    covered = [
        (e.low <= 1.0).all() and (e.high >= 1.0).all()
        for s in range(10)
        if (e := ratios(BETTER, seed=2 * s)["flops_train"])
    ]
    assert sum(covered) >= 7  # all nine errors at once


def test_at_fixed_steps_the_smallest_sufficient_model_is_the_cheapest():
    worse = BETTER | {"A": 1.3 * BETTER["A"]}
    found = ratios(worse, noise=1e-4, epochs=False)["flops_train"]
    rest = found.error - BETTER["B"] * float(N_DATA[-1]) ** -BETTER["beta"]
    sizes = [np.clip((rest / p["A"]) ** (-1 / p["alpha"]), N_SIZES[0], None) for p in (worse, BETTER)]
    assert np.allclose(found.ratio, sizes[0] / sizes[1], rtol=5e-3)
    assert (found.at_edge == (np.min(sizes, axis=0) <= N_SIZES[0])).all()


def test_what_both_reach_only_at_the_edge_is_no_statement():
    worse = {"A": 40.0, "B": 1.0, "alpha": 0.3, "beta": 0.6}
    found = ratios(worse, noise=1e-3)["flops_train"]
    assert (
        found.why_not == "the errors that the two reach on this lattice do not overlap"
        and len(found.error) == 0
    )
    assert found.middle() is None


def test_the_cheapest_point_is_cheaper_than_every_point_of_the_line():
    model = reach(runs("a", BETTER), quantity="val_force_rmse", laws=["n+d"], robust="auto", seed=0)
    fit, cost = model.fit, model.costs["flops_train"]
    error = np.array([0.15])
    level = Level.of(model, np.array([[fit.params[k] for k in fit.law.param_names]]), error)
    best, _ = level.cheapest(cost, draws=False)
    N, D = (
        a.ravel() for a in np.meshgrid(np.geomspace(*model.n_range, 400), np.geomspace(*model.d_range, 400))
    )
    enough = fit.predict(N, D) <= error
    assert best[0, 0] <= cost.of(N, D)[enough].min() * 1.002
    assert best[0, 0] == pytest.approx(cost.of(N, D)[enough].min(), rel=0.02)


def test_too_few_points_give_no_reach():
    few = runs("a", BETTER).iloc[:3]
    assert reach(few, quantity="val_force_rmse", laws=["n+d"], robust="auto", seed=0) is None
