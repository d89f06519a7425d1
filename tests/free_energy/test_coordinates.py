"""Collective coordinates have the values of their definitions, and gradients that are derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from sapis_lab.generators.torsions import torsion_angle
from sapis_lab.geometry.coordinates import difference, period, values, with_gradient

KINDS = [(0, 3), (1, 4, 2), (5, 0, 2, 3)]


@pytest.fixture
def positions():
    return np.random.default_rng(0).normal(size=(4, 6, 3))


@pytest.mark.parametrize("atoms", KINDS)
def test_gradients_are_derivatives(positions, atoms):
    value, gradient = with_gradient(positions, atoms)
    assert np.array_equal(value, values(positions, atoms))
    step = 1e-6
    for k, atom in enumerate(atoms):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                moved = positions.copy()
                moved[:, atom, axis] += sign * step
                ends.append(values(moved, atoms))
            assert gradient[:, k, axis] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_a_torsion_has_the_sign_of_iupac(positions):
    expected = [torsion_angle(x, (5, 0, 2, 3)) for x in positions]
    assert values(positions, (5, 0, 2, 3)) == pytest.approx(expected, abs=1e-12)


def test_a_right_angle_and_a_distance():
    x = np.array([[1.0, 0, 0], [0, 0, 0], [0, 2.0, 0]])
    assert values(x, (0, 1, 2)) == pytest.approx(np.pi / 2)
    assert values(x, (0, 2)) == pytest.approx(np.sqrt(5))


def test_the_gradient_of_a_flat_torsion_is_finite():
    x = np.array([[1.0, 1, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0]])
    value, gradient = with_gradient(x, (0, 1, 2, 3))
    assert value == pytest.approx(0.0) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0.5


def test_a_difference_goes_the_shortest_way_around():
    assert difference(np.deg2rad(170.0), np.deg2rad(-170.0), period=period((0, 1, 2, 3))) == pytest.approx(
        np.deg2rad(-20.0)
    )
    assert difference(5.0, -5.0, period=period((0, 1))) == 10.0


def test_a_coordinate_of_five_atoms_is_refused(positions):
    with pytest.raises(ValueError, match="a coordinate of 5 atoms; wanted 2"):
        values(positions, (0, 1, 2, 3, 4))
