"""Walks inside OpenMM are held where the springs say, and their samples are those of the force field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_force_field_oracles import ALANINE

from sapis_lab import units
from sapis_lab.geometry.coordinates import difference, values
from sapis_lab.oracles import TorsionWalk
from sapis_lab.oracles.openmm import OpenmmConfig, pdb_structure

OMEGA = (1, 4, 6, 8)
KT = units.KB * 300


@pytest.fixture
def molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """N-methylacetamide with its force field."""
    pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")
    (tmp_path / "dipeptide.pdb").write_text(ALANINE)
    monkeypatch.setenv("SAPIS_DATA", str(tmp_path))
    oracle = OpenmmConfig(topology="dipeptide.pdb", force_field=("amber99sbildn.xml",), nonbonded="all")
    return oracle, pdb_structure(tmp_path / "dipeptide.pdb")


def walk(molecule, *, stiffness, seed=0):
    oracle, structure = molecule
    made = TorsionWalk(
        oracle,
        structure.species,
        structure.positions,
        torsions=(OMEGA,),
        stiffness=(stiffness,),
        temperature=300.0,
        friction=0.01,
        timestep=1.0,
        seed=seed,
    )
    made.place([values(structure.positions, OMEGA)])
    return made


@pytest.mark.parametrize("angle", [150.0, -150.0])
def test_a_torsion_is_held_at_the_angle_that_was_asked_for(molecule, angle):
    made = walk(molecule, stiffness=400 * KT)
    made.move([np.deg2rad(angle)], n_steps=2000)
    found = values(made.run(4000, every=20), OMEGA)
    assert found.shape == (200,)
    apart = np.rad2deg(difference(found, np.deg2rad(angle), period=2 * np.pi))
    assert np.abs(apart.mean()) < 20 and apart.std() < 10
    # the peptide bond pulls it towards 180 degrees
    assert np.sign(apart.mean()) == np.sign(angle)


def test_a_walk_repeats_with_its_seed_alone(molecule):
    first, again, other = (walk(molecule, stiffness=10 * KT, seed=s).run(200, every=50) for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_without_springs_bonds_have_the_energy_of_their_temperature(molecule):
    """The bond C=O is harmonic and stiff: its spread is sqrt(kT/k)."""
    made = walk(molecule, stiffness=0.0)
    made.run(2000, every=100)
    length = np.linalg.norm(np.diff(made.run(30_000, every=10)[:, [4, 5]], axis=1)[:, 0], axis=1)
    k = 2 * 570.0 * units.KCAL_PER_MOL_TO_EV  # AMBER: 570 kcal/mol/Å², twice for a half
    assert length.std() == pytest.approx(np.sqrt(KT / k), rel=0.12)
