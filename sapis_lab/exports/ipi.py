"""i-PI (Litman et al., arXiv:2405.15224; 3.3): an input file, and what gives it energies, forces and virials.

    connection: socket      `i-pi input.xml &`, then `python client.py` once or several times: ASE's client of
                            i-PI's protocol around our calculator
    connection: direct      `i-pi input.xml` alone: `driver.py` is loaded into i-PI as its custom potential,
                            and all beads are predicted at once

i-PI turns the cell of `start.xyz` so that its first vector lies along x and its second in the xy plane;
lengths and angles stay. Its virial is -V σ, with our stress σ.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import ConfigError
from sapis_lab.elements import SYMBOLS
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.exports._python import write_python
from sapis_lab.potential import Potential
from sapis_lab.structures import Structure
from sapis_lab.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

START, INPUT = "start.xyz", "input.xml"
_VACUUM = 20.0
"""What is left around an open structure in the cell that i-PI wants of it, Å; no potential sees that cell."""

_CLIENT = '''\
"""Gives i-PI energies, forces and virials of the potential in this folder, until i-PI ends."""

from pathlib import Path

import ase.io
import sapis_lab
from ase.calculators.socketio import SocketClient

here = Path(__file__).parent
atoms = ase.io.read(here / "start.xyz")
atoms.calc = sapis_lab.load_model(here)
SocketClient(unixsocket="{address}").run(atoms, use_stress=bool(atoms.pbc.any()))
'''

_DRIVER = '''\
"""The potential in this folder as a potential of i-PI, which loads this file."""

from pathlib import Path

import ase.io
from sapis_lab.exports.ipi import energies_forces_virials
from sapis_lab.potential import load_potential

from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "sapis"
__DRIVER_CLASS__ = "SapisDriver"


class SapisDriver(Dummy_driver):
    def check_parameters(self):
        here = Path(__file__).parent
        self.potential = load_potential(here)
        self.atoms = ase.io.read(here / "start.xyz")

    def compute(self, cell, pos):
        several = isinstance(cell, list)
        cells, positions = (cell, pos) if several else ([cell], [pos])
        found = energies_forces_virials(self.potential, self.atoms, cells, positions)
        return found if several else found[0]
'''

_INPUT = """\
<simulation verbosity="medium">
  <output prefix="simulation">
    <properties stride="10" filename="out"> [ step, time{{picosecond}}, conserved{{electronvolt}},
      temperature{{kelvin}}, kinetic_md{{electronvolt}}, potential{{electronvolt}} ] </properties>
    <trajectory stride="100" filename="pos"> positions{{angstrom}} </trajectory>
    <checkpoint stride="1000"/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> {seed} </seed></prng>
  {force_field}
  <system>
    <initialize nbeads="{beads}">
      <file mode="ase"> start.xyz </file>
      <velocities mode="thermal" units="kelvin"> {temperature} </velocities>
    </initialize>
    <forces><force forcefield="sapis"/></forces>
    <motion mode="dynamics">
      <dynamics mode="{ensemble}">
        <timestep units="femtosecond"> {timestep} </timestep>
        {thermostat}
      </dynamics>
    </motion>
    <ensemble><temperature units="kelvin"> {temperature} </temperature></ensemble>
  </system>
