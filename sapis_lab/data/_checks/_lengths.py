"""Distances between atoms: of the size that elements have, and nowhere so short that two lie on one
another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab import units
from sapis_lab.data._checks._finding import Finding, Subject
from sapis_lab.data._neighbor_table import edge_chunks
from sapis_lab.elements import COVALENT_RADII, NOBLE_RADII
from sapis_lab.neighbors import ALL_PAIRS_ATOMS, MIN_DISTANCE, Pairs, closest, neighbor_list

_RADII = np.array([*COVALENT_RADII, *[1.6] * 200])[:256]
_RADII[list(NOBLE_RADII)] = list(NOBLE_RADII.values())

CONTACT = (0.6, 1.6)
"""Nearest distances over the sum of covalent radii, median of a file. Measured 0.87 (carbon) to 1.02
(ethanol) in rMD17, AcAc, 3BPA, BOTNet's ethanol, Cu, C and LiPS. Å declared as Bohr is a factor 0.53, the
reverse 1.9, nm 10: all of these sets then fall outside."""
_CONTACT_FRAMES = 100
"""Frames of each file in which nearest distances are measured."""


def contacts(subject: Subject) -> Iterator[Finding]:
    """Atoms of every file are about as far apart as atoms are. Energies and forces cannot tell: both sides of
    E = F x scale alike."""
    name = "length unit"
    files: dict[str, list[int]] = {}
    apart = [np.asarray(subject.splits[split]) for split in subject.torn if split in subject.splits]
    several = np.nonzero(np.diff(subject.store.offsets) > 1)[0]
    for frame in np.setdiff1d(several, np.concatenate([np.zeros(0, np.int64), *apart])).tolist():
        files.setdefault(subject.where(frame).rpartition(", frame ")[0], []).append(frame)
    medians = []
    for frames in files.values():
        some = np.unique(np.linspace(0, len(frames) - 1, _CONTACT_FRAMES).astype(int))
        try:
            got = float(np.median([_contact(subject, frames[k]) for k in some]))
        except ValueError as error:
            yield Finding(name, "failed", str(error))
            return
        if not CONTACT[0] <= got <= CONTACT[1]:
            yield Finding(name, "failed", _out_of_range(subject, frames, got, len(some)), {"contact": got})
            return
        medians.append(got)
    if not medians:
        yield Finding(name, "not checked", "there are free atoms only")
        return
    low, high = min(medians), max(medians)
    size = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    yield Finding(
        name,
        "passed",
        f"nearest atoms are {size} times the sum of covalent radii apart",
        {"lowest": low, "highest": high},
    )


def _out_of_range(subject: Subject, frames: list[int], got: float, n: int) -> str:
    unit = subject.length_unit
    ratios = {other: got * factor / units.LENGTH[unit] for other, factor in units.LENGTH.items()}
    fit = min(ratios, key=lambda other: abs(np.log(ratios[other])) if ratios[other] > 0 else np.inf)
    if CONTACT[0] <= ratios[fit] <= CONTACT[1]:
        hint = f"in {fit} it would be {ratios[fit]:.3g}: the length unit would have to be {fit}, not {unit}"
    else:
        hint = (
            f"none of {', '.join(units.LENGTH)} gives that: check positions, cell and elements (or drop "
            f"frames of free atoms)"
        )
    return (
        f"{subject.where(frames[0])} and the others: the distance to the nearest atom is {got:.3g} times the "
        f"sum of the covalent radii (median of {n} frames), wanted {CONTACT[0]} to {CONTACT[1]}; {hint}"
    )


def _contact(subject: Subject, frame: int) -> float:
    """Median over atoms of the distance to the nearest other atom (or image) over the sum of both radii."""
    store = subject.store
    atoms = slice(store.offsets[frame], store.offsets[frame + 1])
    x, radius, pbc = store.positions[atoms], _RADII[store.species[atoms]], store.pbc[frame]
    if not pbc.any() and len(x) <= ALL_PAIRS_ATOMS:
        r = np.sqrt(sum((x[:, None, k] - x[None, :, k]) ** 2 for k in range(3)))
        np.fill_diagonal(r, np.inf)
        return float(np.median((r / (radius[:, None] + radius)).min(1)))
    cell = store.cell[frame]
    # Widened until most atoms see one: any unit may be wrong, so no fixed cutoff is both enough and not too
    # much.
    cutoff = 0.7 * (abs(np.linalg.det(cell)) / len(x)) ** (1 / 3) if pbc.all() else 0.5
    while True:
        try:
            i, j, shift = neighbor_list(x, cell, pbc, max(cutoff, 1e-3))
        except ValueError as error:
            raise ValueError(f"{subject.where(frame)}: {error}") from None
        nearest = np.full(len(x), np.inf)
        np.minimum.at(
            nearest, i, np.linalg.norm(x[j] + shift @ cell - x[i], axis=1) / (radius[i] + radius[j])
        )
        if np.isfinite(nearest).mean() > 0.5 or cutoff > 200:
            return float(np.median(nearest))
        cutoff = max(cutoff, 1e-3) * 1.4


def overlaps(subject: Subject) -> Iterator[Finding]:
    """No two atoms are closer than MIN_DISTANCE, periodic images included."""
    store, name = subject.store, "atoms do not overlap"
    for first, _, rows in edge_chunks(store, MIN_DISTANCE):
        if rows["n_edges"].any():
            k = int(np.argmax(rows["n_edges"] > 0))
            frame, n = first + k, rows["n_edges"][k]
            x = store.positions[store.offsets[frame] : store.offsets[frame + 1]]
            pair = closest(
                x, store.cell[frame], Pairs(rows["center"][:n], rows["neighbor"][:n], rows["shift"][:n])
            )
            yield Finding(
                name,
                "failed",
                f"{subject.where(frame)}: {pair}, wanted at least {MIN_DISTANCE} Å; is the length unit (or "
                f"the cell) right?",
            )
            return
    yield Finding(name, "passed", f"no two are closer than {MIN_DISTANCE} Å")
