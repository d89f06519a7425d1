"""What frames have beside their atoms, as Python gives it: sorted into labels of frames and of atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_MOST_DEPTH = 6
_FRAME_SHAPES = {(3,), (6,), (9,), (3, 3)}
"""Shapes of labels of frames that an array of 3, 6 or 9 atoms may have by chance."""


def sorted_labels(
    values: Mapping[str, Any], n_atoms: int
) -> tuple[dict[str, str | np.ndarray], dict[str, np.ndarray]]:
    """Labels of the frame, and of its atoms, by key; nested mappings become keys joined by dots.

    An array with one row an atom is a label of atoms, and also one of the frame where its shape is that of a
    vector or matrix. What is neither number nor text is left out.
    """
    info: dict[str, str | np.ndarray] = {}
    columns: dict[str, np.ndarray] = {}
    for key, value in flattened(values).items():
        if isinstance(value, str):
            info[key] = value
            continue
        array = as_numbers(value)
        if array is None:
            continue
        per_atom = array.ndim > 0 and array.shape[0] == n_atoms
        if per_atom:
            columns[key] = array
        if not per_atom or array.shape in _FRAME_SHAPES:
            info[key] = array
    return info, columns


def as_numbers(value: Any) -> np.ndarray | None:
    """`value` as an array of numbers; None where it is none."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if array.dtype.kind not in "biuf" or array.size == 0:
        return None
    return array


def flattened(values: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`values` with the keys of mappings in it joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and depth < _MOST_DEPTH:
            for inner, one in flattened(value, depth + 1).items():
                flat.setdefault(f"{key}.{inner}", one)
        elif not isinstance(value, Mapping):
            flat[str(key)] = value
    return flat
