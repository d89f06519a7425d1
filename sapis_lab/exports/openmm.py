"""OpenMM (8.6): a `PythonForce` that computes with the potential, open or periodic.

Energies go in kJ/mol, forces in kJ/mol/nm, positions come in nm. OpenMM gets no virial from any force: its
barostats scale the box and compare energies, which works with this force as with others. Where openmmml (1.8)
is installed, its ASE potential does the same with our calculator:

    MLPotential("ase").createSystem(topology, calculator=sapis_lab.load_model(folder))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sapis_lab.config import ConfigError
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.exports._python import write_python
from sapis_lab.potential import Potential
from sapis_lab.structures import Structure
from sapis_lab.units import KJ_PER_MOL_TO_EV, LENGTH

_SCRIPT = '''\
"""The potential in this folder in OpenMM; `python simulate.py FILE.pdb` runs Langevin dynamics."""

import sys
from pathlib import Path

import openmm
from openmm import app, unit
from sapis_lab.exports.openmm import openmm_system

if __name__ == "__main__":
    pdb = app.PDBFile(sys.argv[1])
    system = openmm_system(Path(__file__).parent, pdb.topology)
    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond
    )
    simulation = app.Simulation(pdb.topology, system, integrator)
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)
    simulation.reporters.append(
        app.StateDataReporter(sys.stdout, 10, step=True, potentialEnergy=True, temperature=True)
    )
    simulation.step(100)
'''


class OpenmmExport(Export):
    """OpenMM: weights, and a script that makes a system whose force is the potential."""

    kind: Literal["openmm"] = "openmm"

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        return write_python(potential, folder, {"simulate.py": _SCRIPT})


def openmm_force(
    potential: Potential | str | Path,
    species: Sequence[int],
    *,
    periodic: bool,
    particles: Sequence[int] | None = None,
) -> Any:
    """An `openmm.PythonForce` that computes with a trained potential.

    Args:
        potential: or the folder that holds one; of a folder the force can be serialised.
        species: atomic numbers of the atoms that it acts on, in order.   periodic: whether they are in the
            periodic box of the system, along all directions.
        particles: which particles of the system these atoms are; all by default.

    Raises:
        ConfigError: OpenMM is not installed, or has no PythonForce; the potential does not know an element.
    """
    openmm = _openmm()
    compute = _Compute(potential, np.asarray(species, dtype=int), periodic)
    unknown = sorted({int(z) for z in species} - set(compute.potential.model.species))
    if unknown:
        raise ConfigError(
            f"the potential knows the elements {list(compute.potential.model.species)}, got atomic numbers "
            f"{unknown} as well"
        )
    force = openmm.PythonForce(compute)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName("sapis_lab")
    if particles is not None:
        force.setParticles([int(k) for k in particles])
    return force


def openmm_system(potential: Potential | str | Path, topology: Any) -> Any:
    """An `openmm.System` of the atoms of an `openmm.app.Topology` whose only force is a trained potential; it
    is periodic where the topology has a box.

    Raises:
        ConfigError: as `openmm_force`, or an atom of the topology has no element.
    """
    from openmm import System

    atoms = list(topology.atoms())
    if any(atom.element is None for atom in atoms):
        raise ConfigError("the topology has atoms without an element (virtual sites); a potential has none")
    system, box = System(), topology.getPeriodicBoxVectors()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    species = [atom.element.atomic_number for atom in atoms]
    system.addForce(openmm_force(potential, species, periodic=box is not None))
    return system


def _openmm() -> Any:
    try:
        import openmm
    except ImportError as error:
        raise ConfigError(f"OpenMM cannot be imported ({error}); pip install 'sapis_lab[ff]'") from None
    if not hasattr(openmm, "PythonForce"):
        raise ConfigError(
            f"OpenMM {openmm.__version__} has no PythonForce, wanted 8.6 or later; pip install -U openmm"
        )
    return openmm


class _Compute:
    """Energy (kJ/mol) and forces (n_atoms, 3) kJ/mol/nm of a state; a pickle holds the folder of the
    potential."""

    def __init__(self, potential: Potential | str | Path, species: np.ndarray, periodic: bool) -> None:
        self.folder = None if isinstance(potential, Potential) else str(Path(potential).resolve())
        self.species, self.periodic = species, periodic
        self._potential = potential if isinstance(potential, Potential) else None

    @property
    def potential(self) -> Potential:
        if self._potential is None:
            from sapis_lab.potential import load_potential

            assert self.folder is not None
            self._potential = load_potential(self.folder)
        return self._potential

    def __getstate__(self) -> dict[str, Any]:
        if self.folder is None:
            raise TypeError(
                "this force was made of a potential in memory; make it of a folder to serialise it"
            )
        return {**self.__dict__, "_potential": None}

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        from openmm.unit import nanometer

        x = state.getPositions(asNumpy=True).value_in_unit(nanometer) * LENGTH["nm"]
        cell, pbc = None, None
        if self.periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(nanometer)
            cell, pbc = np.asarray(box) * LENGTH["nm"], np.ones(3, dtype=bool)
        found = self.potential.predict(Structure(self.species, np.asarray(x), cell, pbc))
        return float(found.energy[0]) / KJ_PER_MOL_TO_EV, found.forces * (LENGTH["nm"] / KJ_PER_MOL_TO_EV)
