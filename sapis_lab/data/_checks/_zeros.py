"""Labels that are there in name only: forces that are all zero, energies that are all the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._checks._finding import Finding, Subject


def forces_present(subject: Subject) -> Iterator[Finding]:
    """Forces are not just zeros put in place of missing ones. (A perfect crystal may have none, and so may a
    free atom; all frames of a split may not.)"""
    store, name = subject.store, "forces are there"
    splits = subject.only("forces")
    if not splits:
        yield Finding(name, "not checked", "no frame has forces")
        return
    n_zero = 0
    for split, ids in splits.items():
        some = False
        for part in subject.chunks(ids):
            rows, n_atoms = segments(store.offsets, part)
            starts = np.cumsum(n_atoms) - n_atoms
            largest = np.maximum.reduceat(np.abs(store.forces[rows]).max(1, initial=0.0), starts)
            absent = (largest == 0) & (n_atoms > 1) & ~store.pbc[part].any(1)
            some, n_zero = some or bool((largest > 0).any()), n_zero + int((largest == 0).sum())
            if absent.any() and some:
                frame = int(part[np.argmax(absent)])
                yield Finding(
                    name,
                    "failed",
                    f"{subject.where(frame)}: every force is exactly zero, wanted forces in eV/Å; are they "
                    f"missing?",
                )
                return
        if not some:
            yield Finding(
                name,
                "failed",
                f"{subject.where(int(ids[0]))} and all other frames of split {split!r}: every force is zero; "
                f"are the forces missing?",
            )
            return
    zero = f"; {n_zero} crystals or atoms without any" if n_zero else ""
    yield Finding(name, "passed", f"in {', '.join(splits)}{zero}", {"frames without forces": n_zero})


def energies_vary(subject: Subject) -> Iterator[Finding]:
    """The training energies are not all the same number."""
    name, ids = "energies vary", subject.only("energy").get("train", np.zeros(0, np.int64))
    if len(ids) < 3:
        yield Finding(name, "not checked", f"{len(ids)} training frames have an energy, wanted 3")
        return
    energy = subject.store.energy[ids]
    if np.ptp(energy) == 0:
        yield Finding(
            name,
            "failed",
            f"{subject.where(int(ids[0]))} and all other training frames have the energy {energy[0]} eV; is "
            f"the energy key right?",
        )
        return
    n_atoms = np.diff(subject.store.offsets)[ids]
    spread = float(np.ptp(energy / n_atoms))
    yield Finding(name, "passed", f"by {spread:.3g} eV per atom", {"range, eV/atom": spread})
