"""Energy and forces of classical force fields through OpenMM: molecules and proteins, in vacuum, in implicit
solvent, and boxes of flexible water.

OpenMM: Eastman et al., J. Phys. Chem. B 128, 109 (2024). Force fields are named by OpenMM's XML files
(amber14-all.xml, amber14/tip3p.xml, implicit/obc2.xml, amber99sbildn.xml with amber99_obc.xml). Nothing is
constrained and water is flexible, so that forces are those of all atoms. The Reference platform computes in
float64; what it is asked for depends on nothing that was asked before. OpenMM knows no stress.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from sapis_lab import units
from sapis_lab.data import SYMBOLS, data_root, need_file
from sapis_lab.oracles._base import Failed, Labels, OracleConfig

if TYPE_CHECKING:
    from types import ModuleType

WATER = "water"
_STRETCHED = 1.8
"""A bond longer than this times its length at rest: atoms are in another order, or the bond is broken."""


class OpenmmConfig(OracleConfig):
    """A classical force field."""

    version: ClassVar[int] = 1
    periodic: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("openmm",)

    kind: Literal["openmm"] = "openmm"
    topology: str = Field(default=WATER, min_length=1, max_length=1000)
    """Residues and bonds: a PDB file under $SAPIS_DATA, whose order of atoms the structures have; or `water`:
    molecules of water, each as O H H."""
    force_field: tuple[str, ...] = ("amber14/tip3p.xml",)
    """XML files that come with OpenMM; implicit solvents are among them."""
    nonbonded: Literal["all", "cutoff", "pme"] = "pme"
    """Of open structures `all` pairs; of periodic ones those within the cutoff with a reaction field, or
    particle-mesh Ewald."""
    cutoff: float = Field(default=9.0, gt=0, le=1000)
    """Å; used by cutoff and pme."""
    switch_start: float = Field(default=8.0, ge=0, le=1000)
    """Where Lennard-Jones forces begin to be switched off, Å."""
    ewald_tolerance: float = Field(default=1e-5, ge=1e-8, le=0.01)
    """Relative error of particle-mesh Ewald's forces."""
    platform: Literal["Reference", "CPU"] = "Reference"
    """Of OpenMM: Reference in float64, CPU in float32 (errors of 1e-4 eV/Å) and faster."""

    @model_validator(mode="after")
    def _consistent(self) -> OpenmmConfig:
        if not self.force_field:
            raise ValueError("force_field names no file; give those of OpenMM, as amber14-all.xml")
        if self.nonbonded != "all" and not self.switch_start < self.cutoff:
            raise ValueError(
                f"switch_start={self.switch_start} is not below cutoff={self.cutoff} Å; lower it"
            )
        return self

    def files(self) -> tuple[str, ...]:
        return () if self.topology == WATER else (self.topology,)

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        """Energy (eV) and forces (eV/Å). A bond that is longer than 1.8 times its length at rest is a
        failure: of such a structure a force field knows nothing."""
        periodic = pbc is not None and bool(np.any(pbc))
        if periodic and not np.all(pbc):
            raise ValueError(
                f"oracle 'openmm' labels open or wholly periodic structures, got "
                f"pbc={np.asarray(pbc).tolist()}"
            )
        if periodic == (self.nonbonded == "all"):
            raise ValueError(
                f"oracle 'openmm': nonbonded={self.nonbonded} is for "
                f"{'open' if self.nonbonded == 'all' else 'periodic'} structures, got "
                f"{'a periodic' if periodic else 'an open'} one"
            )
        box = np.asarray(cell, dtype=np.float64) if periodic else None
        made = _simulation(self, tuple(int(z) for z in species), None if box is None else box.tobytes())
        x = np.asarray(positions, dtype=np.float64)
        if box is not None:
            x = _whole(x, box, made.bonds)
        lengths = np.linalg.norm(x[made.bonds[:, 1]] - x[made.bonds[:, 0]], axis=1)
        long = lengths > _STRETCHED * made.at_rest
        if long.any():
            k = int(np.argmax(lengths / made.at_rest))
            return Failed(
                f"the bond of atoms {made.bonds[k, 0]} and {made.bonds[k, 1]} is {lengths[k]:.2f} Å long, at "
                f"rest {made.at_rest[k]:.2f} Å: it is broken, or atoms are in another order than in "
                f"{self.topology}"
            )
        return made.labels(x)

    def seconds(self, n_atoms: int) -> float:
        """Reference platform, measured: 0.12 ms for 22 atoms in vacuum, 13 ms for 81 with Ewald sums."""
        return 1e-4 + (1e-8 if self.nonbonded == "all" else 2e-6) * n_atoms**2

    def level(self) -> str:
        return f"{' + '.join(self.force_field)}, {self.nonbonded}, OpenMM, {self.platform}"