</simulation>
"""
_SOCKET = """\
<ffsocket name="sapis" mode="unix" pbc="false">
    <address> {address} </address>
    <latency> 1e-4 </latency>
  </ffsocket>"""
_DIRECT = """\
<ffdirect name="sapis" pbc="false">
    <pes> custom </pes>
    <pes_path> driver.py </pes_path>
    <batch_size> {beads} </batch_size>
  </ffdirect>"""
_THERMOSTAT = """\
<thermostat mode="{mode}">
          <tau units="femtosecond"> 100 </tau>
        </thermostat>"""


class IpiExport(Export):
    """i-PI: weights, an input file, and a client of its socket or a potential that it loads."""

    kind: Literal["ipi"] = "ipi"
    structure: str | None = None
    """A file with the structure to begin with, which ASE reads; without, put one there as `start.xyz` with a
    cell."""
    connection: Literal["socket", "direct"] = "socket"
    """Whether clients connect to i-PI by a socket, or i-PI calls the potential itself."""
    address: str = Field(default="sapis", pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)
    """Name of the socket, /tmp/ipi_ADDRESS; simulations that run at the same time need different ones."""
    ensemble: Literal["nve", "nvt"] = "nvt"
    """Of the input file: constant energy, or constant temperature (Langevin, and PILE with several beads)."""
    n_beads: int = Field(default=1, ge=1, le=1024)
    """Beads of the path integral; 1 is classical dynamics."""
    steps: int = Field(default=1000, ge=1, le=10**12)
    """Steps of the input file."""
    timestep: float = Field(default=0.5, gt=0, le=100)
    """Of the input file, fs."""
    temperature: float = Field(default=300.0, gt=0, le=1e5)
    """Of the thermostat and of the first velocities, K."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Of velocities and thermostat."""

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)
        if self.structure is not None:
            _start(potential, self.structure)

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        direct = self.connection == "direct"
        force_field = (_DIRECT if direct else _SOCKET).format(address=self.address, beads=self.n_beads)
        thermostat = _THERMOSTAT.format(mode="langevin" if self.n_beads == 1 else "pile_g")
        scripts = {
            INPUT: _INPUT.format(
                steps=self.steps,
                seed=self.seed,
                force_field=force_field,
                beads=self.n_beads,
                temperature=self.temperature,
                ensemble=self.ensemble,
                timestep=self.timestep,
                thermostat=thermostat if self.ensemble == "nvt" else "",
            )
        }
        scripts |= {"driver.py": _DRIVER} if direct else {"client.py": _CLIENT.format(address=self.address)}
        if self.structure is not None:
            scripts[START] = _start(potential, self.structure)
        return write_python(potential, folder, scripts)


def _start(potential: Potential, path: str) -> str:
    """The first structure of a file as extended XYZ, with a cell around it where it has none.

    Raises:
        ConfigError: it cannot be read, has elements that the potential does not know, or is periodic along
            some directions only.
    """
    import ase.io

    try:
        atoms: Any = ase.io.read(path, index=0)
    except (OSError, ValueError, KeyError, ase.io.formats.UnknownFileTypeError) as error:
        raise ConfigError(f"structure={path}: cannot be read: {error or type(error).__name__}") from None
    unknown = sorted({int(z) for z in atoms.numbers} - set(potential.model.species))
    if unknown:
        raise ConfigError(
            f"structure={path}: has {', '.join(SYMBOLS[z] for z in unknown)}; the potential knows "
            f"{', '.join(SYMBOLS[z] for z in potential.model.species)}"
        )
    if atoms.pbc.any() and not atoms.pbc.all():
        raise ConfigError(
            f"structure={path}: pbc={atoms.pbc.tolist()}; i-PI takes periodic structures or open ones"
        )
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if not atoms.pbc.all():
        bare.set_cell(np.ptp(bare.positions, axis=0) + _VACUUM)
    text = StringIO()
    ase.io.write(text, bare, format="extxyz")
    return text.getvalue()


def energies_forces_virials(
    potential: Potential, atoms: Any, cells: Sequence[np.ndarray], positions: Sequence[np.ndarray]
) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
    """What a potential of i-PI returns of several beads: for each energy, forces (n_atoms, 3), virial (3, 3)
    and an empty string, in atomic units.

    Args:
        atoms: ASE's, whose elements and periodicity the beads have.   cells: (3, 3) each, columns are lattice
            vectors, Bohr.   positions: (n_atoms, 3) or (3 n_atoms,) each, Bohr.
    """
    periodic = bool(np.any(atoms.pbc))
    beads = [
        Structure(
            atoms.numbers,
            np.reshape(x, (-1, 3)) * BOHR_TO_ANGSTROM,
            np.transpose(h) * BOHR_TO_ANGSTROM,
            atoms.pbc,
        )
        for h, x in zip(cells, positions, strict=True)
    ]
    found = potential.predict(beads, stress=periodic)
    result: list[tuple[float, np.ndarray, np.ndarray, str]] = []
    for k, bead in enumerate(beads):
        one = found[k]
        virial = np.zeros((3, 3))
        if one.stress is not None and bead.cell is not None:
            virial = -abs(np.linalg.det(bead.cell)) * one.stress[0] / HARTREE_TO_EV
        result.append(
            (float(one.energy[0]) / HARTREE_TO_EV, one.forces * BOHR_TO_ANGSTROM / HARTREE_TO_EV, virial, "")
        )
    return result
