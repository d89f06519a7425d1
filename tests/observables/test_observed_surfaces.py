"""Vibrations, equations of state, elastic constants and phonons against closed forms and other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.observables import crystals, minima, vibrations
from sapis_lab.observables.surfaces import Found, of_oracle
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.structures import Structure

PERIODIC = np.ones(3, dtype=bool)


def crystal(name: str, lattice: str, a: float) -> Structure:
    from ase.build import bulk

    atoms = bulk(name, lattice, a=a, cubic=True)
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, PERIODIC)


def springs(matrix: np.ndarray, rest: np.ndarray) -> Any:
    """A harmonic surface (3n, 3n) about `rest`."""

    def predict(structures: Any, /, *, stress: bool = False) -> Found:
        d = np.array([(s.positions - rest).ravel() for s in structures])
        return Found(0.5 * np.einsum("bi,ij,bj->b", d, matrix, d), -(d @ matrix).reshape(-1, 3))

    return predict


# ------------------------------------------------------------------------------------------------- vibrations


def test_the_hessian_of_springs_is_their_matrix_in_any_order_of_the_differences() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(9, 9))
    matrix, rest = root @ root.T, generator.normal(size=(3, 3))
    at = Structure(np.array([8, 1, 1]), rest + 0.1)
    for order in vibrations.STENCILS:
        assert vibrations.hessian(springs(matrix, rest), at, order=order) == pytest.approx(matrix, abs=1e-9)
    some = vibrations.jacobian(springs(matrix, rest), at, coordinates=np.array([4, 1]), at_a_time=3)
    assert some == pytest.approx(matrix[:, [4, 1]], abs=1e-9)


def test_no_more_structures_are_predicted_at_once_than_asked_for() -> None:
    seen = []
    inner = springs(np.eye(6), np.zeros((2, 3)))

    def predict(structures: Any, /, *, stress: bool = False) -> Found:
        seen.append(len(structures))
        return inner(structures)

    vibrations.jacobian(predict, Structure(np.array([1, 1]), np.zeros((2, 3))), at_a_time=5)
    assert max(seen) == 5 and sum(seen) == 4 * 6


def test_a_diatomic_has_one_line_at_the_root_of_stiffness_over_reduced_mass() -> None:
    k, masses = 30.0, np.array([1.008, 34.97])
    x = np.array([[0, 0, 0], [0.3, 0.4, 1.2]])
    u = (x[1] - x[0]) / 1.3
    block = k * np.outer(u, u)
    matrix = np.block([[block, -block], [-block, block]])
    found = vibrations.normal_modes(matrix, masses, x)
    reduced = masses.prod() / masses.sum()
    wanted = np.sqrt(k * units.ACCELERATION / reduced) / (2 * np.pi * 2.99792458e-5)
    assert found.wavenumber == pytest.approx([wanted]) and len(found.left_out) == 5
    assert vibrations.zero_point_energy(found.wavenumber) == pytest.approx(0.5 * wanted * 1.239841984e-4)


def test_a_negative_curvature_is_a_negative_wavenumber() -> None:
    matrix = -2.0 * np.eye(3)
    assert (vibrations.normal_modes(matrix, np.ones(1), None).wavenumber < 0).all()


def test_how_far_a_matrix_is_from_symmetric() -> None:
    assert vibrations.antisymmetry(np.eye(3)) == 0
    assert vibrations.antisymmetry(np.array([[1.0, 0.1], [-0.1, 1.0]])) == pytest.approx(0.1)


def test_frequencies_of_ethanol_by_xtb_are_those_of_ase(tmp_path: Any) -> None:
    pytest.importorskip("tblite")
    from ase.build import molecule
    from ase.calculators.calculator import Calculator
    from ase.vibrations import Vibrations

    from sapis_lab.oracles.xtb import XtbConfig

    oracle = XtbConfig(accuracy=1e-3)
    atoms = molecule("CH3CH2OH")
    least = minima.relaxed(of_oracle(oracle), Structure(atoms.numbers, atoms.positions))
    assert least.converged
    atoms.positions = least.structure.positions

    class Labels(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes)
            found = oracle.label(atoms.numbers, atoms.positions)
            self.results = {"energy": found.energy, "forces": found.forces}

    atoms.calc = Labels()
    theirs = Vibrations(atoms, delta=0.005, name=str(tmp_path / "vib"))
    theirs.run()
    wanted = np.sort(theirs.get_frequencies().real)[6:]
    matrix = vibrations.hessian(of_oracle(oracle), least.structure, step=0.005, order=2)
    found = vibrations.normal_modes(matrix, atoms.get_masses(), atoms.positions)
    assert len(found.wavenumber) == 21 and np.abs(found.left_out).max() < 30
    assert found.wavenumber == pytest.approx(wanted, abs=2.0)


# --------------------------------------------------------------------------------------------------- crystals


def test_the_equation_of_state_gives_back_its_constants() -> None:
    v0, e0, b0, derivative = 20.0, -5.0, 96.0, 4.3
    v = np.linspace(18.5, 21.5, 7)
    x = (v0 / v) ** (2 / 3)
    b = b0 / units.EV_PER_A3_TO_GPA
    e = e0 + 9 * v0 * b / 16 * ((x - 1) ** 3 * derivative + (x - 1) ** 2 * (6 - 4 * x))
    found = crystals.birch_murnaghan(v, e)
    assert found[:4] == pytest.approx((v0, e0, b0, derivative))
    with pytest.raises(ValueError, match="no minimum between"):
        crystals.birch_murnaghan(v[:4] - 4, v[:4])


def test_silicon_of_stillinger_and_weber_has_its_published_elastic_constants() -> None:
    """151.4, 76.4 and 56.4 GPa; C44 109.7 with clamped atoms (Balamane, Halicioglu & Tiller, Phys. Rev. B 46,
    2250, 1992, with epsilon such that the crystal has 4.3346 eV an atom)."""
    predict = of_oracle(StillingerWeberConfig(epsilon=2.1683))
    rattled = crystal("Si", "diamond", 5.40)
    rattled = rattled._replace(positions=rattled.positions + 0.02 * np.sin(np.arange(24)).reshape(8, 3))
    least = minima.relaxed_crystal(predict, rattled)
    assert least.converged and least.energy / 8 == pytest.approx(-2 * 2.1683, abs=1e-4)
    assert np.diag(least.structure.cell) == pytest.approx([5.431] * 3, abs=1e-3)
    found = crystals.elastic_constants(predict, least.structure)
    assert found.cubic == pytest.approx((151.4, 76.4, 56.4), abs=0.2)
    assert found.stable and found.asymmetry < 1e-3 and found.stress < 1e-2
    c11, c12, c44 = found.cubic
    assert found.bulk_modulus == pytest.approx((c11 + 2 * c12) / 3)
    voigt = (c11 - c12 + 3 * c44) / 5
    reuss = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
    assert found.shear_modulus == pytest.approx((voigt + reuss) / 2)
    clamped = crystals.elastic_constants(predict, least.structure, relax=False)
    assert clamped.cubic[2] == pytest.approx(109.7, abs=0.2)


def test_the_bulk_modulus_is_the_same_from_energies_and_from_stress() -> None:
    predict = of_oracle(
        LennardJonesConfig(
            atoms={"Ar": LennardJonesAtom(epsilon=1.0, sigma=1.0)}, cutoff=6.0, switch_start=5.0
        )
    )
    least = minima.relaxed_crystal(predict, crystal("Ar", "fcc", 1.55)).structure
    v, e = crystals.energies_of_volumes(predict, least, scales=np.linspace(0.97, 1.03, 7))
    from_energies = crystals.birch_murnaghan(v, e)
    found = crystals.elastic_constants(predict, least, step=1e-3)
    assert from_energies.bulk_modulus == pytest.approx(found.bulk_modulus, rel=2e-3)
    c11, c12, c44 = found.cubic
    assert c12 == pytest.approx(c44, rel=0.02)  # Cauchy's relation of central forces


def test_phonons_of_copper_are_those_that_phonopy_finds_with_ase() -> None:
    pytest.importorskip("phonopy")
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    from sapis_lab.observables.phonons import density_of_states, phonons

    def emt(structures: Any, /, *, stress: bool = False) -> Found:
        from ase import Atoms

        energy, forces = [], []
        for s in structures:
            atoms = Atoms(s.species, s.positions, cell=s.cell, pbc=True, calculator=EMT())
            energy.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        return Found(np.array(energy), np.concatenate(forces))

    atoms = bulk("Cu", "fcc", a=3.6)
    points = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0.5]])
    at = Structure(atoms.numbers, atoms.positions, atoms.cell.array, PERIODIC)
    found = phonons(emt, at, supercell=(3, 3, 3), points=points, mesh=(4, 4, 4))
    theirs = Phonopy(
        PhonopyAtoms(symbols=["Cu"], positions=atoms.positions, cell=atoms.cell.array),
        supercell_matrix=np.diag((3, 3, 3)),
        primitive_matrix=np.eye(3),
    )
    theirs.generate_displacements(distance=0.01)
    theirs.forces = [
        emt([Structure(c.numbers, c.positions, c.cell, PERIODIC)]).forces
        for c in theirs.supercells_with_displacements
    ]
    theirs.produce_force_constants()
    wanted = np.sort(theirs.run_qpoints(points).frequencies, axis=1)
    assert found.frequencies[:, 2] == pytest.approx(wanted[:, 2], abs=2e-3)
    assert np.abs(found.frequencies[0]).max() < 1e-2
    assert density_of_states(found, np.linspace(-1, 12, 14)).sum() == pytest.approx(1)
    assert 0.9 * 3 * 8.314 < found.heat_capacity < 3 * 8.314
