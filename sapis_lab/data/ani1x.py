"""ANI-1x and ANI-1ccx: 4,956,005 conformers of organic molecules (H, C, N, O) chosen by active learning, at
ωB97X/6-31G(d), some also at ωB97X/def2-TZVPP and by CCSD(T)*/CBS (Smith et al., Sci. Data 7 (2020) 134).

Reads `ani1x/ani1x-release.h5`, groups by formula, in Å, Hartree and Hartree/Å. A label that was not computed
is NaN there: frames without an energy at the level that is asked for are left out, and counted in the store's
metadata. By coupled cluster there are energies and no forces. There is no official split.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._changes import WithEnergies
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

_LEVELS = {
    "wb97x_dz": "ωB97X/6-31G(d)",
    "wb97x_tz": "ωB97X/def2-TZVPP",
    "ccsd(t)_cbs": "CCSD(T)*/CBS",
}


class Ani1xConfig(PublicData):
    """ANI-1x at one level of theory."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "ani1x"
    place: ClassVar[str] = "ani1x"
    kind: Literal["ani1x"] = "ani1x"
    level: Literal["wb97x_dz", "wb97x_tz", "ccsd(t)_cbs"] = "wb97x_dz"
    """Level of theory, as the file calls it; ccsd(t)_cbs, which is ANI-1ccx, has no forces."""
    file: str = "ani1x-release.h5"
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
        energy = f"{self.level}.energy"
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
                energy_key=energy,
                forces_key=None if self.level == "ccsd(t)_cbs" else f"{self.level}.forces",
                level_of_theory=_LEVELS[self.level],
                root=self.root,
            ),
            change=WithEnergies(energy),
        )
