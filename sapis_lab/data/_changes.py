"""What a data set does to the frames of its files before their labels are read: leave some out, or add labels
that follow from others."""

from __future__ import annotations

from typing import Protocol

import numpy as np

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
