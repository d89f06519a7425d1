"""xTB labels: forces are minus the gradient, and a label depends on its geometry alone."""

import sys

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.oracles.xtb import XtbConfig

WATER = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.12], [0.0, 0.78, -0.47], [0.1, -0.75, -0.50]])


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_forces_are_minus_the_gradient(method):
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    oracle = XtbConfig(method=method)
    forces = oracle.label(WATER, POSITIONS).forces
    h = 1e-3
    for atom in range(3):
        for k in range(3):
            step = np.zeros((3, 3))
            step[atom, k] = h
            up, down = (
                oracle.label(WATER, POSITIONS + step).energy,
                oracle.label(WATER, POSITIONS - step).energy,
            )
            assert forces[atom, k] == pytest.approx(-(up - down) / (2 * h), abs=2e-4)


def test_energy_is_in_ev_and_a_label_is_repeatable():
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    first = XtbConfig().label(WATER, POSITIONS)
    XtbConfig().label(WATER, POSITIONS + 0.05 * np.eye(3))
    second = XtbConfig().label(WATER, POSITIONS)
    assert first.energy == second.energy and np.array_equal(first.forces, second.forces)
    assert first.energy / units.HARTREE_TO_EV == pytest.approx(-5.06, abs=0.03)


def test_without_tblite_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(ImportError, match=r"pip install 'sapis-lab\[xtb\]'"):
        XtbConfig().label(WATER, POSITIONS)


def test_the_dipole_points_from_oxygen_to_the_hydrogens_and_needs_no_origin():
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    found, moved = XtbConfig().label(WATER, POSITIONS), XtbConfig().label(WATER, POSITIONS + [3.0, -2.0, 5.0])
    assert found.dipole[2] < 0 and np.linalg.norm(found.dipole[:2]) < 0.2 * abs(found.dipole[2])
    # GFN2-xTB has 2.2 Debye for water, 0.46 e Å, its charges alone less than that and in the same direction
    assert np.linalg.norm(found.dipole) / units.DIPOLE["Debye"] == pytest.approx(2.2, abs=0.3)
    of_charges = found.charges @ POSITIONS
    assert 0.5 < np.linalg.norm(of_charges) / np.linalg.norm(found.dipole) < 1.0
    assert of_charges[2] < 0
    np.testing.assert_allclose(moved.dipole, found.dipole, atol=1e-4)
    assert found.charges.sum() == pytest.approx(0.0, abs=1e-8)
