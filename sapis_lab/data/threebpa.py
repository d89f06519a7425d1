"""3BPA, a drug-like molecule of 27 atoms with three rotors, at 300, 600 and 1200 K and along a dihedral
angle; ωB97X/6-31G(d) with ORCA (Kovács et al., J. Chem. Theory Comput. 17 (2021) 7696; the files are those of
github.com/davkovacs/BOTNet-datasets, MIT).

Reads `3bpa/train_300K.xyz`, `train_mixedT.xyz`, `test_300K.xyz`, `test_600K.xyz`, `test_1200K.xyz`,
`test_dih.xyz` and `iso_atoms.xyz`, in eV and Å as they are. Published errors are of models trained on the 500
frames of train_300K, some of which their authors held out for validation. The two training files share 31
frames, so they are not to be joined.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Test = Literal["300K", "600K", "1200K", "dih"]
_DIHEDRALS = ("test_dih.xyz", "test_dih_beta.xyz")
"""Names of that file in the repository and in its README."""


class ThreebpaConfig(PublicData):
    """3BPA: trained at 300 K or at mixed temperatures, tested at each and along a dihedral angle."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "3bpa"
    place: ClassVar[str] = "3bpa"
    kind: Literal["threebpa"] = "threebpa"
    train: Literal["300K", "mixedT"] = "300K"
    """Temperature of the 500 training frames."""
    tests: tuple[Test, ...] = ("300K", "600K", "1200K", "dih")
    """The official tests, which become the splits test_300K and so on."""
    n_validation: int = Field(default=50, ge=1, lt=500)
    """Frames held out of the training frames for validation."""
    n_test: int = Field(default=0, ge=0, lt=500)
    """Frames held out of them as the split `test`, without official tests (`tests: []`)."""
    seed: Seed = 0
    """Of the order of the training frames."""

    @model_validator(mode="after")
    def _one_kind_of_test(self) -> ThreebpaConfig:
        if bool(self.tests) == bool(self.n_test):
            raise ValueError(
                "give tests (official files) or n_test (frames held out of train), exactly one of them"
            )
        return self

    def files(self) -> PublicFiles:
        tests = {
            f"test_{t}": (self.official(*(_DIHEDRALS if t == "dih" else (f"test_{t}.xyz",))),)
            for t in self.tests
        }
        return PublicFiles(
            FilesConfig(
                train=(self.official(f"train_{self.train}.xyz"),),
                tests={**tests},
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                energy_unit="eV",
                length_unit="Angstrom",
                isolated_atoms=self.official("iso_atoms.xyz"),
                level_of_theory="ωB97X/6-31G(d) (ORCA)",
                root=self.root,
            )
        )
