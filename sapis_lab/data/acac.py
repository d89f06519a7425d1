"""Acetylacetone, 15 atoms, at 300 and 600 K, along a dihedral angle and along the transfer of a proton;
PBE+D3/def2-SVP with ORCA (Batatia et al., arXiv:2205.06643; the files are those of
github.com/davkovacs/BOTNet-datasets, MIT).

Reads `acac/train_300K.xyz`, `train_600K.xyz`, `test_MD_300K.xyz`, `test_MD_600K.xyz`, `test_dihedral.xyz`,
`test_H_transfer.xyz` and `isolated_atoms.xyz`, in eV and Å as they are. The frames of test_dihedral and
test_H_transfer have energies and no forces. Published errors are of models trained on train_300K and tested
at 300 and 600 K. The functional is not that of rMD17, PBE without D3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Test = Literal["300K", "600K", "dihedral", "H_transfer"]
_FILES: dict[str, str] = {"300K": "test_MD_300K.xyz", "600K": "test_MD_600K.xyz"}
_ENERGIES_ALONE = ("dihedral", "H_transfer")


class AcacConfig(PublicData):
    """Acetylacetone: trained at 300 or 600 K, tested at both and along two reaction paths."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "acac"
    place: ClassVar[str] = "acac"
    kind: Literal["acac"] = "acac"
    train: Literal["300K", "600K"] = "300K"
    """Temperature of the 500 training frames."""
    tests: tuple[Test, ...] = Field(default=("300K", "600K"), min_length=1)
    """The official tests, which become the splits test_300K, test_600K, test_dihedral, test_Htransfer."""
    n_validation: int = Field(default=50, ge=1, lt=500)
    """Frames held out of the training frames for validation."""
    seed: Seed = 0
    """Of the order of the training frames."""

    def files(self) -> PublicFiles:
        tests = {t: f"test_{t.replace('_', '')}" for t in self.tests}
        alone = frozenset(tests[t] for t in tests if t in _ENERGIES_ALONE)
        return PublicFiles(
            FilesConfig(
                train=(self.official(f"train_{self.train}.xyz"),),
                tests={split: (self.official(_FILES.get(t, f"test_{t}.xyz")),) for t, split in tests.items()},
                n_validation=self.n_validation,
                seed=self.seed,
                energy_unit="eV",
                length_unit="Angstrom",
                isolated_atoms=self.official("isolated_atoms.xyz"),
                level_of_theory="PBE+D3/def2-SVP (ORCA)",
                missing="mask" if alone else "refuse",
                root=self.root,
            ),
            energies_alone=alone,
        )
