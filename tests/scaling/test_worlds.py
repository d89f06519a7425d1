"""Synthetic worlds: what is wasted is measured rightly, and the posterior policy finds the frontier that the
null policy never reaches."""

import numpy as np
import pytest

from sapis_lab.analysis.optimum import Cost, optimum, waste
from sapis_lab.policies import Rules, policy
from sapis_lab.scaling.worlds import KAPPA, LAW, MIDDLE, SHARES, World, campaign


@pytest.mark.parametrize("name", SHARES)
def test_the_shares_of_a_world_are_those_at_its_middle(name):
    world = World.named(name)
    amplitudes = [SHARES[name].get(k, 0.0) for k in ("A", "B", "C", "E")]
    assert np.allclose(
        LAW.term_values(world.params, *MIDDLE), [amplitudes["ABCE".index(t.amplitude)] for t in LAW.terms]
    )


def test_the_optimum_wastes_nothing_and_a_wrong_split_what_theory_says():
    world = World.named("plain")
    best = optimum(LAW, world.params, 1e10, Cost(KAPPA))
    n, d = best.n_params[0], best.n_frames[0]
    assert world.needed(float(world.loss(n, d)), 1e10) == pytest.approx(1e10, rel=1e-4)
    wrong = world.needed(float(world.loss(1.3 * n, d / 1.3)), 1e10)
    assert 1e10 / wrong - 1 == pytest.approx(waste(1.4, np.log(1.3)), rel=0.1)


def test_a_campaign_is_told_by_its_seed():
    first, again, other = (campaign(World.named("plain"), policy("jump"), seed=s, steps=2) for s in (3, 3, 4))
    assert [s.waste for s in first] == [s.waste for s in again] != [s.waste for s in other]


def test_measurements_are_paid_for():
    steps = campaign(World.named("asymmetric"), policy("posterior"), seed=0, steps=3)
    without = campaign(
        World.named("asymmetric"), policy("posterior"), seed=0, steps=3, rules=Rules(measure=False)
    )
    assert any(s.measured > 0 for s in steps) and all(s.waste >= s.measured for s in steps)
    assert all(s.measured == 0 for s in without)


@pytest.mark.parametrize("name", ["far in N", "far in D"])
def test_the_posterior_policy_reaches_a_far_frontier_and_the_null_policy_does_not(name):
    null, found = (
        campaign(World.named(name), policy(kind), seed=1, steps=4) for kind in ("null", "posterior")
    )
    assert null[-1].waste > 2.0
    assert found[-1].waste < 0.3
