"""Frames held out of a set of many elements, for validation and testing: none of them has an element that the
frames left for training do not have, since no model can know it.

Groups of frames (single ones, or the molecules of a scaffold) are looked at from the end of an order; a group
that does not fit what is still wanted, or takes the last frame of an element, stays in training. Whole
groups may therefore add up to somewhat fewer frames than are wanted, single frames are exactly as many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapis_lab.data._splits import nested_order


def held_out(
    species: Sequence[np.ndarray], groups: Sequence[np.ndarray], *, n_validation: int, n_test: int, what: str
) -> dict[str, np.ndarray]:
    """Frames of `train`, `validation` and `test`, the training frames in the order of `groups`.

    Args:
        species: atomic numbers of every frame.   groups: numbers of frames (n,) that stay together, in order;
            each frame in one of them.   what: the files, for messages.

    Raises:
        ValueError: there are not as many.
    """
    members = [np.concatenate([np.unique(species[k]) for k in group]) for group in groups]
    left = np.bincount(np.concatenate(members), minlength=256)
    taken: dict[str, list[int]] = {"test": [], "validation": []}
    free = np.ones(len(groups), dtype=bool)
    for name, wanted in (("test", n_test), ("validation", n_validation)):
        for g in range(len(groups) - 1, -1, -1):
            missing = wanted - len(taken[name])
            if not missing:
                break
            mine = np.bincount(members[g], minlength=256)
            if free[g] and len(groups[g]) <= missing and (left[mine > 0] > mine[mine > 0]).all():
                left -= mine
                free[g] = False
                taken[name] += groups[g].tolist()
        # whole groups rarely add up to the number; of single frames as many are there, or none fits
        if not taken[name] or len(taken[name]) < wanted and max(map(len, groups)) == 1:
            raise ValueError(
                f"{what}: {len(taken[name])} of the {sum(map(len, groups))} frames can be held out for "
                f"{name} without an element or a group that training would lose, wanted {wanted}; lower "
                f"n_{name}"
            )
    train = np.concatenate([group for group, is_free in zip(groups, free, strict=True) if is_free])
    return {"train": train, **{name: np.array(ids, dtype=np.int64) for name, ids in taken.items()}}


def at_random(
    species: Sequence[np.ndarray], *, n_validation: int, n_test: int, seed: int, what: str
) -> dict[str, np.ndarray]:
    """Frames by split, in an order drawn from `seed`."""
    order = nested_order(len(species), seed=seed)
    singles = [order[k : k + 1] for k in range(len(order))]
    return held_out(species, singles, n_validation=n_validation, n_test=n_test, what=what)


def by_group(
    species: Sequence[np.ndarray],
    group: Sequence[str],
    *,
    n_validation: int,
    n_test: int,
    seed: int,
    what: str,
) -> dict[str, np.ndarray]:
    """Frames by split, whole groups together: the largest groups are for training, the smallest are held out;
    ties, and the order of training, are drawn from `seed`."""
    order = nested_order(len(species), seed=seed)
    names = np.array(group)[order]
    found = [order[names == name] for name in dict.fromkeys(names.tolist())]
    largest_first = [found[k] for k in np.argsort([-len(g) for g in found], kind="stable")]
    splits = held_out(species, largest_first, n_validation=n_validation, n_test=n_test, what=what)
    is_train = np.isin(order, splits["train"])
    return {**splits, "train": order[is_train]}
