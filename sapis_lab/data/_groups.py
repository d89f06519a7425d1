"""Splits that keep together what belongs together: no trajectory, molecule, system or composition is in two
of training, validation and test.

Frames of one trajectory are nearly equal, so that a split frame by frame tests what was learnt by heart; a
split by composition, or by size with the largest for testing, asks what a model knows of molecules that it
has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BeforeValidator, model_validator

from sapis_lab.config import Config
from sapis_lab.elements import SYMBOLS

_FEW = 12
"""Groups of which every choice is tried."""
_FEW_NAMES = 6
"""Groups that a message lists."""
_MOST_BITS = 1 << 28
"""Groups times frames of one search for the sum of sizes that comes nearest; it takes an eighth of it in
bytes."""


class SplitBy(Config):
    """What belongs together when frames are held out."""

    by: Literal["source", "composition", "n_atoms", "key"]
    """The file or system that frames come from, their atoms, how many these are, or a key that they carry."""
    key: str | None = None
    """The key, where `by` is key."""
    test: Literal["random", "largest"] = "random"
    """Which groups are for testing: any, or the frames with the most atoms, all of which have more than any
    for training or validation. Those for validation are any of the others."""

    @model_validator(mode="after")
    def _key_where_it_is_wanted(self) -> SplitBy:
        if (self.by == "key") != (self.key is not None):
            raise ValueError(f"by={self.by} and key={self.key}: a key is given where `by` is key, and there")
        return self


def named_split(value: Any) -> Any:
    """What to go by alone as settings; a name that is none of these is a key of frames."""
    if isinstance(value, str):
        value = {"by": value}
    elif value is not None and not isinstance(value, Mapping | SplitBy):
        raise ValueError(f"wanted source, composition, n_atoms or a key of the frames, got {value!r}")
    if isinstance(value, Mapping) and isinstance(by := value.get("by"), str) and "key" not in value:
        known = by in ("source", "composition", "n_atoms", "key")
        return value if known else {**value, "by": "key", "key": by}
    return value


def _without_key(split_by: SplitBy | None) -> SplitBy | None:
    if split_by is not None and split_by.by == "key":
        raise ValueError(
            f"split_by={split_by.key!r}: the frames of this kind of data carry no keys; wanted source, "
            "composition or n_atoms"
        )
    return split_by


SplitBySetting = Annotated[SplitBy | None, BeforeValidator(named_split), AfterValidator(_without_key)]
"""The setting `split_by`: `{by: n_atoms, test: largest}`, or what to go by alone; None for frame by frame."""


class Groups(NamedTuple):
    """What belongs together in a pool of frames."""

    labels: np.ndarray
    """(n,) frames of one label stay together."""
    n_atoms: np.ndarray | None = None
    """(n,) where the largest frames are for testing."""


def groups_of(
    split_by: SplitBy | None,
    *,
    species: np.ndarray,
    offsets: np.ndarray,
    ids: np.ndarray,
    sources: Sequence[str],
) -> Groups | None:
    """The groups of the frames `ids` (n,); None where frames are split one by one.

    Args:
        species: (n_atoms_total,) atomic numbers of all frames.   offsets: (n_frames + 1,) the atoms of frame
        k are offsets[k]:offsets[k+1].   sources: for every frame the file or system that it comes from.
    """
    if split_by is None:
        return None
    n_atoms = np.diff(offsets)[ids]
    if split_by.by == "source":
        labels = np.array(sources)[ids]
    elif split_by.by == "n_atoms":
        labels = n_atoms
    else:
        labels = np.array([_formula(species[offsets[k] : offsets[k + 1]]) for k in ids])
    return Groups(labels, n_atoms if split_by.test == "largest" else None)


def _formula(species: np.ndarray) -> str:
    elements, counts = np.unique(species, return_counts=True)
    pairs = zip(elements, counts, strict=True)
    return "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z, n in pairs)


def refuse_unused_groups(split_by: SplitBy | None, *, n_validation: int, n_test: int) -> None:
    """ValueError where frames are to be split by groups and none are held out, or the largest are for testing
    and the test has files of its own."""
    if split_by is None:
        return
    if not n_validation and not n_test:
        raise ValueError(
            "split_by says how frames are held out, but n_validation and n_test are 0; leave it out"
        )
    if split_by.test == "largest" and not n_test:
        raise ValueError("split_by: test=largest wants n_test, the number of frames for testing")


def group_splits(
    groups: np.ndarray,
    *,
    n_validation: int,
    n_test: int,
    seed: int | None,
    n_atoms: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Positions 0..n-1 by split, `train`, and `validation` and `test` where frames are asked for, in
    ascending order; no group is in two of them.

    The groups are put in an order by `seed` (None: the last to appear first). Those for testing are chosen so
    that the number of frames comes nearest to `n_test`, then, of the others, those for validation; of choices
    that come as near the one whose groups are earliest.

    Args:
        groups: (n,) labels.
        n_atoms: (n,); then the test has the frames with the most atoms, all that have as many included.

    Raises:
        ValueError: there are too few groups, or they are so large that a split misses its number by more than
            half of it, or nothing is left for training.
    """
    labels, first, which = np.unique(groups, return_index=True, return_inverse=True)
    which = np.argsort(np.argsort(first))[which.reshape(-1)]  # numbered as they appear, whatever the labels
    sizes = np.bincount(which)
    n_splits = 1 + bool(n_validation) + bool(n_test)
    _refuse_few(len(labels), n_splits)
    order = (
        np.arange(len(labels))[::-1] if seed is None else np.random.default_rng(seed).permutation(len(labels))
    )
    taken: dict[str, np.ndarray] = {}
    left = order
    for name, wanted in (("test", n_test), ("validation", n_validation)):
        if not wanted:
            continue
        n_after = n_splits - 1 - len(taken)
        _refuse_few(len(left), 1 + n_after)
        if name == "test" and n_atoms is not None:
            chosen = _largest(which, np.asarray(n_atoms), wanted, name)
        else:
            chosen = left[_nearest_sum(sizes[left], wanted, n_left=n_after)]
        got = int(sizes[chosen].sum())
        if abs(got - wanted) > wanted / 2:
            names = labels[np.argsort(first)]
            raise ValueError(
                f"n_{name}={wanted} frames of whole groups are asked for, the nearest is {got}: the "
                f"{len(left)} groups to choose from have {_frames_text(names[left], sizes[left])} frames; "
                f"ask for {got}, or make groups smaller"
            )
        taken[name] = chosen
        left = left[~np.isin(left, chosen)]
    return {"train": _members(which, left), **{name: _members(which, g) for name, g in taken.items()}}


