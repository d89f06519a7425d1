"""Molecules of RDKit as frames: conformers, scaffolds and simple descriptors.

Conformers are embedded by ETKDG, version 3 (Riniker & Landrum, J. Chem. Inf. Model. 55, 2562, 2015), and
relaxed in MMFF94 (Halgren, J. Comput. Chem. 17, 490, 1996): one guess of the geometry, neither the lowest
conformer nor an ensemble. Coordinates follow from the SMILES, the seed and the version of RDKit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sapis_lab.data._store import Property

_TRIES = 2000
"""Steps of MMFF94 before a conformer counts as not relaxed."""
DESCRIPTORS = {
    "charge": Property(unit="e"),
    "molecular_weight": Property(unit="amu"),
    "heavy_atoms": Property(),
    "rings": Property(),
    "rotatable_bonds": Property(),
    "donors": Property(),
    "acceptors": Property(),
    "polar_area": Property(unit="Å²"),
}
"""What describes a molecule beside its atoms: formal charge, mass, counts, topological polar surface."""


class Conformer(NamedTuple):
    """A molecule with its hydrogens."""

    species: np.ndarray
    """(n_atoms,)"""
    positions: np.ndarray
    """(n_atoms, 3) Å"""


def rdkit() -> Any:
    """`rdkit.Chem`.

    Raises:
        ValueError: RDKit is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError:
        raise ValueError(
            "molecules are made by RDKit, which is not installed; pip install 'sapis_lab[chem]'"
        ) from None
    return Chem


def quiet() -> Any:
    """While this lasts, RDKit writes nothing to the screen: what is wrong is said by who reads."""
    from rdkit import rdBase

    return rdBase.BlockLogs()


def read_smiles(smiles: str) -> Any | str:
    """The molecule of a SMILES, with hydrogens; in words why it is none."""
    chem = rdkit()
    with quiet():
        molecule = chem.MolFromSmiles(smiles.strip()) if smiles.strip() else None
    return "no SMILES that RDKit reads" if molecule is None else chem.AddHs(molecule)


def conformer(molecule: Any, *, seed: int) -> Conformer | str:
    """A relaxed conformer of a molecule with hydrogens; in words why there is none."""
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    made = rdkit().Mol(molecule)
    if made.GetNumAtoms() == 1:
        return Conformer(species_of(made), np.zeros((1, 3)))
    settings: Any = rdDistGeom.ETKDGv3()
    settings.randomSeed = seed
    settings.maxIterations = 100  # of tries; without a limit a strained cage takes minutes
    with quiet():
        if rdDistGeom.EmbedMolecule(made, settings) < 0:
            return "ETKDG finds no conformer"
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(made):
            return "MMFF94 has no parameters for it"
        if rdForceFieldHelpers.MMFFOptimizeMolecule(made, maxIters=_TRIES) != 0:
            return f"MMFF94 does not relax it in {_TRIES} steps"
    positions = made.GetConformer().GetPositions()
    return Conformer(species_of(made), np.asarray(positions, dtype=np.float64))


def species_of(molecule: Any) -> np.ndarray:
    """(n_atoms,) atomic numbers."""
    return np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)


def descriptors(molecule: Any) -> dict[str, float]:
    """The `DESCRIPTORS` of a molecule."""
    from rdkit.Chem import rdMolDescriptors

    chem = rdkit()
    mass = chem.GetPeriodicTable().GetAtomicWeight
    return {
        "charge": float(chem.GetFormalCharge(molecule)),
        "molecular_weight": sum(mass(int(z)) for z in species_of(molecule)),
        "heavy_atoms": float(molecule.GetNumHeavyAtoms()),
        "rings": float(rdMolDescriptors.CalcNumRings(molecule)),
        "rotatable_bonds": float(rdMolDescriptors.CalcNumRotatableBonds(molecule)),
        "donors": float(rdMolDescriptors.CalcNumHBD(molecule)),
        "acceptors": float(rdMolDescriptors.CalcNumHBA(molecule)),
        "polar_area": float(rdMolDescriptors.CalcTPSA(molecule)),
    }


def canonical(molecule: Any) -> str:
    """The canonical SMILES, by which two rows are the same molecule."""
    chem = rdkit()
    return str(chem.MolToSmiles(chem.RemoveHs(molecule)))


def scaffold(molecule: Any) -> str:
    """The framework of rings and linkers (Bemis & Murcko, J. Med. Chem. 39, 2887, 1996) as SMILES, without
    stereochemistry; empty for a molecule without rings."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    bare = rdkit().RemoveHs(molecule)
    return str(MurckoScaffold.MurckoScaffoldSmiles(mol=bare, includeChirality=False))


def rdkit_version() -> str:
    """For the record of a store."""
    import rdkit as package

    rdkit()
    return str(package.__version__)
