"""The form `openmm`, run in OpenMM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from export_cases import SIZES, atoms_of, near, run_script, written

from sapis_lab.config import ConfigError
from sapis_lab.exports.openmm import OpenmmExport, openmm_force, openmm_system
from sapis_lab.potential import Potential

openmm = pytest.importorskip("openmm", reason="OpenMM is not installed")
if not hasattr(openmm, "PythonForce"):
    pytest.skip("this OpenMM has no PythonForce", allow_module_level=True)
from openmm import app, unit  # noqa: E402

EV = unit.kilojoule_per_mole * 96.48533212331002


def topology_of(atoms: Atoms) -> Any:
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for z in atoms.numbers:
        topology.addAtom("X", app.Element.getByAtomicNumber(int(z)), residue)
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors(atoms.cell.array / 10 * unit.nanometer)
    return topology


def reduced(atoms: Atoms) -> Atoms:
    """With the lattice vectors that OpenMM wants: the first along x, the second in the xy plane."""
    if atoms.pbc.any():
        cell, _ = atoms.cell.standard_form()
        atoms.set_cell(cell, scale_atoms=True)
    return atoms


def numbers(context: Any) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å."""
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom)
    return state.getPotentialEnergy() / EV, np.asarray(forces) / 96.48533212331002


def context_of(system: Any, atoms: Atoms, platform: str = "Reference") -> Any:
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(atoms.positions / 10)
    return context


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("n", SIZES)
def test_numbers_are_ours(potential: Potential, n: int, periodic: bool) -> None:
    atoms = reduced(atoms_of(n, periodic=periodic))
    ours = potential.predict(atoms)
    context = context_of(openmm_system(potential, topology_of(atoms)), atoms)
    energy, forces = numbers(context)
    assert near(energy, ours.energy[0]) and near(forces, ours.forces)


def test_openmmml_has_the_same_numbers(potential: Potential) -> None:
    ml = pytest.importorskip("openmmml", reason="openmmml is not installed")
    from sapis_lab.calculator import SapisCalculator

    atoms = reduced(atoms_of(32, periodic=True))
    made = ml.MLPotential("ase").createSystem(topology_of(atoms), calculator=SapisCalculator(potential))
    energy, forces = numbers(context_of(made, atoms))
    ours = potential.predict(atoms)
    assert near(energy, ours.energy[0]) and near(forces, ours.forces)


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
def test_verlet_conserves_the_energy(potential: Potential, periodic: bool) -> None:
    atoms = reduced(atoms_of(32, periodic=periodic))
    context = context_of(openmm_system(potential, topology_of(atoms)), atoms)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 0)
    totals = []
    for _ in range(10):
        context.getIntegrator().step(5)
        state = context.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy()) / EV)
    assert np.ptp(totals) / 32 < 2e-4  # eV/atom; leap-frog's kinetic energy is half a step away


def test_a_barostat_moves_the_box(potential: Potential) -> None:
    # a Monte Carlo barostat wants a box of several cutoffs only of forces that have one
    atoms = reduced(atoms_of(32, periodic=True))
    system = openmm_system(potential, topology_of(atoms))
    system.addForce(openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 1))
    context = context_of(system, atoms)
    before = context.getState().getPeriodicBoxVolume()
    context.getIntegrator().step(20)
    assert context.getState().getPeriodicBoxVolume() != before


def test_some_particles_of_a_system_are_computed(potential: Potential) -> None:
    atoms = atoms_of(8, periodic=False)
    system = openmm.System()
    for _ in range(10):
        system.addParticle(20.0)
    chosen = list(range(2, 10))
    system.addForce(openmm_force(potential, atoms.numbers, periodic=False, particles=chosen))
    positions = np.concatenate([np.full((2, 3), 50.0), atoms.positions])
    context = context_of(system, Atoms("X10", positions))
    energy, forces = numbers(context)
    ours = potential.predict(atoms)
    assert near(energy, ours.energy[0]) and near(forces[2:], ours.forces) and not forces[:2].any()


def test_a_force_of_a_folder_is_serialised(potential: Potential, saved: Path) -> None:
    atoms = atoms_of(8, periodic=False)
    text = openmm.XmlSerializer.serialize(openmm_system(saved, topology_of(atoms)))
    energy, _ = numbers(context_of(openmm.XmlSerializer.deserialize(text), atoms))
    assert near(energy, potential.predict(atoms).energy[0])


def test_an_unknown_element_is_refused(potential: Potential) -> None:
    with pytest.raises(ConfigError, match=r"knows the elements \[14, 26\], got atomic numbers \[8\]"):
        openmm_force(potential, [14, 8], periodic=False)


def test_the_script_runs(potential: Potential, tmp_path: Path) -> None:
    place = written(potential, OpenmmExport(), tmp_path / "out")
    atoms = reduced(atoms_of(8, periodic=True))
    with (tmp_path / "start.pdb").open("w") as file:
        app.PDBFile.writeFile(topology_of(atoms), atoms.positions / 10 * unit.nanometer, file)
    done = run_script(place / "simulate.py", str(tmp_path / "start.pdb"), cwd=tmp_path)
    assert done.stdout.count("\n") >= 11
