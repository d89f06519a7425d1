"""Energies of isolated atoms at the level of theory of the labels: read, and compared with the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sapis_lab.data._checks import Finding, refuse
from sapis_lab.data._store import FrameStore
from sapis_lab.elements import SYMBOLS
from sapis_lab.formats import numbers_of, read_extxyz, written

NAME = "isolated atoms"
MAX_BINDING = 30.0
"""eV per atom. Cohesive energies are below 9; 30 leaves room for compressed frames and tells an energy per
atom from a total."""


def read_isolated_atoms(path: Path, *, energy_key: str, factor: float) -> dict[int, float]:
    """Energies of the isolated atoms, eV by atomic number, from a file of frames of one atom.

    Args:
        energy_key: key of the comment line.   factor: eV per unit of the file.
    """
    energies: dict[int, float] = {}
    for frame in read_extxyz(path):
        place = f"{path}, frame {frame.number}"
        if len(frame.species) != 1:
            raise ValueError(
                f"{place}: {len(frame.species)} atoms, wanted one in every frame of a file of isolated atoms"
            )
        key = written(frame.info, energy_key, place)
        if key is None:
            raise ValueError(
                f"{place}: no key {energy_key!r} in the comment line; it has {', '.join(frame.info)}"
            )
        z, energy = (
            int(frame.species[0]),
            float(numbers_of(frame.info[key], (), f"{place}: {key}")) * factor,
        )
        if energies.setdefault(z, energy) != energy:
            raise ValueError(
                f"{place}: a second {SYMBOLS[z]} with another energy, {energy} eV after {energies[z]} eV; "
                f"keep one of them"
            )
    return energies


def check_isolated_atoms(
    store: FrameStore,
    splits: dict[str, np.ndarray],
    isolated: dict[int, float] | None,
    where: Callable[[int], str],
    *,
    energy_is: str,
) -> None:
    """Every element has its isolated atom, and binding energies are of the size of chemistry."""
    if isolated is None:
        return
    ids = np.sort(np.concatenate(list(splits.values())))
    frames = store.frames(ids)
    species, which = np.unique(frames.species, return_inverse=True)
    missing = [int(z) for z in species if int(z) not in isolated]
    if missing:
        has = ", ".join(SYMBOLS[z] for z in isolated)
        why = f"isolated_atoms lacks {SYMBOLS[missing[0]]}, which occurs in the frames; it has {has}"
        refuse(Finding(NAME, "failed", why))
        return
    atoms = np.add.reduceat(
        np.array([isolated[int(z)] for z in species])[which], np.cumsum(frames.n_atoms) - frames.n_atoms
    )
    n = frames.n_atoms
    binding = (frames.energy - atoms) / n
    bad = np.abs(binding) > MAX_BINDING
    if bad.any():
        k = int(np.argmax(bad))
        per_atom = abs(frames.energy[k] - atoms[k] / n[k]) < MAX_BINDING
        if per_atom and energy_is == "total":
            hint = "the energy looks like one per atom: set energy_is: per_atom"
        else:
            hint = "are the isolated atoms of the same level of theory and unit, and is energy_is right?"
        why = (
            f"{where(int(ids[k]))}: energy minus isolated atoms is {binding[k]:.4g} eV per atom, "
            f"wanted at most {MAX_BINDING:g} in size; {hint}"
        )
        refuse(Finding(NAME, "failed", why, {"binding, eV/atom": float(binding[k])}))
        return
    low, high = float(np.nanmin(binding)), float(np.nanmax(binding))
    size = {"lowest, eV/atom": low, "highest, eV/atom": high}
    refuse(Finding(NAME, "passed", f"binding energies of {low:.3g} to {high:.3g} eV per atom", size))
