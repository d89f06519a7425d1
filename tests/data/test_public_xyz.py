"""3BPA, acetylacetone and ethanol of the BOTNet data sets: official files by name, splits, refusals."""

import numpy as np
import pytest
from public_cases import force_rms, made, needs_files, sizes, springs, write_atoms, write_xyz

from sapis_lab.data import dataset_info, store_folder
from sapis_lab.data._checks._consistency import energy_force_slope
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
    assert energy_force_slope(store, store.splits["train"]).value == pytest.approx(1, abs=0.05)
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


@pytest.mark.filterwarnings("ignore::sapis_lab.errors.Notice")  # of torn dimers
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


def test_3bpa_has_tests_at_three_temperatures_and_along_a_dihedral_angle(tmp_path):
    for seed, name in enumerate(("train_300K", "test_300K", "test_600K", "test_1200K", "test_dih_beta")):
        write_xyz(tmp_path / f"3bpa/{name}.xyz", 60 if seed == 0 else 8 + seed, seed=seed)
    write_atoms(tmp_path / "3bpa/iso_atoms.xyz")
    config = ThreebpaConfig(n_validation=10, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store) == {
        "train": 50,
        "validation": 10,
        "test_300K": 9,
        "test_600K": 10,
        "test_1200K": 11,
        "test_dih": 12,
    }
    assert np.allclose(store.energy[store.splits["test_600K"]], springs(10, seed=2)[1], atol=1e-9)
    assert store.isolated_atoms == {1: -13.6, 8: -1960.0}
    assert "3bpa/test_dih_beta.xyz" in store.metadata["sources"]
    with pytest.raises(ValueError, match="exactly one of them"):
        ThreebpaConfig(n_test=5)


def test_curves_of_dimers_may_be_torn_and_other_tests_may_not(tmp_path):
    write_xyz(tmp_path / "ethanol_botnet/train.xyz", 60)
    write_xyz(tmp_path / "ethanol_botnet/test_MD.xyz", 12, seed=1)
    write_atoms(tmp_path / "ethanol_botnet/isolated_atoms.xyz")
    dimer = 'Properties=species:S:1:pos:R:3 energy={} pbc="F F F"'
    text = "".join(f"2\n{dimer.format(-27 + 0.1 * k)}\nH 0 0 0\nH {3 + k} 0 0\n" for k in range(5))
    for name in ("dimers", "H_removal"):
        (tmp_path / f"ethanol_botnet/test_{name}.xyz").write_text(text)
    torn = EthanolBotnetConfig(tests=("MD", "dimers"), n_validation=10, root=tmp_path)
    assert sizes(made(torn, tmp_path / "cache"))["test_dimers"] == 5
    with pytest.raises(ValueError, match=r"test_H_removal\.xyz.*times the sum of the covalent radii"):
        made(EthanolBotnetConfig(tests=("H_removal",), n_validation=10, root=tmp_path), tmp_path / "cache")
