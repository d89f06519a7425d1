"""Ligands, alone or with the atoms of the protein around them, as frames with a measured affinity.

Poses are those of an SDF, proteins those of a PDB file in the same coordinates. The label is

    affinity = -log10(K / (1 mol/L)),    K an IC50, Ki or Kd,

which grows by one where ten times less is needed. Values of different kinds, and of different assays, are not
the same quantity; within one target and one assay their order is what can be compared.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.data._labelled_frames import LabelledFrame
from sapis_lab.data._molecules import DESCRIPTORS, descriptors, quiet, rdkit, species_of
from sapis_lab.data._store import Property
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.files import read_text

MOLAR = {"M": 1.0, "mM": 1e-3, "uM": 1e-6, "nM": 1e-9, "pM": 1e-12, "fM": 1e-15}
"""Names of units of concentration, in mol/L."""
LABELS = {"affinity": Property(), **DESCRIPTORS, "of_ligand": Property(per="atom")}
"""What frames of ligands have; `of_ligand` is 1 for its atoms and 0 for those of the protein."""
_AMINO_ACIDS = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"  # codes of three
)


class Protein(NamedTuple):
    """Atoms of a PDB file."""

    species: np.ndarray
    """(n_atoms,)"""
    positions: np.ndarray
    """(n_atoms, 3) Å"""


def minus_log10(value: float, unit: str, place: str) -> float:
    """-log10 of a concentration in mol/L.

    Raises:
        ValueError: it is not positive, or the unit is none of `MOLAR`.
    """
    if unit not in MOLAR:
        raise ValueError(f"{place}: unit {unit[:20]!r}, wanted one of {', '.join(MOLAR)}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{place}: the value {value} {unit}, wanted a positive concentration")
    return -math.log10(value * MOLAR[unit])


def read_ligands(path: Path) -> list[tuple[str, Any | None]]:
    """Name and molecule of every record of an SDF, hydrogens kept; None for one that RDKit does not read.

    Raises:
        ValueError: there is no record.
    """
    supplier = rdkit().SDMolSupplier()
    text = read_text(path)
    supplier.SetData(text, removeHs=False)
    blocks = text.split("$$$$\n")
    names = [block.splitlines()[0].strip() if block.strip() else "" for block in blocks]
    with quiet():
        found = [(names[k] if k < len(names) else "", molecule) for k, molecule in enumerate(supplier)]
    if not found:
        raise ValueError(f"{path}: no molecule, wanted the records of an SDF; copy it again")
    return found


def read_protein(path: Path) -> Protein:
    """The atoms of the first model of a PDB file; of alternative places the first.

    The element stands in columns 77 and 78; where these are empty, it is the first letter of the name of an
    atom of an amino acid.

    Raises:
        ValueError: there are no atoms, or a line has no coordinates or no element.
    """
    species, positions = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.startswith("ENDMDL"):
            break
        if not line.startswith(("ATOM  ", "HETATM")) or line[16:17] not in (" ", "A", "1"):
            continue
        place = f"{path}, line {number}"
        symbol = _element(line)
        if symbol not in ATOMIC_NUMBER:
            raise ValueError(
                f"{place}: no element in columns 77 and 78 ({line[76:78]!r}), and {line[12:16].strip()!r} of "
                f"{line[17:20].strip()!r} does not say it"
            )
        try:
            x = [float(line[k : k + 8]) for k in (30, 38, 46)]
        except ValueError:
            raise ValueError(
                f"{place}: coordinates {line[30:54]!r}, wanted three numbers of eight columns"
            ) from None
        species.append(ATOMIC_NUMBER[symbol])
        positions.append(x)
    if not species:
        raise ValueError(f"{path}: no ATOM or HETATM, wanted the protein as a PDB file")
    return Protein(np.array(species), np.array(positions))


def _element(line: str) -> str:
    symbol = line[76:78].strip().capitalize()
    if symbol in ATOMIC_NUMBER:
        return symbol
    name = line[12:16].strip().lstrip("0123456789")
    return name[:1] if line[17:20] in _AMINO_ACIDS.split() else ""


def around(protein: Protein, ligand: np.ndarray, *, within: float) -> Protein:
    """The atoms of `protein` closer than `within` (Å) to an atom of the ligand (n_atoms, 3)."""
    near = np.zeros(len(protein.species), dtype=bool)
    box = (protein.positions > ligand.min(0) - within) & (protein.positions < ligand.max(0) + within)
    some = np.nonzero(box.all(1))[0]
    distances = np.linalg.norm(protein.positions[some, None] - ligand[None], axis=2)
    near[some] = (distances < within).any(1)
    return Protein(protein.species[near], protein.positions[near])


def complex_frame(
    molecule: Any, protein: Protein | None, *, affinity: float, pocket: float, place: str
) -> LabelledFrame:
    """A ligand with the atoms of its protein within `pocket` (Å), none for 0."""
    conformer = molecule.GetConformer() if molecule.GetNumConformers() else None
    if conformer is None or not conformer.Is3D():
        raise ValueError(f"{place}: the molecule has no coordinates in space, wanted a docked pose")
    species, positions = species_of(molecule), np.asarray(conformer.GetPositions(), dtype=np.float64)
    n = len(species)
    if protein is not None and pocket:
        near = around(protein, positions, within=pocket)
        if not len(near.species):
            raise ValueError(
                f"{place}: no atom of the protein is within {pocket} Å of the ligand; are both in the same "
                "coordinates?"
            )
        species = np.concatenate([species, near.species])
        positions = np.concatenate([positions, near.positions])
    labels = {"affinity": affinity, **descriptors(molecule), "of_ligand": np.arange(len(species)) < n}
    return LabelledFrame(place, species, positions, labels=labels)
