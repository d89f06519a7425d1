"""Potentials of our own: values of the papers, forces and stress against differences of the energy, and other
programs."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from sapis_lab import units
from sapis_lab.config import ConfigError, load
from sapis_lab.oracles import Failed, Labels
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.oracles.tersoff import TersoffConfig

LENNARD_JONES_DATA = Path(os.environ.get("SAPIS_DATA", "/nonexistent")) / "lennard_jones"
REDUCED = LennardJonesConfig(
    atoms={"Ar": LennardJonesAtom(epsilon=1.0, sigma=1.0)}, cutoff=3.0, truncation="cut", switch_start=0.0
)


def label(oracle, atoms: Atoms) -> Labels:
    found = oracle.label(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
    assert isinstance(found, Labels)
    return found


def rattled(atoms: Atoms, amount: float = 0.1) -> Atoms:
    """Atoms and cell of low symmetry."""
    generator = np.random.default_rng(1)
    strain = np.eye(3) + 0.03 * generator.standard_normal((3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += amount * generator.standard_normal(atoms.positions.shape)
    return atoms


CASES = {
    "argon, switched": (LennardJonesConfig(cutoff=8.0, switch_start=6.0), bulk("Ar", "fcc", 5.3, cubic=True)),
    "mixture, shifted": (
        LennardJonesConfig(
            atoms={
                "Ar": LennardJonesAtom(epsilon=0.01, sigma=3.4),
                "Kr": LennardJonesAtom(epsilon=0.014, sigma=3.65),
            },
            truncation="shifted",
            cutoff=7.0,
        ),
        Atoms("ArKr3", bulk("Ar", "fcc", 5.5, cubic=True).positions, cell=[5.5] * 3, pbc=True),
    ),
    "argon, with its tail": (
        LennardJonesConfig(cutoff=7.0, truncation="cut", tail=True),
        bulk("Ar", "fcc", 5.3, cubic=True),
    ),
    "silicon, Stillinger-Weber": (StillingerWeberConfig(), bulk("Si", "diamond", 5.4, cubic=True)),
    "silicon, Tersoff": (TersoffConfig(), bulk("Si", "diamond", 5.4, cubic=True)),
    "silicon carbide, Tersoff": (TersoffConfig(), bulk("SiC", "zincblende", 4.32, cubic=True)),
    "a cell smaller than the cutoff": (StillingerWeberConfig(), bulk("Si", "diamond", 5.4)),
}


@pytest.fixture(params=CASES)
def case(request):
    oracle, atoms = CASES[request.param]
    return oracle, rattled(atoms.copy(), 0.05)


def test_forces_are_minus_the_gradient(case):
    oracle, atoms = case
    forces, h = label(oracle, atoms).forces, 1e-5
    for atom, axis in ((0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * h
            ends.append(label(oracle, moved).energy)
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * h), abs=1e-7, rel=1e-6)
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-10)


def test_stress_is_the_derivative_by_strain_over_the_volume(case):
    oracle, atoms = case
    stress, h = label(oracle, atoms).stress, 1e-6
    for a, b in ((0, 0), (0, 1), (2, 1)):
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            ends.append(label(oracle, moved).energy)
        wanted = (ends[0] - ends[1]) / (2 * h) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(wanted, abs=1e-8, rel=1e-5)


def test_a_larger_cell_holds_that_many_energies(case):
    oracle, atoms = case
    assert label(oracle, atoms.repeat((2, 1, 2))).energy == pytest.approx(4 * label(oracle, atoms).energy)


@pytest.mark.parametrize(
    ("oracle", "atoms", "energy"),
    [
        # -2 epsilon, with the paper's 50 kcal/mol
        (StillingerWeberConfig(), bulk("Si", "diamond", 5.431), -100 * units.KCAL_PER_MOL_TO_EV),
        # Tersoff 1988 and 1989, tables of lattice constants and cohesive energies
        (TersoffConfig(), bulk("C", "diamond", 3.566), -7.371),
        (TersoffConfig(), bulk("Si", "diamond", 5.432), -4.630),
        (TersoffConfig(), bulk("Ge", "diamond", 5.657), -3.85),
    ],
    ids=["SW silicon", "carbon", "silicon", "germanium"],
)
def test_diamond_lattices_have_their_published_energies_and_are_at_rest(oracle, atoms, energy):
    found = label(oracle, atoms)
    assert found.energy / len(atoms) == pytest.approx(energy, abs=7e-4)
    assert np.abs(found.stress).max() < 2e-3 and np.abs(found.forces).max() < 1e-10


def test_stillinger_weber_silicon_has_its_published_elastic_constants():
    """Balamane, Halicioglu & Tiller, Phys. Rev. B 46, 2250 (1992): C11 = 1.616, C12 = 0.816
    Mbar with their larger epsilon, 2.315 eV."""
    oracle = StillingerWeberConfig(epsilon=2.315)
    atoms, h = bulk("Si", "diamond", 5.431, cubic=True), 1e-5
    strained = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ np.diag([1 + sign * h, 1, 1]), scale_atoms=True)
        strained.append(label(oracle, moved).stress / GPa)
    slope = (strained[0] - strained[1]) / (2 * h)
    assert slope[0, 0] == pytest.approx(161.6, abs=1.0) and slope[1, 1] == pytest.approx(81.6, abs=0.7)


@pytest.mark.parametrize(
    ("formula", "lattice", "a"), [("C", "diamond", 3.6), ("Si", "diamond", 5.5), ("SiC", "zincblende", 4.3)]
)
def test_tersoff_agrees_with_ase(formula, lattice, a):
    ase_tersoff = pytest.importorskip("ase.calculators.tersoff", reason="Tersoff is in ASE from 3.25 on")
    known = TersoffConfig().atoms

    def entry(i: str, j: str, k: str):
        """Pairs' parameters from i and j; the cutoff that of i and k."""
        chi = 1.0 if i == j else 0.9776
        begin, end = np.sqrt(known[i].R * known[k].R), np.sqrt(known[i].S * known[k].S)
        return ase_tersoff.TersoffParameters(
            m=3.0,
            gamma=1.0,
            lambda3=0.0,
            **{name: getattr(known[i], name) for name in ("c", "d", "h", "n", "beta")},
            lambda1=(known[i].lam + known[j].lam) / 2,
            lambda2=(known[i].mu + known[j].mu) / 2,
            A=np.sqrt(known[i].A * known[j].A),
            B=chi * np.sqrt(known[i].B * known[j].B),
            R=(begin + end) / 2,
            D=(end - begin) / 2,
        )

    atoms = rattled(bulk(formula, lattice, a, cubic=True))
    symbols = sorted(set(atoms.get_chemical_symbols()))
    found = label(TersoffConfig(), atoms)
    atoms.calc = ase_tersoff.Tersoff({ijk: entry(*ijk) for ijk in product(symbols, repeat=3)})
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-6)
    np.testing.assert_allclose(found.stress, atoms.get_stress(voigt=False), atol=1e-6)


