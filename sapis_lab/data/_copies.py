"""Frames that are one another again: the same structure moved, wrapped, renumbered, turned, reflected, or in
another cell of the same lattice. They have the same energy and, up to that motion, the same forces, so a
model with these symmetries learns nothing from the second, and a test on it is no test.

Candidates come from four smooth sums over pairs of atoms that no such motion changes, sorted and compared
within groups of one composition; each candidate is then confirmed by superposition, atom by
atom. Positions of copies agree to rounding. What must not be taken for copies are steps of relaxations and
scans that move atoms by little: measured 2.6·10⁻⁵ Å in OC20 and 3.7·10⁻⁶ Å in ANI-2x, with energies that
differ as they should. So frames are copies when they agree to SAME
(TURNED where a motion is needed), or to NEARLY_SAME with labels that agree
to their last digits (positions rounded to four decimals).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._store import Frames
from sapis_lab.neighbors import ALL_PAIRS_ATOMS, complete_cell, neighbor_list

SAME, TURNED, NEARLY_SAME = 1e-6, 1e-5, 1e-4
"""Å, largest deviation of an atom. Turned cells are rounded in other places: 8·10⁻⁶ Å among those of Ni in
mlearn, while steps of relaxations do not turn."""
_CUTOFF = 4.0
"""Å, of the sums over pairs."""
_MATCHED = 0.02
"""Å, within which atoms are matched before the superposition is refined."""
_MOST_TRIES = 4_000
"""Superpositions that are tried for one pair of frames: perfect crystals have many that are equal."""
_CHUNK_ATOMS = 100_000

Way = Literal["same", "wrapped", "moved", "renumbered", "turned", "reflected"]


STRICT: tuple[Way, ...] = ("same", "wrapped")
"""Copies that are the same frame written twice."""


class FramesToCompare(Protocol):
    """What is read of a store."""

    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def species(self) -> np.ndarray: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def cell(self) -> np.ndarray: ...
    @property
    def pbc(self) -> np.ndarray: ...
    @property
    def energy(self) -> np.ndarray: ...
    @property
    def forces(self) -> np.ndarray: ...


class _OfFrames:
    """Frames as a store has them."""

    def __init__(self, frames: Frames) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(frames.n_atoms)])
        self.species, self.positions, self.forces = frames.species, frames.positions, frames.forces
        self.cell, self.pbc, self.energy = frames.cell, frames.pbc, frames.energy


def first_copies(frames: Frames) -> np.ndarray:
    """For every frame the first that it is a copy of, (n_frames,) int; itself where there is none before
    it."""
    first = np.arange(len(frames))
    for group in copies(_OfFrames(frames), first.copy()):
        first[list(group.frames)] = group.frames[0]
    return first


class Copy(NamedTuple):
    """What the second of two frames is of the first."""

    way: Way
    """same: atom by atom, in open frames up to a translation; wrapped: up to lattice vectors; moved: a
    crystal up to a translation; and so on, each with those before it."""
    deviation: float
    """Å, of the atom that deviates most."""
    energy_gap: float
    """eV, second less first; NaN where one has no energy."""
    force_gap: float
    """eV/Å, largest difference of a component after the motion; NaN where one has no forces."""


class Group(NamedTuple):
    """Frames that are copies of one another."""

    frames: tuple[int, ...]
    """Sorted."""
    copies: tuple[Copy, ...]
    """What each of the others is of an earlier one."""


def copies(store: FramesToCompare, ids: np.ndarray) -> list[Group]:
    """All groups of copies among the frames `ids` (n,), sorted by their first frame."""
    ids = np.sort(np.asarray(ids, dtype=np.int64))
    head = np.arange(len(ids))

    def root(k: int) -> int:
        while head[k] != k:
            head[k] = head[head[k]]
            k = int(head[k])
        return k

    how: dict[int, Copy] = {}
    for a, b in _candidates(store, ids):
        one, other = root(a), root(b)
        if one == other:
            continue
        found = copy_of(store, int(ids[a]), int(ids[b]))
        if found is not None:
            low, high = sorted((one, other))
            head[high] = low
            how[high] = found
    groups: dict[int, list[int]] = {}
    for k in range(len(ids)):
        groups.setdefault(root(k), []).append(k)
    return [
        Group(tuple(int(ids[k]) for k in members), tuple(how[k] for k in members[1:]))
        for members in groups.values()
        if len(members) > 1
    ]


# ------------------------------------------------------------------------------------------------- candidates


def _candidates(store: FramesToCompare, ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places a < b in `ids` of frames with the same composition and the same sums over pairs."""
    sums, slack, keys = _invariants(store, ids)
    order = np.argsort(keys, kind="stable")
    edges = np.nonzero(np.diff(keys[order]))[0] + 1
    for group in np.split(order, edges):
        if len(group) < 2:
            continue
        for a, b in _near(sums[group] / np.median(slack[group])):
            yield tuple(sorted((int(group[a]), int(group[b]))))  # type: ignore[misc]


