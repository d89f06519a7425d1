"""Energies that were kept in single precision: a total of 10⁶ eV then comes in steps of 62 meV."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab import units
from sapis_lab.data._checks._finding import Finding, Subject

NAME = "resolution of energies"
_SAMPLE, _FEWEST = 2_000, 10
_COARSE = 0.01
"""Of the spread of energies: larger steps are told."""


def resolution(subject: Subject) -> Iterator[Finding]:
    """The step between energies that float32 can hold, where all of them are such numbers (in eV or another
    unit)."""
    found = subject.only("energy")
    if not found or len(found.get("train", ())) < _FEWEST:
        yield Finding(NAME, "not checked", f"because fewer than {_FEWEST} training frames have an energy")
        return
    ids = found["train"]
    ids = np.sort(ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLE)).astype(int))])
    energy, n_atoms = subject.store.energy[ids], np.diff(subject.store.offsets)[ids]
    unit = next((u for u, factor in units.ENERGY.items() if _is_single(energy / factor)), None)
    if unit is None:
        yield Finding(NAME, "passed", "double precision")
        return
    factor = units.ENERGY[unit]
    step = float(np.median(np.spacing(np.abs(energy / factor).astype(np.float32)))) * factor
    spread = _spread(energy, n_atoms)
    numbers: dict[str, float | int | str] = {"step, eV": step, "spread, eV": spread}
    what = f"energies are single precision (in {unit}), in steps of {1000 * step:.3g} meV a frame"
    if spread > 0 and step > _COARSE * spread:
        yield Finding(
            NAME,
            "suspect",
            f"{subject.where(int(ids[0]))} and the others: {what}, and vary by {1000 * spread:.3g} meV; "
            f"write them in double precision, or less a constant",
            numbers,
        )
    else:
        yield Finding(NAME, "passed", f"{what}, and vary by {1000 * spread:.3g} meV", numbers)


def _is_single(values: np.ndarray) -> bool:
    """Whether float32 holds all of them, and not because they are short decimals or integers."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32).astype(np.float64)
    off = np.abs(single - values) <= 4e-16 * np.abs(values)
    return bool(off.all()) and not bool((values == np.round(values)).all())


def _spread(energy: np.ndarray, n_atoms: np.ndarray) -> float:
    """Robust standard deviation among frames of the most common size, eV."""
    sizes, counts = np.unique(n_atoms, return_counts=True)
    same = energy[n_atoms == sizes[counts.argmax()]]
    return 1.4826 * float(np.median(np.abs(same - np.median(same))))
