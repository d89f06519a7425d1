"""Power cuts: what a copy of a disk holds, and a study that loses nothing by them; `sapis selftest power`
makes more of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sapis_lab.config import ConfigError
from sapis_lab.files import MIB, write_text
from sapis_lab.selftest.power import Plan, copy_quiet, copy_sparse, cut, make_disk, mounted, run_power


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk, where this user may mount one."""
    path = tmp_path / "disk.img"
    try:
        make_disk(path, 32 * MIB)
        with mounted(path, tmp_path / "disk"):
            pass
    except ConfigError as error:
        pytest.skip(str(error))
    return path


def test_a_copy_has_the_bytes_of_the_file_and_its_holes(tmp_path: Path):
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as f:
        for at in (0, 3 * MIB, 9 * MIB):
            f.seek(at)
            f.write(os.urandom(1000))
        f.truncate(20 * MIB)
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks < 20 * MIB / 512


def test_what_we_write_is_on_the_disk_and_what_is_only_renamed_is_not(image: Path, tmp_path: Path):
    with mounted(image, tmp_path / "disk") as device:
        (tmp_path / "disk/.renamed").write_text("x" * 100)
        (tmp_path / "disk/.renamed").replace(tmp_path / "disk/renamed")
        write_text(tmp_path / "disk/folder/ours", "y" * 100)
        copy_quiet(image, tmp_path / "copy.img", device)
    with mounted(tmp_path / "copy.img", tmp_path / "disk"):
        assert (tmp_path / "disk/folder/ours").read_text() == "y" * 100
        assert (tmp_path / "disk/renamed").read_text() == ""


def test_where_nobody_may_mount_one_line_says_so(tmp_path: Path, monkeypatch):
    for name, body in (
        ("mkfs.ext4", "exit 0"),
        ("mount", "echo 'mount: only root can do that' >&2; exit 32"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        ConfigError, match="only root may mount; mount -t ext4 .*: mount: only root can do that$"
    ):
        run_power(Plan())
    (tmp_path / "mkfs.ext4").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs the program mkfs\.ext4, which is not here"):
        run_power(Plan())


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_power_cuts_cost_a_study_nothing(image: Path, tmp_path: Path):
    found = cut(tmp_path, Plan(copies=8, continued=2, seeds=1), say=print)
    assert len(found.seen) == 9 and found.control_empty > 0
    assert not found.faults and found.ends == ["same", "same"], found
