"""The next point by what it teaches: cheap edges for an exponent, and what is close to a target for the loss
there."""

import numpy as np
import pytest
from test_policies import PRICES, lattice, law

from sapis_lab.policies import Rules
from sapis_lab.scaling.design import next_points


def test_the_candidates_come_by_information_per_cost_with_new_seeds():
    runs = lattice(law(), noise=0.03)
    design = next_points(runs, PRICES, budget=1e10)
    score = [c.reduction / c.cost for c in design.candidates]
    assert score == sorted(score, reverse=True) and design.candidates[0].per_cost == 1.0
    assert all(0 <= c.reduction <= 1 for c in design.candidates)
    known = {(n, d) for n, d in zip(runs.n_params, runs.n_frames, strict=True)}
    assert all(c.seed == (1 if (c.n_params, c.n_frames) in known else 0) for c in design.candidates)
    assert design.candidates[0].cost < 0.1 * runs.cost.max()  # per FLOP the cheap runs teach most


def test_a_measurement_at_the_target_teaches_most_about_it():
    runs = lattice(law(), noise=0.03)
    design = next_points(runs, PRICES, target=(6e4, 2e3))
    best = max(design.candidates, key=lambda c: c.reduction)
    assert (best.n_params, best.n_frames) == (6e4, 2e3)


def test_frames_that_do_not_exist_are_no_candidates():
    design = next_points(lattice(law(), noise=0.03), PRICES, budget=1e10, rules=Rules(most_frames=1000))
    assert max(c.n_frames for c in design.candidates) == 1000


def test_a_design_has_one_aim():
    runs = lattice(law(), noise=0.03)
    with pytest.raises(ValueError, match="exactly one"):
        next_points(runs, PRICES)
    with pytest.raises(ValueError, match="exactly one"):
        next_points(runs, PRICES, budget=1e10, target=(1.0, 1.0))


def test_what_is_taught_is_about_the_aim():
    """More noise leaves more to learn."""
    quiet, loud = (next_points(lattice(law(), noise=s), PRICES, budget=1e10).sd for s in (0.003, 0.05))
    assert loud > 1.3 * quiet
    assert np.isfinite(loud)
