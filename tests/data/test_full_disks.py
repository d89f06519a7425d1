"""Data on a real disk without room: what was missing is told in one line, nothing unused stays, and making
goes on afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.config import plainly
from sapis_lab.data import prepare
from sapis_lab.data._arrays import Column, GrowingArrays
from sapis_lab.data.xtb import XtbDataConfig
from sapis_lab.errors import DiskError
from sapis_lab.files import is_temporary

TINY = XtbDataConfig(
    n_train=6,
    n_validation=2,
    n_test=2,
    trajectory_frames=3,
    block_frames=1,
    interval_fs=10,
    equilibration_fs=10,
    seed=5,
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    ).returncode:
        pytest.skip("mounting a file system wants root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, *, leaving: int) -> Path:
    facts = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(facts.f_bavail * facts.f_frsize - leaving))
    return disk / "filler"


def free(disk: Path) -> int:
    return os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize


@pytest.mark.parametrize(
    "leaving", [pytest.param(0, marks=pytest.mark.long), 16_384, pytest.param(65_536, marks=pytest.mark.long)]
)
def test_generation_without_room_is_told_and_goes_on(disk: Path, tmp_path: Path, leaving: int) -> None:
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    filler = fill(disk, leaving=leaving)
    with pytest.raises(
        DiskError,
        match=rf"^(data: )?{disk}/\S+: No space left on device; "
        "make room on that disk and run the same command",
    ):
        plainly(lambda: prepare(TINY, cache=disk, n_workers=1), about="data")
    assert not [p for p in disk.rglob("*") if is_temporary(p)]
    filler.unlink()
    store, other = (
        prepare(TINY, cache=disk, n_workers=1),
        prepare(TINY, cache=tmp_path / "cache", n_workers=1),
    )
    assert np.array_equal(store.positions, other.positions) and np.array_equal(store.forces, other.forces)


def test_a_neighbour_table_without_room_is_told_and_made_afterwards(disk: Path, tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    store, wanted = prepare(TINY, cache=disk), prepare(TINY, cache=tmp_path / "cache").neighbors(4.0)
    filler = fill(disk, leaving=8_192)
    with pytest.raises(DiskError, match=rf"^data: {disk}/\S+/neighbors-4\.0/\S+: No space left on device"):
        plainly(lambda: store.neighbors(4.0), about="data")
    filler.unlink()
    assert np.array_equal(store.neighbors(4.0).neighbor, wanted.neighbor)


def test_rows_that_do_not_fit_in_leave_no_bytes_behind(disk: Path) -> None:
    columns = {"small": Column("<f8"), "large": Column("<f8", (1000,))}
    arrays = GrowingArrays.create(disk / "a", columns)
    arrays.append({"small": np.ones(1), "large": np.ones((1, 1000))})
    filler = fill(disk, leaving=40_000)
    before = free(disk)
    with pytest.raises(OSError, match="No space left on device") as full:
        GrowingArrays.open(disk / "a", writable=True).append(
            {"small": np.ones(9), "large": np.ones((9, 1000))}
        )
    assert full.value.filename == str(disk / "a/large.npy") and free(disk) == before
    filler.unlink()
    again = GrowingArrays.open(disk / "a", writable=True)
    assert again["small"].shape == (1,)
    again.append({"small": np.ones(9), "large": np.ones((9, 1000))})
    assert np.load(disk / "a/large.npy").shape == (10, 1000)
