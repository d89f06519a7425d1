"""OC20, structure to energy and forces: adsorbates on surfaces of 55 elements, 200,000 to 134 million frames
of relaxations, dynamics and rattled structures, RPBE with VASP (Chanussot et al., ACS Catal. 11 (2021) 6059;
CC-BY 4.0).

Reads the unpacked archives `oc20/s2ef_train_200K/` and so on, and for testing the four official validation
sets `oc20/s2ef_val_id/`, ..., chunks of `.extxyz.xz` with a `.txt` each, which stay compressed. Energies are
adsorption energies, total minus the reference of the .txt, as in published errors. Forces are those of all
atoms, also of the fixed ones, which published errors leave out. Validation frames are held out of training;
they share systems with it, unlike the tests.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data._sources import data_root, need_folder
from sapis_lab.data.files import FilesConfig
from sapis_lab.formats import format_of

Test = Literal["id", "ood_ads", "ood_cat", "ood_both"]


class Oc20S2efConfig(PublicData):
    """OC20, frames with energies and forces."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "oc20"
    place: ClassVar[str] = "oc20"
    kind: Literal["oc20_s2ef"] = "oc20_s2ef"
    train: Literal["200K", "2M", "20M", "all"] = "200K"
    """The official training set."""
    tests: tuple[Test, ...] = ("id", "ood_ads", "ood_cat", "ood_both")
    """Official validation sets, which become the splits test_id, test_oodads, test_oodcat, test_oodboth."""
    test_frames: int | None = Field(default=10_000, ge=1, le=10**8)
    """Frames of each of them, from its start; null takes all."""
    energy: Literal["adsorption", "total"] = "adsorption"
    """Which energy is learnt: less the reference of surface and gas, or as computed."""
    n_train: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of the training pool; by default all that are not held out."""
    n_validation: int = Field(default=5000, ge=1, le=10**8)
    """Frames held out of the training set for validation."""
    n_test: int = Field(default=0, ge=0, le=10**8)
    """Frames held out of it as the split `test`, without official tests (`tests: []`)."""
    seed: Seed = 0
    """Of the order of the training frames."""

    @model_validator(mode="after")
    def _one_kind_of_test(self) -> Oc20S2efConfig:
        if bool(self.tests) == bool(self.n_test):
            raise ValueError(
                "give tests (official sets) or n_test (frames held out of train), exactly one of them"
            )
        return self

    def files(self) -> PublicFiles:
        part = "" if self.test_frames is None else f"[:{self.test_frames}]"
        return PublicFiles(
            FilesConfig(
                train=(self._chunks(f"s2ef_train_{self.train}"),),
                tests={
                    f"test_{t.replace('_', '')}": (self._chunks(f"s2ef_val_{t}") + part,) for t in self.tests
                },
                format="oc20_s2ef",
                n_train=self.n_train,
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                energy_key="adsorption_energy" if self.energy == "adsorption" else "energy",
                level_of_theory="RPBE (VASP)",
                root=self.root,
            )
        )

    def _chunks(self, name: str) -> str:
        """The folder of the chunks of a set, which the archives have twice: s2ef_val_id/s2ef_val_id/."""
        root = data_root(self.root)
        for folder in (f"{name}/{name}", name):
            if format_of(root, "oc20_s2ef").is_one(root / self.within(folder)):
                return self.within(folder)
        need_folder(root, self.within(name))
        raise ValueError(
            f"{root / self.within(name)}: no chunks such as 0.extxyz.xz with 0.txt, there or in {name}/; "
            "wanted the unpacked archive"
        )
