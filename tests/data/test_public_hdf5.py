"""ANI-1x, ANI-2x, COMP6 and SPICE: units, signs, levels, charges and labels that were not computed."""

import os
from pathlib import Path

import numpy as np
import pytest
from public_cases import made, needs_files, sizes, springs

from sapis_lab import units
from sapis_lab.data._checks._consistency import energy_force_slope
from sapis_lab.data._checks._similar import superposition
from sapis_lab.data.ani1x import Ani1xConfig
from sapis_lab.data.ani2x import Ani2xConfig
from sapis_lab.data.comp6 import Comp6Config
from sapis_lab.data.spice import SpiceConfig

h5py = pytest.importorskip("h5py")
HARTREE, BOHR = units.HARTREE_TO_EV, units.BOHR_TO_ANGSTROM
SAMPLE = {"folder": "ani_spice_samples"}


def sample_root():
    return Path(os.environ["SAPIS_DATA"])


def waters(n, seed=0):
    """(positions Å, energy Hartree, forces Hartree/Å)."""
    x, e, f = springs(n, seed=seed)
    return x, e / HARTREE, f / HARTREE


@needs_files
def test_ani_1x_is_read_at_each_level(tmp_path):
    config = Ani1xConfig(**SAMPLE, file="ani1_n5.hdf5", n_validation=1, n_test=1)
    store = made(config, tmp_path)
    assert sizes(store) == {"train": 6, "validation": 1, "test": 1} and store.elements == (1, 6, 7, 8)
    assert config.info(cutoff=5.0).n_train == 6
    with h5py.File(sample_root() / "ani_spice_samples/ani1_n5.hdf5") as file:
        group = file["C1H4N4O4"]
        energy, force = float(group["wb97x_dz.energy"][0]), float(group["wb97x_dz.forces"][0, 0, 0])
        triple = float(group["wb97x_tz.energy"][0])
    assert store.energy[0] == pytest.approx(energy * 27.211386245988, abs=1e-9)
    assert store.forces[0, 0] == pytest.approx(force * 27.211386245988, rel=1e-6)
    other = made(config.model_copy(update={"level": "wb97x_tz"}), tmp_path)
    assert other.energy[0] == pytest.approx(triple * 27.211386245988, abs=1e-9)
    assert other.metadata["level_of_theory"] == "ωB97X/def2-TZVPP"


@needs_files
def test_coupled_cluster_of_ani_1ccx_leaves_out_what_was_not_computed(tmp_path):
    config = Ani1xConfig(**SAMPLE, file="ani1_n5.hdf5", level="ccsd(t)_cbs", n_validation=1, n_test=1)
    store = made(config, tmp_path)
    assert sizes(store)["train"] == 4 == config.info(cutoff=5.0).n_train
    assert store.metadata["left_out"] == {"no energy": 2} and np.isnan(store.forces).all()


@pytest.mark.long
@needs_files
def test_what_ani_2x_calls_forces_are_forces(tmp_path):
    config = Ani2xConfig(**SAMPLE, file="ani2x_minimal.hdf5", n_validation=500, n_test=500)
    store = made(config, tmp_path)
    assert store.n_frames == 5706 and set(np.diff(store.offsets)) == {2}
    # CO at 1.1716 Å: -113.278573616 Hartree, and a force on C of 0.14980902 Hartree/Å
    assert store.energy[0] == pytest.approx(-113.278573616 * 27.211386245988, abs=1e-9)
    assert store.forces[0].tolist() == pytest.approx([0, 0, 0.14980902 * 27.211386], rel=1e-5)
    assert energy_force_slope(store, store.splits["train"]).value == pytest.approx(1, abs=1e-3)


@needs_files
def test_what_comp6_calls_forces_is_the_gradient(tmp_path):
    store = made(Comp6Config(), tmp_path)
    assert sizes(store) == {"train": 378, "validation": 50, "test": 100}
    assert (np.diff(store.offsets).min(), np.diff(store.offsets).max()) == (6, 34)
    # two waters, the first group: from its first to its second distance the energy changes by the work of the
    # forces
    x, f, e = store.positions[:12].reshape(2, 6, 3), store.forces[:12].reshape(2, 6, 3), store.energy[:2]
    work = -0.5 * np.sum((f[0] + f[1]).astype(float) * (x[1] - x[0]))
    assert e[1] - e[0] == pytest.approx(work, rel=0.2) and abs(work) > 0.005


@needs_files
def test_spice_has_bohr_and_gradients_and_ions_are_left_out_unless_asked_for(tmp_path):
    given = {**SAMPLE, "file": "SPICE-1.1.4_n2.hdf5", "n_validation": 5, "n_test": 5}
    with pytest.raises(ValueError, match="hold 0 frames"):  # an ammonium and a sodium ion
        SpiceConfig(**given).info(cutoff=5.0)
    store = made(SpiceConfig(**given, charges="all"), tmp_path)
    assert sizes(store) == {"train": 45, "validation": 5, "test": 5}
    assert set(store.frames(np.arange(55)).properties["total_charge"]) == {1.0}
    with h5py.File(sample_root() / "ani_spice_samples/SPICE-1.1.4_n2.hdf5") as file:
        group = file["103147721"]
        x, e, g = (group[k][0] for k in ("conformations", "dft_total_energy", "dft_total_gradient"))
    assert store.energy[0] == pytest.approx(float(e) * 27.211386245988, abs=1e-9)
    assert store.positions[0].tolist() == pytest.approx((x[0].astype(float) * 0.529177210903).tolist())
    assert store.forces[0].tolist() == pytest.approx((-g[0].astype(float) * 51.422067).tolist(), rel=1e-5)