def test_lennard_jones_agrees_with_ase():
    from ase.calculators.lj import LennardJones

    oracle = LennardJonesConfig(
        atoms={"Ar": LennardJonesAtom(epsilon=0.0103, sigma=3.4)}, cutoff=8.0, truncation="shifted"
    )
    atoms = rattled(bulk("Ar", "fcc", 5.3, cubic=True))
    found = label(oracle, atoms)
    atoms.calc = LennardJones(epsilon=0.0103, sigma=3.4, rc=8.0)
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(found.stress, atoms.get_stress(voigt=False), atol=1e-10)


def open_mm_energy_and_forces(force, atoms: Atoms) -> tuple[float, np.ndarray]:
    """eV and eV/Å of one OpenMM force on the periodic atoms, by the Reference platform."""
    import openmm
    from openmm import unit

    system = openmm.System()
    for _ in atoms:
        system.addParticle(28.0)
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    system.addForce(force)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(0.1 * atoms.positions)
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * units.KJ_PER_MOL_TO_EV
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energy, forces * units.KJ_PER_MOL_TO_EV / 10


def test_switched_lennard_jones_agrees_with_openmm():
    openmm = pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")
    oracle = LennardJonesConfig(cutoff=8.0, switch_start=6.0)
    argon = oracle.atoms["Ar"]
    atoms = bulk("Ar", "fcc", 5.4, cubic=True).repeat((4, 4, 4))
    atoms.positions += 0.2 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.6)
    force.setUseDispersionCorrection(False)
    for _ in atoms:
        force.addParticle(0.0, 0.1 * argon.sigma, argon.epsilon / units.KJ_PER_MOL_TO_EV)
    energy, forces = open_mm_energy_and_forces(force, atoms)
    found = label(oracle, atoms)
    assert found.energy == pytest.approx(energy, rel=1e-7)
    np.testing.assert_allclose(found.forces, forces, atol=1e-7)


