"""Subset orders nest and are balanced; reference energies reproduce the mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapis_lab.data import fit_references, nested_order


@given(n=st.integers(1, 300), seed=st.integers(0, 2**31), n_strata=st.integers(0, 5))
def test_an_order_is_a_permutation_so_its_prefixes_nest(n, seed, n_strata):
    strata = np.random.default_rng(seed).integers(0, n_strata, n) if n_strata else None
    order = nested_order(n, seed=seed, strata=strata)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, nested_order(n, seed=seed, strata=strata))


def test_without_strata_it_is_numpys_permutation():
    assert np.array_equal(nested_order(500, seed=7), np.random.default_rng(7).permutation(500))


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4))
def test_every_prefix_holds_each_stratum_in_its_share(seed, sizes):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    n = len(strata)
    chosen = strata[nested_order(n, seed=seed, strata=strata)]
    for s, n_s in enumerate(sizes):
        share = np.arange(1, n + 1) * n_s / n
        assert np.abs(np.cumsum(chosen == s) - share).max() <= 1 + n_s / n * len(sizes)
        assert np.abs(np.cumsum(chosen == s) - share).max() <= 3


def test_wrong_strata_are_refused():
    with pytest.raises(ValueError, match=r"wanted \(4,\)"):
        nested_order(4, seed=0, strata=np.zeros(3))


def test_one_composition_gives_the_mean_energy_per_atom_exactly():
    counts = np.tile([6, 2, 1], (50, 1))
    energies = -4210.0 + np.random.default_rng(0).normal(size=50)
    e = fit_references(counts, energies)
    assert np.isclose(counts[0] @ e, energies.mean(), rtol=0, atol=1e-9)
    assert np.allclose(e, energies.mean() / 9)


def test_references_are_recovered_when_compositions_vary():
    generator = np.random.default_rng(1)
    true = np.array([-13.6, -1030.0, -2042.0])
    counts = generator.integers(0, 9, (200, 3)) + 1
    e = fit_references(counts, counts @ true + 0.01 * generator.normal(size=200))
    assert np.allclose(e, true, atol=0.02)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 30))
def test_the_mean_energy_is_always_reproduced(seed, n):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 5, (n, 3)) + 1
    energies = generator.normal(-1e4, 100, n)
    assert np.isclose((counts @ fit_references(counts, energies)).mean(), energies.mean(), rtol=1e-11)


def test_an_element_that_never_occurs_is_refused():
    with pytest.raises(ValueError, match="column 1 has no atom"):
        fit_references(np.array([[1, 0], [2, 0]]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("n_strata", [1, 3, 40])
def test_strata_are_put_in_their_places_one_after_the_other(n_strata):
    """The definition, stratum by stratum, with the same random numbers."""
    strata = np.random.default_rng(1).integers(0, n_strata, 200) * 7
    generator = np.random.default_rng(4)
    order = generator.permutation(200)
    place = np.empty(200)
    for s in np.unique(strata):
        members = order[strata[order] == s]
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    wanted = order[np.argsort(place[order], kind="stable")]
    assert np.array_equal(nested_order(200, seed=4, strata=strata), wanted)