def test_frames_of_ani_1x_without_a_label_are_left_out_and_counted(tmp_path):
    x, e, f = waters(40)
    e[[3, 17]] = np.nan
    f[[3, 17]] = np.nan
    (tmp_path / "ani1x").mkdir()
    with h5py.File(tmp_path / "ani1x/ani1x-release.h5", "w") as file:
        group = file.create_group("H2O1")
        group["atomic_numbers"] = np.array([8, 1, 1], np.uint8)
        group["coordinates"] = x.astype(np.float32)
        group["wb97x_dz.energy"], group["wb97x_dz.forces"] = e, f.astype(np.float32)
    config = Ani1xConfig(n_validation=5, n_test=5, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store)["train"] == 28 == config.info(cutoff=5.0).n_train
    assert store.metadata["left_out"] == {"no energy": 2}
    assert np.allclose(store.energy[3], e[4] * HARTREE)


def spice(path, charges=("O", "[OH3+]")):
    """Waters, and what is said to be of another charge, in Bohr with gradients."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for k, smiles in enumerate(charges):
            x, e, f = waters(30, seed=k)
            group = file.create_group(f"molecule{k}")
            group["atomic_numbers"] = np.array([8, 1, 1], np.int16)
            group["conformations"] = (x / BOHR).astype(np.float32)
            group["dft_total_energy"], group["dft_total_gradient"] = e, (-f * BOHR).astype(np.float32)
            group["smiles"] = np.array([smiles], dtype=object)
            group["subset"] = np.array([f"SPICE Set {k}"], dtype=object)
            group["conformations"].attrs["units"] = "bohr"


def test_molecules_of_charge_zero_and_subsets_are_chosen(tmp_path):
    spice(tmp_path / "spice/SPICE-2.0.1.hdf5", ("O", "[H:1][O+:2]([H:3])[H:4]", "[OH2]"))
    config = SpiceConfig(n_validation=5, n_test=5, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store)["train"] == 50
    x, e, f = waters(30)
    assert np.allclose(store.energy[:30], e * HARTREE)
    assert np.allclose(store.positions[:90], x.reshape(-1, 3), atol=1e-6)
    assert np.allclose(store.forces[:90], f.reshape(-1, 3) * HARTREE, atol=1e-4)
    one = SpiceConfig(subsets=("SPICE Set 2",), n_validation=5, n_test=5, root=tmp_path)
    assert sizes(made(one, tmp_path / "cache"))["train"] == 20
    both = SpiceConfig(charges="all", n_validation=5, n_test=5, root=tmp_path)
    assert sizes(made(both, tmp_path / "cache"))["train"] == 80


def test_the_release_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"wanted .*/spice/SPICE-1\.1\.4\.hdf5"):
        SpiceConfig(release="1.1.4", root=tmp_path).info(cutoff=5.0)
    with pytest.raises(
        ValueError, match=r"wanted .*/gdb11_07_test500\.h5 or .*/GDB07to09/gdb11_07_test500\.h5"
    ):
        Comp6Config(parts=("GDB07to09",), root=tmp_path).info(cutoff=5.0)


def test_parts_of_comp6_are_joined(tmp_path):
    (tmp_path / "comp6_s66x8/DrugBank").mkdir(parents=True)
    for name, seed in (("s66x8_wb97x6-31gd.h5", 0), ("DrugBank/drugbank_testset.h5", 1)):
        x, e, f = waters(40, seed=seed)
        with h5py.File(tmp_path / "comp6_s66x8" / name, "w") as file:
            group = file.create_group("part/mol00")
            group["species"] = np.array([b"O", b"H", b"H"])
            group["coordinates"], group["energies"], group["forces"] = x.astype(np.float32), e, -f
    config = Comp6Config(parts=("s66x8", "DrugBank"), n_validation=5, n_test=5, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store)["train"] == 70
    assert np.allclose(store.forces[:120], waters(40)[2].reshape(-1, 3) * HARTREE, atol=1e-4)


@needs_files
def test_energies_of_spice_change_by_the_work_of_its_forces(tmp_path):
    config = SpiceConfig(**SAMPLE, file="SPICE-1.1.4_n2.hdf5", n_validation=5, n_test=5, charges="all")
    store = made(config, tmp_path)
    # acetylene at five distances from a sodium ion, 0.14 Bohr apart
    x, f, e = store.positions[-25:].reshape(5, 5, 3), store.forces[-25:].reshape(5, 5, 3), store.energy[-5:]
    gains, works = [], []
    for a, b in zip(np.argsort(e)[:-1], np.argsort(e)[1:], strict=True):
        xa, xb = x[a] - x[a].mean(0), x[b] - x[b].mean(0)
        turn = superposition(xb, xa)
        works.append(-0.5 * np.sum((f[a] + f[b] @ turn).astype(float) * (xb @ turn - xa)))
        gains.append(e[b] - e[a])
    assert np.dot(works, gains) / np.dot(works, works) == pytest.approx(1, abs=0.35)
