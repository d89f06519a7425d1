"""In which order the frames of a pool are trained on: every prefix is the training set of its size D, so the
sets of all sizes nest, whatever the order.

An order changes neither which frames are in the pool nor those for validation and testing. The pool comes
permuted at random (`_splits.nested_order`), and what an order leaves open is as it is there. Frames are read
in pieces, and what is kept of a frame is at most 160 bytes.

For 10^6 molecules of 9 atoms, on one core: strata by composition or energy take 10 s, features of the
surroundings 20 s (of periodic frames 0.05 ms an atom), clusters of them 5 s, the farthest frames 70 s for
every 1000 of `n_first`, scaffolds 0.5 ms a frame, and the order of the strata 5 s.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from sapis_lab.config import Config
from sapis_lab.data._frame_features import StoredFrames, compositions, frame_features
from sapis_lab.data._scaffolds import scaffolds

_N_STRATA = 10
_SAMPLE = 20_000
"""Frames on which cluster centres are found."""
_ROUNDS = 50
"""Most iterations of k-means."""
_CHUNK = 65_536
"""Frames whose features are looked at together."""
_STRATA, _CENTRES = 0x57, 0x58
"""Keep the random streams of orders apart from that of the permutation."""


class OrderConfig(Config):
    """Settings of an order; the subclasses are its kinds."""

    kind: str

    @abstractmethod
    def training_order(
        self,
        store: StoredFrames,
        pool_ids: np.ndarray,
        *,
        seed: int | None,
        sources: Sequence[str] | None = None,
    ) -> np.ndarray:
        """The frames `pool_ids` (n,) of the store in this order, (n,) int64.

        Args:
            store: with all its frames; it need not be sealed.
            seed: of what is left to chance; None as 0.
            sources: for every frame of the store the file or system that it comes from.

        Raises:
            ValueError: the frames do not have what the order goes by.
        """


class RandomOrder(OrderConfig):
    """As the pool is permuted."""

    kind: Literal["random"] = "random"

    def training_order(
        self,
        store: StoredFrames,
        pool_ids: np.ndarray,
        *,
        seed: int | None,
        sources: Sequence[str] | None = None,
    ) -> np.ndarray:
        return pool_ids


class StratifiedOrder(OrderConfig):
    """Every subset holds each stratum in its share of the pool, to less than one frame."""

    kind: Literal["stratified"] = "stratified"
    by: Literal["composition", "source", "energy", "environment", "scaffold"] = "composition"
    """What frames of a stratum have in common: their atoms, the file or system that they come from, a
    quantile of the energy (per atom, over what the composition makes one expect), a cluster of frames in
    which atoms have similar surroundings, or the Bemis-Murcko scaffold of the bonds (needs rdkit, the extra
    [chem])."""
    n_strata: int | None = Field(default=None, ge=2, le=10_000)
    """Number of strata of `energy` and `environment`, 10 by default; the others have as many as there are."""

    @model_validator(mode="after")
    def _a_number_where_it_counts(self) -> Self:
        counted = self.by in ("energy", "environment")
        if not counted and self.n_strata is not None:
            raise ValueError(
                f"n_strata={self.n_strata} has no meaning with by={self.by}, which has as many strata as "
                f"there are; leave it out, or set by to energy or environment"
            )
        if counted and self.n_strata is None:  # written out, so that what is recorded says everything
            object.__setattr__(self, "n_strata", _N_STRATA)
        return self

    def training_order(
        self,
        store: StoredFrames,
        pool_ids: np.ndarray,
        *,
        seed: int | None,
        sources: Sequence[str] | None = None,
    ) -> np.ndarray:
        ids = np.asarray(pool_ids, dtype=np.int64)
        if self.n_strata is not None and self.n_strata > len(ids):
            raise ValueError(
                f"order: n_strata={self.n_strata} exceeds the {len(ids)} training frames; lower it"
            )
        return ids[stratified_order(self._strata(store, ids, seed=seed, sources=sources), seed=seed)]

    def _strata(
        self, store: StoredFrames, ids: np.ndarray, *, seed: int | None, sources: Sequence[str] | None
    ) -> np.ndarray:
        if self.by == "composition":
            return np.unique(compositions(store, ids)[1], axis=0, return_inverse=True)[1].reshape(-1)
        if self.by == "source":
            return _of_sources(sources, ids)
        if self.by == "scaffold":
            return scaffolds(store, ids)
        assert self.n_strata is not None
        if self.by == "energy":
            return energy_quantiles(store, ids, n=self.n_strata)
        return clusters(frame_features(store, ids), n=self.n_strata, seed=seed)


class FarthestOrder(OrderConfig):
    """Each next frame is the one whose nearest frame among those before is farthest away, in features of the
    surroundings of atoms (`_frame_features`)."""

    kind: Literal["farthest"] = "farthest"
    n_first: int = Field(default=1000, ge=1, le=10**7)
    """Frames that are chosen so; the others follow at random. Time grows as the pool times this number."""

    def training_order(
        self,
        store: StoredFrames,
        pool_ids: np.ndarray,
        *,
        seed: int | None,
        sources: Sequence[str] | None = None,
    ) -> np.ndarray:
        ids = np.asarray(pool_ids, dtype=np.int64)
        first = farthest_first(frame_features(store, ids), n=min(self.n_first, len(ids)))
        others = np.ones(len(ids), dtype=bool)
        others[first] = False
        return np.concatenate([ids[first], ids[others]])


def _named(value: Any, info: ValidationInfo) -> Any:
    """The order that a kind alone, or a mapping with `kind` and settings, stands for."""
    if isinstance(value, OrderConfig):
        return value
    settings = {"kind": value} if isinstance(value, str) else value
    kinds = {c.model_fields["kind"].default: c for c in (RandomOrder, StratifiedOrder, FarthestOrder)}
    kind = settings.get("kind") if isinstance(settings, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        got = f"kind={kind!r}" if isinstance(settings, Mapping) else repr(value)
        raise ValueError(
            f"wanted {', '.join(kinds)}, or a mapping with one of them as kind, as in {{kind: farthest, "
            f"n_first: 500}}, got {got[:80]}"
        )
    return kinds[kind].model_validate(settings, context=info.context)


Order = Annotated[RandomOrder | StratifiedOrder | FarthestOrder, BeforeValidator(_named)]
"""The setting `order`: `{kind: farthest, n_first: 500}`, or a kind alone."""


def _refuse_sources(order: Any) -> Any:
    if isinstance(order, StratifiedOrder) and order.by == "source":
        raise ValueError(
            "by=source, but the frames of this data set do not come from several files or systems"
        )
    return order


OneSourceOrder = Annotated[Order, AfterValidator(_refuse_sources)]
"""The same where all frames have one source."""


def ordered(
    order: OrderConfig,
    store: StoredFrames,
    splits: Mapping[str, np.ndarray],
    *,
    seed: int | None,
    sources: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """`splits` with the frames of `train` in the order that the settings ask for.

    Args:
        sources: for every frame of the store the file or system that it comes from.
    """
    ids = order.training_order(store, splits["train"], seed=seed, sources=sources)
    return {**splits, "train": ids}


# ----------------------------------------------------------------------------------------------------- strata


def stratified_order(strata: np.ndarray, *, seed: int | None) -> np.ndarray:
    """A permutation of range(n), (n,) int64, in which every prefix of length D holds D n_s/n frames of
    stratum s to less than one frame.

    The sequence of strata solves the chairman assignment problem (Tijdeman, Discrete Math. 32, 323, 1980):
    with S strata no count is off by more than 1 - 1/(2S - 2). Frame k (from 0) of stratum s may come once
    its share n_s D/n has reached k + 1/(2S - 2), and must before it exceeds k + 1 - 1/(2S - 2); of those
    that may come, the one that must first does. Within a stratum frames stay in their order, and `seed`
    settles who is first of strata that must at the same time.

    Args:
        strata: (n,) labels.
    """
    labels, which = np.unique(strata, return_inverse=True)
    n, n_strata = len(which), len(labels)
    if n_strata == 1:
        return np.arange(n)
    members = np.argsort(which, kind="stable")
    sizes = np.bincount(which)
    starts = np.cumsum(sizes) - sizes
    rank = np.random.default_rng([seed or 0, _STRATA]).permutation(n_strata)
    parts = 2 * n_strata - 2

    def begins(s: int, k: int) -> int:
        """The first D at which frame k of stratum s may come."""
        return -(-(k * parts + 1) * n // (parts * int(sizes[s])))

    def ends(s: int, k: int) -> int:
        """The last D at which it may still be missing."""
        return ((k + 1) * parts - 1) * n // (parts * int(sizes[s]))

    waiting = [(begins(s, 0), int(rank[s]), s, 0) for s in range(n_strata)]
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int, int]] = []
    order = np.empty(n, dtype=np.int64)
    for d in range(1, n + 1):
        while waiting and waiting[0][0] <= d:
            _, first, s, k = heapq.heappop(waiting)
            heapq.heappush(ready, (ends(s, k), first, s, k))
        _, first, s, k = heapq.heappop(ready)
        order[d - 1] = members[starts[s] + k]
        if k + 1 < sizes[s]:
            heapq.heappush(waiting, (begins(s, k + 1), first, s, k + 1))
    return order


def _of_sources(sources: Sequence[str] | None, ids: np.ndarray) -> np.ndarray:
    if sources is None:
        raise ValueError("order: by=source, but this data set does not come from several files or systems")
    names = np.array(sources)[ids]
    found, which = np.unique(names, return_inverse=True)
    if len(found) == 1:
        raise ValueError(f"order: by=source, but all training frames come from {found[0]}; wanted several")
    return which


def energy_quantiles(store: StoredFrames, ids: np.ndarray, *, n: int) -> np.ndarray:
    """The quantile, of `n`, in which each frame lies, (len(ids),): of its energy less a sum over its atoms
    that is fitted to all frames, per atom. Frames without an energy are a stratum of their own.

    Raises:
        ValueError: no frame has an energy.
    """
    energy = np.asarray(store.energy[ids], dtype=np.float64)
    there = ~np.isnan(energy)
    if not there.any():
        raise ValueError("order: by=energy, but no training frame has an energy")
    counts = compositions(store, ids)[1].astype(np.float64)
    # normal equations of one column an element, in float64 after the mean per atom is gone: totals are large
    n_atoms = counts.sum(1)
    per_atom = energy / n_atoms
    per_atom -= per_atom[there].mean()
    shares = counts / n_atoms[:, None]
    fitted = np.linalg.lstsq(shares[there].T @ shares[there], shares[there].T @ per_atom[there], rcond=1e-10)
    left = per_atom - shares @ fitted[0]
    place = np.argsort(np.argsort(left[there], kind="stable"), kind="stable")
    strata = np.full(len(ids), n)
    strata[there] = place * n // len(place)
    return strata


def clusters(features: np.ndarray, *, n: int, seed: int | None) -> np.ndarray:
    """The cluster, of at most `n`, of each row of `features` (n_rows, n_features), (n_rows,): k-means
    (Lloyd, IEEE Trans. Inf. Theory 28, 129, 1982) from the start of k-means++ (Arthur & Vassilvitskii, SODA
    2007), on a sample of 20,000 rows; every row then belongs to the nearest centre. Fewer where rows do not
    differ."""
    rng = np.random.default_rng([seed or 0, _CENTRES])
    sample = features[np.sort(rng.permutation(len(features))[:_SAMPLE])].astype(np.float64)
    centres = _first_centres(sample, n, rng)
    which = np.full(len(sample), -1)
    for _ in range(_ROUNDS):
        before, which = which, nearest(sample, centres)
        if np.array_equal(before, which):
            break
        counts = np.bincount(which, minlength=len(centres))
        there = counts > 0
        for d in range(sample.shape[1]):
            sums = np.bincount(which, sample[:, d], minlength=len(centres))
            centres[there, d] = np.rint(sums[there] / counts[there])
    return nearest(features, centres)


def _first_centres(sample: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(at most n, n_features): the first at random, each next with a probability that grows as the squared
    distance to the nearest before."""
    chosen = [int(rng.integers(len(sample)))]
    to_nearest = np.full(len(sample), np.inf)
    while True:
        to_nearest = np.minimum(to_nearest, np.square(sample - sample[chosen[-1]]).sum(1))
        total = np.cumsum(to_nearest)
        if len(chosen) == n or total[-1] == 0:
            return sample[chosen]
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest of `centres` (n, n_features), whole numbers, to each of `rows` (n_rows, n_features), the
    first of several."""
    found = np.empty(len(rows), dtype=np.int64)
    lengths = np.square(centres).sum(1)
    step = max(1, _CHUNK * 32 // len(centres))
    for k in range(0, len(rows), step):
        some = rows[k : k + step].astype(np.float64)
        found[k : k + step] = np.argmin(lengths - 2 * some @ centres.T, axis=1)
    return found


# --------------------------------------------------------------------------------------------------- farthest


def farthest_first(features: np.ndarray, *, n: int) -> np.ndarray:
    """(n,) int64: rows of `features` (n_rows, n_features) int32, the first, and then each time the one with
    the largest distance to the nearest of those before, the first of several (Gonzalez, Theor. Comput. Sci.
    38, 293, 1985). Of order n_rows n; memory 8 bytes a row beside the features."""
    chosen = np.empty(n, dtype=np.int64)
    to_nearest = np.full(len(features), np.inf)
    row = 0
    for k in range(n):
        chosen[k] = row
        to_nearest[row] = -1.0  # also of rows that are equal to one before, which come last, each comes once
        largest, row = -1.0, 0
        new = features[chosen[k]].astype(np.float64)
        for start in range(0, len(features), _CHUNK):
            some = slice(start, start + _CHUNK)
            difference = features[some] - new
            near = np.minimum(to_nearest[some], np.einsum("nd,nd->n", difference, difference))
            to_nearest[some] = near
            best = int(np.argmax(near))
            if near[best] > largest:
                largest, row = float(near[best]), start + best
    return chosen
