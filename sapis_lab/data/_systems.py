"""What is moved, or rattled, and labelled: a molecule by its name or SMILES, a crystal, a box of water, the
first frame of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Added, Config
from sapis_lab.data._sources import data_root, need_file
from sapis_lab.data._trajectories import Structure, g2_molecule

Count = Annotated[int, Field(ge=1, le=100)]
Lattice = Literal["diamond", "zincblende", "rocksalt", "fcc", "bcc", "sc", "hcp"]

_WATER_SPACING = 3.1073
"""Å between the molecules of a cubic grid: 0.997 g/cm³, water at 25 °C."""


class SystemConfig(Config):
    """The structure that everything begins with: exactly one of molecule, smiles, crystal, water and file."""

    molecule: str | None = None
    """Name of a molecule in `ase.build.molecule` (the G2 set)."""
    file: str | None = None
    """A file that ase reads (.pdb: OpenMM), under $SAPIS_DATA; its first frame, with cell and periodic
    boundaries."""
    smiles: Annotated[str | None, Added(before=None)] = None
    """A molecule by its SMILES, as CCO: conformers by distance geometry, relaxed with MMFF94."""
    conformers: Annotated[int, Field(ge=1, le=10_000), Added(before=1)] = 1
    """Of a molecule by SMILES: how many; each is the start of a share of what is made."""
    crystal: Annotated[str | None, Added(before=None)] = None
    """Formula of a crystal in its conventional cell: Si, SiC, Ar; with lattice and a."""
    lattice: Annotated[Lattice | None, Added(before=None)] = None
    """Its structure, as `ase.build.bulk` names it."""
    a: Annotated[float | None, Field(gt=0, le=1000), Added(before=None)] = None
    """Its lattice constant, Å."""
    water: Annotated[int | None, Field(ge=1, le=100_000), Added(before=None)] = None
    """A periodic cube of so many water molecules, turned at random, at 0.997 g/cm³; to be equilibrated."""
    repeat: tuple[Count, Count, Count] = (1, 1, 1)
    """Copies of the cell of a file or a crystal along its three vectors."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        ways = ("molecule", "file", "smiles", "crystal", "water")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"wanted exactly one of molecule, file, smiles, crystal and water, got "
                f"{' and '.join(given) or 'none'}"
            )
        if self.crystal is not None and (self.lattice is None or self.a is None):
            raise ValueError(f"crystal: {self.crystal} wants lattice and a as well, as in diamond and 5.431")
        if self.crystal is None and (self.lattice is not None or self.a is not None):
            raise ValueError(f"lattice and a belong to crystal, got {given[0]}")
        if self.conformers > 1 and self.smiles is None:
            raise ValueError(f"conformers={self.conformers} belongs to smiles, got {given[0]}")
        return self


def starts(system: SystemConfig, *, root: Path | None, seed: int) -> tuple[Structure, ...]:
    """The structures of a system: its conformers, else one.

    Raises:
        ValueError: there is none of that name, or a file is missing or unreadable.   ImportError: a package
        is missing.
    """
    if system.molecule is not None:
        return (g2_molecule(system.molecule),)
    if system.smiles is not None:
        return _from_smiles(system.smiles, system.conformers, seed=seed)
    if system.water is not None:
        return (_water(system.water, seed=seed),)
    if system.crystal is not None:
        from ase.build import bulk

        assert system.lattice is not None and system.a is not None
        cubic = {} if system.lattice == "hcp" else {"cubic": True}
        try:
            atoms: Any = bulk(system.crystal, system.lattice, a=system.a, **cubic)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"crystal={system.crystal!r} cannot be built as {system.lattice} ({error}); wanted a formula "
                f"that fits"
            ) from None
        return (_of_atoms(f"{system.crystal} ({system.lattice})", atoms.repeat(system.repeat)),)
    assert system.file is not None
    path = need_file(data_root(root), system.file)
    if path.suffix.lower() == ".pdb":
        return (_from_pdb(system.file, path, system.repeat),)
    from ase.io import read

    atoms = read(path, index=0)
    return (_of_atoms(system.file, atoms.repeat(system.repeat)),)


def _of_atoms(name: str, atoms: Any) -> Structure:
    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    return Structure(
        name,
        np.array(atoms.numbers),
        np.array(atoms.positions),
        np.array(atoms.get_masses()),
        np.array(atoms.cell.array) if any(pbc) else None,
        pbc,
    )


def _from_smiles(smiles: str, n: int, *, seed: int) -> tuple[Structure, ...]:
    from ase.data import atomic_masses

    from sapis_lab.oracles.mmff import conformers

    made = conformers(smiles, n, seed=seed)
    masses = np.array(atomic_masses[made.species])
    return tuple(Structure(smiles, made.species, x, masses) for x in made.positions)


def _from_pdb(name: str, path: Path, repeat: tuple[int, int, int]) -> Structure:
    # ASE takes the elements of a PDB file from the names of its atoms where they are not given: CA, the
    # alpha carbon of every protein, would be calcium.
    from ase import Atoms

    from sapis_lab.oracles.openmm import pdb_structure

    found = pdb_structure(path)
    periodic = found.cell is not None
    atoms: Any = Atoms(found.species, found.positions, cell=found.cell, pbc=periodic)
    return _of_atoms(name, atoms.repeat(repeat))


def _water(n: int, *, seed: int) -> Structure:
    generator = np.random.default_rng(seed)
    angle = np.deg2rad(104.52) / 2
    molecule = 0.9572 * np.array(
        [[0, 0, 0], [np.sin(angle), 0, np.cos(angle)], [-np.sin(angle), 0, np.cos(angle)]]
    )
    side = int(np.ceil(round(n ** (1 / 3), 9)))
    length = _WATER_SPACING * n ** (1 / 3)
    places = generator.permutation(np.array(list(np.ndindex(side, side, side))))[:n] * (length / side)
    turns = [np.linalg.qr(generator.standard_normal((3, 3)))[0] for _ in range(n)]
    positions = np.concatenate([molecule @ turn + place for turn, place in zip(turns, places, strict=True)])
    return Structure(
        f"{n} H2O",
        np.tile([8, 1, 1], n),
        positions,
        np.tile([15.999, 1.008, 1.008], n),
        length * np.eye(3),
        (True, True, True),
    )
