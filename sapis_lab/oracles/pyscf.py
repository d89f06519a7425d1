"""Energy, forces, dipole and Mulliken charges from density functional theory (Kohn-Sham) through PySCF.

PySCF: Sun et al., J. Chem. Phys. 153, 024109 (2020). Molecules only. Two levels continue public data:
PBE/def2-SVP with density fitting and grid level 1 lies 1 to 1.5 meV/Å from the forces of rMD17, wB97X/6-31G*
with cartesian d functions within 0.3 meV of the energies of ANI-1x and COMP6 (configs/oracles/). Forces leave
the response of the grid out, as is usual: at level 1 they differ from the gradient of the energy by about 1
meV/Å.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.data import SYMBOLS
from sapis_lab.oracles._base import Failed, Labels, OracleConfig

if TYPE_CHECKING:
    from types import ModuleType


class PyscfConfig(OracleConfig):
    """A label source by density functional theory."""

    version: ClassVar[int] = 1
    gives: ClassVar[frozenset[str]] = frozenset({"charges", "dipole"})
    packages: ClassVar[tuple[str, ...]] = ("pyscf",)

    kind: Literal["pyscf"] = "pyscf"
    xc: str = Field(default="PBE", min_length=1, max_length=100)
    """Exchange and correlation, as PySCF names it: PBE, B3LYP, wB97X."""
    basis: str = Field(default="def2-svp", min_length=1, max_length=100)
    """Basis set, as PySCF names it: def2-svp, 6-31g*."""
    cartesian: bool = False
    """Six d functions rather than five; the data of ANI have them in 6-31G*."""
    density_fitting: bool = True
    """Coulomb (and exchange) energies by an auxiliary basis; several times as fast."""
    grid_level: int = Field(default=3, ge=0, le=9)
    """Integration grid: 1 is coarse (about 1 meV/Å), 3 PySCF's default, 4 and more fine."""
    charge: int = Field(default=0, ge=-100, le=100)
    """Total charge, e."""
    n_unpaired: int = Field(default=0, ge=0, le=100)
    """Unpaired electrons; with any, unrestricted."""
    conv_tol: float = Field(default=1e-9, ge=1e-14, le=1e-3)
    """The self-consistency ends when the energy changes by less, Hartree."""
    max_cycles: int = Field(default=100, ge=1, le=10_000)
    """Cycles after which a label has failed."""

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        """Energy (eV), forces (eV/Å), Mulliken charges (e) and dipole (e Å) of one molecule.

        Every call starts from superposed atomic densities, so that labels do not depend on the order in which
        they are asked for.
        """
        self.refuse_periodic(pbc)
        gto, dft = _pyscf()
        molecule = self._molecule(gto, species, np.asarray(positions) / units.BOHR_TO_ANGSTROM)
        try:
            field = dft.UKS(molecule, xc=self.xc) if self.n_unpaired else dft.RKS(molecule, xc=self.xc)
            if self.density_fitting:
                field = field.density_fit()
            field.grids.level, field.conv_tol, field.max_cycle = (
                self.grid_level,
                self.conv_tol,
                self.max_cycles,
            )
            energy = field.kernel()
        except (KeyError, ValueError, np.linalg.LinAlgError) as error:
            if isinstance(error, KeyError) or "xc" in str(error).lower():
                raise ValueError(f"oracle 'pyscf': xc={self.xc!r} cannot be used ({error})") from None
            return Failed(f"the self-consistency broke down: {' '.join(str(error).split())}")
        if not field.converged:
            return Failed(f"SCF not converged in {self.max_cycles} cycles")
        gradient = field.nuc_grad_method().kernel()
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            return Failed("the energy or a force is not finite")
        return Labels(
            float(energy) * units.HARTREE_TO_EV,
            np.asarray(gradient) * (-units.HARTREE_TO_EV / units.BOHR_TO_ANGSTROM),
            charges=np.asarray(field.mulliken_pop(verbose=0)[1]),
            dipole=np.asarray(field.dip_moment(unit="AU", verbose=0)) * units.BOHR_TO_ANGSTROM,
        )

    def _molecule(self, gto: ModuleType, species: np.ndarray, positions: np.ndarray) -> Any:
        """PySCF's molecule; positions in Bohr, since PySCF's own Å is another in the ninth digit."""
        atoms = [
            (SYMBOLS[int(z)], tuple(float(c) for c in x)) for z, x in zip(species, positions, strict=True)
        ]
        try:
            return gto.M(
                atom=atoms,
                unit="Bohr",
                basis=self.basis,
                cart=self.cartesian,
                charge=self.charge,
                spin=self.n_unpaired,
                verbose=0,
            )
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"oracle 'pyscf' (basis {self.basis}, charge {self.charge}, n_unpaired {self.n_unpaired}): "
                f"{' '.join(str(error).split())}"
            ) from None

    def seconds(self, n_atoms: int) -> float:
        """Measured for PBE/def2-SVP with density fitting, grid level 1: ethanol 5 s, aspirin 104 s."""
        return (5.0 if self.density_fitting else 8.0) * (n_atoms / 9) ** 3.5 * (1 + self.grid_level) / 2

    def level(self) -> str:
        basis = f"{self.basis}{' (cartesian)' if self.cartesian else ''}"
        fitting = "density fitting, " if self.density_fitting else ""
        return f"{self.xc}/{basis}, PySCF, {fitting}grid level {self.grid_level}"


def _pyscf() -> tuple[ModuleType, ModuleType]:
    try:
        from pyscf import dft, gto
    except ImportError:
        raise ImportError(
            "DFT labels need the package pyscf, which is not installed: pip install 'sapis-lab[dft]'"
        ) from None
    return gto, dft