def _frames_text(names: np.ndarray, sizes: np.ndarray) -> str:
    """How many frames the groups have: of a few each by its name, where it has one."""
    if len(sizes) > _FEW_NAMES:
        return f"{sizes.min()} to {sizes.max()}"
    if not isinstance(names[0], str):
        return ", ".join(str(n) for n in sorted(sizes, reverse=True))
    return ", ".join(f"{n} ({name})" for n, name in sorted(zip(sizes, names, strict=True), reverse=True))


def _refuse_few(n_groups: int, n_splits: int) -> None:
    if n_groups < n_splits:
        raise ValueError(
            f"{n_splits} splits want at least as many groups of frames, got {n_groups}; hold out fewer "
            f"splits, or group frames by something else"
        )


def _members(which: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.nonzero(np.isin(which, groups))[0]


def _largest(which: np.ndarray, n_atoms: np.ndarray, wanted: int, name: str) -> np.ndarray:
    """Groups of the frames with the most atoms, as many as bring the number of frames nearest to `wanted`."""
    found, counts = np.unique(n_atoms, return_counts=True)
    if len(found) == 1:
        raise ValueError(f"all frames have {found[0]} atoms; the largest cannot be held out for the {name}")
    upto = np.cumsum(counts[::-1])[:-1]
    smallest = found[::-1][int(np.argmin(np.abs(upto - wanted)))]
    chosen = np.unique(which[n_atoms >= smallest])
    others = np.unique(which[n_atoms < smallest])
    if both := len(np.intersect1d(chosen, others)):
        raise ValueError(
            f"{both} groups have frames with {smallest} atoms and more, and frames with fewer; wanted groups "
            f"of frames of one size, such as compositions, for test=largest"
        )
    return chosen


def _nearest_sum(sizes: np.ndarray, wanted: int, *, n_left: int) -> np.ndarray:
    """Positions in `sizes` (n,) of at least one group, and of all but at least `n_left`, whose sum is nearest
    to `wanted`.

    Exact where there is room for the table of the sums that the first groups can have; otherwise groups are
    taken one by one until what is missing can be chosen exactly from the next ones.
    """
    n = len(sizes)
    found = _chosen(sizes, wanted)
    if len(found) <= n - n_left:
        return found
    # nearly all are asked for: the smallest are left, and of a few groups any that serve better
    by_size = np.argsort(sizes, kind="stable")
    kept = combinations(range(n), n_left) if n <= _FEW else [tuple(by_size[:n_left])]
    tried = []
    for some in kept:
        free = np.setdiff1d(np.arange(n), some)
        tried.append(free[_chosen(sizes[free], wanted)])
    return min(tried, key=lambda chosen: abs(int(sizes[chosen].sum()) - wanted))


def _chosen(sizes: np.ndarray, wanted: int) -> np.ndarray:
    """`_nearest_sum` of any number of groups, at least one."""
    most = max(64, _MOST_BITS // (2 * wanted))
    some, taken, missing = np.arange(len(sizes)), [], wanted
    if len(sizes) > most:
        some = some[sizes <= wanted] if (sizes <= wanted).any() else some
        upto = np.concatenate([[0], np.cumsum(sizes[some])])
        start = 0
        while len(some) - start > most and upto[start + most] - upto[start] < 2 * missing:
            if sizes[some[start]] <= missing:
                taken.append(some[start])
                missing -= int(sizes[some[start]])
            start += 1
        some = some[start : start + most]
    more = some[_exact(sizes[some], missing, may_be_none=bool(taken))]
    return np.concatenate([np.array(taken, dtype=np.int64), more])


def _exact(sizes: np.ndarray, wanted: int, *, may_be_none: bool) -> np.ndarray:
    """Positions of the groups whose sum is nearest to `wanted`, the earliest ones that have it."""
    limit = (1 << (2 * wanted + 1)) - 1
    reach = [1]  # bit s: the first k groups can have the sum s
    for size in sizes:
        reach.append((reach[-1] | (reach[-1] << int(size))) & limit)
    sums = reach[-1]
    candidates = [wanted + sign * k for k in range(wanted + 1) for sign in (1, -1)]
    least = 0 if may_be_none else 1
    total = next((s for s in candidates if s >= least and sums >> s & 1), None)
    if total is None:  # every group is larger than twice what is asked for
        return np.array([int(np.argmin(sizes))])
    chosen = []
    for k in range(len(sizes), 0, -1):
        if not reach[k - 1] >> total & 1:
            chosen.append(k - 1)
            total -= int(sizes[k - 1])
    return np.array(chosen[::-1], dtype=np.int64)
