"""Frames of one composition that are periodic in different directions: a crystal one of whose directions was
lost has surfaces that its labels know nothing of.

Two kinds of frames may share a composition, as clusters and crystals do. So it is looked at what the atoms
say: those at either side of a direction that is said to be open lie at the distance of a bond across it,
where the cell of their periodic sisters is put around them; or the images of a frame that is said to be
periodic are out of reach, while its sisters are open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sapis_lab.data._checks._finding import Finding, Subject
from sapis_lab.elements import COVALENT_RADII
from sapis_lab.neighbors import neighbor_list

NAME = "periodicity"
_RADII = np.array([*COVALENT_RADII, *[1.6] * 200])[:256]
_BOND, _OVERLAP = 1.3, 0.6
"""Over the sum of covalent radii."""
_SAMPLE = 20
_REACH = 6.0
"""Å: images farther away than this do nothing."""


def periodicity(subject: Subject) -> Iterator[Finding]:
    """Whether frames of one composition agree about it."""
    store = subject.store
    ids = np.concatenate(list(subject.splits.values()))
    kinds: dict[tuple[bytes, bytes], list[int]] = {}
    for k in ids.tolist():
        atoms = store.species[store.offsets[k] : store.offsets[k + 1]]
        kinds.setdefault((np.sort(atoms).tobytes(), store.pbc[k].tobytes()), []).append(k)
    by_composition: dict[bytes, list[list[int]]] = {}
    for (composition, _), frames in kinds.items():
        by_composition.setdefault(composition, []).append(frames)
    mixed = [groups for groups in by_composition.values() if len(groups) > 1]
    for groups in mixed:
        why = _contradiction(subject, groups)
        if why is not None:
            yield Finding(NAME, "suspect", why, {"mixed compositions": len(mixed)})
            return
    said = sorted({"".join("FT"[int(p)] for p in np.frombuffer(pbc, bool)) for _, pbc in kinds})
    yield Finding(NAME, "passed", ", ".join(said), {"mixed compositions": len(mixed)})


def _contradiction(subject: Subject, groups: Sequence[list[int]]) -> str | None:
    store = subject.store
    groups = sorted(groups, key=lambda frames: int(store.pbc[frames[0]].sum()))
    fewer, more = groups[0], groups[-1]
    kinds = [store.pbc[frames[0]].tolist() for frames in (fewer, more)]
    start = (
        f"{len(fewer)} frames such as {subject.where(fewer[0])} have pbc={kinds[0]}, and {len(more)} of the "
        f"same composition, such as {subject.where(more[0])}, have pbc={kinds[1]}"
    )
    cell = store.cell[more[0]]
    bonds = [_across(subject, k, cell, store.pbc[fewer[0]], store.pbc[more[0]]) for k in fewer[:_SAMPLE]]
    if np.mean([found == "bond" for found in bonds]) > 0.5:
        return (
            f"{start}; atoms of the former lie at bonding distance across the directions called open: is pbc "
            f"right?"
        )
    if not store.pbc[fewer[0]].any() and np.mean([_isolated(subject, k) for k in more[:_SAMPLE]]) > 0.5:
        return (
            f"{start}; images of the latter are out of reach, as if a box had been put around molecules: is "
            f"pbc right?"
        )
    return None


def _across(subject: Subject, frame: int, cell: np.ndarray, pbc: np.ndarray, other: np.ndarray) -> str:
    """What lies across the directions that are periodic in `other` only: 'bond', 'overlap' or 'nothing'."""
    store = subject.store
    atoms = slice(store.offsets[frame], store.offsets[frame + 1])
    x, radius = store.positions[atoms], _RADII[store.species[atoms]]
    own = store.cell[frame] if pbc.any() else cell
    try:
        i, j, shift = neighbor_list(x, own, other, _BOND * 2 * float(radius.max()))
    except ValueError:
        return "nothing"
    through = (shift[:, ~pbc & other] != 0).any(1)
    r = np.linalg.norm(x[j] + shift @ own - x[i], axis=1) / (radius[i] + radius[j])
    if not through.any() or r[through].min() > _BOND:
        return "nothing"
    return "overlap" if r[through].min() < _OVERLAP else "bond"


def _isolated(subject: Subject, frame: int) -> bool:
    """Whether no image of any atom is within reach of another."""
    store = subject.store
    atoms = slice(store.offsets[frame], store.offsets[frame + 1])
    _, _, shift = neighbor_list(store.positions[atoms], store.cell[frame], store.pbc[frame], _REACH)
    # positions may lie outside of the cell: a pair within the molecule then has a shift, but every atom's own
    # images are what counts
    own = np.linalg.norm(store.cell[frame][store.pbc[frame]], axis=1)
    x = store.positions[atoms]
    return bool((own > np.ptp(x, axis=0).max() + _REACH).all() or not shift.any())
