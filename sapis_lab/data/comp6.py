"""COMP6v1, benchmarks for models of organic molecules (H, C, N, O) at the level of ANI-1x, ωB97X/6-31G(d): 66
dimers at 8 distances (S66x8), dynamics of drugs and small proteins (ANI-MD), drugs (DrugBank), small
molecules by their number of heavy atoms (GDB07 to GDB13) and tripeptides (Smith et al., J. Chem. Phys. 148
(2018) 241733, arXiv:1801.09319).

Reads the HDF5 files of github.com/isayev/COMP6 from `comp6_s66x8/`, with their folders below COMP6v1 or
without, in Å, Hartree and Hartree/Å. What they call forces is the gradient, of the opposite sign (found for
S66x8 by computing it anew, and by energies and forces of neighbouring distances; other parts that contradict
are refused by the checks).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Part = Literal["s66x8", "ANI-MD", "DrugBank", "GDB07to09", "GDB10to13", "Tripeptides"]
_FILES: dict[str, tuple[str, ...]] = {
    "s66x8": ("s66x8_wb97x6-31gd.h5",),
    "ANI-MD": ("ani_md_bench.h5",),
    "DrugBank": ("drugbank_testset.h5",),
    "GDB07to09": ("gdb11_07_test500.h5", "gdb11_08_test500.h5", "gdb11_09_test500.h5"),
    "GDB10to13": (
        "gdb11_10_test500.h5",
        "gdb11_11_test500.h5",
        "gdb13_12_test1000.h5",
        "gdb13_13_test1000.h5",
    ),
    "Tripeptides": ("tripeptide_full.h5",),
}


class Comp6Config(PublicData):
    """One or several parts of COMP6, as one pool."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "comp6"
    place: ClassVar[str] = "comp6_s66x8"
    kind: Literal["comp6"] = "comp6"
    parts: tuple[Part, ...] = Field(default=("s66x8",), min_length=1)
    """Parts whose frames are joined in this order."""
    n_train: int | None = Field(default=None, ge=1, le=10**6)
    """Frames of the training pool; by default all that are not held out."""
    n_validation: int = Field(default=50, ge=1, le=10**6)
    """Frames held out for validation."""
    n_test: int = Field(default=100, ge=1, le=10**6)
    """Frames held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all frames, from which the splits are taken."""

    def files(self) -> PublicFiles:
        return PublicFiles(
            FilesConfig(
                train=tuple(
                    self.official(name, f"{part}/{name}") for part in self.parts for name in _FILES[part]
                ),
                format="hdf5",
                n_train=self.n_train,
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                energy_unit="Hartree",
                length_unit="Angstrom",
                energy_key="energies",
                forces_key="forces",
                forces_are="gradient",
                level_of_theory="ωB97X/6-31G(d)",
                root=self.root,
            )
        )
