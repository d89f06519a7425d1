"""What all writers share. A writer takes blocks in eV and Å whose labels have these names: energy (n,),
stress (n, 3, 3) in eV/Å³ with positive tension, dipole (n, 3) in e Å; of atoms forces (n, 3) in eV/Å and
charges in e. Others are written as they are, under their own names. A row of NaN is a label that a frame
lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sapis_lab.formats._base import Block


class OneFrame(NamedTuple):
    """One frame of a block."""

    species: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    info: dict[str, object]
    """Labels of the frame that it has."""
    columns: dict[str, np.ndarray]
    """Labels of its atoms that it has."""


def frames_of(block: Block) -> Iterator[OneFrame]:
    """The frames of a block one by one, without the labels that they lack."""
    ends = np.cumsum(block.n_atoms)
    for k in range(len(block)):
        rows = slice(int(ends[k] - block.n_atoms[k]), int(ends[k]))
        info = {key: value[k] for key, value in block.frame_labels.items() if not is_lacking(value[k])}
        columns = {
            key: value[rows] for key, value in block.atom_labels.items() if not is_lacking(value[rows])
        }
        yield OneFrame(block.species[rows], block.positions[rows], block.cell[k], block.pbc[k], info, columns)


def is_lacking(value: object) -> bool:
    """Whether a label is missing: all its numbers are NaN."""
    array = np.asarray(value)
    return array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(array).all())


VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Rows and columns of xx yy zz yz xz xy."""


def six_of(stress: np.ndarray) -> np.ndarray:
    """(6,) in Voigt order from (3, 3); of a matrix that is not quite symmetric, its symmetric part."""
    whole = stress if np.array_equal(stress, stress.T) else (stress + stress.T) / 2
    return whole[VOIGT]