def _near(points: np.ndarray, within: float = 1.0) -> np.ndarray:
    """(n_pairs, 2) numbers a < b of `points` (n, k) that differ by at most `within` in every coordinate,
    sorted. They are put in the order of the coordinate that spreads most, and each is compared with those
    behind it; scipy's tree of them ends the process now and then, its stack overflown."""
    along = int(np.argmax(np.ptp(points, axis=0)))
    order = np.argsort(points[:, along], kind="stable")
    p, found = points[order], [np.zeros((0, 2), np.int64)]
    for step in range(1, len(p)):
        k = np.nonzero(p[step:, along] - p[:-step, along] <= within)[0]
        if not len(k):
            break
        k = k[(np.abs(p[k + step] - p[k]) <= within).all(1)]
        found.append(np.sort(np.stack([order[k], order[k + step]], 1), axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _invariants(store: FramesToCompare, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over pairs (n, 4), how much they may differ between copies (n,), and a number for composition and
    periodicity (n,)."""
    generator = np.random.default_rng(0)
    weight, code = generator.uniform(0.5, 1.5, 256), generator.integers(1, 2**40, 256)
    sums, slack = np.zeros((len(ids), 4)), np.zeros(len(ids))
    keys = np.zeros(len(ids), dtype=np.int64)
    done = 0
    for part in _parts(store, ids):
        rows, n_atoms = segments(store.offsets, part)
        starts = np.cumsum(n_atoms) - n_atoms
        here = slice(done, done + len(part))
        keys[here] = np.add.reduceat(code[store.species[rows]], starts) * 8 + store.pbc[part] @ [1, 2, 4]
        frame, r, w = _all_pairs(store, part, weight)
        x = r / _CUTOFF
        f, df = (1 - x * x) ** 3, -6 * x * (1 - x * x) ** 2 / _CUTOFF
        for m in range(4):
            g, dg = f * x**m, df * x**m + f * m * x ** max(m - 1, 0) / _CUTOFF
            sums[here, m] = np.bincount(frame, w * g, minlength=len(part))
            of_this = np.sqrt(np.bincount(frame, (w * dg) ** 2, minlength=len(part)))
            slack[here] = np.maximum(slack[here], 8 * NEARLY_SAME * of_this)
        done += len(part)
    return sums, np.maximum(slack, 1e-9), keys


def _parts(store: FramesToCompare, ids: np.ndarray) -> Iterator[np.ndarray]:
    ends = np.cumsum(store.offsets[ids + 1] - store.offsets[ids])
    cuts = np.searchsorted(ends, np.arange(_CHUNK_ATOMS, ends[-1] if len(ends) else 0, _CHUNK_ATOMS))
    for part in np.split(ids, np.unique(cuts)):
        if len(part):
            yield part


def _all_pairs(
    store: FramesToCompare, ids: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place in ids, distance, weight) of all pairs within the cutoff, both directions."""
    found = []
    n_atoms = store.offsets[ids + 1] - store.offsets[ids]
    is_open = ~store.pbc[ids].any(1) & (n_atoms <= ALL_PAIRS_ATOMS)
    for n in np.unique(n_atoms[is_open]):
        which = np.nonzero(is_open & (n_atoms == n))[0]
        for some in np.array_split(which, -(-len(which) * int(n) ** 2 // 2_000_000)):
            rows = store.offsets[ids[some]][:, None] + np.arange(n)
            x, z = store.positions[rows], store.species[rows]
            r2 = sum((x[:, :, None, k] - x[:, None, :, k]) ** 2 for k in range(3))
            r2[:, np.arange(n), np.arange(n)] = np.inf
            at, i, j = np.nonzero(r2 < _CUTOFF**2)
            found.append((some[at], np.sqrt(r2[at, i, j]), weight[z[at, i]] * weight[z[at, j]]))
    for k in np.nonzero(~is_open)[0].tolist():
        atoms = slice(store.offsets[ids[k]], store.offsets[ids[k] + 1])
        x, z, cell = store.positions[atoms], store.species[atoms], store.cell[ids[k]]
        i, j, shift = neighbor_list(x, cell, store.pbc[ids[k]], _CUTOFF)
        r = np.linalg.norm(x[j] + shift @ cell - x[i], axis=1)
        found.append((np.full(len(r), k), r, weight[z[i]] * weight[z[j]]))
    if not found:
        return np.zeros(0, int), np.zeros(0), np.zeros(0)
    frame, r, w = (np.concatenate(part) for part in zip(*found, strict=True))
    return frame, r, w


# ----------------------------------------------------------------------------------------------- confirmation


class _Motion(NamedTuple):
    """Rows of vectors of a, in this order of atoms and times `turn`, are those of b."""

    turn: np.ndarray
    """(3, 3)"""
    order: np.ndarray
    """(n_atoms,): atom i of a lies on atom order[i] of b."""
    way: Way
    deviation: float


class _One(NamedTuple):
    """A frame of its own."""

    z: np.ndarray
    x: np.ndarray
    cell: np.ndarray
    """(3, 3), completed along open directions."""
    pbc: np.ndarray


def copy_of(store: FramesToCompare, a: int, b: int) -> Copy | None:
    """What frame b is of frame a; None where it is no copy."""
    one, other = _one(store, a), _one(store, b)
    motion = _in_order(one, other) or _by_any_motion(one, other)
    if motion is None:
        return None
    energy_gap = float(store.energy[b] - store.energy[a])
    fa, fb = (store.forces[store.offsets[k] : store.offsets[k + 1]].astype(np.float64) for k in (a, b))
    force_gap = float(np.abs(fb[motion.order] - fa @ motion.turn).max())
    alike = abs(energy_gap) <= 1e-7 + 4e-16 * abs(float(store.energy[a])) and force_gap <= 1e-5 * (
        1 + float(np.abs(fa).max())
    )
    in_order = motion.way in ("same", "wrapped", "moved")
    if motion.deviation > (SAME if in_order else TURNED) and not alike:
        return None
    return Copy(motion.way, motion.deviation, energy_gap, force_gap)


def _one(store: FramesToCompare, k: int) -> _One:
    atoms, pbc = slice(store.offsets[k], store.offsets[k + 1]), store.pbc[k]
    cell = complete_cell(store.cell[k], pbc) if pbc.any() else np.eye(3)
    return _One(store.species[atoms], store.positions[atoms], cell, pbc)


def _images(dx: np.ndarray, frame: _One) -> np.ndarray:
    """Vectors less the nearest lattice vectors along periodic directions."""
    if not frame.pbc.any():
        return dx
    return dx - (np.round(dx @ np.linalg.inv(frame.cell)) * frame.pbc) @ frame.cell


def _in_order(a: _One, b: _One) -> _Motion | None:
    """Where the atoms lie in the same order, not turned, and periodic frames have the same cell."""
    if not np.array_equal(a.z, b.z) or not np.array_equal(a.pbc, b.pbc):
        return None
    order, dx = np.arange(len(a.z)), b.x - a.x
    if not a.pbc.any():
        off = np.abs(dx - dx.mean(0)).max()
        return _Motion(np.eye(3), order, "same", float(off)) if off < NEARLY_SAME else None
    if np.abs(a.cell - b.cell).max() > NEARLY_SAME:
        return None
    if (off := np.abs(dx).max()) < NEARLY_SAME:
        return _Motion(np.eye(3), order, "same", float(off))
    if (off := np.abs(_images(dx, a)).max()) < NEARLY_SAME:
        return _Motion(np.eye(3), order, "wrapped", float(off))
    left = _images(dx - dx[0], a)
    off = np.abs(left - left.mean(0)).max()
    return _Motion(np.eye(3), order, "moved", float(off)) if off < NEARLY_SAME else None


def _by_any_motion(a: _One, b: _One) -> _Motion | None:
    """A rotation or reflection, a translation and a renumbering that map a onto b."""
    if not np.array_equal(np.sort(a.z), np.sort(b.z)) or a.pbc.sum() != b.pbc.sum():
        return None
    for n_tries, (turn, from_a, to_b) in enumerate(_superpositions(a, b)):
        if n_tries >= _MOST_TRIES:
            return None
        motion = _matched(a, b, turn, from_a, to_b)
        if motion is not None:
            return motion
    return None


def _superpositions(a: _One, b: _One) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(turn, point of a, point of b) that lay two vectors of a on two of b of the same kind and length, with
    both handednesses: from the centroid of open frames, from an atom of periodic ones."""
    kinds, counts = np.unique(a.z, return_counts=True)
    rare = kinds[np.argmin(counts)]
    if not a.pbc.any():
        starts_a, starts_b = [a.x.mean(0)], [b.x.mean(0)]
    else:
        starts_a, starts_b = [a.x[a.z == rare][0]], list(b.x[b.z == rare])
    z1, v1 = _around(a, starts_a[0])
    if len(v1) == 0:
        yield np.eye(3), starts_a[0], starts_b[0]
        return
    r1 = np.linalg.norm(v1, axis=1)
    first = int(np.argmin(r1 + 1e3 * (r1 < 0.3)))
    aside = np.linalg.norm(np.cross(v1, v1[first]), axis=1)
    straight = not (aside > 0.2 * r1[first]).any()
    second = first if straight else int(np.argmin(r1 + 1e3 * (aside <= 0.2 * r1[first])))
    axes_a = _axes(v1[first], None if straight else v1[second])
    for start in starts_b:
        z2, v2 = _around(b, start)
        r2 = np.linalg.norm(v2, axis=1)
        ones = np.nonzero((z2 == z1[first]) & (np.abs(r2 - r1[first]) < _MATCHED / 2))[0]
        others = np.nonzero((z2 == z1[second]) & (np.abs(r2 - r1[second]) < _MATCHED / 2))[0]
        for p in ones:
            if straight:
                yield axes_a.T @ _axes(v2[p], None), starts_a[0], start
                continue
            apart = v2[others] @ v2[p] - v1[first] @ v1[second]
            for q in others[np.abs(apart) < _MATCHED * (r1[first] + r1[second])]:
                axes_b = _axes(v2[p], v2[q])
                yield axes_a.T @ axes_b, starts_a[0], start
                yield axes_a.T @ np.diag([1.0, 1.0, -1.0]) @ axes_b, starts_a[0], start


def _around(frame: _One, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(elements, vectors) of the atoms seen from a point, not at it; images within reach included."""
    v = frame.x - start
    if frame.pbc.any():
        reach = np.stack(
            np.meshgrid(*[np.arange(-1, 2) if p else np.zeros(1) for p in frame.pbc], indexing="ij"), -1
        ).reshape(-1, 3)
        v = (_images(v, frame)[:, None] + reach @ frame.cell).reshape(-1, 3)
        z = np.repeat(frame.z, len(reach))
        near = np.argsort((v**2).sum(1))[:60]
        v, z = v[near], z[near]
    else:
        z = frame.z
    away = np.linalg.norm(v, axis=1) > 1e-2
    return z[away], v[away]


def _axes(one: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Right-handed orthonormal axes, as rows: along `one`, and `other` in their plane."""
    first = one / np.linalg.norm(one)
    if other is None:
        other = np.eye(3)[np.argmin(np.abs(first))]
    third = np.cross(first, other)
    third /= np.linalg.norm(third)
    return np.array([first, np.cross(third, first), third])


def _matched(a: _One, b: _One, turn: np.ndarray, from_a: np.ndarray, to_b: np.ndarray) -> _Motion | None:
    """The motion that begins with this turn, refined on all atoms; None where they do not fall on one
    another."""
    if a.pbc.any() and not _same_lattice(a, b, turn):
        return None
    x = (a.x - from_a) @ turn + to_b
    apart = _images(b.x[None] - x[:, None], b)
    distance = np.where(a.z[:, None] == b.z[None], (apart**2).sum(-1), np.inf)
    order = distance.argmin(1)
    if distance[np.arange(len(order)), order].max() > _MATCHED**2 or len(np.unique(order)) < len(order):
        return None
    aim = x + apart[np.arange(len(order)), order]
    xa, xb = a.x - a.x.mean(0), aim - aim.mean(0)
    u, _, vt = np.linalg.svd(xa.T @ xb + 1e-6 * turn)
    refined = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt) * np.linalg.det(turn))]) @ vt
    off = float(np.abs(xa @ refined - xb).max())
    if a.pbc.any():
        off = max(off, _lattice_gap(a, b, refined))
    if off > NEARLY_SAME:
        return None
    way: Way = "reflected" if np.linalg.det(turn) < 0 else "turned"
    if np.abs(refined - np.eye(3)).max() < 1e-4:
        way = "renumbered"
    return _Motion(refined, order, way, off)


def _same_lattice(a: _One, b: _One, turn: np.ndarray) -> bool:
    return _lattice_gap(a, b, turn) < 0.05


def _lattice_gap(a: _One, b: _One, turn: np.ndarray) -> float:
    """Å: how far turned lattice vectors of a lie from lattice points of b; inf where volumes differ."""
    if abs(abs(np.linalg.det(a.cell)) - abs(np.linalg.det(b.cell))) > 1e-2 and a.pbc.all():
        return np.inf
    vectors = a.cell[a.pbc] @ turn
    whole = np.round(vectors @ np.linalg.inv(b.cell)) * b.pbc
    return float(np.abs(vectors - whole @ b.cell).max())
