"""Force fields of OpenMM and RDKit: forces are gradients, wrapped and whole molecules are the same, and what
a force field knows nothing about is no number."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import ConfigError, load
from sapis_lab.oracles import Failed, Labels
from sapis_lab.oracles.mmff import MmffConfig, conformers
from sapis_lab.oracles.openmm import OpenmmConfig, pdb_structure

WATER_BOX = (np.tile([8, 1, 1], 27), 3 * 3.104)
BOX = {"cell": WATER_BOX[1] * np.eye(3), "pbc": np.ones(3, dtype=bool)}
SMALL = {"cutoff": 4.5, "switch_start": 4.0}

ALANINE = """\
ATOM      1 1HH3 ACE     1       4.300  13.100   8.600  1.00  0.00
ATOM      2  CH3 ACE     1       5.200  13.600   8.800  1.00  0.00
ATOM      3 2HH3 ACE     1       4.900  14.300   9.600  1.00  0.00
ATOM      4 3HH3 ACE     1       5.600  14.200   7.900  1.00  0.00
ATOM      5  C   ACE     1       6.100  12.500   9.400  1.00  0.00
ATOM      6  O   ACE     1       6.400  12.500  10.600  1.00  0.00
ATOM      7  N   NME     2       6.600  11.600   8.500  1.00  0.00
ATOM      8  H   NME     2       6.500  11.600   7.500  1.00  0.00
ATOM      9  CH3 NME     2       7.300  10.400   9.100  1.00  0.00
ATOM     10 1HH3 NME     2       7.900  10.700  10.000  1.00  0.00
ATOM     11 2HH3 NME     2       6.600   9.600   9.400  1.00  0.00
ATOM     12 3HH3 NME     2       8.000  10.000   8.300  1.00  0.00
TER
END
"""


@pytest.fixture
def openmm():
    return pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")


@pytest.fixture
def rdkit():
    return pytest.importorskip("rdkit", reason="molecules from SMILES need the extra [chem]")


def water_positions() -> np.ndarray:
    generator = np.random.default_rng(0)
    water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
    places = []
    for place in np.ndindex(3, 3, 3):
        turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
        places.append(water @ turn + 3.104 * np.array(place))
    return np.concatenate(places) + 0.02 * generator.standard_normal((81, 3))


def difference(energy, positions: np.ndarray, atom: int, axis: int, h: float = 1e-4) -> float:
    """Minus the slope of an energy."""
    up, down = positions.copy(), positions.copy()
    up[atom, axis] += h
    down[atom, axis] -= h
    return -(energy(up) - energy(down)) / (2 * h)


@pytest.mark.parametrize("nonbonded", ["pme", "cutoff"])
def test_forces_of_a_water_box_are_minus_the_gradient_and_have_no_sum(openmm, nonbonded):
    oracle, x = OpenmmConfig(nonbonded=nonbonded, **SMALL), water_positions()
    forces = oracle.label(WATER_BOX[0], x, **BOX).forces
    for atom, axis in ((0, 0), (4, 1), (80, 2)):
        wanted = difference(lambda y: oracle.label(WATER_BOX[0], y, **BOX).energy, x, atom, axis)
        assert forces[atom, axis] == pytest.approx(wanted, abs=2e-4)
    np.testing.assert_allclose(forces.sum(0), 0, atol=5e-3)


def test_molecules_may_be_cut_by_the_boundary_of_the_box(openmm):
    oracle, x = OpenmmConfig(**SMALL), water_positions()
    wrapped = x - np.floor(x / WATER_BOX[1]) * WATER_BOX[1]
    assert np.abs(wrapped[1] - wrapped[0]).max() > 5
    whole, cut = (oracle.label(WATER_BOX[0], y, **BOX) for y in (x, wrapped))
    assert cut.energy == pytest.approx(whole.energy, abs=1e-9)
    np.testing.assert_allclose(cut.forces, whole.forces, atol=1e-9)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_a_label_does_not_depend_on_what_was_asked_before(openmm, platform):
    oracle, x = OpenmmConfig(platform=platform, **SMALL), water_positions()
    first = oracle.label(WATER_BOX[0], x, **BOX)
    for step in range(3):
        oracle.label(WATER_BOX[0], x + 0.3 * (step + 1) * np.random.default_rng(step).random(3), **BOX)
        larger = {**BOX, "cell": (WATER_BOX[1] + 1 + step) * np.eye(3)}
        oracle.label(WATER_BOX[0], x, **larger)
    again = oracle.label(WATER_BOX[0], x, **BOX)
    assert again.energy == first.energy and np.array_equal(again.forces, first.forces)


def test_flexible_water_has_the_energy_of_its_bonds_and_angle(openmm):
    """tip3p.xml: k = 462750.4 kJ/mol/nm² about 0.09572 nm; 836.8 kJ/mol/rad² about 1.82421813418 rad."""
    oracle = OpenmmConfig(nonbonded="all", force_field=("amber14/tip3p.xml",))
    r, theta = 1.0, 1.82421813418
    x = np.array([[0.0, 0, 0], [r, 0, 0], [0.9572 * np.cos(theta), 0.9572 * np.sin(theta), 0]])
    found = oracle.label(np.array([8, 1, 1]), x)
    assert found.energy == pytest.approx(
        0.5 * 462750.4 * (0.1 - 0.09572) ** 2 * units.KJ_PER_MOL_TO_EV, rel=1e-6
    )


@pytest.mark.parametrize(
    "force_field", [("amber99sbildn.xml", "amber99_obc.xml"), ("amber14-all.xml", "implicit/obc2.xml")]
)
def test_a_molecule_of_a_pdb_file_in_implicit_solvent(openmm, tmp_path, monkeypatch, force_field):
    (tmp_path / "dipeptide.pdb").write_text(ALANINE)
    monkeypatch.setenv("SAPIS_DATA", str(tmp_path))
    there = pdb_structure(tmp_path / "dipeptide.pdb")
    assert there.species.tolist() == [1, 6, 1, 1, 6, 8, 7, 1, 6, 1, 1, 1] and there.cell is None
    oracle = OpenmmConfig(topology="dipeptide.pdb", nonbonded="all", force_field=force_field)
    assert oracle.files() == ("dipeptide.pdb",) and OpenmmConfig().files() == ()
    forces = oracle.label(there.species, there.positions).forces
    for atom, axis in ((1, 0), (6, 2)):
        wanted = difference(lambda y: oracle.label(there.species, y).energy, there.positions, atom, axis)
        assert forces[atom, axis] == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ValueError, match=r"dipeptide\.pdb: atom 0 is H, in the structure C"):
        oracle.label(there.species[[1, 0, *range(2, 12)]], there.positions)
    with pytest.raises(ValueError, match=r"has 12 atoms, the structure 3"):
        oracle.label(np.array([8, 1, 1]), np.eye(3))


def test_alanine_dipeptide_has_the_energy_of_openmm_alone(openmm):
    path = Path(os.environ.get("SAPIS_DATA", "/nonexistent")) / "alanine_dipeptide" / "ala2.pdb"
    if not path.exists():
        pytest.skip("needs $SAPIS_DATA/alanine_dipeptide")
    from openmm import app, unit

    there = pdb_structure(path)
    oracle = OpenmmConfig(
        topology="alanine_dipeptide/ala2.pdb",
        nonbonded="all",
        force_field=("amber99sbildn.xml", "amber99_obc.xml"),
    )
    pdb = app.PDBFile(str(path))
    system = app.ForceField("amber99sbildn.xml", "amber99_obc.xml").createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff
    )
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(pdb.positions)
    energy = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    found = oracle.label(there.species, there.positions)
    assert found.energy == pytest.approx(energy * units.KJ_PER_MOL_TO_EV, abs=1e-9)


def test_what_openmm_cannot_label_is_said(openmm):
    z, x = WATER_BOX[0], water_positions()
    with pytest.raises(ValueError, match="nonbonded=all is for open structures, got a periodic one"):
        OpenmmConfig(nonbonded="all").label(z, x, **BOX)
    with pytest.raises(ValueError, match="nonbonded=pme is for periodic structures, got an open one"):
        OpenmmConfig().label(z, x)
    with pytest.raises(ValueError, match="wants molecules as O H H"):
        OpenmmConfig(**SMALL).label(z[::-1], x, **BOX)
    with pytest.raises(ValueError, match="cutoff distance cannot be greater than half"):
        OpenmmConfig().label(z, x, **BOX)
    with pytest.raises(ValueError, match=r'Could not locate file "nosuch\.xml"'):
        OpenmmConfig(force_field=("nosuch.xml",)).label(z, x, **BOX)
    with pytest.raises(ValueError, match=r"got pbc=\[True, True, False\]"):
        OpenmmConfig(**SMALL).label(z, x, cell=BOX["cell"], pbc=np.array([True, True, False]))
    with pytest.raises(ConfigError, match=r"switch_start=8\.0 is not below cutoff=6\.0"):
        load(OpenmmConfig, {"cutoff": 6}, source="x")


def test_a_bond_that_cannot_be_is_a_failure(openmm, rdkit):
    broken = np.array([[0.0, 0, 0], [4.0, 0, 0], [0, 0.96, 0]])
    found = OpenmmConfig(nonbonded="all").label(np.array([8, 1, 1]), broken)
    assert isinstance(found, Failed) and "the bond of atoms 0 and 1 is 4.00 Å long" in found.reason
    ethanol = conformers("CCO", 1, seed=0)
    swapped = ethanol.positions[0][[0, 1, 2, 8, 7, 6, 5, 4, 3]]
    found = MmffConfig().label(ethanol.species, swapped)
    assert isinstance(found, Failed) and "atoms are in another order than in smiles CCO" in found.reason


@pytest.mark.parametrize("method", ["MMFF94", "MMFF94s", "UFF"])
@pytest.mark.parametrize("smiles", ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "c1ccncc1"])
def test_forces_of_small_molecules_are_minus_the_gradient_and_rdkits_own(rdkit, method, smiles):
    from rdkit import Chem
    from rdkit.Chem import AllChem

    oracle, made = MmffConfig(smiles=smiles, method=method), conformers(smiles, 1, seed=3)
    x = made.positions[0] + 0.05 * np.random.default_rng(0).standard_normal(made.positions[0].shape)
    found = oracle.label(made.species, x)
    for atom, axis in ((0, 0), (1, 2), (-1, 1)):
        wanted = difference(lambda y: oracle.label(made.species, y).energy, x, atom, axis)
        assert found.forces[atom, axis] == pytest.approx(wanted, abs=1e-5)
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    conformer = Chem.Conformer(len(x))
    for k, place in enumerate(x.tolist()):
        conformer.SetAtomPosition(k, place)
    molecule.AddConformer(conformer)
    field = (
        AllChem.UFFGetMoleculeForceField(molecule)
        if method == "UFF"
        else AllChem.MMFFGetMoleculeForceField(
            molecule, AllChem.MMFFGetMoleculeProperties(molecule, mmffVariant=method)
        )
    )
    assert found.energy == pytest.approx(field.CalcEnergy() * units.KCAL_PER_MOL_TO_EV, abs=1e-9)


def test_two_molecules_of_one_smiles_see_each_other(rdkit):
    methane = conformers("C", 1, seed=0).positions[0]
    oracle, species = MmffConfig(smiles="C.C"), np.array([6, 6, *[1] * 8])

    def energy(distance: float) -> float:
        other = methane + [distance, 0, 0]
        return oracle.label(species, np.concatenate([methane[:1], other[:1], methane[1:], other[1:]])).energy

    assert energy(4.0) < energy(50.0) - 1e-3
    with pytest.raises(ValueError, match="has several molecules"):
        conformers("O.O", 1, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**62])
def test_conformers_of_any_seed_differ_from_each_other(rdkit, seed):
    made = conformers("CCCO", 4, seed=seed).positions
    assert min(np.abs(a - b).max() for k, a in enumerate(made) for b in made[:k]) > 0.1


def test_conformers_are_those_of_the_seed_and_lie_at_minima(rdkit):
    made, again, other = (conformers("CCCO", 3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(made.positions, again.positions)
    assert not np.array_equal(made.positions, other.positions)
    assert made.positions.shape == (3, 12, 3)
    for x in made.positions:
        found = MmffConfig(smiles="CCCO").label(made.species, x)
        assert isinstance(found, Labels) and np.abs(found.forces).max() < 1e-2


def test_smiles_that_cannot_be_read_and_other_molecules_are_refused(rdkit):
    with pytest.raises(ValueError, match=r"smiles 'C\(' cannot be read"):
        MmffConfig(smiles="C(").label(np.array([6]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="has the atoms CCOHHHHHH in this order, got OHH"):
        MmffConfig().label(np.array([8, 1, 1]), np.eye(3))
    with pytest.raises(ValueError, match="MMFF94 has no parameters for an atom of smiles"):
        MmffConfig(smiles="[Xe]").label(np.array([54]), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("oracle", "modules", "extra"),
    [
        (MmffConfig(smiles="CCCCO"), ("rdkit", "rdkit.Chem"), "chem"),
        (OpenmmConfig(nonbonded="all", cutoff=9.5), ("openmm", "openmm.app"), "ff"),
    ],
    ids=["mmff", "openmm"],
)
def test_without_its_package_the_error_names_the_extra(monkeypatch, oracle, modules, extra):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'sapis-lab\[{extra}\]'"):
        oracle.label(np.array([8, 1, 1]), np.eye(3))
