"""Bowls: optima of simulated sweeps are found within their errors, whatever floor and cliff the loss has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapis_lab.analysis import bowl as bowls
from sapis_lab.analysis.bowl import Sweep, fit_bowls
from sapis_lab.analysis.rule_coverage import TRUTH, World, measure_rules, simulate
from sapis_lab.analysis.weighted import extra_scatter, weighted_fit


def errors(world: World, *, n_sets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distances of ln best rates from the truth, and their stated standard deviations."""
    generator, away, stated = np.random.default_rng(seed), [], []
    for _ in range(n_sets):
        sweeps = simulate(world, generator)
        found = fit_bowls(sweeps)
        assert not isinstance(found, str)
        power = TRUTH["learning_rate"]
        true = [power[0] * np.log(s.n_params / 1e6) + power[1] * np.log(s.n_frames / 1e8) for s in sweeps]
        away += list(np.array([b.optimum[0] for b in found.bowls]) - true)
        stated += list(found.sd(0))
    return np.array(away), np.array(stated)


@pytest.mark.parametrize(
    "world",
    [
        World(side=3, rates=7),
        World(side=3, rates=7, floor=0.9, noise=0.003),
        World(side=3, rates=9, ratio=2.0, cliff=2.0),
    ],
)
def test_optima_lie_within_their_errors_whatever_floor_and_cliff(world: World) -> None:
    away, stated = errors(world, n_sets=6)
    assert (np.abs(away) < 1.96 * stated).mean() > 0.8
    assert np.median(stated) < 0.12 and np.median(np.abs(away)) < 0.08


def test_the_neighbourhood_follows_the_depth_of_the_bowl() -> None:
    """With a floor all losses lie within 30 % of one another, and still the far walls are left out."""
    sweeps = simulate(World(side=3, rates=9, ratio=2.0, floor=0.9, noise=0.002), np.random.default_rng(1))
    assert max(s.loss.max() / s.loss.min() for s in sweeps) < 2
    found = fit_bowls(sweeps)
    assert not isinstance(found, str)
    depths = [np.log(s.loss) - b.bottom for s, b in zip(sweeps, found.bowls, strict=True)]
    used = np.concatenate([d[b.used] for d, b in zip(depths, found.bowls, strict=True)])
    assert len(used) < 0.95 * sum(map(len, depths)) and used.max() < 0.5 * np.concatenate(depths).max()


def test_exact_bowls_are_found_exactly() -> None:
    x = np.linspace(-2, 2, 9)[:, None]
    best = np.array([-0.5, 0.0, 0.4, 0.7])
    sweeps = [
        Sweep(n, 100.0, x, np.exp(0.3 * (x[:, 0] - b) ** 2), np.empty((0, 1)))
        for n, b in zip([1e3, 3e3, 1e4, 3e4], best, strict=True)
    ]
    found = fit_bowls(sweeps)
    assert not isinstance(found, str)
    assert np.array([b.optimum[0] for b in found.bowls]) == pytest.approx(best, abs=1e-5)
    assert found.bowls[1].hessian[0, 0] == pytest.approx(0.6, rel=1e-3)
    assert found.bowls[1].log_loss(np.array([[1.0]]))[0] == pytest.approx(0.3, rel=1e-3)


def test_repeats_say_what_the_noise_is() -> None:
    found = fit_bowls(simulate(World(side=3, seeds=3, noise=0.02), np.random.default_rng(2)))
    assert not isinstance(found, str) and found.from_repeats
    assert found.noise == pytest.approx(0.02, rel=0.3)


def test_optima_stay_below_the_rates_at_which_runs_diverge() -> None:
    x = np.log([[0.001], [0.002], [0.004], [0.008], [0.016]])
    loss = np.exp(0.1 * (x[:, 0] - np.log(0.05)) ** 2)  # falls all the way up
    sweeps = [Sweep(n, 100.0, x, loss, np.log([[0.02], [0.03]])) for n in (1e3, 1e4, 1e5)]
    found = fit_bowls(sweeps)
    assert not isinstance(found, str)
    assert all(np.exp(b.optimum[0]) <= 0.02 * (1 + 1e-9) for b in found.bowls)


@pytest.mark.parametrize("batches", [1, 3])
def test_derivatives_are_those_of_central_differences(batches: int) -> None:
    random = np.random.default_rng(3)
    data = bowls._together(simulate(World(side=2, rates=4, batches=batches), random))
    theta = bowls._start(data)
    theta = replace(theta, e=0.1 * random.standard_normal(data.n_cells), shape=theta.shape + 0.3)
    jac = bowls._jacobian(theta, data)

    def value(vector: np.ndarray) -> np.ndarray:
        n, d = data.n_cells, data.d
        c, m, s, e, shape = np.split(vector, [n, n * (d + 1), n * (d + 2), n * (d + 3)])
        moved = bowls._Theta(c, m.reshape(n, d), s, e, shape)
        return moved.c[data.cell] + bowls._depth(moved, data)

    for j in range(jac.shape[1]):
        step = np.zeros(jac.shape[1])
        step[j] = 1e-6
        slope = (value(theta.vector + step) - value(theta.vector - step)) / 2e-6
        assert slope == pytest.approx(jac[:, j], abs=1e-6, rel=1e-5)


@pytest.mark.long
def test_intervals_of_exponents_hold_the_truth() -> None:
    """Of 88 intervals of 95 % at least 77 hold it: three standard errors below 83.6."""
    m = measure_rules(World(side=3, rates=6, floor=0.5), n_sets=24, seed=5)
    by_rate = m.covered["learning_rate"].values()
    two = measure_rules(World(side=3, rates=5, batches=4), n_sets=10, seed=5)
    held = [24 * s for s in by_rate] + [10 * s for by in two.covered.values() for s in by.values()]
    assert m.identified and two.identified and sum(held) >= 77
    assert max(abs(b) for by in (m.bias, two.bias) for v in by.values() for b in v.values()) < 0.05


def test_correlated_errors_are_weighed_as_such() -> None:
    """An error that all numbers share moves the mean alone: the slope is as sure as without it."""
    x = np.linspace(-1, 1, 8)
    design, own = np.column_stack([np.ones(8), x]), 0.01 * np.eye(8)
    y = 1.0 + 0.5 * x + 0.1 * np.random.default_rng(0).standard_normal(8)
    slope = np.array([0.0, 1.0])
    fits = [
        weighted_fit(design, y, covariance, generator=np.random.default_rng(1))
        for covariance in (own, own + 4.0 * np.ones((8, 8)))
    ]
    assert fits[0].value(slope) == pytest.approx(fits[1].value(slope), rel=1e-6)
    (low, high), (low2, high2) = (f.interval(slope) for f in fits)  # type: ignore[misc]
    assert low == pytest.approx(low2, abs=0.03) and high == pytest.approx(high2, abs=0.03)
    assert fits[1].covariance[0, 0] > 4.0


def test_scatter_beyond_the_errors_is_found() -> None:
    random = np.random.default_rng(4)
    y = 0.3 * random.standard_normal(400)
    design = np.ones((400, 1))
    assert extra_scatter(design, y, 0.04 * np.eye(400)) == pytest.approx(np.sqrt(0.09 - 0.04), rel=0.15)
    assert extra_scatter(design, y, 0.5 * np.eye(400)) == 0.0
