"""Quantities and units mean what their names say."""

import pytest
from ase import units as ase_units

from sapis_lab import units
from sapis_lab.quantities import known, quantity


def test_conversions_agree_with_ase():
    assert pytest.approx(ase_units.kcal / ase_units.mol, rel=1e-6) == units.KCAL_PER_MOL_TO_EV
    assert pytest.approx(ase_units.Hartree, rel=1e-6) == units.HARTREE_TO_EV
    assert pytest.approx(ase_units.Bohr, rel=1e-6) == units.BOHR_TO_ANGSTROM
    assert pytest.approx(1 / ase_units.GPa, rel=1e-6) == units.EV_PER_A3_TO_GPA
    assert pytest.approx(ase_units.Debye, rel=1e-6) == units.DIPOLE["Debye"]
    assert pytest.approx(ase_units.kB, rel=1e-6) == units.KB
    assert pytest.approx(ase_units.fs**2, rel=1e-6) == units.ACCELERATION  # ASE's time unit is Å sqrt(amu/eV)


def test_further_test_sets_are_known_by_their_name():
    further = quantity("test_600K_force_mae")
    assert (further.label, further.unit, further.axis) == (
        "test 600K force MAE",
        "eV/Å",
        "test 600K force MAE (meV/Å)",
    )


def test_an_error_is_known_on_training_frames_and_names_itself_on_others():
    train = quantity("train_force_mae")
    assert (train.axis, train.split, train.measure) == ("training force MAE (meV/Å)", "train", "force_mae")
    assert (train.on_validation, train.on_test) == ("val_force_mae", "test_force_mae")
    further = quantity("test_600K_force_mae")
    assert (further.on_validation, further.on_test) == ("val_force_mae", "test_600K_force_mae")
    assert quantity("val_energy_mae").on_test == "test_energy_mae"
    assert quantity("flops_train").on_validation == quantity("flops_train").on_test == "flops_train"


def test_an_unknown_quantity_names_the_nearest():
    with pytest.raises(ValueError, match="unknown quantity 'val_force_rms'; did you mean 'val_force_rmse'"):
        quantity("val_force_rms")


def test_only_times_may_differ_between_identical_runs():
    assert {q.key for q in known().values() if q.is_time} == {
        "seconds_train",
        "cpu_seconds_train",
        "seconds_total",
    }
