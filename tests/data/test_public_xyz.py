"""3BPA, acetylacetone and ethanol of the BOTNet data sets: official files by name, splits, refusals."""

import numpy as np
import pytest
from public_cases import force_rms, made, needs_files, sizes, write_atoms, write_xyz

from sapis_lab.data import dataset_info, store_folder
from sapis_lab.data._checks import energy_force_consistency
from sapis_lab.data.acac import AcacConfig
from sapis_lab.data.ethanol_botnet import EthanolBotnetConfig
from sapis_lab.data.threebpa import ThreebpaConfig


@needs_files
def test_acetylacetone_has_the_published_splits_and_labels(tmp_path):
    acac = AcacConfig(tests=("300K", "600K", "dihedral", "H_transfer"))
    store = made(acac, tmp_path)
    assert sizes(store) == {
        "train": 450,
        "validation": 50,
        "test_300K": 650,
        "test_600K": 650,
        "test_dihedral": 45,
        "test_Htransfer": 15,
    }
    # the first frame of train_300K.xyz, and of test_dihedral.xyz
    assert store.energy[0] == -9391.45554428476 and np.float32(1.47339228) == store.forces[0, 0]
    first = store.frames(store.splits["test_dihedral"][:1])
    assert first.energy[0] == -9391.927102388827 and np.isnan(first.forces).all()
    assert store.isolated_atoms == {1: -13.568422178253735, 6: -1026.8538996116154, 8: -2037.796869412825}
    assert force_rms(store) == pytest.approx(1.05, abs=0.005)
    assert energy_force_consistency(store, store.splits["train"]).slope == pytest.approx(1, abs=0.05)
    assert store.metadata["public_set"] == "acac" and "def2-SVP" in store.metadata["level_of_theory"]
    info = acac.info(cutoff=5.0)
    assert (info.n_train, info.species, info.n_test["test_600K"]) == (450, (1, 6, 8), 650)


@needs_files
def test_training_frames_of_acetylacetone_at_600_K_have_larger_forces(tmp_path):
    store = made(AcacConfig(train="600K"), tmp_path)
    rows = store.forces[: 500 * 15].astype(float)
    assert np.sqrt((rows**2).mean()) == pytest.approx(1.37, abs=0.01)


@needs_files
@pytest.mark.parametrize(("train", "rms"), [("300K", 0.95), ("mixedT", 1.42)])
def test_3bpa_is_trained_at_either_temperature(tmp_path, train, rms):
    store = made(ThreebpaConfig(train=train, tests=(), n_test=50), tmp_path)
    assert sizes(store) == {"train": 400, "validation": 50, "test": 50}
    assert force_rms(store) == pytest.approx(rms, abs=0.02)
    if train == "300K":
        assert store.energy[0] == -17660.461737861464
    assert store.isolated_atoms[6] == pytest.approx(-1029.489, abs=1e-6)


@needs_files
def test_ethanol_and_methanol_have_all_their_tests_and_dimers_may_be_torn(tmp_path):
    names = ("MD", "eth_meth", "dimers", "H_removal", "norm_mode_874", "norm_mode_3005")
    store = made(EthanolBotnetConfig(tests=names), tmp_path)
    assert sizes(store) == {
        "train": 950,
        "validation": 50,
        "test_MD": 1000,
        "test_ethmeth": 1145,
        "test_dimers": 429,
        "test_Hremoval": 60,
        "test_normmode874": 37,
        "test_normmode3005": 18,
    }
    dimer = store.frames(store.splits["test_dimers"][:1])
    assert dimer.energy[0] == -22.24381190594901 and dimer.positions[1, 0] == 0.35
    both = made(EthanolBotnetConfig(train="ethanol_methanol", tests=("eth_meth",)), tmp_path)
    assert sizes(both) == {"train": 1250, "validation": 50, "test_ethmeth": 1145}


def official(root):
    """The files of acetylacetone, in little."""
    for name, n, seed, forces in (
        ("train_300K", 60, 0, True),
        ("test_MD_300K", 12, 1, True),
        ("test_MD_600K", 12, 2, True),
        ("test_dihedral", 5, 3, False),
    ):
        write_xyz(root / "acac" / f"{name}.xyz", n, seed=seed, forces=forces)
    write_atoms(root / "acac/isolated_atoms.xyz")
    return root


def test_a_missing_official_file_is_named_with_its_folder(tmp_path):
    official(tmp_path)
    with pytest.raises(ValueError, match=r"missing file: wanted .*/acac/train_600K\.xyz"):
        AcacConfig(train="600K", root=tmp_path).info(cutoff=5.0)
    with pytest.raises(ValueError, match=r"wanted .*/3bpa/test_300K\.xyz"):
        made(ThreebpaConfig(root=tmp_path), tmp_path / "cache")


def test_energies_alone_of_a_test_do_not_excuse_training_frames_without_forces(tmp_path):
    official(tmp_path)
    config = AcacConfig(tests=("300K", "dihedral"), n_validation=10, root=tmp_path)
    assert sizes(made(config, tmp_path / "cache"))["test_dihedral"] == 5
    write_xyz(tmp_path / "acac/train_300K.xyz", 60, forces=False)
    with pytest.raises(ValueError, match=r"train_300K\.xyz, frame \d+: no forces, wanted in every frame of"):
        made(config, tmp_path / "other")
    write_xyz(tmp_path / "acac/train_300K.xyz", 60)
    write_xyz(tmp_path / "acac/test_MD_300K.xyz", 12, seed=1, forces=False)
    with pytest.raises(ValueError, match=r"test_MD_300K\.xyz, frame 0: no forces, wanted .*'test_300K'"):
        made(config, tmp_path / "third")


def test_a_test_frame_in_training_is_refused_also_in_official_files(tmp_path):
    official(tmp_path)
    write_xyz(tmp_path / "acac/test_MD_600K.xyz", 60, seed=0)
    with pytest.raises(ValueError, match="are the same configuration"):
        made(AcacConfig(n_validation=10, root=tmp_path), tmp_path / "cache")


def test_two_tests_may_share_frames(tmp_path):
    official(tmp_path)
    write_xyz(tmp_path / "acac/test_MD_600K.xyz", 12, seed=1)
    assert sizes(made(AcacConfig(n_validation=10, root=tmp_path), tmp_path / "cache"))["test_600K"] == 12


def test_the_folder_is_no_part_of_what_a_set_is(tmp_path):
    official(tmp_path)
    (tmp_path / "acac").rename(tmp_path / "mine")
    config = AcacConfig(n_validation=10, root=tmp_path, folder="mine")
    store = made(config, tmp_path / "cache")
    assert store.folder == store_folder(AcacConfig(n_validation=10), tmp_path / "cache")
    assert dataset_info(AcacConfig(n_validation=10), cutoff=5.0, cache=tmp_path / "cache").n_train == 50
    assert store_folder(AcacConfig(n_validation=10, train="600K"), tmp_path) != store.folder
    with pytest.raises(ValueError, match="absolute path"):
        AcacConfig(folder=str(tmp_path))


def test_a_changed_official_file_is_noticed(tmp_path):
    official(tmp_path)
    config = AcacConfig(n_validation=10, root=tmp_path)
    made(config, tmp_path / "cache")
    write_xyz(tmp_path / "acac/test_MD_300K.xyz", 13, seed=5)
    with pytest.raises(ValueError, match=r"test_MD_300K\.xyz has changed"):
        made(config, tmp_path / "cache")
