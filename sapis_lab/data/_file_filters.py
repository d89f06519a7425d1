"""Which frames of files belong to a data set: by their keys, by isolated atoms, by the size of their
labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sapis_lab.data._checks._outliers import energies_off, largest_forces
from sapis_lab.data._copies import STRICT, copy_of
from sapis_lab.data._copies import copies as groups_of_copies
from sapis_lab.data._store import FrameStore
from sapis_lab.elements import SYMBOLS
from sapis_lab.formats import Block, spelled

Wanted = tuple[str, ...]
_ISOLATED = ("isolatedatom", "isolated_atom", "isolated-atom")
"""What config_type says of frames of one atom (MACE and GAP)."""


def kept(block: Block, where: Mapping[str, Wanted], without: Mapping[str, Wanted], place: str) -> np.ndarray:
    """(n_frames,) bool: the frames whose keys have one of the values of `where`, and none of `without`. A
    frame without a key has no value."""
    keep = np.ones(len(block), dtype=bool)
    for rules, wanted in ((where, True), (without, False)):
        for name, values in rules.items():
            key = name if name in block.frame_labels else spelled(block.frame_labels, name, place)
            here = np.zeros(len(block), bool) if key is None else _is_one(block.frame_labels[key], values)
            keep &= here == wanted
    return keep


def values_met(
    block: Block, where: Mapping[str, Wanted], without: Mapping[str, Wanted], place: str
) -> set[tuple[str, str, str]]:
    """Of the rules, (name of the rule, key, value) that frames of the block have."""
    met = set()
    for rule, rules in (("where", where), ("without", without)):
        for name, values in rules.items():
            key = name if name in block.frame_labels else spelled(block.frame_labels, name, place)
            if key is not None:
                found = block.frame_labels[key]
                met |= {(rule, name, value) for value in values if _is_one(found, (value,)).any()}
    return met


def _is_one(found: np.ndarray, values: Wanted) -> np.ndarray:
    if found.ndim != 1:
        return np.zeros(len(found), bool)
    wanted = {_same(value) for value in values}
    return np.array([_same(str(value)) in wanted for value in found.tolist()], dtype=bool)


_TRUTH = {"t": "True", "true": "True", "f": "False", "false": "False"}


def _same(text: str) -> str | float:
    """What a value is compared by: a number as such, true and false in any spelling."""
    try:
        return float(text)
    except ValueError:
        return _TRUTH.get(text.casefold(), text)


def is_isolated(block: Block) -> np.ndarray:
    """(n_frames,) bool: frames of one atom which say in config_type that they are isolated atoms."""
    found = next((v for key, v in block.frame_labels.items() if key.casefold() == "config_type"), None)
    if found is None or found.dtype.kind not in "OU":
        return np.zeros(len(block), bool)
    named = np.array([str(text).casefold() in _ISOLATED for text in found], dtype=bool)
    return named & (block.n_atoms == 1)


def isolated_energies(found: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
    """One energy for each element, from all frames of isolated atoms by their places.

    Raises:
        ValueError: two of them differ.
    """
    for z, energies in found.items():
        (first, energy), *others = energies.items()
        for place, other in others:
            if abs(other - energy) > 1e-6:
                raise ValueError(
                    f"{place}: a second isolated {SYMBOLS[z]} with another energy, {other} eV after {energy} "
                    f"eV in {first}; keep one of them (`where` and `without` choose frames by their keys)"
                )
    return {z: next(iter(energies.values())) for z, energies in found.items()}


def left_out(
    store: FrameStore, *, max_force: float | None, energy_window: float | None
) -> dict[str, np.ndarray]:
    """Frames that are too far from the others, by reason.

    Args:
        max_force: largest force on an atom, eV/Å.   energy_window: largest distance of the energy per atom
            from the median, eV, after references of the elements were taken off.
    """
    found = {}
    if max_force is not None:
        # NaN, of a label that is missing, is not above it
        every = np.arange(store.n_frames)
        found["max_force"] = every[largest_forces(store, every) > max_force]
    if energy_window is not None:
        labelled = np.nonzero(np.isfinite(store.energy))[0]
        off = energies_off(store, labelled)[0] if len(labelled) else np.zeros(0)
        found["energy_window"] = labelled[np.abs(off) > energy_window]
    return found


def copies(store: FrameStore) -> np.ndarray:
    """Numbers of the frames that are an earlier one written again, as the check means it, sorted."""
    found = []
    for group in groups_of_copies(store, np.arange(store.n_frames)):
        kept: list[int] = []
        for frame in sorted(group.frames):
            if any(_is_same(store, one, frame) for one in kept):
                found.append(frame)
            else:
                kept.append(frame)
    return np.array(sorted(found), dtype=np.int64)


def _is_same(store: FrameStore, a: int, b: int) -> bool:
    copy = copy_of(store, a, b)
    return copy is not None and copy.way in STRICT
