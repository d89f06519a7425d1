"""Energies of isolated atoms at the level of theory of the labels: read, and compared with the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sapis_lab.data._checks import Finding, refuse
from sapis_lab.data._further_labels import numbers_of_frames
from sapis_lab.data._store import FrameStore
from sapis_lab.elements import SYMBOLS
from sapis_lab.formats import Reading, format_of, written
from sapis_lab.units import ENERGY

NAME = "isolated atoms"
MAX_BINDING = 30.0
"""eV per atom. Cohesive energies are below 9; 30 leaves room for compressed frames and tells an energy per
atom from a total."""


def read_isolated_atoms(path: Path, *, energy_key: str, factor: float) -> dict[int, float]:
    """Energies of the isolated atoms, eV by atomic number, from a file of frames of one atom.

    Args:
        energy_key: key of the energy.   factor: eV per unit of the file.
    """
    energies: dict[int, float] = {}
    used = format_of(path)
    own = used.fixed.get("energy_unit")
    if own is not None and ENERGY[own] != factor:
        raise ValueError(
            f"{path}: is in {own} by its format {used.name}, and the energies of the frames are in another "
            "unit; give isolated_atoms as numbers in that of the frames"
        )
    for block in used.blocks(path, Reading(labels=False, energy=energy_key)):

        def place(k: int, numbers: np.ndarray = block.numbers) -> str:
            return f"{path}, frame {numbers[k]}"

        if (block.n_atoms != 1).any():
            k = int(np.argmax(block.n_atoms != 1))
            raise ValueError(
                f"{place(k)}: {block.n_atoms[k]} atoms, wanted one in every frame of a file of isolated atoms"
            )
        key = written(block.frame_labels, energy_key, place(0))
        if key is None:
            raise ValueError(
                f"{place(0)}: no key {energy_key!r}; it has {', '.join((*block.frame_labels, *block.unread))}"
            )
        found = numbers_of_frames(block.frame_labels[key], (), place, key) * factor
        for k, (z, energy) in enumerate(zip(block.species.tolist(), found.tolist(), strict=True)):
            if energies.setdefault(int(z), energy) != energy:
                raise ValueError(
                    f"{place(k)}: a second {SYMBOLS[int(z)]} with another energy, {energy} eV after "
                    f"{energies[int(z)]} eV; keep one of them"
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
