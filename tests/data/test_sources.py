"""Data files are regular files of the folder of data; of anything else no content is shown."""

import os
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.data import prepare
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.data.rmd17 import Rmd17Config

SECRET = "root:x:0:0:secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET + "\n")
    (tmp_path / "numbered.txt").write_text(f"1\n{SECRET}\n{SECRET}\n")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def refusal(root: Path, **changes: object) -> str:
    given = {
        "train": "a.xyz",
        "n_validation": 1,
        "n_test": 1,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
        "root": root,
    }
    with pytest.raises(ValueError) as by_info:  # noqa: PT011  (the text is what each test looks at)
        ExtxyzConfig(**{**given, **changes}).info(cutoff=5.0)
    with pytest.raises(ValueError) as by_store:  # noqa: PT011
        prepare(ExtxyzConfig(**{**given, **changes}), cache=root / "cache")
    assert SECRET[:6] not in f"{by_info.value}{by_store.value}"
    return str(by_store.value)


@pytest.mark.parametrize("name", ["../secret.txt", "sub/../../secret.txt", "../numbered.txt[:1]"])
def test_a_name_that_leads_out_of_the_folder_is_refused_unread(folder: Path, name: str) -> None:
    assert "leads out of the folder of data" in refusal(folder, train=name)


def test_isolated_atoms_are_not_read_from_outside_either(folder: Path) -> None:
    lines = [
        f"2\nenergy={-k}.5 Properties=species:S:1:pos:R:3:forces:R:3\nCu 0 0 0 {k} 0 0\nCu 2.{k} 0 0 -{k} 0 0"
        for k in range(1, 8)
    ]
    (folder / "a.xyz").write_text("\n".join(lines) + "\n")
    given = {
        "train": "a.xyz",
        "n_validation": 1,
        "n_test": 1,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
        "root": folder,
    }
    with pytest.raises(ValueError, match=r"'\.\./numbered\.txt' leads out of the folder of data"):
        prepare(ExtxyzConfig(**given, isolated_atoms="../numbered.txt"), cache=folder / "cache")
    (folder / "atoms.xyz").symlink_to(folder.parent / "numbered.txt")
    with pytest.raises(
        ValueError, match=r"atoms\.xyz, frame 0: cannot be read .* a link leads to a file outside"
    ) as refused:
        prepare(ExtxyzConfig(**given, isolated_atoms="atoms.xyz"), cache=folder / "cache")
    assert SECRET[:6] not in str(refused.value)


@pytest.mark.parametrize("target", ["secret.txt", "numbered.txt"])
def test_of_a_file_that_a_link_leads_to_outside_nothing_is_quoted(folder: Path, target: str) -> None:
    (folder / "a.xyz").symlink_to(folder.parent / target)
    assert (
        "a.xyz, frame 0: cannot be read as the data that the config says; what is wrong is not shown"
        in refusal(folder)
    )
    (folder / "a.xyz").unlink()
    (folder / "a.npz").symlink_to(folder.parent / target)
    assert "a.npz: cannot be read as the data" in refusal(folder, train="a.npz")


def test_data_behind_a_link_are_read(folder: Path) -> None:
    x = np.array([[0.0, 0, 0], [2, 0, 0]]) + 0.01 * np.random.default_rng(0).normal(size=(9, 2, 3))
    (folder.parent / "disk").mkdir()
    np.savez(folder.parent / "disk" / "a.npz", R=x, z=[29, 29], E=np.arange(9.0), F=np.ones((9, 2, 3)))
    (folder / "there").symlink_to(folder.parent / "disk")
    config = ExtxyzConfig(
        train="there/a.npz", n_validation=1, n_test=1, energy_unit="eV", length_unit="Angstrom", root=folder
    )
    assert prepare(config, cache=folder / "cache").n_frames == 9


def test_the_first_line_of_a_foreign_file_is_not_quoted_wherever_it_lies(folder: Path) -> None:
    assert "frame 0: wanted a line with the number of atoms, got one of 17 characters" in refusal(
        folder.parent, train="secret.txt"
    )


def test_pipes_folders_and_devices_are_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "a.xyz")
    assert "a.xyz: wanted a file, got a pipe, a socket or a device" in refusal(folder)
    os.mkfifo(folder / "a.npz")
    assert "a.npz: wanted a file, got a pipe" in refusal(folder, train="a.npz")
    (folder / "b.xyz").mkdir()
    assert "b.xyz: wanted a file, got a folder" in refusal(folder, train="b.xyz")
    (folder / "c.xyz").symlink_to("/dev/zero")
    assert "c.xyz: wanted a file, got a pipe, a socket or a device" in refusal(folder, train="c.xyz")


def test_the_index_of_a_split_behind_a_link_is_not_quoted(folder: Path) -> None:
    (folder / "rmd17" / "npz_data").mkdir(parents=True)
    (folder / "rmd17" / "splits").mkdir()
    np.savez(
        folder / "rmd17" / "npz_data" / "rmd17_ethanol.npz",
        nuclear_charges=np.full(2, 6),
        coords=np.zeros((9, 2, 3)),
        energies=np.zeros(9),
        forces=np.zeros((9, 2, 3)),
    )
    for part in ("train", "test"):
        (folder / "rmd17" / "splits" / f"index_{part}_01.csv").symlink_to(folder.parent / "secret.txt")
    with pytest.raises(ValueError, match=r"index_train_01\.csv: cannot be read") as refused:
        prepare(Rmd17Config(root=folder), cache=folder / "cache")
    assert SECRET[:6] not in str(refused.value)