class _Simulation(NamedTuple):
    """OpenMM's objects for one system in one box."""

    context: Any
    bonds: np.ndarray
    """(n_bonds, 2), ordered so that molecules can be made whole along them."""
    at_rest: np.ndarray
    """(n_bonds,) Å."""
    restart: bool
    """Whether the platform remembers neighbours, so that sums would depend on what was asked before."""

    def labels(self, positions: np.ndarray) -> Labels | Failed:
        """Of positions (n_atoms, 3) Å with whole molecules."""
        from openmm import OpenMMException, unit

        if self.restart:
            self.context.reinitialize()
        try:
            self.context.setPositions(0.1 * positions)
            state = self.context.getState(getEnergy=True, getForces=True)
        except OpenMMException as error:
            return Failed(" ".join(str(error).split()))
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return Failed("the energy or a force is not finite; atoms may lie on top of each other")
        return Labels(
            float(energy) * units.KJ_PER_MOL_TO_EV,
            np.array(forces, dtype=np.float64) * (units.KJ_PER_MOL_TO_EV / units.LENGTH["nm"]),
        )


@lru_cache(maxsize=2)
def _simulation(config: OpenmmConfig, species: tuple[int, ...], box: bytes | None) -> _Simulation:
    """A context for this system in this box; for another box the grids of Ewald sums are others.

    Raises:
        ValueError: the topology is of other atoms, or the force field does not know them.
    """
    openmm, app = _openmm()
    topology = _topology(config, species, app)
    cell = None if box is None else np.frombuffer(box).reshape(3, 3)
    method = {"all": app.NoCutoff, "cutoff": app.CutoffPeriodic, "pme": app.PME}[config.nonbonded]
    try:
        if cell is not None:
            topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in 0.1 * cell] * _nanometer())
        near: dict[str, Any] = {} if config.nonbonded == "all" else {"nonbondedCutoff": 0.1 * config.cutoff}
        if config.nonbonded != "all":
            near |= {
                "switchDistance": 0.1 * config.switch_start,
                "ewaldErrorTolerance": config.ewald_tolerance,
            }
        system = app.ForceField(*config.force_field).createSystem(
            topology,
            nonbondedMethod=method,
            constraints=None,
            rigidWater=False,
            removeCMMotion=False,
            **near,
        )
        platform = openmm.Platform.getPlatformByName(config.platform)
        facts = {"Threads": "1", "DeterministicForces": "true"} if config.platform == "CPU" else {}
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, facts)
    except (ValueError, KeyError, OSError, openmm.OpenMMException) as error:
        raise ValueError(
            f"oracle 'openmm' ({', '.join(config.force_field)}, {config.topology}): "
            f"{' '.join(str(error).split())}"
        ) from None
    bonds, at_rest = _bonds(system, openmm)
    return _Simulation(context, bonds, at_rest, restart=config.platform == "CPU")


