"""What no potential should do, whatever it learnt: the physicality tests of ml-peg 0.7 (definitions and
thresholds; written anew), and bonds that are stretched and pressed as in the bond smoothness characterization
test (Liu et al., arXiv:2602.04861), whose abstract says what it looks for and is all that was at hand.

An invariant, conservative potential computed in float64 is at rounding in all symmetries: `AT_ROUNDING`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sapis_lab.observables.structure import bonded_pairs, hanging
from sapis_lab.observables.surfaces import Predict, Whole, whole
from sapis_lab.observables.vibrations import antisymmetry, jacobian
from sapis_lab.structures import Structure

AT_ROUNDING = {"energy": 1e-9, "force": 1e-9, "antisymmetry": 1e-10}
"""Bars of a potential with exact symmetries in float64: eV an atom, eV/Å, a share."""
BAD = {"energy": 1e-3, "force": 1e-3, "ghost_force": 5e-3, "antisymmetry": 4e-3, "flips": 5, "hole": 100.0}
"""Where ml-peg gives no point: eV an atom, eV/Å, a share, changes of sign of a dimer, eV an atom."""
STILL = 1e-2
"""Forces below this, eV/Å, have no sign (MLIP Arena's rule for diatomics)."""
FAR = 100.0
"""Å, between what must not feel each other."""


class Change(NamedTuple):
    """The largest change of what must not change."""

    energy: float
    """eV an atom."""
    force: float
    """eV/Å."""


def translated(predict: Predict, structure: Structure, *, by: np.ndarray) -> Change:
    """When all atoms are moved by a vector (3,), Å."""
    at = whole(structure)
    return _change(predict, at, [at.at(at.positions + by)], [np.eye(3)])


def turned(predict: Predict, structure: Structure, *, turns: np.ndarray) -> Change:
    """When atoms and cell are turned by orthogonal matrices R (n, 3, 3), x' = R x; forces are turned back."""
    at = whole(structure)
    return _change(predict, at, [at.turned(r.T).structure for r in turns], list(turns))


def reordered(predict: Predict, structure: Structure, *, order: np.ndarray) -> Change:
    """When the atoms come in another order (n_atoms,)."""
    at = whole(structure)
    other = Structure(at.species[order], at.positions[order], at.cell, at.pbc)
    found, again = predict([at.structure]), predict([other])
    return Change(
        abs(float(again.energy[0] - found.energy[0])) / len(order),
        float(np.abs(again.forces - found.forces[order]).max()),
    )


def _change(predict: Predict, at: Whole, moved: list[Structure], turns: list[np.ndarray]) -> Change:
    found, again = predict([at.structure]), predict(moved)
    forces = np.asarray(again.forces).reshape(len(moved), -1, 3)
    back = np.einsum("bji,baj->bai", np.array(turns), forces)
    return Change(
        float(np.abs(again.energy - found.energy[0]).max()) / len(at.species),
        float(np.abs(back - found.forces).max()),
    )


def extensivity(predict: Predict, structure: Structure) -> float:
    """|E(2) - 2 E(1)| an atom, eV: of two copies of a molecule 100 Å apart, or of a crystal whose cell is
    doubled."""
    at = whole(structure)
    n = len(at.species)
    if at.pbc.any():
        axis = int(np.argmax(at.pbc))
        cell = at.cell.copy()
        cell[axis] *= 2
        both = np.concatenate([at.positions, at.positions + at.cell[axis]])
    else:
        cell = at.cell
        size = np.ptp(at.positions, axis=0).max()
        both = np.concatenate([at.positions, at.positions + np.array([FAR + size, 0, 0])])
    doubled = Structure(np.tile(at.species, 2), both, cell, at.pbc)
    one, two = predict([at.structure]).energy[0], predict([doubled]).energy[0]
    return abs(float(two - 2 * one)) / (2 * n)


def ghost_atoms(predict: Predict, structure: Structure, *, species: Sequence[int]) -> float:
    """The largest change of a force on a molecule, eV/Å, when atoms `species` lie 100 Å and more away from it
    and from each other."""
    at = whole(structure)
    if at.pbc.any():
        raise ValueError("ghost atoms want a molecule, got a periodic structure")
    size = np.abs(at.positions).max()
    places = np.array([[size + FAR * (k + 1), 0.3 * k, 0.0] for k in range(len(species))])
    more = Structure(
        np.concatenate([at.species, np.asarray(species, dtype=int)]), np.concatenate([at.positions, places])
    )
    found, again = predict([at.structure]).forces, predict([more]).forces[: len(at.species)]
    return float(np.abs(again - found).max())


def force_antisymmetry(predict: Predict, structure: Structure, *, cutoff: float | None = None) -> float:
    """`vibrations.antisymmetry` of -dF/dx by differences of eighth order.

    Args:
        cutoff: Å, of the potential. Its forces are smooth there to a finite order only: steps are chosen so
        that no pair of atoms crosses it.
    """
    at = whole(structure)
    step = 0.0025  # truncation and rounding are alike, 1e-12, for our models
    if cutoff is not None:
        from sapis_lab.neighbors import neighbor_list

        pairs = neighbor_list(at.positions, at.cell, at.pbc, cutoff + 0.2)
        v = at.positions[pairs.neighbor] + pairs.shift @ at.cell - at.positions[pairs.center]
        gap = np.abs(np.linalg.norm(v, axis=1) - cutoff)
        step = float(np.clip(gap.min(initial=0.1) / 5, 5e-4, step))
    return antisymmetry(jacobian(predict, structure, step=step, order=8))


class Scan(NamedTuple):
    """A path on a surface."""

    at: np.ndarray
    """(n,) Å, or factors of length."""
    energy: np.ndarray
    """(n,) eV."""
    force: np.ndarray
    """(n,) eV/Å, -dE/ds along the path, from the forces on atoms."""

    @property
    def flips(self) -> int:
        """How often the force changes its sign, parts below `STILL` apart: 1 for a bond."""
        sign = np.sign(np.where(np.abs(self.force) < STILL, 0, self.force))
        sign = sign[sign != 0]
        return int((np.diff(sign) != 0).sum())

    @property
    def minima(self) -> int:
        """How often the path goes from being pushed outwards to being pulled back."""
        sign = np.sign(np.where(np.abs(self.force) < STILL, 0, self.force))
        sign = sign[sign != 0]
        return int((np.diff(sign) < 0).sum())

    @property
    def jump(self) -> float:
        """The largest third difference of the force, eV/Å: of the order of the cube of the step where it is
        smooth, of the size of a jump where there is one."""
        return float(np.abs(np.diff(self.force, n=3)).max(initial=0.0))

    @property
    def mismatch(self) -> float:
        """The largest difference, eV, of the energy between two points and the force between them by
        Simpson's rule over pairs of steps."""
        h = np.diff(self.at)
        if len(self.at) < 3 or not np.allclose(h, h[0]):
            return 0.0
        f = self.force
        work = -(h[0] / 3) * (f[:-2] + 4 * f[1:-1] + f[2:])
        return float(np.abs(self.energy[2:] - self.energy[:-2] - work).max())


def dimer(predict: Predict, pair: tuple[int, int], *, distances: np.ndarray) -> Scan:
    """Two atoms alone, at distances (n,), Å."""
    z = np.array(pair)
    some = [Structure(z, np.array([[0, 0, 0], [0, 0, r]])) for r in distances]
    found = predict(some)
    return Scan(np.asarray(distances), found.energy, found.forces.reshape(-1, 2, 3)[:, 1, 2])


def compression(predict: Predict, structure: Structure, *, factors: np.ndarray) -> Scan:
    """A structure whose lengths, cell included, are scaled by factors (n,); the force is by the factor, for
    molecules alone (zero for crystals)."""
    at = whole(structure)
    center = at.positions.mean(0)
    some = [at._replace(positions=at.positions - center).turned(s * np.eye(3)).structure for s in factors]
    found = predict(some)
    forces = found.forces.reshape(len(some), -1, 3)
    along = np.einsum("bai,ai->b", forces, at.positions - center)
    return Scan(np.asarray(factors), found.energy, np.zeros_like(along) if at.pbc.any() else along)


def holes(scan: Scan, *, energy: float, n_atoms: int, depth: float = BAD["hole"]) -> int:
    """How many points of a compression lie `depth` eV an atom below `energy` (eV) of the structure at
    rest."""
    return int(((scan.energy - energy) / n_atoms < -depth).sum())


def bond_scans(
    predict: Predict,
    structure: Structure,
    *,
    factors: tuple[float, float] = (0.7, 1.8),
    step: float = 0.01,
    least_distance: float = 0.35,
) -> list[Scan]:
    """Bonds of a molecule that are in no ring, one after another: the smaller part is moved as a whole along
    the bond, to `factors` times its length in steps (Å). No two atoms come nearer than `least_distance`,
    Å."""
    at = whole(structure)
    bonds = bonded_pairs(at.species, at.positions)
    scans = []
    for i, j in bonds.tolist():
        part = hanging(bonds, i, j)
        if i in part:
            continue  # a ring
        if len(part) > len(at.species) / 2:
            i, j, part = j, i, set(range(len(at.species))) - part
        moved = np.array(sorted(part))
        v = at.positions[j] - at.positions[i]
        r = float(np.linalg.norm(v))
        unit = v / r
        places: list[Structure] = []
        lengths: list[float] = []
        for length in np.arange(factors[0] * r, factors[1] * r, step):
            x = at.positions.copy()
            x[moved] += (length - r) * unit
            apart = np.linalg.norm(x[None, moved] - np.delete(x, moved, axis=0)[:, None], axis=-1)
            if apart.min() < least_distance:
                places, lengths = [], []  # only what is further out is one path
                continue
            places.append(at.at(x))
            lengths.append(length)
        if len(places) < 4:
            continue
        found = predict(places)
        forces = found.forces.reshape(len(places), -1, 3)[:, moved].sum(1) @ unit
        scans.append(Scan(np.array(lengths), found.energy, forces))
    return scans