def test_stillinger_weber_agrees_with_a_custom_force_of_openmm():
    openmm = pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")
    oracle = StillingerWeberConfig()
    two, three = (
        openmm.CustomNonbondedForce("select(step(a-s), eps*A*(B/s^4-1)*exp(1/min(s-a,-1e-6)), 0); s=r/sig"),
        openmm.CustomManyParticleForce(
            3,
            "select(step(a-s)*step(a-t), eps*lam*(cos(angle(p2,p1,p3))+1/3)^2*exp(gam/min(s-a,-1e-6)"
            "+gam/min(t-a,-1e-6)), 0); s=distance(p1,p2)/sig; t=distance(p1,p3)/sig",
        ),
    )
    numbers = {
        "a": oracle.a,
        "eps": oracle.epsilon / units.KJ_PER_MOL_TO_EV,
        "sig": 0.1 * oracle.sigma,
        "A": oracle.A,
        "B": oracle.B,
        "lam": oracle.strength,
        "gam": oracle.gamma,
    }
    for name, value in numbers.items():
        if name not in ("lam", "gam"):
            two.addGlobalParameter(name, value)
        if name not in ("A", "B"):
            three.addGlobalParameter(name, value)
    three.setPermutationMode(openmm.CustomManyParticleForce.UniqueCentralParticle)
    atoms = bulk("Si", "diamond", 5.4, cubic=True).repeat((2, 2, 2))
    atoms.positions += 0.1 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    for force, method in ((two, two.CutoffPeriodic), (three, three.CutoffPeriodic)):
        force.setNonbondedMethod(method)
        force.setCutoffDistance(0.1 * oracle.cutoff)
        for _ in atoms:
            force.addParticle([])
        e, f = open_mm_energy_and_forces(force, atoms)
        energy, forces = energy + e, forces + f
    found = label(oracle, atoms)
    assert found.energy == pytest.approx(energy, rel=1e-7)
    np.testing.assert_allclose(found.forces, forces, atol=1e-6)


def test_the_configuration_of_nist_has_its_energy_and_tail():
    path = LENNARD_JONES_DATA / "lj_sample_config_periodic4.xyz"
    if not path.exists():
        pytest.skip("needs $SAPIS_DATA/lennard_jones")
    rows = [line.split() for line in path.read_text().splitlines()]
    box = np.diag([float(x) for x in rows[1][1:]])
    positions = np.array([[float(x) for x in row[1:]] for row in rows[2:]])
    given = np.full(len(positions), 18), positions
    plain = REDUCED.label(*given, cell=box, pbc=np.ones(3, bool)).energy
    assert plain == pytest.approx(-16.790, abs=6e-4)
    more = REDUCED.model_copy(update={"tail": True}).label(*given, cell=box, pbc=np.ones(3, bool)).energy
    assert more - plain == pytest.approx(-0.54517, abs=6e-6)


def test_two_atoms_have_the_energy_of_the_formula_and_open_structures_have_no_stress():
    found = REDUCED.label(np.array([18, 18]), np.array([[0.0, 0, 0], [2 ** (1 / 6), 0, 0]]))
    assert found.energy == pytest.approx(-1.0) and np.abs(found.forces).max() < 1e-12
    assert found.stress is None
    assert REDUCED.label(np.array([18]), np.zeros((1, 3))).energy == 0.0


@pytest.mark.parametrize("oracle", [StillingerWeberConfig(), TersoffConfig()], ids=lambda o: o.kind)
def test_energy_and_forces_go_to_zero_at_the_cutoff_and_a_lone_bond_has_finite_forces(oracle):
    end = oracle.cutoff if isinstance(oracle, StillingerWeberConfig) else oracle.atoms["Si"].S
    for distance, near in ((end - 1e-4, True), (2.4, False)):
        found = oracle.label(np.array([14, 14]), np.array([[0.0, 0, 0], [distance, 0, 0]]))
        assert np.isfinite(found.forces).all()
        assert (abs(found.energy) < 1e-5 and np.abs(found.forces).max() < 2e-2) == near


def test_atoms_on_top_of_each_other_are_a_failure_and_no_number():
    found = REDUCED.label(np.array([18, 18]), np.zeros((2, 3)))
    assert isinstance(found, Failed) and "not finite" in found.reason


def test_elements_without_parameters_are_refused():
    with pytest.raises(ValueError, match="oracle 'lennard_jones' has parameters for Ar, got Kr as well"):
        REDUCED.label(np.array([18, 36]), np.array([[0.0, 0, 0], [3, 0, 0]]))
    with pytest.raises(ValueError, match="knows no chi of C, Ge together"):
        TersoffConfig().label(np.array([6, 32]), np.array([[0.0, 0, 0], [2, 0, 0]]))


@pytest.mark.parametrize(
    ("cls", "raw", "message"),
    [
        (LennardJonesConfig, {"cutoff": 5}, r"switch_start=9\.0 is not below cutoff=5\.0 Å"),
        (LennardJonesConfig, {"tail": True}, "tail belongs to truncation: cut, got switched"),
        (LennardJonesConfig, {"atoms": {"Xx": {"epsilon": 1, "sigma": 1}}}, "wanted chemical symbols"),
        (StillingerWeberConfig, {"element": "Silicon"}, "wanted a chemical symbol such as Si"),
        (TersoffConfig, {"mixing": [{"elements": ["C", "C"], "chi": 1}]}, "an element with itself"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(cls, raw, message):
    with pytest.raises(ConfigError, match=message):
        load(cls, {"kind": cls.model_fields["kind"].default, **raw}, source="x")
