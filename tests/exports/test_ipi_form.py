"""The form `ipi`, run in i-PI."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from export_cases import SIZES, atoms_of, near, written

from sapis_lab.config import ConfigError
from sapis_lab.exports.ipi import IpiExport, energies_forces_virials
from sapis_lab.potential import Potential
from sapis_lab.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

pytest.importorskip("ipi", reason="i-PI is not installed")
SERVER = Path(sys.executable).parent / "i-pi"


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(place: Path, *, socket: str | None) -> np.ndarray:
    """The columns of `simulation.out` of i-PI run to its end in the folder of an export."""
    server = started(str(SERVER), "input.xml", cwd=place)
    client = None
    try:
        if socket is not None:
            address = Path(f"/tmp/ipi_{socket}")
            while not address.exists():
                assert server.poll() is None, server.communicate()[0]
                time.sleep(0.05)
            client = started("client.py", cwd=place)
        said, _ = server.communicate(timeout=300)
        assert server.returncode == 0, said[-4000:]
        if client is not None:
            said, _ = client.communicate(timeout=60)
            assert client.returncode == 0, said
    finally:
        for process in (server, client):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
        if socket is not None:
            Path(f"/tmp/ipi_{socket}").unlink(missing_ok=True)  # i-PI leaves it when it is killed
    return np.loadtxt(place / "simulation.out", ndmin=2)


def exported(potential: Potential, atoms: Atoms, place: Path, **settings: object) -> Path:
    atoms.write(place.parent / "given.xyz")
    form = IpiExport(structure=str(place.parent / "given.xyz"), ensemble="nve", **settings)
    return written(potential, form, place)


@pytest.mark.parametrize(
    ("connection", "periodic"),
    [
        ("socket", True),
        ("direct", False),
        pytest.param("socket", False, marks=pytest.mark.long),
        pytest.param("direct", True, marks=pytest.mark.long),
    ],
)
def test_dynamics_in_ipi_begin_at_our_energy_and_conserve_it(
    potential: Potential, tmp_path: Path, connection: str, periodic: bool
) -> None:
    atoms = atoms_of(32, periodic=periodic)
    address = f"test_{uuid.uuid4().hex[:12]}"
    settings = {"connection": connection, "address": address, "steps": 40}
    place = exported(potential, atoms, tmp_path / "out", **settings)
    rows = run(place, socket=address if connection == "socket" else None)
    # step, time, conserved, temperature, kinetic, potential
    assert near(rows[0, 5], potential.predict(atoms).energy[0])
    assert np.ptp(rows[:, 2]) / 32 < 1e-4 and np.ptp(rows[:, 5]) > 1e-3
    last = ase.io.read(place / "simulation.pos_0.xyz", index=-1)
    assert len(last) == 32


@pytest.mark.long
def test_beads_of_a_path_integral_are_predicted_together(potential: Potential, tmp_path: Path) -> None:
    atoms = atoms_of(8, periodic=True)
    place = exported(potential, atoms, tmp_path / "out", connection="direct", n_beads=4, steps=10)
    rows = run(place, socket=None)
    assert near(rows[0, 5], potential.predict(atoms).energy[0])


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("n", SIZES)
def test_numbers_are_ours_in_atomic_units(potential: Potential, n: int, periodic: bool) -> None:
    atoms = atoms_of(n, periodic=periodic)
    ours = potential.predict(atoms, stress=periodic)
    cell = atoms.cell.array.T / BOHR_TO_ANGSTROM
    several = energies_forces_virials(
        potential, atoms, [cell, cell], [atoms.positions / BOHR_TO_ANGSTROM] * 2
    )
    for energy, forces, virial, more in several:
        assert near(energy * HARTREE_TO_EV, ours.energy[0]) and more == ""
        assert near(forces * HARTREE_TO_EV / BOHR_TO_ANGSTROM, ours.forces)
        if ours.stress is None:
            assert not virial.any()
        else:
            assert near(virial * HARTREE_TO_EV, -atoms.get_volume() * ours.stress[0])


def test_virials_agree_with_ipis_own_ase_driver(potential: Potential, tmp_path: Path) -> None:
    from ipi.pes._ase import ASEDriver

    from sapis_lab.calculator import SapisCalculator

    atoms = atoms_of(32, periodic=True)
    atoms.write(tmp_path / "a.xyz")
    theirs = ASEDriver(template=str(tmp_path / "a.xyz"))
    theirs.ase_calculator = SapisCalculator(potential)
    cell, x = atoms.cell.array.T / BOHR_TO_ANGSTROM, atoms.positions / BOHR_TO_ANGSTROM
    energy, forces, virial, _ = theirs.compute_structure(cell, x)
    ours = energies_forces_virials(potential, atoms, [cell], [x])[0]
    assert near(energy, ours[0]) and near(forces, ours[1]) and near(virial.reshape(3, 3), ours[2])


def test_a_structure_that_cannot_be_simulated_is_refused(potential: Potential, tmp_path: Path) -> None:
    water = Atoms("OH2", [[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    water.write(tmp_path / "water.xyz")
    slab = atoms_of(8, periodic=True)
    slab.pbc = [True, True, False]
    slab.write(tmp_path / "slab.xyz")
    for name, message in (
        ("water.xyz", "has H, O; the potential knows Si, Fe"),
        ("slab.xyz", r"pbc=\[True, True, False\]; i-PI takes periodic structures or open ones"),
        ("none.xyz", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            written(potential, IpiExport(structure=str(tmp_path / name)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
