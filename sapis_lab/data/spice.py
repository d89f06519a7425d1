"""SPICE: conformations of drug-like molecules, peptides, ions and clusters, 1.1 million in release 1, 2.0
million in release 2, at ωB97M-D3(BJ)/def2-TZVPPD (Eastman et al., Sci. Data 10 (2023) 11; J. Chem. Theory
Comput. 20 (2024) 8583).

Reads `spice/SPICE-2.0.1.hdf5` or `SPICE-1.1.4.hdf5`, groups by molecule, in Bohr, Hartree and Hartree/Bohr;
the file has the gradient, of the opposite sign of forces. The charge of a molecule follows from its SMILES.
Models that do not know it can not tell an ion from a radical: by default molecules of charge 0 are read.
There is no official split; frames of a molecule are in all splits.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sapis_lab.config import Seed
from sapis_lab.data._public import PublicData, PublicFiles
from sapis_lab.data.files import FilesConfig


class SpiceConfig(PublicData):
    """SPICE, or some of its subsets."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str] = "spice"
    place: ClassVar[str] = "spice"
    kind: Literal["spice"] = "spice"
    release: Literal["1.1.4", "2.0.1"] = "2.0.1"
    """Release, as in the file names."""
    file: str | None = None
    """Name of the file, where it is a part of the official one; by default that of the release."""
    subsets: tuple[str, ...] = ()
    """Subsets that are wanted, as the file calls them, such as 'SPICE Dipeptides Single Points Dataset v1.2';
    all by default."""
    charges: Literal["neutral", "all"] = "neutral"
    """Molecules that are wanted: of charge 0, or all, with their charge as the label total_charge."""
    max_force: float | None = Field(default=None, gt=0, le=1e6)
    """Frames with a larger force on an atom, eV/Å, are left out; the authors train without forces above
    1 Hartree/Bohr, 51.42."""
    n_train: int | None = Field(default=None, ge=1, le=10**8)
    """Frames of the training pool; by default all that are not held out."""
    n_validation: int = Field(default=10_000, ge=1, le=10**8)
    """Frames held out for validation."""
    n_test: int = Field(default=10_000, ge=1, le=10**8)
    """Frames held out as the split `test`."""
    seed: Seed = 0
    """Of the order of all frames, from which the splits are taken."""

    def files(self) -> PublicFiles:
        where: dict[str, tuple[str, ...]] = {"subset": self.subsets} if self.subsets else {}
        if self.charges == "neutral":
            where["smiles_charge"] = ("0",)
        return PublicFiles(
            FilesConfig(
                train=(self.official(self.file or f"SPICE-{self.release}.hdf5"),),
                format="hdf5",
                n_train=self.n_train,
                n_validation=self.n_validation,
                n_test=self.n_test,
                seed=self.seed,
                copies="drop",
                where=where,
                max_force=self.max_force,
                energy_unit="Hartree",
                length_unit="Bohr",
                energy_key="dft_total_energy",
                forces_key="dft_total_gradient",
                forces_are="gradient",
                charge_key="smiles_charge" if self.charges == "all" else None,
                level_of_theory="ωB97M-D3(BJ)/def2-TZVPPD",
                root=self.root,
            )
        )
