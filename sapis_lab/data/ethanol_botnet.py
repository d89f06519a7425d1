"""Ethanol and methanol near and far from equilibrium: molecular dynamics at 500 K, two normal modes, the
removal of a hydrogen atom, and curves of six dimers; PBE/def2-SVP with ORCA (Batatia et al.,
arXiv:2205.06643; the files are those of github.com/davkovacs/BOTNet-datasets, MIT).

Reads `ethanol_botnet/train.xyz`, `train_eth_meth.xyz`, `test_MD.xyz`, `test_eth_meth.xyz`, `test_dimers.xyz`,
`test_H_removal.xyz`, `test_norm_mode_874.xyz`, `test_norm_mode_3005.xyz` and `isolated_atoms.xyz`, in eV and
Å as they are. Only the two tests of molecular dynamics have forces. Frames of train are frames of
train_eth_meth, and of test_MD of test_eth_meth. Structures and functional are those of rMD17: 20 of the
training frames are in the training file of its official split 01.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig

Test = Literal["MD", "eth_meth", "dimers", "H_removal", "norm_mode_874", "norm_mode_3005"]
_WITH_FORCES = ("MD", "eth_meth")


class EthanolBotnetConfig(PublicData):
    """Ethanol, perhaps with methanol, tested there and far from equilibrium."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "ethanol_botnet"
    place: ClassVar[str] = "ethanol_botnet"
    kind: Literal["ethanol_botnet"] = "ethanol_botnet"
    train: Literal["ethanol", "ethanol_methanol"] = "ethanol"
    """The training frames: 1000 of ethanol, or these with 300 of methanol."""
    tests: tuple[Test, ...] = Field(default=("MD",), min_length=1)
    """The official tests, which become the splits test_MD, test_ethmeth, test_dimers, test_Hremoval,
    test_normmode874 and test_normmode3005."""
    n_validation: int = Field(default=50, ge=1, lt=1000)
    """Frames held out of the training frames for validation."""
    seed: Seed = 0
    """Of the order of the training frames."""

    def files(self) -> PublicFiles:
        tests = {t: f"test_{t.replace('_', '')}" for t in self.tests}
        alone = frozenset(tests[t] for t in tests if t not in _WITH_FORCES)
        return PublicFiles(
            FilesConfig(
                train=(self.official("train.xyz" if self.train == "ethanol" else "train_eth_meth.xyz"),),
                tests={split: (self.official(f"test_{t}.xyz"),) for t, split in tests.items()},
                n_validation=self.n_validation,
                seed=self.seed,
                energy_unit="eV",
                length_unit="Angstrom",
                isolated_atoms=self.official("isolated_atoms.xyz"),
                level_of_theory="PBE/def2-SVP (ORCA)",
                missing="mask" if alone else "refuse",
                root=self.root,
            ),
            energies_alone=alone,
            torn=frozenset({"test_dimers"}),
        )
