"""QM9: its own files, properties and their units, free atoms, and the molecules that failed a check."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from public_cases import made, needs_files, sizes

from sapis_lab.data.qm9 import FREE_ATOMS, Qm9Config

METHANE = """5
gdb {number}\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t\
{u0:.6f}\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765748*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t{z}\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284
C\tC
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""
"""The first molecule of QM9; every copy has an atom elsewhere, and another U0."""


def archive(root, n):
    """The official archive with n molecules, and the official list: the molecules 2 and 5, and others."""
    (root / "qm9").mkdir(parents=True)
    with tarfile.open(root / "qm9/dsgdb9nsd.xyz.tar.bz2", "w:bz2") as packed:
        for number in range(1, n + 1):
            k = number - 1
            text = METHANE.format(number=number, z=-0.8766437152 + 0.01 * k, u0=-40.47893 + 1e-5 * k).encode()
            member = tarfile.TarInfo(f"dsgdb9nsd_{number:06}.xyz")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
    write_list(root, [2, 5, *range(10_001, 10_001 + 3052)])
    return root


def write_list(root, numbers):
    rows = [f"{number:6d}   C#C   C#C   0.1" for number in numbers]
    (root / "qm9/uncharacterized.txt").write_text(
        "\n".join(["heading"] * 9 + rows + ["3054 compounds"]) + "\n"
    )


def config(root, **changes):
    return Qm9Config(**{"n_train": None, "n_validation": 2, "n_test": 2, "root": root, **changes})


def test_properties_have_the_units_of_published_errors(tmp_path):
    store = made(config(archive(tmp_path, 12)), tmp_path / "cache")
    frames = store.frames(np.array([0]))
    found = {name: float(value[0]) for name, value in frames.properties.items()}
    # Hartree times 27.2114; U0 of the atoms is -37.846772 and -0.500273 Hartree
    assert found["u0_atom"] == pytest.approx(-17.1723, abs=1e-3)
    assert found["gap"] == pytest.approx(0.5048 * 27.211386, abs=1e-5)
    assert found["homo"] + found["gap"] == pytest.approx(found["lumo"], abs=1e-9)
    assert found["zpve"] == pytest.approx(0.044749 * 27.211386, abs=1e-6)
    assert (found["mu"], found["alpha"], found["r2"], found["cv"]) == (0.0, 13.21, 35.3641, 6.469)
    assert (found["rot_a"], found["rot_b"], found["rot_c"]) == (157.7118, 157.70997, 157.70699)
    assert frames.energy[0] == pytest.approx(-40.47893 * 27.211386245988, abs=1e-9)
    assert np.isnan(frames.forces).all()
    assert frames.charges.tolist() == pytest.approx([-0.535689, 0.133921, 0.133922, 0.133923, 0.133923])
    assert frames.positions[2, 2] == 2.765748e-4
    assert store.isolated_atoms[6] == pytest.approx(-37.846772 * 27.211386245988)
    assert store.properties["u0_atom"].unit == "eV" and store.properties["mu"].unit == "D"


def test_energies_of_free_atoms_differ_by_what_theory_says(tmp_path):
    # of a free atom U - U0 = 3/2 kT and H - U = kT at 298.15 K, kT = 9.4419e-4 Hartree
    kT = 9.4419e-4
    for u0, u, h, g in zip(*(FREE_ATOMS[name] for name in ("U0", "U", "H", "G")), strict=True):
        assert u - u0 == pytest.approx(1.5 * kT, abs=2e-6)
        assert h - u == pytest.approx(kT, abs=2e-6) and g < u0


def test_molecules_that_failed_the_check_are_left_out(tmp_path):
    archive(tmp_path, 12)
    store = made(config(tmp_path), tmp_path / "cache")
    assert sizes(store) == {"train": 6, "validation": 2, "test": 2}
    assert config(tmp_path).info(cutoff=5.0).n_train == 6
    kept = made(config(tmp_path, uncharacterized="keep"), tmp_path / "cache")
    assert sizes(kept)["train"] == 8 and kept.folder != store.folder
    z = store.positions.reshape(-1, 5, 3)[:, 3, 2]
    assert np.allclose(z, -0.8766437152 + 0.01 * np.array([0, 2, 3, 5, 6, 7, 8, 9, 10, 11]))


def test_a_missing_or_cut_list_is_refused(tmp_path):
    archive(tmp_path, 12)
    write_list(tmp_path, range(1, 3000))
    with pytest.raises(
        ValueError, match=r"uncharacterized\.txt: numbers of 2999 molecules .*wanted the 3054"
    ):
        config(tmp_path).info(cutoff=5.0)
    (tmp_path / "qm9/uncharacterized.txt").unlink()
    with pytest.raises(ValueError, match=r"uncharacterized\.txt.*or set uncharacterized: keep"):
        config(tmp_path).info(cutoff=5.0)
    (tmp_path / "qm9/dsgdb9nsd.xyz.tar.bz2").unlink()
    with pytest.raises(ValueError, match=r"wanted .*/qm9/dsgdb9nsd\.xyz\.tar\.bz2 or .*/qm9/raw/"):
        config(tmp_path, uncharacterized="keep").info(cutoff=5.0)


def test_all_molecules_are_wanted_by_default(tmp_path):
    archive(tmp_path, 12)
    with pytest.raises(ValueError, match="hold 10 frames; n_validation=10000"):
        Qm9Config(root=tmp_path).info(cutoff=5.0)


@needs_files
def test_original_files_are_read_from_a_folder(tmp_path):
    store = made(config(None, uncharacterized="keep", n_validation=3, n_test=3), tmp_path)
    assert sizes(store) == {"train": 14, "validation": 3, "test": 3} and store.elements == (1, 6, 7, 8)
    # the third molecule, water, as line 2 of dsgdb9nsd_000003.xyz has it
    line = (
        (Path(os.environ["SAPIS_DATA"]) / "qm9/raw/dsgdb9nsd_000003.xyz").read_text().splitlines()[1].split()
    )
    water = store.frames(np.array([2]))
    assert water.energy[0] == pytest.approx(float(line[12]) * 27.211386245988)
    assert water.properties["mu"][0] == float(line[5])
