"""What is held out of sets of many elements: enough frames, whole groups, and no element that is unknown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapis_lab.data._held_out import at_random, by_group
from sapis_lab.data._splits import nested_order

SPECIES = st.lists(
    st.lists(st.sampled_from([1, 6, 7, 8, 9, 17]), min_size=1, max_size=4), min_size=8, max_size=40
)


def elements(species, ids):
    return set(np.concatenate([species[k] for k in ids]).tolist()) if len(ids) else set()


def test_where_no_element_is_rare_the_ends_of_the_order_are_held_out():
    order = nested_order(20, seed=3)
    found = at_random([np.array([1, 8])] * 20, n_validation=4, n_test=5, seed=3, what="x")
    assert found["train"].tolist() == order[:11].tolist()
    assert found["validation"].tolist() == order[11:15][::-1].tolist()
    assert found["test"].tolist() == order[15:][::-1].tolist()


@settings(max_examples=60, deadline=None)
@given(species=SPECIES, seed=st.integers(0, 9))
def test_every_frame_is_in_one_split_and_training_has_every_element(species, seed):
    frames = [np.array(z) for z in species]
    try:
        found = at_random(frames, n_validation=2, n_test=3, seed=seed, what="x")
    except ValueError as error:
        assert "lower n_" in str(error)
        return
    assert [len(found[name]) for name in ("validation", "test")] == [2, 3]
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(frames)))
    assert elements(frames, found["train"]) == elements(frames, range(len(frames)))


@settings(max_examples=60, deadline=None)
@given(species=SPECIES, seed=st.integers(0, 9), n_groups=st.integers(3, 12))
def test_groups_stay_together_and_are_no_more_than_wanted(species, seed, n_groups):
    frames = [np.array(z) for z in species]
    group = [f"g{k * k % n_groups}" for k in range(len(frames))]
    try:
        found = by_group(frames, group, n_validation=3, n_test=5, seed=seed, what="x")
    except ValueError as error:
        assert "lower n_" in str(error)
        return
    named = {name: {group[k] for k in ids} for name, ids in found.items()}
    assert (
        not named["train"] & (named["validation"] | named["test"]) and not named["validation"] & named["test"]
    )
    assert 1 <= len(found["validation"]) <= 3 and 1 <= len(found["test"]) <= 5
    assert elements(frames, found["train"]) == elements(frames, range(len(frames)))


def test_the_only_frame_of_an_element_is_not_held_out_and_a_set_of_such_frames_is_refused():
    alone = [np.array([z]) for z in range(1, 9)]
    with pytest.raises(ValueError, match="x: 0 of the 8 frames can be held out for test"):
        at_random(alone, n_validation=1, n_test=1, seed=0, what="x")
