"""What a data set does to the frames of its files before their labels are read: leave some out, or add labels
that follow from others."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sapis_lab.data._checks import SAME_POSITION, projected, projections
from sapis_lab.formats import Block


class Change(Protocol):
    """Frames of a block in their order, some perhaps left out; it is used for one pass over all files."""

    left_out: dict[str, int]
    """Frames that were left out so far, by reason."""

    def __call__(self, block: Block) -> Block: ...


class AsItIs:
    """No change."""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}

    def __call__(self, block: Block) -> Block:
        return block


class InTurn:
    """Several changes, one after the other."""

    def __init__(self, *changes: Change) -> None:
        self.left_out: dict[str, int] = {}
        self._changes = changes

    def __call__(self, block: Block) -> Block:
        for change in self._changes:
            block = change(block)
            self.left_out |= change.left_out
        return block


_EXACT_ATOMS = 8
"""Frames of so many atoms are compared by all their coordinates, larger ones by four projections on random
directions, in which few of them agree by chance."""
_AT_ONCE = 1000
"""Frames that are compared with all others at once."""


class WithoutCopies:
    """Leaves out configurations that were there before, which `check_duplicates` would refuse: elements,
    periodicity and cell are the same, and positions (of open frames after centring) to SAME_POSITION. Frames
    that are drawn from dynamics with repetition have such copies, and diatomics have them by chance.

    Args:
        length: Å per unit of length of the file.
    """

    def __init__(self, *, length: float = 1.0) -> None:
        self.left_out: dict[str, int] = {}
        self._length = length
        self._seen: dict[bytes, np.ndarray] = {}

    def __call__(self, block: Block) -> Block:
        keep = np.ones(len(block), dtype=bool)
        starts = np.cumsum(block.n_atoms) - block.n_atoms
        for key, ids in self._comparable(block, starts).items():
            n = int(block.n_atoms[ids[0]])
            x = block.positions[starts[ids][:, None] + np.arange(n)] * self._length
            if not block.pbc[ids[0]].any():
                x = x - x.mean(1, keepdims=True)
            new = _features(x.reshape(len(ids), 3 * n))
            known = self._seen.get(key, np.zeros((0, new.shape[1])))
            copies = _copies(new, known, n)
            keep[ids] = ~copies
            some = new[~copies][np.argsort(new[~copies, 0], kind="stable")]
            self._seen[key] = np.insert(known, np.searchsorted(known[:, 0], some[:, 0]), some, axis=0)
        _count(self.left_out, "copies", keep)
        return block.chosen(keep)

    def _comparable(self, block: Block, starts: np.ndarray) -> dict[bytes, np.ndarray]:
        """Frames, by what has to be the same."""
        species = np.asarray(block.species, np.uint8)
        groups: dict[bytes, list[int]] = {}
        for k in range(len(block)):
            key = block.pbc[k].tobytes() + species[starts[k] : starts[k] + block.n_atoms[k]].tobytes()
            if block.pbc[k].any():
                key += np.round(block.cell[k] * self._length * 1e4).astype(np.int64).tobytes()
            groups.setdefault(key, []).append(k)
        return {key: np.array(ids) for key, ids in groups.items()}


def _features(x: np.ndarray) -> np.ndarray:
    """What frames with positions x (n_frames, 3n) are compared by, (n_frames, k): a projection first."""
    n = x.shape[1] // 3
    projected_on = x @ projections(n)
    return np.concatenate([projected_on[:, :1], x], 1) if n <= _EXACT_ATOMS else projected_on


def _copies(new: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    """(n_frames,) bool: which of the frames `new` are copies of a known one, or of an earlier new one that is
    none itself. Both are what frames of `n` atoms are compared by, the known ones sorted by the first
    column."""
    found = np.zeros(len(new), dtype=bool)
    found[_same(new, known, n)[0]] = True
    order = np.argsort(new[:, 0], kind="stable")
    one, other = _same(new, new[order], n)
    other = order[other]
    earlier = other < one
    for later, first in sorted(zip(one[earlier].tolist(), other[earlier].tolist(), strict=True)):
        found[later] |= not found[first]
    return found


def _same(frames: np.ndarray, ordered: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of places in `frames` and in `ordered`, which is sorted by its first column, with the same
    positions."""
    within = np.full(frames.shape[1], projected(n))
    if n <= _EXACT_ATOMS:
        within[1:] = SAME_POSITION
    pairs = []
    for start in range(0, len(frames), _AT_ONCE):
        some = frames[start : start + _AT_ONCE]
        low = np.searchsorted(ordered[:, 0], some[:, 0] - within[0])
        count = np.searchsorted(ordered[:, 0], some[:, 0] + within[0], side="right") - low
        rows = np.repeat(np.arange(len(some)), count)
        columns = np.repeat(low - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))
        same = (np.abs(some[rows] - ordered[columns]) < within).all(1)
        pairs.append((start + rows[same], columns[same]))
    return tuple(np.concatenate(part) for part in zip(*pairs, strict=True))  # type: ignore[return-value]


class WithEnergies:
    """Leaves out frames whose energy is not a number: it was not computed at this level of theory."""

    def __init__(self, key: str) -> None:
        self.left_out: dict[str, int] = {}
        self._key = key

    def __call__(self, block: Block) -> Block:
        if self._key not in block.frame_labels:
            keep = np.zeros(len(block), dtype=bool)
        else:
            keep = np.isfinite(
                np.asarray(block.frame_labels[self._key], dtype=np.float64).reshape(len(block))
            )
        _count(self.left_out, "no energy", keep)
        return block.chosen(keep)


def _count(left_out: dict[str, int], reason: str, keep: np.ndarray) -> None:
    left_out[reason] = left_out.get(reason, 0) + int((~keep).sum())
