"""ANI-2x: about 9.6 million conformers of organic molecules (H, C, N, O, F, S, Cl) at ωB97X/6-31G(d)
(Devereux et al., J. Chem. Theory Comput. 16 (2020) 4192).

Reads `ani2x/final_h5/ANI-2x-wB97X-631Gd.h5` of the deposit's archive, groups by the number of atoms, in Å,
Hartree and Hartree/Å; what it calls forces are forces. There is no official split.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig


class Ani2xConfig(PublicData):
    """ANI-2x."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "ani2x"
    place: ClassVar[str] = "ani2x"
    kind: Literal["ani2x"] = "ani2x"
    file: str = "final_h5/ANI-2x-wB97X-631Gd.h5"
    """Name of the file, where it is a part of the official one."""
    n_train: int | None = Field(default=None, ge=1, le=10**8)
    """Frames of the training pool; by default all that are not held out."""
    n_validation: int = Field(default=10_000, ge=1, le=10**8)
    """Frames held out for validation."""
    n_test: int = Field(default=10_000, ge=1, le=10**8)
    """Frames held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all frames, from which the splits are taken."""

    def files(self) -> PublicFiles:
        return PublicFiles(
            FilesConfig(
                train=(self.official(self.file),),
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
                level_of_theory="ωB97X/6-31G(d)",
                root=self.root,
            )
        )
