"""MD17, its coupled-cluster labels and MD22: archives of sGDML by molecule, splits, units, copies."""

import numpy as np
import pytest
from public_cases import force_rms, made, needs_files, sizes, springs, write_sgdml

from sapis_lab import units
from sapis_lab.data.md17 import Md17Config
from sapis_lab.data.md17_ccsd import Md17CcsdConfig
from sapis_lab.data.md22 import N_TRAIN, Md22Config


@needs_files
def test_ethanol_by_coupled_cluster_is_read_from_the_official_training_file(tmp_path):
    config = Md17CcsdConfig(folder="ethanol_ccsdt", n_test=200)
    store = made(config, tmp_path)
    # 1000 frames, of which two are copies
    assert sizes(store) == {"train": 748, "validation": 50, "test": 200}
    assert store.metadata["left_out"] == {"copies": 2}
    # E[0] = -97089.07088252231 kcal/mol and F[0, 0, 0] = -10.20301055 kcal/mol/Å, 23.060548 kcal/mol to an eV
    assert store.energy[0] == pytest.approx(-97089.07088252231 / 23.0605478, rel=1e-8)
    assert store.forces[0, 0] == pytest.approx(-10.20301055 / 23.0605478, rel=1e-6)
    assert force_rms(store) == pytest.approx(27.5 * units.KCAL_PER_MOL_TO_EV, rel=0.01)
    assert store.metadata["level_of_theory"] == "CCSD(T)/cc-pVTZ"


def test_the_official_test_file_is_the_test(tmp_path):
    write_sgdml(tmp_path / "md17_ccsdt/aspirin_ccsd-train.npz", 60)
    with pytest.raises(ValueError, match=r"wanted .*/md17_ccsdt/aspirin_ccsd-test\.npz"):
        Md17CcsdConfig(molecule="aspirin", root=tmp_path).info(cutoff=5.0)
    write_sgdml(tmp_path / "md17_ccsdt/aspirin_ccsd-test.npz", 20, seed=1)
    store = made(Md17CcsdConfig(molecule="aspirin", n_validation=5, root=tmp_path), tmp_path / "cache")
    assert sizes(store) == {"train": 55, "validation": 5, "test": 20}
    assert np.allclose(store.energy[store.splits["test"]], springs(20, seed=1)[1], atol=1e-8)
    assert store.metadata["level_of_theory"] == "CCSD/cc-pVDZ"


@pytest.mark.parametrize(
    ("molecule", "file"),
    [
        ("ethanol", "md17_ethanol.npz"),
        ("benzene2017", "benzene2017_dft.npz"),
        ("benzene2018", "benzene2018_dft.npz"),
        ("paracetamol", "paracetamol_dft.npz"),
    ],
)
def test_md17_is_found_by_the_names_of_its_files(tmp_path, molecule, file):
    write_sgdml(tmp_path / "md17" / file, 60)
    config = Md17Config(molecule=molecule, n_train=30, n_validation=5, n_test=10, root=tmp_path)
    store = made(config, tmp_path / "cache")
    x, e, f = springs(60)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(store.splits["train"], order[:30])
    assert np.array_equal(store.splits["validation"], order[45:50])
    assert np.array_equal(store.splits["test"], order[50:])
    assert np.allclose(store.energy, e, atol=1e-8) and np.allclose(store.positions, x.reshape(-1, 3))
    assert np.allclose(store.forces, f.reshape(-1, 3), atol=1e-5)
    assert (config.info(cutoff=5.0).n_train, config.info(cutoff=5.0).n_test) == (30, {"test": 10})


def test_copies_among_the_frames_are_left_out_and_counted(tmp_path):
    write_sgdml(tmp_path / "md17/md17_ethanol.npz", 60, copies=((3, 8), (3, 20), (7, 59)))
    config = Md17Config(n_train=None, n_validation=5, n_test=10, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store)["train"] == 42 and store.metadata["left_out"] == {"copies": 3}
    used = np.concatenate(list(store.splits.values()))
    assert sorted(used) == sorted(set(range(60)) - {8, 20, 59})


def test_neither_molecule_nor_file_of_md17_may_be_another(tmp_path):
    with pytest.raises(ValueError, match="benzene2017"):
        Md17Config(molecule="benzene")
    with pytest.raises(ValueError, match=r"wanted .*/md17/md17_ethanol\.npz or .*/md17/ethanol_dft\.npz"):
        Md17Config(root=tmp_path).info(cutoff=5.0)


def test_md22_trains_on_as_many_frames_as_its_paper(tmp_path):
    write_sgdml(tmp_path / "md22/md22_buckyball-catcher.npz", 700)
    config = Md22Config(molecule="buckyball-catcher", n_validation=20, n_test=30, root=tmp_path)
    assert sizes(made(config, tmp_path / "cache")) == {"train": 600, "validation": 20, "test": 30}
    assert config.info(cutoff=5.0).n_train == 600
    few = Md22Config(molecule="buckyball-catcher", n_train=50, n_validation=20, n_test=30, root=tmp_path)
    assert sizes(made(few, tmp_path / "cache"))["train"] == 50
    with pytest.raises(ValueError, match="n_train=600; lower one of them"):
        Md22Config(molecule="buckyball-catcher", root=tmp_path).info(cutoff=5.0)
    assert sum(N_TRAIN.values()) == 28_400 and len(N_TRAIN) == 7


def test_an_archive_that_is_still_packed_is_named(tmp_path):
    (tmp_path / "md17_ccsdt").mkdir()
    (tmp_path / "md17_ccsdt/ethanol_ccsd_t.zip").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"ethanol_ccsd_t-train\.npz.*unpack it there if it is in ethanol_ccsd_t\.zip"
    ):
        Md17CcsdConfig(root=tmp_path).info(cutoff=5.0)
