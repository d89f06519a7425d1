"""What a potential should not do is found where it does it, at its size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sapis_lab.augmentation import random_rotations
from sapis_lab.config import kind_class
from sapis_lab.observables import physicality
from sapis_lab.observables.surfaces import Found, of_oracle, whole
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.potential import Potential
from sapis_lab.structures import Structure

FAMILIES = ("geat", "nequip", "allegro", "transformer")
LJ = of_oracle(
    LennardJonesConfig(atoms={"Ar": LennardJonesAtom(epsilon=0.5, sigma=1.5)}, cutoff=5.0, switch_start=4.0)
)


def cluster() -> Structure:
    x = np.array([[0, 0, 0], [1.7, 0, 0], [0.8, 1.4, 0.1], [0.9, 0.5, 1.5]])
    return Structure(np.full(4, 18), x + 0.3)


def ethanol() -> Structure:
    from ase.build import molecule

    atoms = molecule("CH3CH2OH")
    x = atoms.positions + 0.05 * np.random.default_rng(0).normal(size=(9, 3))
    return Structure(atoms.numbers, x)


class Wrong:
    """A good surface with one fault of a known size."""

    def __init__(self, *, field: float = 0.0, swirl: float = 0.0, long: float = 0.0) -> None:
        self.field, self.swirl, self.long = field, swirl, long

    def __call__(self, structures: Any, /, *, stress: bool = False) -> Found:
        found = LJ(structures)
        energy, forces, first = found.energy.copy(), found.forces.copy(), 0
        for k, s in enumerate(structures):
            x, f = s.positions, forces[first : first + len(s.positions)]
            energy[k] -= self.field * x[:, 0].sum() + self.long * len(x) ** 2
            f[:, 0] += self.field
            f[:, 0] += self.swirl * x[:, 1]  # no gradient of anything
            f[:, 2] += self.long * (len(x) - 4)
            first += len(x)
        return Found(energy, forces)


def test_a_good_surface_is_at_rounding_in_everything() -> None:
    at = cluster()
    turns = random_rotations(6, seed=0, step=0)
    bar = physicality.AT_ROUNDING
    for found in (
        physicality.translated(LJ, at, by=np.array([3.0, -2.0, 7.0])),
        physicality.turned(LJ, at, turns=turns),
        physicality.reordered(LJ, at, order=np.array([2, 0, 3, 1])),
    ):
        assert found.energy < bar["energy"] and found.force < bar["force"]
    assert physicality.extensivity(LJ, at) < bar["energy"]
    assert physicality.ghost_atoms(LJ, at, species=[18, 18]) < bar["force"]
    assert physicality.force_antisymmetry(LJ, at, cutoff=5.0) < bar["antisymmetry"]


def test_every_fault_is_found_at_its_size() -> None:
    at = cluster()
    field = Wrong(field=0.1)
    assert physicality.translated(field, at, by=np.array([2.0, 0, 0])).energy == pytest.approx(0.2)
    assert 0.05 < physicality.turned(field, at, turns=random_rotations(9, seed=0, step=0)).force < 0.21
    assert physicality.extensivity(Wrong(long=0.01), at) == pytest.approx(0.01 * (64 - 32) / 8)
    assert physicality.ghost_atoms(Wrong(long=0.01), at, species=[18, 18]) == pytest.approx(0.02)
    clean = physicality.force_antisymmetry(LJ, at)
    assert clean < 1e-9 < 1e-3 < physicality.force_antisymmetry(Wrong(swirl=0.2), at)


def test_a_dimer_of_lennard_jones_has_one_minimum_and_one_change_of_sign() -> None:
    scan = physicality.dimer(LJ, (18, 18), distances=np.arange(1.2, 5.5, 0.02))
    assert (scan.flips, scan.minima) == (1, 1) and scan.mismatch < 2e-3
    bumpy = scan._replace(force=scan.force + 0.5 * np.sin(8 * scan.at))
    assert bumpy.flips > 3 and bumpy.minima > 2
    step = scan._replace(force=scan.force + 0.3 * (scan.at > 3.0))
    assert step.jump > 0.29 and scan._replace(force=np.cos(scan.at)).jump < 1e-4


def test_a_hole_is_a_point_100_ev_an_atom_below() -> None:
    scan = physicality.compression(LJ, cluster(), factors=np.linspace(0.6, 1.4, 41))
    rest = float(LJ([cluster()]).energy[0])
    assert physicality.holes(scan, energy=rest, n_atoms=4) == 0
    deep = scan._replace(energy=np.where(scan.at < 0.7, -500.0, scan.energy))
    assert physicality.holes(deep, energy=rest, n_atoms=4) == 5
    slope = -np.gradient(scan.energy, scan.at)
    assert scan.force[21:-1] == pytest.approx(slope[21:-1], rel=0.1, abs=0.1)


def test_bonds_are_scanned_and_rings_left_alone() -> None:
    seen: list[Structure] = []

    def predict(structures: Any, /, *, stress: bool = False) -> Found:
        seen.extend(structures)
        n = len(structures)
        return Found(np.zeros(n), np.zeros((n * len(structures[0].species), 3)))

    at = ethanol()
    scans = physicality.bond_scans(predict, at)
    assert len(scans) == 8
    still = {tuple(np.flatnonzero(np.abs(s.positions - whole(at).positions).max(1) > 1e-12)) for s in seen}
    assert max(len(atoms) for atoms in still) <= 4
    from ase.build import molecule

    ring = molecule("C6H6")
    assert len(physicality.bond_scans(predict, Structure(ring.numbers, ring.positions))) == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_float64_is_at_rounding(family: str) -> None:
    """But for turning, which the transformer learns from data."""
    config = kind_class("models", family)(cutoff=4.0).at_size(3e3, n_species=3)
    model = config.build(species=(1, 6, 8), mean_neighbors=8.0, seed=0).requires_grad_(False).double()
    predict = Potential(model, config, {1: -13.0, 6: -1030.0, 8: -2040.0}, 8.0, {"id": "test"}).predict
    at, bar = ethanol(), physicality.AT_ROUNDING
    changes = [
        physicality.translated(predict, at, by=np.array([3.0, -2.0, 7.0])),
        physicality.reordered(predict, at, order=np.array([5, 0, 3, 1, 2, 8, 7, 4, 6])),
    ]
    turned = physicality.turned(predict, at, turns=random_rotations(6, seed=0, step=0))
    if family == "transformer":
        assert turned.force > 1e-4
    else:
        changes.append(turned)
    for found in changes:
        assert found.energy < bar["energy"] and found.force < bar["force"]
    assert physicality.extensivity(predict, at) < bar["energy"]
    assert physicality.ghost_atoms(predict, at, species=[1, 6, 8]) < bar["force"]
    assert physicality.force_antisymmetry(predict, at, cutoff=4.0) < bar["antisymmetry"]
