"""What a check has to say: its outcome, why, and the numbers it measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sapis_lab.data._store import FrameStore

Where = Callable[[int], str]
"""From the number of a frame in the store to the place it came from, such as 'train.xyz, frame 17'."""

Outcome = Literal["passed", "failed", "suspect", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One line of a report on a store."""

    check: str
    """What was looked at, in words."""
    outcome: Outcome
    """failed: the data are wrong. suspect: they may be. not checked: they do not allow it."""
    why: str
    """A sentence; of a failure, what to do about it."""
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    """What was measured, by name."""
    error: type[ValueError] = ValueError
    """Of a failure, what is raised."""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {k: _rounded(v) for k, v in self.numbers.items()}
        return {"check": self.check, "outcome": self.outcome, "why": self.why, "numbers": numbers}


def _rounded(value: float | int | str) -> float | int | str | None:
    if isinstance(value, str | int):
        return value
    return float(f"{float(value):.5g}") if np.isfinite(value) else None


@dataclass(frozen=True)
class Subject:
    """What is examined: a store that may not be sealed yet, with the splits that it is to have."""

    store: FrameStore
    splits: Mapping[str, np.ndarray]
    """Frames by split."""
    where: Where
    length_unit: str = "Angstrom"
    """Which the positions were read as being in."""
    may_lack: Collection[str] = ()
    """Keys of labels that may be missing (NaN)."""
    torn: Collection[str] = ()
    """Splits whose atoms may be far from each other."""

    def labelled(self, key: str) -> np.ndarray:
        """(n_frames,) bool: the frames that have a label of `key`; of an atom's labels, those whose first
        atom has one."""
        labels = self.store.label_column(key)
        if self.store.is_per_atom(key):
            labels = labels[self.store.offsets[:-1]]
        return ~np.isnan(labels.reshape(len(labels), -1)[:, 0])

    def only(self, *keys: str) -> dict[str, np.ndarray]:
        """Of every split, the frames that have labels of all `keys`; without the splits that have none."""
        have = np.logical_and.reduce([self.labelled(key) for key in keys])
        some = {name: np.asarray(ids)[have[ids]] for name, ids in self.splits.items()}
        return {name: ids for name, ids in some.items() if len(ids)}

    def frame_of(self, row: int) -> int:
        """The frame that the atom in this row belongs to."""
        return int(np.searchsorted(self.store.offsets, row, side="right") - 1)

    def chunks(self, ids: np.ndarray, *, atoms: int = 200_000) -> Iterator[np.ndarray]:
        """`ids` in parts of about so many atoms together."""
        return chunks(self.store, ids, atoms=atoms)


def chunks(store: FrameStore, ids: np.ndarray, *, atoms: int = 200_000) -> Iterator[np.ndarray]:
    """The frames `ids` (n,) in parts of about so many atoms together."""
    ids = np.asarray(ids, dtype=np.int64)
    ends = np.cumsum(store.offsets[ids + 1] - store.offsets[ids])
    first = 0
    while first < len(ids):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + atoms, side="right")))
        yield ids[first:last]
        first = last


Check = Callable[[Subject], Iterator[Finding]]
"""A check yields one finding or more; nothing that it meets in the data is raised."""
