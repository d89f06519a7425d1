"""What policies decide: the axis that pays, N* of the cost, cheap measurements, and when to stop."""

from types import SimpleNamespace

import numpy as np
import pytest

from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.optimum import Cost, optimum
from sapis_lab.config import kinds
from sapis_lab.policies import Prices, Rules, Runs, policy
from sapis_lab.policies.greedy import greedy_gains
from sapis_lab.policies.trigger import frontier

KAPPA = 6.0
PRICES = Prices(KAPPA)
LAW = LAWS["n+d+nd+e"]


def law(**changes):
    """Shares of one half at N = 1e4, D = 300."""
    p = {"A": 0.5, "alpha": 0.5, "B": 0.5, "beta": 0.5, "C": 0.0, "gamma": 1.0, "E": 0.0} | changes
    return p | {
        "A": p["A"] * 1e4 ** p["alpha"],
        "B": p["B"] * 300 ** p["beta"],
        "C": p["C"] * 3e6 ** p["gamma"],
    }


def lattice(params, *, noise=0.0, seed=0, repeats=1, prices=PRICES):
    """The runs of a 3 x 3 lattice with `repeats` seeds."""
    n, d = (np.tile(a.ravel(), repeats) for a in np.meshgrid([3e3, 1e4, 3e4], [1e2, 3e2, 1e3], indexing="ij"))
    loss = LAW.predict(params, n, d) * np.exp(np.random.default_rng(seed).normal(0, noise, len(n)))
    return Runs(n, d, loss, prices.of(n, d), np.repeat(np.arange(repeats), 9), np.zeros(len(n), bool))


def next_step(kind, runs, *, rules=Rules(), prices=PRICES, factor=2.0, horizon=50.0):  # noqa: B008
    cost = factor * float(runs.cost[runs.last])
    return policy(kind).decide(runs, prices, next_cost=cost, horizon=horizon * cost, rules=rules)


@pytest.mark.parametrize("kind", kinds("policies"))
def test_a_run_of_the_path_costs_what_it_may(kind):
    runs = lattice(law(), noise=0.02)
    found = next_step(kind, runs, rules=Rules(measure=False))
    assert found.cost == pytest.approx(2 * runs.cost[runs.last], rel=1e-6)
    assert found.n_params * found.n_frames * KAPPA == pytest.approx(found.cost, rel=1e-6)


def test_null_grows_both_by_one_factor():
    found = next_step("null", lattice(law()))
    assert (found.n_params, found.n_frames) == pytest.approx((3e4 * 2**0.5, 1e3 * 2**0.5))
    assert found.action == "both"


@pytest.mark.parametrize(
    ("shares", "action"), [({"A": 0.95, "B": 0.05}, "model"), ({"A": 0.05, "B": 0.95}, "data")]
)
def test_greedy_takes_the_axis_that_gains_more_per_cost(shares, action):
    found = next_step("greedy", lattice(law(**shares), noise=0.005))
    assert found.action == action
    assert found.numbers["gain_n_per_cost" if action == "model" else "gain_d_per_cost"] == max(
        found.numbers["gain_n_per_cost"], found.numbers["gain_d_per_cost"]
    )


def test_the_cross_term_adds_the_same_to_both_gains():
    p = law(C=0.3, gamma=0.2)
    known = SimpleNamespace(
        law=LAWS["n+d+nd"], params={k: p[k] for k in ("A", "B", "C", "alpha", "beta", "gamma")}
    )
    gain_n, gain_d, cross = greedy_gains(known, 2e4, 500.0)
    assert cross == pytest.approx(p["gamma"] * p["C"] * (2e4 * 500.0) ** -p["gamma"])
    assert gain_n - cross == pytest.approx(p["alpha"] * p["A"] * 2e4 ** -p["alpha"])
    assert gain_d - cross == pytest.approx(p["beta"] * p["B"] * 500.0 ** -p["beta"])


def test_jump_goes_to_the_optimum_of_the_cost():
    params = law(A=0.7, B=0.3, alpha=0.6)
    runs = lattice(params)
    found = next_step("jump", runs)
    best = optimum(LAW, params, found.cost, Cost(KAPPA)).n_params[0]
    assert found.n_params == pytest.approx(best, rel=0.06)  # the splits are 6 % apart or so


def along_the_diagonal(loss):
    """A path on which N and D double, with the given losses."""
    n, d = 1e3 * 2.0 ** np.arange(len(loss)), 50 * 2.0 ** np.arange(len(loss))
    return Runs(n, d, np.asarray(loss, float), PRICES.of(n, d), np.zeros(len(n), int), np.zeros(len(n), bool))


def test_the_trigger_is_suppressed_while_a_floor_cannot_be_told_from_none():
    C = PRICES.of(1e3 * 2.0 ** np.arange(7), 50 * 2.0 ** np.arange(7))
    power = along_the_diagonal(C**-0.25 * np.exp(np.random.default_rng(0).normal(0, 0.02, 7)))
    found = next_step("trigger", power)
    assert found.action == "both" and "suppressed" in found.reason


def test_the_trigger_acts_when_the_slope_has_fallen_and_the_floor_is_sure():
    C = PRICES.of(1e3 * 2.0 ** np.arange(8), 50 * 2.0 ** np.arange(8))
    floored = along_the_diagonal(
        (C / C[0]) ** -0.4 + 0.2 * np.exp(np.random.default_rng(0).normal(0, 1e-3, 8))
    )
    found = next_step("trigger", floored)
    assert "fell under" in found.reason and found.numbers["slope"] < 0.5 * found.numbers["fitted"]
    assert found.action in ("model", "data")


