"""Every folder of SAPIS_DATA with energies, forces or another label is read by the kind `files` as it is, and
holds what its README says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sapis_lab.config import load
from sapis_lab.data import FrameStore, prepare
from sapis_lab.data.files import FilesConfig
from sapis_lab.elements import SYMBOLS

DATA = Path(os.environ.get("SAPIS_DATA", "/nowhere"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets of SAPIS_DATA")

EV = {"energy_unit": "eV", "length_unit": "Angstrom"}
KCAL = {"energy_unit": "kcal/mol", "length_unit": "Angstrom"}
HARTREE = {"energy_unit": "Hartree", "length_unit": "Angstrom"}
ALONE = {"forces_key": None}
MLEARN = {"energy_unit": "eV", "energy_key": "outputs.energy", "forces_key": "outputs.forces"}
OC20 = tuple(f"oc20/random1000{k}.traj" for k in (100, 120, 142, 156, 161, 163, 164, 187, 188, 194))


class Case(NamedTuple):
    name: str
    files: str | tuple[str, ...]
    settings: dict[str, Any]
    n_frames: int
    n_atoms: int
    elements: str
    """In the order of atomic numbers; a number where there are many."""
    rms_force: float | None
    """Root mean square of a component, eV/Å; None without forces."""


# name, files, settings, frames, atoms of all, elements, RMS force
CASES = [
    Case(
        "3bpa",
        "3bpa/train_300K.xyz",
        EV | {"isolated_atoms": "3bpa/iso_atoms.xyz"},
        500,
        13500,
        "H C N O",
        0.948,
    ),
    Case("acac-300K", "acac/train_300K.xyz", EV, 500, 7500, "H C O", 1.051),  # README: 1.04
    Case("acac-600K", "acac/train_600K.xyz", EV, 500, 7500, "H C O", 1.377),  # README: 1.37
    Case("acac-dihedral", "acac/test_dihedral.xyz", EV | ALONE, 45, 675, "H C O", None),
    Case("ethanol_botnet", "ethanol_botnet/train.xyz", EV, 1000, 9000, "H C O", 1.187),
    Case(
        "ethanol_ccsdt", "ethanol_ccsdt/ethanol_ccsd_t-train.npz", KCAL, 1000, 9000, "H C O", 1.193
    ),  # 27.5 kcal
    Case("rmd17", "rmd17/rmd17_aspirin_test_01.npz", KCAL, 1000, 21000, "H C O", 1.271),  # 29.3 kcal/mol/Å
    Case("lips", "lips/lips_200.npz", EV, 200, 16600, "Li P S", 0.610),
    Case(
        "carbon_castep",
        "carbon_castep_lda/carbon_reduced_100.xyz",
        EV | {"forces_key": "force", "virial_key": "virial"},
        100,
        400,
        "C",
        0.935,
    ),
    Case("cu_ace", "cu_ace/Cu_df2_1k.extxyz", EV, 1000, 11309, "Cu", 0.7661),  # README: 0.77
    Case(
        "md22",
        "md22_sample/md22_Ac-Ala3-NHMe_disp_100frames.extxyz",
        {"length_unit": "Angstrom", "energy_key": None, **ALONE}
        | {"properties": {"displacements": {"per": "atom", "rank": 1}}},
        98,
        4116,
        "H C N O",
        None,
    ),
    Case(
        "qm9-reduced",
        "qm9/qm9_reduced_100.xyz",
        HARTREE | ALONE | {"energy_key": "U0"},
        100,
        1001,
        "H C N O",
        None,
    ),
    Case(
        "qm9-raw", "qm9/raw", ALONE | {"energy_key": "U0", "charges_key": "charges"}, 20, 135, "H C N O", None
    ),
    Case("oc20", OC20, {}, 965, 48838, "21", 1.235),
    Case("oc20_bulks", "oc20_bulks_mp/bulks.db", {"max_force": 50}, 1478, 15605, "54", 13.229),
    Case("oxides", "oxides_asedb/oxides.db", {}, 295, 2934, "O Ti V Ru Sn Ir", 0.01436),
    Case(
        "water_rpbed3", "water_rpbed3/input.data", {}, 322, 29400, "H O", 1.223
    ),  # README: 0.0238 Ha/Bohr, 1.22
    Case("water_pbe0ts", "water_pbe0ts", {}, 400, 76800, "H O", 0.814),  # README: 0.81
    Case(
        "ani1x",
        "ani_spice_samples/ani1_n5.hdf5",
        HARTREE | {"energy_key": "wb97x_dz.energy", "forces_key": "wb97x_dz.forces"},
        8,
        120,
        "H C N O",
        0.792,
    ),
    Case("ani2x", "ani_spice_samples/ani2x_minimal.hdf5", HARTREE, 5706, 11412, "H C N O F S Cl", 1.601),
    Case(
        "spice",
        "ani_spice_samples/SPICE-1.1.4_n2.hdf5",
        {"energy_unit": "Hartree", "length_unit": "Bohr", "forces_are": "gradient"}
        | {"energy_key": "dft_total_energy", "forces_key": "dft_total_gradient"},
        55,
        1375,
        "H C N Na",
        0.860,
    ),
    Case(
        "comp6",
        "comp6_s66x8/s66x8_wb97x6-31gd.h5",
        HARTREE | {"forces_are": "gradient"},
        528,
        10512,
        "H C N O",
        0.185,
    ),
    Case(
        "materials_project",
        "materials_project/mp_devset_200.json",
        ALONE
        | {"energy_unit": "eV", "energy_key": "energy_per_atom", "energy_is": "per_atom"}
        | {"n_validation": 1, "n_test": 1, "seed": None},
        200,
        1066,
        "60",
        None,
    ),
    Case(
        "mlearn-Si",
        "mlearn/Si/training.json",
        MLEARN
        | {"stress_key": "outputs.virial_stress", "stress_unit": "kbar", "stress_order": "vasp"}
        | {"stress_is": "compression"},
        214,
        13233,
        "Si",
        0.874,
    ),
    Case("mlearn-Ge", "mlearn/Ge/training.json", MLEARN, 228, 14072, "Ge", 0.658),
    Case("mlearn-Li", "mlearn/Li/training.json", MLEARN, 241, 11576, "Li", 0.257),
    Case(
        "mlearn-Ni",
        "mlearn/Ni/id_prop.json[:263]",
        {"energy_unit": "eV", "energy_key": "total_energy", "energy_is": "per_atom"},
        263,
        27420,
        "Ni",
        0.861,
    ),
    Case(
        "carbon_24",
        "carbon_24/val.csv[:100]",
        ALONE | {"energy_unit": "eV", "energy_key": "energy_per_atom", "energy_is": "per_atom"},
        100,
        894,
        "C",
        None,
    ),
    Case(
        "perov_5",
        "perov_5/val.csv[:50]",
        ALONE
        | {"energy_unit": "eV", "energy_key": "heat_all", "energy_is": "per_atom"}
        | {"n_validation": 1, "n_test": 1, "seed": None},
        50,
        250,
        "50",
        None,
    ),
    Case(
        "alanine_dipeptide",
        "alanine_dipeptide/trajectory-0.dcd[::10]",
        ALONE | {"energy_key": None, "topology": "alanine_dipeptide/ala2.pdb"},
        1000,
        22000,
        "H C N O",
        None,
    ),
]


def made(case: Case, cache: Path, **changes: Any) -> FrameStore:
    given = {"kind": "files", "train": case.files, "n_validation": 40, "n_test": 4, "copies": "drop"}
    given["split_by"] = None  # frames of one molecule are not kept apart in files of thousands of molecules
    small = {"n_validation": 2, "n_test": 2} if case.n_frames < 100 else {}
    settings = {**given, **small, **case.settings, **changes, "root": str(DATA)}
    return prepare(load(FilesConfig, settings, source=case.name), cache=cache)


QUICK = ("acac-300K", "cu_ace", "comp6", "qm9-raw", "oc20", "carbon_castep", "spice", "md22")
"""Cases that every run of the suite has; the others take a minute and a half together."""


def param(case: Case) -> Any:
    slow = () if case.name in QUICK else pytest.mark.long
    return pytest.param(case, id=case.name, marks=slow)


@pytest.mark.filterwarnings("ignore::sapis_lab.errors.Notice")  # of what these sets are known for
@pytest.mark.parametrize("case", [param(case) for case in CASES])
def test_a_real_folder_is_read_as_it_is(case: Case, tmp_path: Path) -> None:
    for module in {"h5": "h5py", "dcd": "mdtraj"}.items():
        if module[0] in str(case.files):
            pytest.importorskip(module[1])
    store = made(case, tmp_path)
    assert (store.n_frames, len(store.species)) == (case.n_frames, case.n_atoms)
    found = np.unique(store.species)
    wanted = case.elements.split()
    if wanted[0].isdigit():
        assert len(found) == int(wanted[0])
    else:
        assert [SYMBOLS[int(z)] for z in found] == wanted
    forces = np.asarray(store.forces, dtype=np.float64)
    if case.rms_force is None:
        assert np.isnan(forces).all()
    else:
        assert np.sqrt((forces**2).mean()) == pytest.approx(case.rms_force, rel=2e-3)
    if case.name == "oc20":
        (note,) = store.metadata["notes"]
        assert note.startswith(
            "energy is read; the files also have free_energy, which differs by up to 0.0307"
        )


def test_a_file_that_states_other_units_than_the_settings_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    spice = next(case for case in CASES if case.name == "spice")
    for changes, message in (
        (
            {"length_unit": "Angstrom"},
            r"positions are in 'bohr', and the settings say Angstrom; set length_unit: Bohr",
        ),
        (
            {"energy_unit": "eV"},
            r"energy are in 'hartree', and the settings say eV; set energy_unit: Hartree",
        ),
        (
            {"force_unit": "Hartree/Angstrom"},
            r"forces are in 'hartree/bohr', .* set force_unit: Hartree/Bohr",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            made(spice, tmp_path, **changes)