class PdbStructure(NamedTuple):
    """What a PDB file says of its first model."""

    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3) Å."""
    cell: np.ndarray | None
    """(3, 3) Å, where the file has one."""


def pdb_structure(path: Path) -> PdbStructure:
    """The atoms of a PDB file, their elements from the names of residues and atoms, so that CA is the carbon
    of a protein and no calcium.

    Raises:
        ValueError: it is no PDB file, or an atom has no element.   ImportError: OpenMM is not installed.
    """
    _, app = _openmm()
    read = _read_pdb(path, app)
    elements = [atom.element for atom in read.topology.atoms()]
    if None in elements:
        raise ValueError(f"{path}: atom {elements.index(None)} has no element; fill in columns 77 and 78")
    box = read.topology.getPeriodicBoxVectors()
    return PdbStructure(
        np.array([element.atomic_number for element in elements]),
        10 * np.array(read.getPositions(asNumpy=True).value_in_unit(_nanometer()), dtype=np.float64),
        None if box is None else 10 * np.array(box.value_in_unit(_nanometer()), dtype=np.float64),
    )


def _read_pdb(path: Path, app: ModuleType) -> Any:
    try:
        return app.PDBFile(str(path))
    except (ValueError, IndexError, KeyError, AssertionError) as error:
        raise ValueError(f"{path}: cannot be read as a PDB file ({error})") from None


def _nanometer() -> Any:
    from openmm import unit

    return unit.nanometer


def _topology(config: OpenmmConfig, species: tuple[int, ...], app: ModuleType) -> Any:
    if config.topology == WATER:
        return _waters(species, app)
    path = need_file(data_root(None), config.topology)
    topology = _read_pdb(path, app).topology
    there = [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]
    if len(there) != len(species):
        raise ValueError(
            f"{path} has {len(there)} atoms, the structure {len(species)}; wanted the same, in one order"
        )
    for k, (a, b) in enumerate(zip(there, species, strict=True)):
        if a != b:
            raise ValueError(
                f"{path}: atom {k} is {SYMBOLS[a]}, in the structure {SYMBOLS[b]}; wanted the same order"
            )
    return topology


def _waters(species: tuple[int, ...], app: ModuleType) -> Any:
    if len(species) % 3 or species != (8, 1, 1) * (len(species) // 3):
        raise ValueError(
            f"oracle 'openmm' with topology: water wants molecules as O H H, one after the other, got "
            f"{' '.join(SYMBOLS[z] for z in species[:6])}{' ...' if len(species) > 6 else ''}; name a PDB "
            f"file for anything else"
        )
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(len(species) // 3):
        residue = topology.addResidue("HOH", chain)
        oxygen, *hydrogens = (
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")
        )
        for hydrogen in hydrogens:
            topology.addBond(oxygen, hydrogen)
    return topology


def _bonds(system: Any, openmm: ModuleType) -> tuple[np.ndarray, np.ndarray]:
    """Bonds (n, 2) with their lengths at rest (n,), Å; every molecule's along a walk from its first atom,
    further ones (of rings) after them."""
    rest: dict[tuple[int, int], float] = {}
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, _ = force.getBondParameters(k)
                rest[min(i, j), max(i, j)] = 10 * float(length.value_in_unit(_nanometer()))
    near: dict[int, list[int]] = {}
    for i, j in rest:
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
    walked: list[tuple[int, int]] = []
    seen: set[int] = set()
    for first in sorted(near):
        queue = [] if first in seen else [first]
        seen.add(first)
        while queue:
            i = queue.pop()
            for j in near[i]:
                if j not in seen:
                    seen.add(j)
                    walked.append((i, j))
                    queue.append(j)
    done = {(min(pair), max(pair)) for pair in walked}
    walked += [pair for pair in rest if pair not in done]
    lengths = [rest[min(pair), max(pair)] for pair in walked]
    return np.array(walked, dtype=np.int64).reshape(-1, 2), np.array(lengths)


def _whole(positions: np.ndarray, cell: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Positions with every molecule's atoms beside each other: OpenMM takes bonds as they are, not across
    the boundary."""
    x, inverse = positions.copy(), np.linalg.inv(cell)
    seen: set[int] = set()
    for i, j in bonds.tolist():
        if j not in seen:
            x[j] -= np.round((x[j] - x[i]) @ inverse) @ cell
        seen |= {i, j}
    return x


def _openmm() -> tuple[ModuleType, ModuleType]:
    try:
        import openmm
        import openmm.app
    except ImportError:
        raise ImportError(
            "classical force fields need the package openmm, which is not installed: "
            "pip install 'sapis-lab[ff]'"
        ) from None
    return openmm, openmm.app