def test_the_frontier_leaves_out_what_a_cheaper_run_beats():
    runs = lattice(law())
    cost, loss = frontier(runs)
    assert (np.diff(cost) > 0).all() and (np.diff(loss) < 0).all()
    assert all(
        loss[np.searchsorted(cost, c, side="right") - 1] <= v
        for c, v in zip(runs.cost, runs.loss, strict=True)
    )


# -------------------------------------------------------------------------------------------------- posterior


@pytest.mark.parametrize(("shares", "larger"), [({"A": 0.9, "B": 0.1}, True), ({"A": 0.1, "B": 0.9}, False)])
def test_far_from_the_frontier_the_posterior_jumps_towards_it(shares, larger):
    runs = lattice(law(**shares), noise=0.02)
    found = next_step("posterior", runs, rules=Rules(measure=False))
    both = runs.n_params[runs.last] * 2**0.5
    assert found.n_params > 2 * both if larger else found.n_params < both / 2
    assert "off the frontier" in found.reason and found.numbers["p_off_frontier"] > 0.95


def test_a_measurement_is_cheap_saves_more_than_it_costs_and_takes_a_new_seed():
    runs = lattice(law(), noise=0.05)
    found = next_step("posterior", runs, horizon=500.0)
    assert found.action in ("repeat", "measure")
    assert found.cost <= Rules().cheap * 2 * runs.cost[runs.last]
    assert found.numbers["saved"] > found.cost
    if found.action == "repeat":
        assert found.seed == 1


def test_measurements_end_when_the_law_is_known_or_their_number_is_used_up():
    known = lattice(law(), noise=1e-3, repeats=12)
    assert next_step("posterior", known, horizon=1.0).action not in ("repeat", "measure")
    runs = lattice(law(), noise=0.05)
    for k in range(Rules().measurements):
        assert next_step("posterior", runs, horizon=500.0).action in ("repeat", "measure")
        runs = runs.and_then(3e3, 1e2, float(runs.loss[0]), 1.8e6, seed=k + 1, measured=True)
    assert next_step("posterior", runs, horizon=500.0).action not in ("repeat", "measure")


def test_with_little_to_spend_nothing_is_measured():
    runs = lattice(law(), noise=0.03)
    assert next_step("posterior", runs, horizon=1e-3).action not in ("repeat", "measure")


def test_the_data_are_a_limit_and_the_rest_goes_into_the_model():
    runs = lattice(law(A=0.1, B=0.9), noise=0.02)
    found = next_step("posterior", runs, rules=Rules(measure=False, most_frames=1200), factor=4.0)
    assert found.n_frames == pytest.approx(1200, rel=1e-6)
    assert found.n_params == pytest.approx(found.cost / KAPPA / 1200, rel=1e-6)
    assert "frames are in use" in found.reason


def test_dear_labels_ask_for_a_larger_model():
    params = law()
    dear = Prices(KAPPA, label=1e6, labelled=1e3)
    free, paid = (
        next_step("posterior", lattice(params, noise=0.01), rules=Rules(measure=False), prices=p)
        for p in (PRICES, dear)
    )
    assert paid.n_params > 1.1 * free.n_params and paid.n_frames < free.n_frames
    assert paid.cost == pytest.approx(free.cost, rel=1e-6)
    assert float(dear.of(paid.n_params, paid.n_frames)) == pytest.approx(paid.cost, rel=1e-6)


def test_more_frames_than_are_labelled_is_a_decision_to_label():
    runs = lattice(law(A=0.1, B=0.9), noise=0.01)
    found = next_step(
        "posterior", runs, rules=Rules(measure=False), prices=Prices(KAPPA, label=10.0, labelled=1e3)
    )
    assert found.action == "label" and "more frames must be labelled" in found.reason


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(measure=False, tolerance=10.0), "below the tolerance"),
        (Rules(measure=False, min_gain=5.0), "less than the 5 that is wanted"),
        (Rules(measure=False, target=5.0), "is reached"),
    ],
)
def test_it_stops_by_rule_and_says_why(rules, words):
    found = next_step("posterior", lattice(law(), noise=0.02), rules=rules)
    assert found.action == "stop" and words in found.reason


def test_a_target_below_a_sure_floor_is_called_unreachable():
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e6, 6), np.geomspace(30, 3e4, 6), indexing="ij")
    )
    loss = LAW.predict(law(A=0.3, B=0.3, E=0.4), n, d) * np.exp(
        np.random.default_rng(0).normal(0, 5e-3, len(n))
    )
    runs = Runs(n, d, loss, PRICES.of(n, d), np.zeros(len(n), int), np.zeros(len(n), bool))
    found = next_step("posterior", runs, rules=Rules(measure=False, target=0.2))
    assert found.action == "stop" and "cannot be reached" in found.reason


def test_equal_tables_give_equal_decisions():
    runs = lattice(law(), noise=0.03)
    for kind in kinds("policies"):
        first, again = next_step(kind, runs), next_step(kind, runs)
        assert (first.action, first.n_params, first.n_frames, first.reason) == (
            again.action,
            again.n_params,
            again.n_frames,
            again.reason,
        )


@pytest.mark.parametrize("prices", [Prices(6.0), Prices(40.0, 0.8), Prices(6.0, 0.8, 1e5, 200.0)])
def test_prices_can_be_read_in_every_direction(prices):
    n = np.array([1e3, 1e4, 1e5])
    d = prices.frames(n, 3e8)
    assert np.allclose(prices.of(n, d), 3e8)
    assert prices.params(float(d[1]), 3e8) == pytest.approx(1e4)
