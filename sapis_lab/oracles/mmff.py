"""Energy and forces of a molecule by MMFF94 or UFF through RDKit, with the bonds of a SMILES string.

MMFF94: Halgren, J. Comput. Chem. 17, 490 (1996), in RDKit by Tosco, Stiefl & Landrum, J. Cheminform. 6, 37
(2014). UFF: Rappé et al., J. Am. Chem. Soc. 114, 10024 (1992). Bonds do not break: they are those of the
SMILES, whatever the positions. Atoms are in the order that RDKit gives them: those of the SMILES as written,
then their hydrogens, as `conformers` and data sets with `system: {smiles: ...}` have them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.data import SYMBOLS
from sapis_lab.oracles._base import Failed, Labels, OracleConfig

if TYPE_CHECKING:
    from types import ModuleType

_STRETCHED = 1.8
"""A bond longer than this times the sum of RDKit's covalent radii: atoms are in another order, or it is
broken."""
_FAR = 1e4
"""All pairs of atoms count, Å (and, for UFF, times their radii): terms chosen by distance would depend on
where the atoms were first."""


class MmffConfig(OracleConfig):
    """A force field of small molecules."""

    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)

    kind: Literal["mmff"] = "mmff"
    smiles: str = Field(default="CCO", min_length=1, max_length=10_000)
    """The molecule, hydrogens left out; several molecules with dots between them."""
    method: Literal["MMFF94", "MMFF94s", "UFF"] = "MMFF94"
    """The force field; MMFF94s is for planar nitrogen."""

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        """Energy (eV) and forces (eV/Å). A bond much longer than it can be is a failure."""
        self.refuse_periodic(pbc)
        made = _field(self.smiles, self.method)
        given = tuple(int(z) for z in species)
        if given != made.species:
            raise ValueError(
                f"oracle 'mmff' with smiles {self.smiles} has the atoms "
                f"{''.join(SYMBOLS[z] for z in made.species)} in this order, got "
                f"{''.join(SYMBOLS[z] for z in given)}"
            )
        x = np.asarray(positions, dtype=np.float64)
        lengths = np.linalg.norm(x[made.bonds[:, 1]] - x[made.bonds[:, 0]], axis=1) / made.radii
        if len(lengths) and lengths.max() > _STRETCHED:
            i, j = made.bonds[int(np.argmax(lengths))]
            return Failed(
                f"the bond of atoms {i} and {j} is {lengths.max():.2f} times the sum of their radii: it is "
                f"broken, or atoms are in another order than in smiles {self.smiles}"
            )
        flat = x.reshape(-1).tolist()
        energy, gradient = made.field.CalcEnergy(flat), np.array(made.field.CalcGrad(flat))
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            return Failed("the energy or a force is not finite; atoms may lie on top of each other")
        return Labels(
            float(energy) * units.KCAL_PER_MOL_TO_EV, -gradient.reshape(-1, 3) * units.KCAL_PER_MOL_TO_EV
        )

    def seconds(self, n_atoms: int) -> float:
        """Measured: 30 µs for ethanol, all pairs."""
        return 2e-5 + 2e-7 * n_atoms**2

    def level(self) -> str:
        return f"{self.method}, RDKit, bonds of {self.smiles}"


class Conformers(NamedTuple):
    """Geometries of one molecule."""

    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_conformers, n_atoms, 3) Å."""


def conformers(smiles: str, n: int, *, seed: int) -> Conformers:
    """`n` conformers by distance geometry (ETKDG version 3; Wang et al., J. Chem. Inf. Model. 60, 2044,
    2020), relaxed with MMFF94, or with UFF where MMFF94 has no parameters.

    Raises:
        ValueError: the SMILES cannot be read or embedded, or is of several molecules, which RDKit embeds on
            top of each other.   ImportError: RDKit is not installed.
    """
    chem, all_chem = _rdkit()
    molecule = _molecule(smiles)
    if len(chem.GetMolFrags(molecule)) > 1:
        raise ValueError(
            f"smiles {smiles!r} has several molecules, and how they lie together is not known; give a file"
        )
    options = all_chem.ETKDGv3()
    # RDKit multiplies it by the number of the conformer: 0 makes all of them the same, and so may an overflow
    options.randomSeed = 2 * int(np.random.SeedSequence(seed).generate_state(1)[0] % 2**16) + 1
    found = list(all_chem.EmbedMultipleConfs(molecule, n, options))
    if len(found) < n:
        raise ValueError(f"smiles {smiles!r}: RDKit embeds {len(found)} of {n} conformers")
    if all_chem.MMFFHasAllMoleculeParams(molecule):
        all_chem.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    elif all_chem.UFFHasAllMoleculeParams(molecule):
        all_chem.UFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    return Conformers(
        np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]),
        np.array([molecule.GetConformer(k).GetPositions() for k in found]),
    )


class _Field(NamedTuple):
    """RDKit's force field of one molecule."""

    field: Any
    species: tuple[int, ...]
    bonds: np.ndarray
    """(n_bonds, 2)"""
    radii: np.ndarray
    """(n_bonds,) Å, sum of the covalent radii."""
    molecule: Any
    """Kept alive for the field."""


@lru_cache(maxsize=8)
def _field(smiles: str, method: str) -> _Field:
    chem, all_chem = _rdkit()
    molecule = _molecule(smiles)
    n = molecule.GetNumAtoms()
    at = chem.Conformer(n)
    for k in range(n):  # apart from each other: terms are set up here, and none is left out
        at.SetAtomPosition(k, (1.5 * k, 0.0, 0.0))
    molecule.AddConformer(at, assignId=True)
    if method == "UFF":
        known = all_chem.UFFHasAllMoleculeParams(molecule)
        field = known and all_chem.UFFGetMoleculeForceField(
            molecule, vdwThresh=_FAR, ignoreInterfragInteractions=False
        )
    else:
        facts = all_chem.MMFFGetMoleculeProperties(molecule, mmffVariant=method)
        field = facts and all_chem.MMFFGetMoleculeForceField(
            molecule, facts, nonBondedThresh=_FAR, ignoreInterfragInteractions=False
        )
    if not field:
        raise ValueError(f"oracle 'mmff': {method} has no parameters for an atom of smiles {smiles!r}")
    field.Initialize()
    table = chem.GetPeriodicTable()
    species = tuple(atom.GetAtomicNum() for atom in molecule.GetAtoms())
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()], dtype=np.int64)
    radii = np.array([table.GetRcovalent(z) for z in species])
    bonds = bonds.reshape(-1, 2)
    return _Field(field, species, bonds, radii[bonds].sum(1), molecule)


def _molecule(smiles: str) -> Any:
    chem, _ = _rdkit()
    from rdkit import rdBase

    with rdBase.BlockLogs():  # what it cannot read is said by our own message
        read = chem.MolFromSmiles(smiles)
    if read is None:
        raise ValueError(f"smiles {smiles!r} cannot be read; wanted SMILES such as CCO")
    return chem.AddHs(read)


def _rdkit() -> tuple[ModuleType, ModuleType]:
    try:
        from rdkit import Chem
        from rdkit.Chem import AllChem
    except ImportError:
        raise ImportError(
            "molecules from SMILES and MMFF94 need the package rdkit, which is not installed: "
            "pip install 'sapis-lab[chem]'"
        ) from None
    return Chem, AllChem
