"""Which frames of files belong to a data set: by their keys, by isolated atoms, by the size of their
labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sapis_lab.data._copies import STRICT, copy_of
from sapis_lab.data._copies import copies as groups_of_copies
from sapis_lab.data._references import fit_references
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
        found["max_force"] = np.nonzero(largest_forces(store) > max_force)[0]
    if energy_window is not None:
        off = energies_off(store)
        found["energy_window"] = np.nonzero(np.abs(off) > energy_window)[0]
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


def largest_forces(store: FrameStore, *, chunk: int = 200_000) -> np.ndarray:
    """(n_frames,) the largest force on an atom of each frame, eV/Å; NaN where they are missing."""
    largest = np.empty(store.n_frames)
    for start in range(0, store.n_frames, chunk):
        stop = min(start + chunk, store.n_frames)
        a, b = int(store.offsets[start]), int(store.offsets[stop])
        size = np.linalg.norm(np.asarray(store.forces[a:b], dtype=np.float64), axis=1)
        largest[start:stop] = np.maximum.reduceat(size, store.offsets[start:stop] - a)
    return largest


def energies_off(store: FrameStore, *, n_fit: int = 20_000, n_rounds: int = 10) -> np.ndarray:
    """(n_frames,) energy per atom less references of the elements and less the median, eV; NaN where an
    energy is missing.

    The references are fitted to up to `n_fit` frames, again without those that are off by more than ten
    median deviations, until none is taken away: one absurd energy then does not decide what is usual.
    """
    elements = np.unique(store.species)
    column = np.searchsorted(elements, store.species)
    frame = np.repeat(np.arange(store.n_frames), np.diff(store.offsets))
    counts = np.zeros((store.n_frames, len(elements)))
    np.add.at(counts, (frame, column), 1)
    n, energy = counts.sum(1), np.asarray(store.energy)
    usable = np.nonzero(np.isfinite(energy))[0]
    some = usable[np.unique(np.linspace(0, len(usable) - 1, n_fit).astype(int))] if len(usable) else usable
    if not len(some):
        return np.full(store.n_frames, np.nan)
    # starts from the usual energy per atom, which one absurd frame does not move either
    off = energy / n - np.median(energy[some] / n[some])
    for _ in range(n_rounds):
        spread = np.median(np.abs(off[some])) or 1e-3
        close = some[np.abs(off[some]) <= 10 * max(spread, 1e-3)]
        present = counts[close].any(0)
        references = np.zeros(len(elements))
        references[present] = fit_references(counts[close][:, present], energy[close])
        new = (energy - counts @ references) / n
        new -= np.median(new[close])
        if np.allclose(new[some], off[some], atol=1e-6):
            break
        off = new
    return off
