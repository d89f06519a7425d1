"""A folder with the weights and a short script that gives them to ASE.

`calculator.py` makes the calculator `sapis_lab.load_model`, and run by itself prints energy, forces and, with
a cell, stress of a file of structures. ASE wants eV, Å and eV/Å³ with tension positive, as we have them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sapis_lab.exports._base import Export, want_energies
from sapis_lab.files import write_text
from sapis_lab.potential import DESCRIPTION, WEIGHTS, Potential, save_potential

_SCRIPT = '''\
"""The potential in this folder as an ASE calculator; `python calculator.py FILE` prints what it predicts."""

import sys
from pathlib import Path

import ase.io
import sapis_lab

calculator = sapis_lab.load_model(Path(__file__).parent)

if __name__ == "__main__":
    for atoms in ase.io.iread(sys.argv[1]):
        atoms.calc = calculator
        print("energy, eV:", atoms.get_potential_energy())
        print("forces, eV/A:", atoms.get_forces(), sep="\\n")
        if atoms.pbc.any() and atoms.cell.rank == 3:
            print("stress, eV/A^3, Voigt (xx yy zz yz xz xy):", atoms.get_stress(), sep="\\n")
'''


class AseExport(Export):
    """ASE: weights, and a script that makes a calculator with energies, forces and stress."""

    kind: Literal["ase"] = "ase"

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        save_potential(folder, potential)
        write_text(folder / "calculator.py", _SCRIPT)
        return [folder / name for name in (WEIGHTS, DESCRIPTION, "calculator.py")]
