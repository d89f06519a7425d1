"""Energy and forces from extended tight binding (GFN1-xTB, GFN2-xTB, IPEA1-xTB) through tblite.

Methods: GFN2 Bannwarth, Ehlert & Grimme, J. Chem. Theory Comput. 15, 1652 (2019),
doi:10.1021/acs.jctc.8b01176; GFN1 Grimme, Bannwarth & Shushkov, ibid. 13, 1989 (2017),
doi:10.1021/acs.jctc.7b00118; IPEA1 Asgeirsson, Bauer & Grimme, Chem. Sci. 8, 4879 (2017). Molecules only:
with periodic boundaries tblite samples the Gamma point alone, and small crystal cells come out wrong by
electronvolts.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.oracles._base import Failed, Labels, OracleConfig

Method = Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"]

MD_ACCURACY = 1.0
"""tblite's accuracy along a trajectory: total energy in NVE then fluctuates by 1.7 meV at 1 fs and drifts by
0.01 meV/ps (ethanol)."""
LABEL_ACCURACY = 0.01
"""tblite's accuracy of stored labels; it costs a quarter more than 1."""


_SETTINGS = ("No support for elements", "is not compatible")
"""In what tblite says of a structure that these settings can never label."""


class XtbConfig(OracleConfig):
    """A tight-binding label source."""

    version: ClassVar[int] = 1
    gives: ClassVar[frozenset[str]] = frozenset({"charges", "dipole"})
    packages: ClassVar[tuple[str, ...]] = ("tblite",)

    kind: Literal["xtb"] = "xtb"
    method: Method = "GFN2-xTB"
    """The parametrisation."""
    accuracy: float = Field(default=LABEL_ACCURACY, ge=1e-4, le=1000)
    """tblite's accuracy: thresholds of the self-consistency scale with it."""
    charge: float = Field(default=0.0, ge=-100, le=100)
    """Total charge, e."""
    n_unpaired: int = Field(default=0, ge=0, le=100)
    """Unpaired electrons."""

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        """Energy (eV), forces (eV/Å), Mulliken charges (e) and dipole (e Å) of one molecule.

        Every call starts cold, from a new calculator: a wavefunction kept from the previous geometry saves
        0.15 ms of 1.1 ms for ethanol but moves the forces by 1e-4 eV/Å, so that labels would depend on the
        order in which they were asked for.
        """
        self.refuse_periodic(pbc)
        x = np.asarray(positions) / units.BOHR_TO_ANGSTROM
        tblite = _tblite()
        try:
            calculator = tblite.Calculator(
                self.method, np.asarray(species), x, charge=self.charge, uhf=self.n_unpaired
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.accuracy)
            result = calculator.singlepoint()
        except RuntimeError as error:
            # tblite has one kind of error for what is asked wrongly and for what does not converge
            text = " ".join(str(error).split())
            if any(words in text for words in _SETTINGS):
                raise ValueError(
                    f"oracle 'xtb' ({self.method}, charge {self.charge:g}, n_unpaired {self.n_unpaired}): "
                    f"{text}"
                ) from None
            return Failed(text)
        return Labels(
            float(result.get("energy")) * units.HARTREE_TO_EV,
            result.get("gradient") * (-units.HARTREE_TO_EV / units.BOHR_TO_ANGSTROM),
            charges=result.get("charges"),
            dipole=result.get("dipole") * units.BOHR_TO_ANGSTROM,
        )

    def seconds(self, n_atoms: int) -> float:
        """A fixed part and the cube of the orbitals: 1.2 ms for ethanol, 0.28 s for C60."""
        return 4e-4 + 8e-4 * (n_atoms / 9) ** 3

    def level(self) -> str:
        return f"{self.method}, tblite, accuracy {self.accuracy:g}"

    def for_dynamics(self) -> Self:
        return self.model_copy(update={"accuracy": MD_ACCURACY})


def _tblite():  # noqa: ANN202
    try:
        import tblite.interface
    except ImportError:
        raise ImportError(
            "xTB labels need the package tblite, which is not installed: pip install 'sapis-lab[xtb]'"
        ) from None
    return tblite.interface
