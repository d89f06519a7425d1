"""The checks in their order: run until one fails, or all of them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from sapis_lab.data._checks._consistency import NAME as CONSISTENCY
from sapis_lab.data._checks._consistency import energies_and_forces
from sapis_lab.data._checks._finding import Check, Finding, Subject, Where
from sapis_lab.data._checks._lengths import contacts, overlaps
from sapis_lab.data._checks._numbers import elements, finite, symmetric
from sapis_lab.data._checks._outliers import outliers
from sapis_lab.data._checks._periodicity import periodicity
from sapis_lab.data._checks._plausible import energy_unit
from sapis_lab.data._checks._repeats import repeats
from sapis_lab.data._checks._resolution import resolution
from sapis_lab.data._checks._stress import stress
from sapis_lab.data._checks._zeros import energies_vary, forces_present
from sapis_lab.data._store import FrameStore
from sapis_lab.errors import Notice

VERSION = 1
"""Of the checks; recorded with what they found."""


class _Listed(NamedTuple):
    name: str
    check: Check
    needs: tuple[str, ...] = ()
    """Names of checks without which this one would stumble or say nothing: it is not made where one of them
    failed."""


_SOUND = ("splits", "numbers are finite", "elements")
CHECKS = (
    _Listed("numbers are finite", finite, ("splits",)),
    _Listed("matrices are symmetric", symmetric, ("splits",)),
    _Listed("elements", elements, ("splits",)),
    _Listed("length unit", contacts, _SOUND),
    _Listed("atoms do not overlap", overlaps, _SOUND),
    _Listed("forces are there", forces_present, _SOUND),
    _Listed("energies vary", energies_vary, _SOUND),
    _Listed("copies", repeats, (*_SOUND, "atoms do not overlap")),
    _Listed("periodicity", periodicity, _SOUND),
    _Listed(
        CONSISTENCY,
        energies_and_forces,
        (*_SOUND, "atoms do not overlap", "forces are there", "energies vary"),
    ),
    _Listed("energy unit", energy_unit, _SOUND),
    _Listed("outliers", outliers, _SOUND),
    _Listed("resolution of energies", resolution, _SOUND),
    _Listed("stress", stress, (*_SOUND, "atoms do not overlap", "matrices are symmetric", CONSISTENCY)),
)
_collected: ContextVar[list[Finding] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Finding]]:
    """Within this, `check_store` makes every check, raises nothing and warns of nothing; what it finds is in
    the list."""
    found: list[Finding] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def is_collecting() -> bool:
    return _collected.get() is not None


def check_store(
    store: FrameStore,
    splits: Mapping[str, np.ndarray],
    where: Where,
    *,
    length_unit: str = "Angstrom",
    may_lack: Collection[str] = (),
    torn: Collection[str] = (),
    known: Collection[str] = (),
) -> None:
    """Examine an unsealed store with these `splits`, and record what was found in its metadata, "checks".

    What is suspect is given as a warning (`Notice`), except for the checks `known` to be so.

    Args:
        length_unit: what the store was read as being in.   may_lack: keys of labels that may be missing
            (NaN).   torn: splits whose atoms may be far from each other.   known: names of checks that this
            data set is known not to pass.

    Raises:
        ValueError: at the first thing that cannot be trusted.
    """
    subject = Subject(store, splits, where, length_unit, may_lack, torn)
    collected = _collected.get()
    found = []
    for finding in findings(subject):
        found.append(finding)
        if finding.outcome == "failed" and collected is None:
            raise ValueError(finding.why)
        if finding.outcome == "suspect" and collected is None and finding.check not in known:
            warnings.warn(f"{finding.check}: {finding.why}", Notice, stacklevel=2)
    store.remember("checks", {"version": VERSION, "findings": [f.plain() for f in found]})
    if collected is not None:
        collected.extend(found)


def refuse(finding: Finding) -> None:
    """Raise a failure that was found beside `check_store`, or collect it."""
    collected = _collected.get()
    if collected is not None:
        collected.append(finding)
    elif finding.outcome == "failed":
        raise ValueError(finding.why)


def findings(subject: Subject) -> Iterator[Finding]:
    """What all checks find, one after another; those that an earlier failure makes void are not made."""
    failed: list[str] = []
    for finding in _splits(subject):
        yield finding
        if finding.outcome == "failed":
            failed.append("splits")
    for listed in CHECKS:
        if listed.name == "stress" and "stress" not in subject.store.columns:
            continue
        missing = [name for name in listed.needs if name in failed]
        if missing:
            yield Finding(listed.name, "not checked", f"because of what failed: {', '.join(missing)}")
            continue
        for finding in listed.check(subject):
            if finding.outcome == "failed":
                failed.append(listed.name)
            yield finding


def _splits(subject: Subject) -> Iterator[Finding]:
    for name, ids in subject.splits.items():
        if not len(ids):
            yield Finding(
                "splits", "failed", f"split {name!r} is empty; give it frames, or lower the other splits"
            )
            return
    sizes = {name: len(ids) for name, ids in subject.splits.items()}
    yield Finding("splits", "passed", ", ".join(f"{n:,} {name}" for name, n in sizes.items()), sizes)


def worst(found: Sequence[Finding]) -> str:
    """failed, suspect or passed."""
    outcomes = {finding.outcome for finding in found}
    return next((o for o in ("failed", "suspect") if o in outcomes), "passed")
