"""MD17: molecular dynamics of ten molecules at 500 K, 10⁵ to 10⁶ frames each, with the original labels, PBE
with van der Waals terms of Tkatchenko and Scheffler in FHI-aims (Chmiela et al., Sci. Adv. 3 (2017)
e1603015).

Reads the archives of quantum-machine.org/gdml, `md17/md17_<molecule>.npz` or `md17/<molecule>_dft.npz`, with
the arrays R, z, E and F in Å, kcal/mol and kcal/mol/Å. There is no official split. Frames are consecutive
steps of dynamics, nearly equal to their neighbours: by the advice of Christensen and von Lilienfeld
(arXiv:2007.09593) no more than 1000 of them, drawn at random, are for training and validation. They found
these labels noisy and computed them anew: `rmd17`. Benzene is there twice, with frames and settings of 2017
and of 2018. Exact copies of a frame are left out.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Molecule = Literal[
    "aspirin",
    "azobenzene",
    "benzene2017",
    "benzene2018",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
]


class Md17Config(PublicData):
    """One molecule of MD17 with its original labels."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "md17"
    place: ClassVar[str] = "md17"
    kind: Literal["md17"] = "md17"
    molecule: Molecule = "ethanol"
    """The molecule, as in the file names."""
    n_train: int | None = Field(default=950, ge=1, le=10**7)
    """Frames of the training pool; null takes all that are not held out."""
    n_validation: int = Field(default=50, ge=1, le=10**7)
    """Frames held out for validation."""
    n_test: int = Field(default=1000, ge=1, le=10**7)
    """Frames held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all frames, from which the splits are taken."""

    def files(self) -> PublicFiles:
        names = (f"md17_{self.molecule}.npz", f"{self.molecule}_dft.npz")
        return PublicFiles(
            FilesConfig(
                train=(self.official(*names),),
                n_train=self.n_train,
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                energy_unit="kcal/mol",
                length_unit="Angstrom",
                level_of_theory="PBE+vdW-TS (FHI-aims)",
                root=self.root,
            )
        )
