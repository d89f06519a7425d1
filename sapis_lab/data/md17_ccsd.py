"""Five molecules of MD17 by coupled cluster: CCSD(T)/cc-pVTZ for ethanol, CCSD(T)/cc-pVDZ for benzene,
malonaldehyde and toluene, CCSD/cc-pVDZ for aspirin (Chmiela et al., Nat. Commun. 9 (2018) 3887).

Reads what is in the archives of quantum-machine.org/gdml, such as ethanol_ccsd_t.zip, unpacked:
`md17_ccsdt/<molecule>_ccsd_t-train.npz` and `-test.npz` (of aspirin `aspirin_ccsd-...`), with the arrays R,
z, E and F in Å, kcal/mol and kcal/mol/Å. 1000 frames are for training, 500 to 1000 for testing. Atoms stand
in another order than in `rmd17`. Frames were drawn with repetition (in ethanol's training file 736 is 280,
and 826 is 773, to the last bit): copies are left out, and counted in the store's metadata.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

_LEVELS = {
    "aspirin": "CCSD/cc-pVDZ",
    "benzene": "CCSD(T)/cc-pVDZ",
    "ethanol": "CCSD(T)/cc-pVTZ",
    "malonaldehyde": "CCSD(T)/cc-pVDZ",
    "toluene": "CCSD(T)/cc-pVDZ",
}


class Md17CcsdConfig(PublicData):
    """One molecule of MD17 with labels by coupled cluster, in the official split."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "md17_ccsdt"
    place: ClassVar[str] = "md17_ccsdt"
    kind: Literal["md17_ccsd"] = "md17_ccsd"
    molecule: Literal["aspirin", "benzene", "ethanol", "malonaldehyde", "toluene"] = "ethanol"
    """The molecule, as in the file names."""
    n_validation: int = Field(default=50, ge=1, lt=1000)
    """Frames held out of the 1000 training frames for validation."""
    n_test: int | None = Field(default=None, ge=1, lt=1000)
    """Frames held out of the training frames as the split `test`, where the official test file is not at
    hand; by default that file."""
    seed: Seed = 0
    """Of the order of the training frames."""

    def files(self) -> PublicFiles:
        stem = f"{self.molecule}_ccsd" if self.molecule == "aspirin" else f"{self.molecule}_ccsd_t"
        return PublicFiles(
            FilesConfig(
                train=(self.official(f"{stem}-train.npz"),),
                tests={"test": (self.official(f"{stem}-test.npz"),)} if self.n_test is None else {},
                n_validation=self.n_validation,
                n_test=self.n_test or 0,
                seed=self.seed,
                copies="drop",
                energy_unit="kcal/mol",
                length_unit="Angstrom",
                level_of_theory=_LEVELS[self.molecule],
                root=self.root,
            )
        )
