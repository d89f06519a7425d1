"""Configurations that occur in two splits, or twice in training; and copies whose labels differ.

Frames that agree atom by atom (open ones up to a translation, periodic ones up to lattice vectors) are
refused. Those that are one another turned, reflected, renumbered or moved are told: strained crystals are
published so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sapis_lab.data._checks._finding import Finding, Subject
from sapis_lab.data._copies import STRICT, Copy, Group, copies, copy_of
from sapis_lab.data._splits import is_test_split

NAME, LABELS = "copies", "labels of copies"
_MOST_ATOMS = 2_000_000
"""Beyond, only frames of equal energy are compared with one another: their neighbours would take more than
some minutes."""
_ENERGY_GAP, _FORCE_GAP = 1e-3, 0.05
"""eV per atom, eV/Å: differences that are not numerical noise of a calculation (0.5 meV per atom in copies of
Cu in mlearn)."""


class _Pair(NamedTuple):
    a: int
    b: int
    copy: Copy


def repeats(subject: Subject) -> Iterator[Finding]:
    """No configuration occurs in two splits, nor twice in training."""
    store = subject.store
    ids = np.concatenate(list(subject.splits.values()))
    place = np.full(store.n_frames, len(ids))
    place[ids[::-1]] = np.arange(len(ids))[::-1]
    names = np.repeat(list(subject.splits), [len(part) for part in subject.splits.values()])
    compared, note = ids, ""
    if int(np.diff(store.offsets)[ids].sum()) > _MOST_ATOMS:
        compared, note = _of_equal_energy(store.energy, ids), "; only frames of equal energy were compared"
    groups = copies(store, compared)
    pairs = [pair for group in groups for pair in _that_matter(subject, group, names, place)]
    refused = [p for p in pairs if p.copy.way in STRICT]
    if refused:
        yield Finding(NAME, "failed", _refusal(subject, refused, names, place), {"pairs": len(refused)})
    elif pairs:
        yield Finding(NAME, "suspect", _told(subject, pairs, names, place) + note, {"pairs": len(pairs)})
    else:
        yield Finding(NAME, "passed", f"none among {len(ids):,} frames{note}", {"pairs": 0})
    yield from _labels(subject, groups)


def _of_equal_energy(energy: np.ndarray, ids: np.ndarray) -> np.ndarray:
    order = ids[np.argsort(energy[ids], kind="stable")]
    e = energy[order]
    near = np.abs(np.diff(e)) <= 1e-6 + 1e-12 * np.abs(e[1:])
    return np.sort(order[np.concatenate([near, [False]]) | np.concatenate([[False], near])])


def _that_matter(subject: Subject, group: Group, names: np.ndarray, place: np.ndarray) -> Iterator[_Pair]:
    """Of each frame of a group that repeats one of another split, or one of training, the pair with the first
    such frame, in the order of the splits."""
    frames = sorted(group.frames, key=lambda k: place[k])
    for n, b in enumerate(frames[1:], start=1):
        split = names[place[b]]
        earlier = [a for a in frames[:n] if _matters(names[place[a]], split)]
        if not earlier:
            continue
        found = [_Pair(a, b, copy) for a in earlier[:20] if (copy := copy_of(subject.store, a, b))]
        strict = [pair for pair in found if pair.copy.way in STRICT]
        if strict or found:
            yield (strict or found)[0]


def _matters(one: str, other: str) -> bool:
    """Whether a frame of the split `one` and a copy in `other` are a fault: two tests may share frames."""
    if one == other:
        return one == "train"
    return not (is_test_split(one) and is_test_split(other))


def _refusal(subject: Subject, pairs: Sequence[_Pair], names: np.ndarray, place: np.ndarray) -> str:
    a, b, _ = min(pairs, key=lambda pair: place[pair.b])
    more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
    if names[place[a]] == names[place[b]]:
        one, other = (subject.where(k) for k in sorted((a, b)))
        return (
            f"{one} and {other} (both train) are the same configuration{more}, but D counts distinct frames; "
            f"write a copy of the file without one, or leave it out with a slice such as [:100] or "
            f"copies: drop"
        )
    return (
        f"{subject.where(a)} ({names[place[a]]}) and {subject.where(b)} ({names[place[b]]}) are the same "
        f"configuration{more}; a test frame seen in training makes the error look smaller: remove one"
    )


def _told(subject: Subject, pairs: Sequence[_Pair], names: np.ndarray, place: np.ndarray) -> str:
    within = [p for p in pairs if names[place[p.a]] == names[place[p.b]]]
    across = [p for p in pairs if names[place[p.a]] != names[place[p.b]]]
    said = []
    for some, one, several in (
        (
            across,
            "frame is a copy of a frame of another split: its error is no test error",
            "frames are copies of frames of another split: their errors are no test errors",
        ),
        (
            within,
            "training frame is a copy of another: D counts both",
            "training frames are copies of others: D counts all",
        ),
    ):
        if not some:
            continue
        what = one if len(some) == 1 else several
        ways = ", ".join(f"{n} {way}" for way, n in Counter(p.copy.way for p in some).items())
        a, b, _ = some[0]
        said.append(
            f"{len(some)} {what} ({ways}); the first: {subject.where(a)} ({names[place[a]]}) and "
            f"{subject.where(b)} ({names[place[b]]})"
        )
    return "; ".join(said)


def _labels(subject: Subject, groups: Sequence[Group]) -> Iterator[Finding]:
    """Copies have the same energies and, up to their motion, the same forces."""
    if not groups:
        return
    bad = []
    for group in groups:
        n_atoms = int(np.diff(subject.store.offsets)[group.frames[0]])
        for b, copy in zip(group.frames[1:], group.copies, strict=True):
            if abs(copy.energy_gap) > _ENERGY_GAP * n_atoms or copy.force_gap > _FORCE_GAP:
                bad.append((b, copy, group.frames[0]))
    n = sum(len(group.copies) for group in groups)
    if not bad:
        yield Finding(LABELS, "passed", f"{n} copies have the same labels", {"copies": n})
        return
    b, copy, a = bad[0]
    yield Finding(
        LABELS,
        "suspect",
        f"{len(bad)} of {n} copies have other labels; the first: {subject.where(b)} differs by "
        f"{copy.energy_gap:.3g} eV and {copy.force_gap:.3g} eV/Å from its copy {subject.where(a)}: one of "
        f"them is wrong",
        {"copies": n, "with other labels": len(bad)},
    )
