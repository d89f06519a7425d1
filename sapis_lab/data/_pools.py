"""What data sets of several files share: a pool of frames from which training, validation and test frames are
taken, the names of files and splits, and atoms that have drifted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from sapis_lab.config import MOST_NAME
from sapis_lab.data._groups import Groups, group_splits
from sapis_lab.data._sources import DATA_VARIABLE
from sapis_lab.data._splits import is_test_split, nested_order
from sapis_lab.data._store import Frames
from sapis_lab.neighbors import wrapped

Files = tuple[str, ...]


def one_or_several(value: object) -> object:
    """A name alone as a list of one."""
    return (value,) if isinstance(value, str) else value


def each_one_or_several(value: object) -> object:
    """`one_or_several` for every value of a mapping."""
    return {k: one_or_several(v) for k, v in value.items()} if isinstance(value, dict) else value


def refuse_unclear_splits(
    *, train: Files, validation: Files, tests: Mapping[str, Files], n_validation: int, n_test: int
) -> None:
    """ValueError where it is not said, or said twice, where the frames of a split come from, or a split has
    a name from which no quantity can be made."""
    if not train:
        raise ValueError("train names no file; give at least one")
    if bool(validation) == bool(n_validation):
        raise ValueError(
            "give either validation (files) or n_validation (frames held out of train), exactly one of them"
        )
    if bool(tests) == bool(n_test):
        raise ValueError(
            "give either tests (files by split name) or n_test (frames held out of train), exactly one of "
            "them"
        )
    for name in tests:
        if len(name) > MOST_NAME:
            raise ValueError(
                f"tests has a split with a name of {len(name)} characters, wanted at most {MOST_NAME}"
            )
        if not is_test_split(name):
            raise ValueError(
                f"tests has a split named {name!r}; wanted 'test', or 'test_' with letters and digits "
                f"only (test_600K), "
                "because the quantities of a split are named after it"
            )


def refuse_absolute(name: str) -> None:
    """ValueError for a file name that is not relative."""
    if Path(name).is_absolute():
        raise ValueError(
            f"{name!r} is an absolute path, wanted one relative to `root` (by default the variable "
            f"{DATA_VARIABLE}), "
            "because file names are part of a dataset's identity and folders of one machine are not"
        )


_HELD_OUT = ("validation", "test")


def pool_splits(
    ranges: Mapping[str, np.ndarray],
    *,
    train: Sequence[str],
    tests: Collection[str],
    n_train: int | None,
    n_validation: int,
    n_test: int,
    seed: int | None,
    strata: np.ndarray | None = None,
    groups: Groups | None = None,
) -> dict[str, np.ndarray]:
    """Frames by split: the pool ranges["train"] is permuted once, its first `n_train` frames are for training
    (by default all that are not held out) and its last ones for validation and testing; with `groups`, whole
    ones of them are (`group_splits`), and the others are for training.

    Args:
        ranges: numbers of the frames of train, validation and each test that came from its files.   train:
            names of the files, for messages.   tests: splits that have files.   seed: of the permutation;
            None keeps the order.   strata: labels of the pool's frames, see `nested_order`.   groups: which
            of the pool's frames belong together.
    """
    pool = ranges["train"]
    n = len(pool)
    order = np.arange(n) if seed is None else nested_order(n, seed=seed, strata=strata)
    if groups is not None:
        whole = group_splits(
            groups.labels, n_validation=n_validation, n_test=n_test, seed=seed, n_atoms=groups.n_atoms
        )
        # training, validation and test one behind the other, each in the order of the pool
        order = np.concatenate([order[np.isin(order, whole[k])] for k in ("train", *_HELD_OUT) if k in whole])
        n_validation, n_test = (len(whole.get(k, ())) for k in _HELD_OUT)
    n_left = n - n_validation - n_test
    wanted = n_left if n_train is None else n_train
    if n_left < 1 or wanted > n_left:
        raise ValueError(
            f"{', '.join(train)} hold {n} frames; n_validation={n_validation} and "
            f"n_test={n_test} leave "
            f"{n_left} for training, wanted n_train={n_train or 'at least 1'}; lower one of them"
        )
    splits = {
        "train": pool[order[:wanted]],
        "validation": ranges["validation"],
        **{k: ranges[k] for k in tests},
    }
    if n_validation:
        splits["validation"] = pool[order[n_left : n_left + n_validation]]
    if n_test:
        splits["test"] = pool[order[n_left + n_validation :]]
    return splits


_MOST_CELLS = 120
"""Cells between two atoms up to which positions are stored as the file gives them; neighbour tables store
shifts of 127."""


def wrap_scattered(frames: Frames) -> None:
    """Wrap the atoms of periodic frames that have drifted too far apart for a neighbour table (unwrapped
    dynamics)."""
    ends = np.cumsum(frames.n_atoms)
    for k in np.nonzero(frames.pbc.any(1) & np.isfinite(frames.cell).all((1, 2)))[0]:
        x, cell, pbc = frames.positions[ends[k] - frames.n_atoms[k] : ends[k]], frames.cell[k], frames.pbc[k]
        # pinv: cells with a vector of zero, or without volume, are for the checks to refuse
        if (np.ptp(x @ np.linalg.pinv(cell), axis=0)[pbc] > _MOST_CELLS).any():
            x[:] = wrapped(x, cell, pbc)
