"""Numbers that can be nothing else than wrong: not finite, matrices that are not symmetric, elements that do
not exist or are not known in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._checks._finding import Finding, Subject

N_ELEMENTS = 118
_CHUNK = 1_000_000
"""Rows that are looked at together."""


def finite(subject: Subject) -> Iterator[Finding]:
    """Every stored number is finite; of labels that may be missing, those that are there."""
    store = subject.store
    names = {"positions": "Å", "forces": "eV/Å", "energy": "eV", "cell": "Å"}
    names |= dict.fromkeys(store.columns, "") | {key: p.unit for key, p in store.properties.items()}
    n = 0
    for name, unit in names.items():
        if name in store.labels:
            values = store.label_column(name)
        else:
            values = store.column(name) if name in store.columns else getattr(store, name)
        n += values.size
        row = _first_not_finite(values, may_lack=name in subject.may_lack)
        if row is not None:
            of_atoms = store.is_per_atom(name)
            frame = subject.frame_of(row) if of_atoms else row
            atom = f" of atom {row - store.offsets[frame]}" if of_atoms else ""
            yield Finding(
                "numbers are finite",
                "failed",
                f"{subject.where(frame)}: {name}{atom} is {values[row].tolist()}, wanted finite numbers"
                f"{unit and ' in ' + unit}; remove or relabel the frame",
            )
            return
    yield Finding("numbers are finite", "passed", f"{n:,} numbers", {"numbers": n})


def _first_not_finite(values: np.ndarray, *, may_lack: bool) -> int | None:
    """The first row that holds a number that is not finite (or, where labels may be missing, that is not all
    NaN)."""
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        part = part.reshape(len(part), -1)
        bad = ~np.isfinite(part).all(1)
        if may_lack:
            bad &= ~np.isnan(part).all(1)
        if bad.any():
            return start + int(np.argmax(bad))
    return None


def symmetric(subject: Subject) -> Iterator[Finding]:
    """Matrices that are labels are symmetric: an antisymmetric part could not be learnt."""
    store, keys = subject.store, []
    for key in store.labels:
        labels = store.label_column(key)
        if labels.ndim < 3:
            continue
        keys.append(key)
        for start in range(0, len(labels), _CHUNK):
            part = labels[start : start + _CHUNK]
            skew = np.abs(part - part.transpose(0, 2, 1)).max((1, 2), initial=0.0)
            bad = skew > 1e-3 * np.maximum(1e-12, np.abs(part).max((1, 2), initial=0.0))
            if bad.any():
                row = start + int(np.argmax(bad))
                frame = subject.frame_of(row) if store.is_per_atom(key) else row
                yield Finding(
                    "matrices are symmetric",
                    "failed",
                    f"{subject.where(frame)}: {key} is {labels[row].tolist()}, wanted a symmetric matrix; "
                    f"leave it out, or give its symmetric part",
                )
                return
    if keys:
        yield Finding("matrices are symmetric", "passed", ", ".join(keys))


def elements(subject: Subject) -> Iterator[Finding]:
    """Atomic numbers are those of elements, and every element of validation and test occurs in training."""
    store, name = subject.store, "elements"
    for start in range(0, len(store.species), _CHUNK):
        part = store.species[start : start + _CHUNK]
        bad = (part < 1) | (part > N_ELEMENTS)
        if bad.any():
            row = start + int(np.argmax(bad))
            frame = subject.frame_of(row)
            yield Finding(
                name,
                "failed",
                f"{subject.where(frame)}: atom {row - store.offsets[frame]} has atomic number "
                f"{store.species[row]}, wanted 1 to {N_ELEMENTS}",
            )
            return
    known = np.zeros(256, dtype=bool)
    for ids in subject.chunks(subject.splits["train"]):
        known[store.species[segments(store.offsets, ids)[0]]] = True
    for split, every in subject.splits.items():
        for ids in subject.chunks(every) if split != "train" else ():
            rows, n_atoms = segments(store.offsets, ids)
            new = ~known[store.species[rows]]
            if new.any():
                first = int(np.argmax(new))
                frame = int(ids[np.searchsorted(np.cumsum(n_atoms), first, side="right")])
                atoms = store.species[store.offsets[frame] : store.offsets[frame + 1]]
                z = int(np.unique(atoms[~known[atoms]])[0])
                yield Finding(
                    name,
                    "failed",
                    f"{subject.where(frame)}: element Z={z} occurs in split {split!r} but in no training "
                    f"frame (training has Z={np.nonzero(known)[0].tolist()}); a model cannot know it, drop "
                    f"the frame or add training data",
                )
                return
    n = int(known.sum())
    yield Finding(name, "passed", f"{n} {'element' if n == 1 else 'elements'} in training", {"elements": n})
