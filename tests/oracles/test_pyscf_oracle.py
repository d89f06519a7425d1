"""DFT labels: forces are minus the gradient, what does not converge is no number, and the settings of public
data give their labels."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import expand_use, load
from sapis_lab.oracles import Failed
from sapis_lab.oracles.pyscf import PyscfConfig

DATA = Path(os.environ.get("SAPIS_DATA", "/nonexistent"))
REPOSITORY = Path(__file__).resolve().parent.parent.parent
WATER = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.12], [0.0, 0.78, -0.47], [0.1, -0.75, -0.50]])
SMALL = PyscfConfig(basis="sto-3g")


@pytest.fixture(autouse=True)
def pyscf():
    return pytest.importorskip("pyscf", reason="DFT labels need the extra [dft]")


@pytest.fixture
def named(monkeypatch):
    """The oracles of configs/oracles/."""
    monkeypatch.setenv("SAPIS_HOME", str(REPOSITORY))
    return lambda name: load(PyscfConfig, expand_use(name, "oracles"), source=name)


@pytest.mark.parametrize("n_unpaired", [0, 1])
@pytest.mark.parametrize("density_fitting", [True, False])
def test_forces_are_minus_the_gradient(n_unpaired, density_fitting):
    oracle = SMALL.model_copy(
        update={
            "n_unpaired": n_unpaired,
            "charge": n_unpaired,
            "density_fitting": density_fitting,
            "conv_tol": 1e-11,
        }
    )
    forces, h = oracle.label(WATER, POSITIONS).forces, 1e-3
    for atom, axis in ((0, 2), (1, 1)):
        step = np.zeros((3, 3))
        step[atom, axis] = h
        up, down = (oracle.label(WATER, POSITIONS + s * step).energy for s in (1, -1))
        assert forces[atom, axis] == pytest.approx(-(up - down) / (2 * h), abs=2e-3)


def test_a_label_is_repeatable_and_has_the_energy_of_water():
    first = SMALL.label(WATER, POSITIONS)
    SMALL.label(WATER, POSITIONS + 0.05 * np.eye(3))
    second = SMALL.label(WATER, POSITIONS)
    assert first.energy == second.energy and np.array_equal(first.forces, second.forces)
    assert first.energy / units.HARTREE_TO_EV == pytest.approx(-75.2, abs=0.1)


def test_dipole_and_charges_belong_together():
    found, moved = SMALL.label(WATER, POSITIONS), SMALL.label(WATER, POSITIONS + [3.0, -2.0, 5.0])
    assert found.charges.sum() == pytest.approx(0, abs=1e-8) and found.charges[0] < -0.2
    assert found.dipole[2] < 0 and 1.0 < np.linalg.norm(found.dipole) / units.DIPOLE["Debye"] < 2.5
    assert (found.charges @ POSITIONS)[2] < 0
    np.testing.assert_allclose(moved.dipole, found.dipole, atol=1e-5)


def test_what_does_not_converge_is_a_failure_and_no_number():
    found = SMALL.model_copy(update={"max_cycles": 2}).label(WATER, POSITIONS)
    assert found == Failed("SCF not converged in 2 cycles")


@pytest.mark.filterwarnings("ignore:Basis may be available")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": "nobasis"}, r"basis nobasis, charge 0, n_unpaired 0\): .*nobasis"),
        ({"xc": "foo"}, "xc='foo' cannot be used"),
        ({"n_unpaired": 1}, r"n_unpaired 1\): Electron number 10 and spin 1 are not consistent"),
        ({"charge": 1}, r"charge 1, n_unpaired 0\): Electron number 9"),
    ],
)
def test_what_can_never_be_labelled_is_an_error_of_the_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PyscfConfig(**settings).label(WATER, POSITIONS)


def test_periodic_structures_are_refused():
    with pytest.raises(ValueError, match="oracle 'pyscf' labels molecules only"):
        SMALL.label(WATER, POSITIONS, cell=9 * np.eye(3), pbc=np.ones(3, bool))


def test_without_pyscf_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(ImportError, match=r"pip install 'sapis-lab\[dft\]'"):
        SMALL.label(WATER, POSITIONS)


def test_pbe_def2svp_continues_the_labels_of_rmd17(named):
    path = DATA / "rmd17" / "rmd17_ethanol_test_01.npz"
    if not path.exists():
        pytest.skip("needs $SAPIS_DATA/rmd17")
    with np.load(path) as data:
        z, x, f = (data[key] for key in ("nuclear_charges", "coords", "forces"))
        e = data["energies"]
    found = named("pbe-def2svp").label(z, x[0])
    error = np.abs(found.forces - f[0] * units.KCAL_PER_MOL_TO_EV).mean()
    assert error < 2e-3
    assert found.energy == pytest.approx(float(e[0]) * units.KCAL_PER_MOL_TO_EV, abs=0.01)


@pytest.mark.long
def test_wb97x_631gd_continues_the_labels_of_comp6(named):
    path = DATA / "comp6_s66x8"
    h5py = pytest.importorskip("h5py", reason="reading COMP6 needs h5py")
    files = sorted(path.rglob("*.h5")) if path.exists() else []
    if not files:
        pytest.skip("needs $SAPIS_DATA/comp6_s66x8")
    numbers = {"H": 1, "C": 6, "N": 7, "O": 8}
    smallest = None

    def look(name, group):
        nonlocal smallest
        if isinstance(group, h5py.Group) and "coordinates" in group:
            z = [numbers[s.decode() if isinstance(s, bytes) else s] for s in group["species"][:]]
            if smallest is None or len(z) < len(smallest[0]):
                smallest = z, group["coordinates"][0], float(group["energies"][0])

    with h5py.File(files[0]) as file:
        file.visititems(look)
    assert smallest is not None
    z, x, energy = smallest
    assert named("wb97x-631gd").label(np.array(z), x).energy == pytest.approx(
        energy * units.HARTREE_TO_EV, abs=3e-4
    )
