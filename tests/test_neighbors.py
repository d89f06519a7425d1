"""Neighbour lists against a slow version written from the definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab import neighbors
from sapis_lab.neighbors import closest, complete_cell, neighbor_list, wrapped


def by_definition(positions, cell, pbc, cutoff, reach=6):
    """Every (i, j, S) with |x_j + S cell - x_i| < cutoff, by trying all images up to `reach` cells away."""
    spans = [range(-reach, reach + 1) if p else (0,) for p in pbc]
    found = set()
    for shift in itertools.product(*spans):
        for i, j in itertools.product(range(len(positions)), repeat=2):
            if (i != j or any(shift)) and np.linalg.norm(
                positions[j] + np.array(shift) @ cell - positions[i]
            ) < cutoff:
                found.add((i, j, *shift))
    return found


def as_tuples(pairs):
    return [(int(i), int(j), *map(int, s)) for i, j, s in zip(*pairs, strict=True)]


def check(positions, cell, pbc, cutoff):
    pairs = neighbor_list(positions, cell, pbc, cutoff)
    got = as_tuples(pairs)
    assert len(got) == len(set(got))
    assert set(got) == by_definition(positions, cell, pbc, cutoff)
    assert got == sorted(got), "sorted by center, then neighbour, then shift"
    assert pairs.center.dtype == np.int32 and pairs.shift.dtype == np.int8


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 6),
    cutoff=st.floats(0.5, 4.0),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_pairs_are_those_of_the_definition_also_in_skewed_cells_smaller_than_the_cutoff(seed, n, cutoff, pbc):
    generator = np.random.default_rng(seed)
    cell = np.diag(generator.uniform(1.8, 4.0, 3)) + generator.uniform(-0.5, 0.5, (3, 3))
    positions = generator.uniform(-0.5, 1.5, (n, 3)) @ cell
    check(positions, cell, pbc, cutoff)


def test_one_atom_in_a_small_cell_sees_several_images_of_itself():
    pairs = neighbor_list(np.zeros((1, 3)), 2.0 * np.eye(3), True, 4.1)
    assert len(pairs.center) == 32  # 6 at 2 Å, 12 at 2.83, 8 at 3.46, 6 at 4
    check(np.zeros((1, 3)), 2.0 * np.eye(3), (True,) * 3, 4.1)


def test_a_slab_with_a_zero_lattice_vector_is_completed():
    cell = np.array([[3.0, 0, 0], [1.0, 3.0, 0], [0, 0, 0]])
    positions = np.array([[0.0, 0, 0], [1.0, 1.0, 1.0]])
    check(positions, cell, (True, True, False), 3.5)
    full = complete_cell(cell, np.array([True, True, False]))
    assert abs(full[2] @ full[0]) < 1e-12 and abs(full[2] @ full[1]) < 1e-12


def test_large_open_frames_agree_with_all_pairs():
    positions = np.random.default_rng(0).uniform(0, 15, (neighbors.ALL_PAIRS_ATOMS + 50, 3))
    pairs = neighbor_list(positions, None, False, 3.0)
    _, i, j = neighbors.open_pairs(positions[None], 3.0)
    assert np.array_equal(pairs.center, i) and np.array_equal(pairs.neighbor, j)


def test_ase_and_vesin_agree(monkeypatch):
    pytest.importorskip("vesin")
    pytest.importorskip("ase")
    generator = np.random.default_rng(1)
    cell = np.diag([5.0, 6.0, 7.0]) + generator.uniform(-1, 1, (3, 3))
    positions = generator.uniform(-1, 2, (12, 3)) @ cell
    first = neighbor_list(positions, cell, True, 4.0)
    monkeypatch.setitem(__import__("sys").modules, "vesin", None)
    second = neighbor_list(positions, cell, True, 4.0)
    assert as_tuples(first) == as_tuples(second)


def test_pairs_come_in_both_directions():
    generator = np.random.default_rng(2)
    got = set(as_tuples(neighbor_list(generator.uniform(0, 4, (8, 3)), 4 * np.eye(3), True, 3.0)))
    assert got == {(j, i, -a, -b, -c) for i, j, a, b, c in got}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 2)), None, False, 3.0), r"shape \(2, 2\)"),
        ((np.zeros((2, 3)), None, False, 0.0), "positive"),
        ((np.full((2, 3), np.nan), None, False, 3.0), "atom 0 are not finite"),
        ((np.zeros((1, 3)), None, True, 3.0), "lattice vector 0 is zero"),
        ((np.zeros((1, 3)), np.ones((3, 3)), True, 3.0), "no volume"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        neighbor_list(*arguments)


def test_the_closest_pair_is_that_of_all_images():
    generator = np.random.default_rng(5)
    for _ in range(50):
        cell = 5 * np.eye(3) + generator.uniform(-2, 2, (3, 3))
        x = generator.uniform(0, 1, (6, 3)) @ cell + generator.integers(-2, 3, (6, 3)) @ cell
        found = closest(x, cell, neighbor_list(x, cell, True, 8.0))
        images = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3) @ cell
        r = np.linalg.norm(x[None, :, None] - x[:, None, None] + images, axis=-1)
        r[r == 0] = np.inf
        i, j, _ = np.unravel_index(np.argmin(r), r.shape)
        assert found.distance == pytest.approx(r.min(), abs=1e-12)
        assert {found.center, found.neighbor} == {i, j}


def test_wrapped_positions_are_in_the_cell_along_periodic_directions_only():
    generator = np.random.default_rng(6)
    cell = 5 * np.eye(3) + generator.uniform(-1, 1, (3, 3))
    x = generator.normal(scale=200.0, size=(50, 3))
    for pbc in ([True, True, True], [True, False, True], [False, False, False]):
        s, was = wrapped(x, cell, np.array(pbc)) @ np.linalg.inv(cell), x @ np.linalg.inv(cell)
        assert ((s[:, pbc] > -1e-9) & (s[:, pbc] < 1 + 1e-9)).all()
        assert np.allclose((was - s) - np.round(was - s), 0, atol=1e-9)
        np.testing.assert_allclose(s[:, ~np.array(pbc)], was[:, ~np.array(pbc)], atol=1e-9)
