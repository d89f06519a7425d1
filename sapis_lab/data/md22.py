"""MD22: molecular dynamics of seven molecules of 42 to 370 atoms at 400 to 500 K, PBE with many-body
dispersion in FHI-aims (Chmiela et al., Sci. Adv. 9 (2023) eadf0873, arXiv:2209.14865).

Reads the archives of quantum-machine.org/gdml, `md22/md22_<molecule>.npz`, with the arrays R, z, E and F in
Å, kcal/mol and kcal/mol/Å. There is no official split; the paper says how many frames it trains on, and tests
on others. Later work takes its validation frames from that number, here they come on top.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Molecule = Literal[
    "Ac-Ala3-NHMe",
    "DHA",
    "stachyose",
    "AT-AT",
    "AT-AT-CG-CG",
    "buckyball-catcher",
    "double-walled_nanotube",
]
N_TRAIN: dict[str, int] = {
    "Ac-Ala3-NHMe": 6000,
    "DHA": 8000,
    "stachyose": 8000,
    "AT-AT": 3000,
    "AT-AT-CG-CG": 2000,
    "buckyball-catcher": 600,
    "double-walled_nanotube": 800,
}
"""Training frames of the paper, table 1."""


class Md22Config(PublicData):
    """One molecule of MD22."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "md22"
    place: ClassVar[str] = "md22"
    kind: Literal["md22"] = "md22"
    molecule: Molecule
    """The molecule, as in the file names."""
    n_train: int | None = Field(default=None, ge=1, le=10**5)
    """Frames of the training pool; by default as many as in the paper."""
    n_validation: int = Field(default=200, ge=1, le=10**5)
    """Frames held out for validation."""
    n_test: int = Field(default=1000, ge=1, le=10**5)
    """Frames held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all frames, from which the splits are taken."""

    def files(self) -> PublicFiles:
        return PublicFiles(
            FilesConfig(
                train=(self.official(f"md22_{self.molecule}.npz"),),
                n_train=self.n_train or N_TRAIN[self.molecule],
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                energy_unit="kcal/mol",
                length_unit="Angstrom",
                level_of_theory="PBE+MBD (FHI-aims)",
                root=self.root,
            )
        )
