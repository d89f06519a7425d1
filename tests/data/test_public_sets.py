"""Public data that are missing say what downloads them; stores of public data say whom to cite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sapis_lab.data import dataset_info, prepare
from sapis_lab.data.deepmd import DeepmdConfig
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.data.mlearn import MlearnConfig
from sapis_lab.data.rmd17 import Rmd17Config

RMD17 = r"it is public \(CC0 1\.0, 1\.07 GB\), and downloaded by: sapis data fetch rmd17$"


def by_both(config, cache: Path, message: str) -> None:
    """Planning and making the data say the same."""
    with pytest.raises(ValueError, match=message):
        dataset_info(config, cutoff=5.0)
    with pytest.raises(ValueError, match=message):
        prepare(config, cache=cache)


def test_a_kind_of_a_public_set_says_how_to_download_what_is_missing(tmp_path, monkeypatch):
    by_both(Rmd17Config(root=tmp_path), tmp_path, f"missing file: wanted .*/npz_data/.*; {RMD17}")
    by_both(MlearnConfig(element="Si", root=tmp_path), tmp_path, "downloaded by: sapis data fetch mlearn$")
    monkeypatch.delenv("SAPIS_DATA", raising=False)
    by_both(Rmd17Config(), tmp_path, f"set SAPIS_DATA to the folder of datasets, .*; {RMD17}")


def test_half_of_a_split_is_told_with_the_download(tmp_path):
    (tmp_path / "rmd17").mkdir()
    for name in ("npz_data/rmd17_ethanol.npz", "rmd17_uracil_train_01.npz"):
        (tmp_path / "rmd17" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "rmd17" / name).touch()
    by_both(Rmd17Config(root=tmp_path), tmp_path, f"splits/index_train_01.csv; .*{RMD17}")
    by_both(
        Rmd17Config(root=tmp_path, molecule="uracil"), tmp_path, f"uracil_test_01.npz, the test .*{RMD17}"
    )


def test_a_kind_for_a_format_knows_public_sets_by_the_names_of_their_files(tmp_path):
    units = {"energy_unit": "eV", "length_unit": "Angstrom", "n_validation": 1, "n_test": 1}
    acac = ExtxyzConfig(train="acac/train_300K.xyz", root=tmp_path, **units)
    by_both(acac, tmp_path, r"it is public \(MIT, 4\.11 MB\), and downloaded by: sapis data fetch acac$")
    mine = ExtxyzConfig(train="mine/train_300K.xyz", root=tmp_path, **units)
    by_both(mine, tmp_path, "to its folder$")
    water = DeepmdConfig(
        train=["water_pbe0ts/data_0"], n_validation=1, n_test=1, level_of_theory="x", root=tmp_path
    )
    by_both(water, tmp_path, "downloaded by: sapis data fetch water_pbe0ts$")


def test_the_store_of_a_public_set_says_whom_to_cite(tmp_path, monkeypatch):
    monkeypatch.setattr("sapis_lab.data.rmd17.check_store", lambda *a, **k: None)  # labels are made up
    rng = np.random.default_rng(0)
    (tmp_path / "rmd17").mkdir()
    for part in ("train", "test"):
        np.savez(
            tmp_path / "rmd17" / f"rmd17_ethanol_{part}_01.npz",
            nuclear_charges=np.array([6, 8]),
            coords=np.array([[0.0, 0, 0], [1.2, 0, 0]]) + 0.01 * rng.normal(size=(1000, 2, 3)),
            energies=rng.normal(size=1000),
            forces=rng.normal(size=(1000, 2, 3)),
        )
    said = prepare(Rmd17Config(root=tmp_path), cache=tmp_path / "cache").metadata
    assert (said["public_set"], said["licence"]) == ("rmd17", "CC0 1.0")
    assert said["citation"][0].startswith("@article{christensen2020role,")


def test_a_kind_of_no_public_set_claims_no_licence():
    assert ExtxyzConfig.credits() == {} and ExtxyzConfig.catalogue is None
