"""Labelled frames to compare predictions with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab.data import FrameStore
from sapis_lab.structures import Structure


class Labelled(NamedTuple):
    """Structures with their labels; NaN where there is none."""

    structures: list[Structure]
    energy: np.ndarray
    """(B,) eV"""
    forces: np.ndarray
    """(A, 3) eV/Å"""


def labelled(store: FrameStore, split: str, most: int | None) -> Labelled:
    """The first `most` frames of a split.

    Raises:
        ValueError: there is no such split, or it has no frames.
    """
    if split not in store.splits or not len(store.splits[split]):
        known = ", ".join(name for name, ids in store.splits.items() if len(ids))
        raise ValueError(
            f"{store.folder.name} has no frames in the split {split!r}; splits with some: {known}"
        )
    frames = store.frames(np.asarray(store.splits[split])[:most])
    ends = np.cumsum(frames.n_atoms)
    structures = [
        Structure(frames.species[end - n : end], frames.positions[end - n : end], cell, pbc)
        for n, end, cell, pbc in zip(frames.n_atoms, ends, frames.cell, frames.pbc, strict=True)
    ]
    return Labelled(
        structures, np.asarray(frames.energy, dtype=float), np.asarray(frames.forces, dtype=float)
    )
