"""The order that defines training subsets: one seeded permutation whose prefixes are the subsets, so they
nest.

With strata, every prefix holds each stratum in its share, to about one frame: the k-th of the n_s frames of a
stratum is put at the fractional place (k + u_s) / n_s, u_s in [0, 1) drawn once per stratum, and all frames
are sorted by place (systematic sampling; Madow, Ann. Math. Stat. 20, 333, 1949, applied to every prefix at
once).
"""

from __future__ import annotations

import re

import numpy as np

_TEST_SPLIT = re.compile(r"test(_[A-Za-z0-9]+)?")


def is_test_split(name: str) -> bool:
    """Whether `name` is 'test' or 'test_' with letters and digits, the names from which `quantities` makes
    test_600K_force_mae."""
    return _TEST_SPLIT.fullmatch(name) is not None


def nested_order(n: int, *, seed: int, strata: np.ndarray | None = None) -> np.ndarray:
    """A permutation of range(n), (n,) int64, whose prefixes are the nested subsets.

    Without strata it is exactly `numpy.random.default_rng(seed).permutation(n)`.

    Args:
        strata: (n,) labels; each prefix of length D then holds D n_s/n frames of stratum s, to about one.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(n)
    if strata is None:
        return order
    strata = np.asarray(strata)
    if strata.shape != (n,):
        raise ValueError(f"strata have shape {strata.shape}, wanted ({n},): one label per frame")
    labels, which = np.unique(strata, return_inverse=True)
    # All strata at once: one pass over all frames for each is slow where every trajectory is a stratum.
    by_stratum = order[np.argsort(which[order], kind="stable")]
    n_s = np.bincount(which, minlength=len(labels))
    k = np.arange(n) - np.repeat(np.cumsum(n_s) - n_s, n_s)
    place = np.empty(n)
    place[by_stratum] = (k + np.repeat(generator.random(len(labels)), n_s)) / np.repeat(n_s, n_s)
    return order[np.argsort(place[order], kind="stable")]
