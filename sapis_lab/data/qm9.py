"""QM9: 133,885 molecules of up to nine atoms of C, N, O and F besides hydrogen, at their minima, with 15
properties; B3LYP/6-31G(2df,p) (Ramakrishnan et al., Sci. Data 1 (2014) 140022).

Reads `qm9/dsgdb9nsd.xyz.tar.bz2` without unpacking it, or a folder of its files, `qm9/raw/` or
`qm9/dsgdb9nsd/`; and the official list of 3,054 molecules whose geometry failed a check,
`qm9/uncharacterized.txt`, which are left out. There are no forces: the energies are learnt as properties
(`task: properties`), by these names and in the units in which errors are published:

- mu (D), alpha (Bohr³), homo, lumo, gap (eV), r2 (Bohr²), zpve (eV), cv (cal/mol/K), and the rotational
  constants rot_a, rot_b, rot_c (GHz);
- u0_atom, u_atom, h_atom, g_atom (eV): U0, U, H and G less those of the free atoms (atomref.txt of the
  deposit), which is what models of the literature learn;
- charges of atoms (e, Mulliken).

The label energy is U0 itself, eV, with the free atoms as reference. There is no official split; the usual one
is 110,000 molecules for training, 10,000 for validation and the rest for testing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.config import Seed
from sapis_lab.data._further_labels import FurtherLabel
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data._sources import data_root, need_file, reading
from sapis_lab.data.files import FilesConfig
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.files import read_text
from sapis_lab.formats import Block

_ELEMENTS = ("H", "C", "N", "O", "F")
FREE_ATOMS = {
    "U0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "U": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "H": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "G": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
"""Of H, C, N, O and F, Hartree: atomref.txt of the deposit."""
_ARCHIVE = "dsgdb9nsd.xyz.tar.bz2"
_LIST = "uncharacterized.txt"
_N_LISTED = 3054


def _in_ev(key: str | None = None) -> FurtherLabel:
    return FurtherLabel(key=key, unit="eV", factor=units.HARTREE_TO_EV)


_PROPERTIES = {
    "mu": FurtherLabel(unit="D"),
    "alpha": FurtherLabel(unit="Bohr³"),
    "homo": _in_ev(),
    "lumo": _in_ev(),
    "gap": _in_ev(),
    "r2": FurtherLabel(unit="Bohr²"),
    "zpve": _in_ev(),
    "cv": FurtherLabel(key="Cv", unit="cal/mol/K"),
    "rot_a": FurtherLabel(key="A", unit="GHz"),
    "rot_b": FurtherLabel(key="B", unit="GHz"),
    "rot_c": FurtherLabel(key="C", unit="GHz"),
    **{f"{name.lower()}_atom": _in_ev(f"{name}_atom") for name in FREE_ATOMS},
}


class Qm9Config(PublicData):
    """QM9 with its properties."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "qm9"
    place: ClassVar[str] = "qm9"
    kind: Literal["qm9"] = "qm9"
    uncharacterized: Literal["leave_out", "keep"] = "leave_out"
    """What to do with the molecules of the official list uncharacterized.txt; keep does not read it."""
    n_train: int | None = Field(default=110_000, ge=1, le=10**6)
    """Molecules of the training pool; null takes all that are not held out."""
    n_validation: int = Field(default=10_000, ge=1, le=10**6)
    """Molecules held out for validation."""
    n_test: int = Field(default=10_831, ge=1, le=10**6)
    """Molecules held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all molecules, from which the splits are taken."""

    def files(self) -> PublicFiles:
        left_out = {"gdb": self._listed()} if self.uncharacterized == "leave_out" else {}
        return PublicFiles(
            FilesConfig(
                train=(self._molecules(),),
                format="qm9",
                n_train=self.n_train,
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                without=left_out,
                energy_key="U0",
                forces_key=None,
                charges_key="charges",
                properties=_PROPERTIES,
                isolated_atoms=dict(zip(_ELEMENTS, FREE_ATOMS["U0"], strict=True)),
                level_of_theory="B3LYP/6-31G(2df,p)",
                root=self.root,
            ),
            change=_LessFreeAtoms(),
        )

    def _molecules(self) -> str:
        root = data_root(self.root)
        for name in (_ARCHIVE, _ARCHIVE.removesuffix(".bz2")):
            if (root / self.within(name)).is_file():
                return self.within(name)
        for name in ("raw", "dsgdb9nsd"):
            if any((root / self.within(name)).glob("dsgdb9nsd_*.xyz")):
                return self.within(name)
        return self.official(_ARCHIVE, "raw/dsgdb9nsd_000001.xyz")

    def _listed(self) -> tuple[str, ...]:
        """Numbers of the molecules of the list.

        Raises:
            ValueError: it is not there, or not the official one.
        """
        root = data_root(self.root)
        try:
            path = need_file(root, self.within(_LIST))
        except ValueError as error:
            raise ValueError(
                f"{error}; or set uncharacterized: keep, which keeps molecules whose geometry failed a check"
            ) from None
        with reading(root, path):
            return _numbers_of_list(path)


def _numbers_of_list(path: Path) -> tuple[str, ...]:
    """Numbers of the molecules: the first word of every line between nine lines of heading and one of end."""
    rows = [line.split() for line in read_text(path).rstrip("\n").split("\n")[9:-1]]
    numbers = tuple(row[0] for row in rows if row and row[0].isdecimal())
    if len(numbers) != len(rows) or len(set(numbers)) != _N_LISTED:
        raise ValueError(
            f"{path}: numbers of {len(set(numbers))} molecules in {len(rows)} lines after nine lines of "
            f"heading, wanted the {_N_LISTED} of the official list"
        )
    return numbers


class _LessFreeAtoms:
    """Adds energies less those of the free atoms, in Hartree as the others."""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}

    def __call__(self, block: Block) -> Block:
        if not len(block):
            return block
        starts = np.cumsum(block.n_atoms) - block.n_atoms
        added = {}
        for name, energies in FREE_ATOMS.items():
            of_element = np.full(256, np.nan)
            of_element[[ATOMIC_NUMBER[symbol] for symbol in _ELEMENTS]] = energies
            atoms = np.add.reduceat(of_element[block.species], starts)
            added[f"{name}_atom"] = np.asarray(block.frame_labels[name], dtype=np.float64) - atoms
        return replace(block, frame_labels={**block.frame_labels, **added})
