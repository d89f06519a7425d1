"""What a point does when its checkpoint is damaged, the disk is full or read-only, or memory runs out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ranked_points import Launcher, make_point, n_rows, wait_until, write_clusters

from sapis_lab.records import read_record
from sapis_lab.training._checkpoint import CheckpointFiles, usable_checkpoint
from sapis_lab.training.run import PointFailed, run_point

STEPS = 60


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, clusters: Path, cache: Path, launcher: Launcher
) -> tuple[Path, Path]:
    """A point that was stopped with two checkpoints, and the same point undisturbed."""
    half, whole = (tmp_path_factory.mktemp(name) / "p" for name in ("half", "whole"))
    for folder in (half, whole):
        make_point(folder, clusters, steps=STEPS)
    assert launcher.run(whole, cache=cache) == 0, (whole / "log.txt").read_text()
    launcher.start(half, cache=cache, checkpoint_seconds=0)
    wait_until(lambda: n_rows(half) >= 20)
    launcher.signal(half, signal.SIGTERM)
    assert launcher.wait(half) == 75
    return half, whole


def assert_same(found: Path, wanted: Path) -> None:
    for file in ("model.safetensors", "metrics.csv"):
        assert (found / file).read_bytes() == (wanted / file).read_bytes(), file


# ---------------------------------------------------------------------------------------- damaged checkpoints


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def one_bit(path: Path) -> None:
    """In the largest tensor, where torch.load does not see it."""
    with zipfile.ZipFile(path) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        tensor = archive.read(max(tensors, key=lambda entry: entry.file_size))
    data = bytearray(path.read_bytes())
    data[data.index(tensor) + len(tensor) // 2] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, empty, garbage, one_bit, missing])
def test_a_damaged_checkpoint_gives_way_to_the_previous_one(
    damage, tmp_path: Path, cache: Path, stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    half, whole = stopped
    folder = Path(shutil.copytree(half, tmp_path / "p"))
    before = torch.load(folder / "previous.ckpt", weights_only=True)["global_step"]
    damage(folder / "last.ckpt")
    run_point(folder, cache=cache)
    fault = "is missing" if damage is missing else r"of \d+ bytes cannot be read \(.+\)"
    assert re.search(
        rf"^last.ckpt {fault}: continuing from previous.ckpt, step {before}$",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    assert_same(folder, whole)
    assert not (folder / "previous.ckpt").exists()  # the record is there


def test_two_damaged_checkpoints_start_from_step_0(
    tmp_path: Path, cache: Path, stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    half, whole = stopped
    folder = Path(shutil.copytree(half, tmp_path / "p"))
    garbage(folder / "last.ckpt")
    truncated(folder / "previous.ckpt")
    run_point(folder, cache=cache)
    told = capsys.readouterr().out
    wanted = (
        r"^last.ckpt of \d+ bytes cannot be read .+ and previous.ckpt of \d+ bytes cannot be read .+: "
        r"starting from step 0$"
    )
    assert re.search(wanted, told, re.MULTILINE) and f"point p: step 0 of {STEPS}" in told
    assert_same(folder, whole)


def test_a_checkpoint_that_would_run_code_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "done"),)

    torch.save({"global_step": 3, "evil": Evil()}, tmp_path / "last.ckpt")
    assert usable_checkpoint(tmp_path) is None
    assert "last.ckpt of" in capsys.readouterr().out and not (tmp_path / "done").exists()


def test_a_checkpoint_that_one_may_not_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()  # root may read everything else
    with pytest.raises(IsADirectoryError):
        usable_checkpoint(tmp_path)


def test_two_checkpoints_bound_the_disk(tmp_path: Path) -> None:
    files = CheckpointFiles()
    for step in range(4):
        files.save_checkpoint({"global_step": step}, tmp_path / "last.ckpt")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert usable_checkpoint(tmp_path) == 3
    assert torch.load(tmp_path / "previous.ckpt", weights_only=True)["global_step"] == 2


# ------------------------------------------------------------------------------------------------------ disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True
    ).returncode:
        pytest.skip("mounting a file system wants root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, leaving: int) -> Path:
    """Leave `leaving` bytes on the disk."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - leaving))
    return disk / "filler"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, clusters: Path, cache: Path, launcher: Launcher) -> Path:
    """A point with checkpoints of a megabyte, undisturbed."""
    folder = tmp_path_factory.mktemp("large") / "p"
    make_point(folder, clusters, n_params=6e4, steps=30)
    assert launcher.run(folder, cache=cache) == 0, (folder / "log.txt").read_text()
    return folder


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_full_disk_at_a_checkpoint_is_told_and_the_earlier_one_stays(
    n_ranks: int, small_disk: Path, clusters: Path, cache: Path, launcher: Launcher, large: Path
) -> None:
    folder = small_disk / "p"
    make_point(folder, clusters, n_params=6e4, steps=30)
    launcher.start(folder, cache=cache)
    wait_until(lambda: n_rows(folder) >= 10)
    launcher.signal(folder, signal.SIGUSR2)
    assert launcher.wait(folder) == 75
    before = (folder / "last.ckpt").read_bytes()
    filler = fill(small_disk, leaving=200_000)
    assert launcher.run(folder, cache=cache, ranks=n_ranks, checkpoint_seconds=0) == 1
    reason = (folder / "failure.txt").read_text().splitlines()[0]
    assert reason == (
        f"{folder / 'last.ckpt'}: No space left on device; make room on that disk and run the point "
        f"again to continue"
    )
    assert (folder / "last.ckpt").read_bytes() == before and not list(folder.glob(".*.tmp"))
    filler.unlink()
    assert launcher.run(folder, cache=cache) == 0
    assert_same(folder, large)


def test_a_full_disk_at_the_record_is_told_and_the_point_can_go_on(
    small_disk: Path, clusters: Path, cache: Path, launcher: Launcher, large: Path
) -> None:
    folder = small_disk / "p"
    make_point(folder, clusters, n_params=6e4, steps=30)
    filler = fill(small_disk, leaving=180_000)
    assert launcher.run(folder, cache=cache) == 1
    reason = (folder / "failure.txt").read_text().splitlines()[0]
    assert reason.startswith(str(folder)) and ": No space left on device; make room on that disk" in reason
    assert not (folder / "record.json").exists() and not list(folder.glob(".*.tmp"))
    filler.unlink()
    assert launcher.run(folder, cache=cache) == 0
    assert_same(folder, large)


def test_a_disk_without_room_for_the_reason_still_says_that_the_point_failed(
    small_disk: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    folder = small_disk / "p"
    make_point(folder, clusters, steps=30)
    fill(small_disk, leaving=0)
    assert launcher.run(folder, cache=cache) == 74


def test_a_folder_that_cannot_be_written_to_is_told(
    small_disk: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    folder = small_disk / "p"
    make_point(folder, clusters, steps=30)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert launcher.run(folder, cache=cache) == 74
    assert f"[Errno 30] Read-only file system: '{folder / 'log.txt'}'" in launcher.log.read_text()
    with pytest.raises(
        PointFailed,
        match=rf"^{folder}/\S+: Read-only file system; make that folder writable and run the point again",
    ):
        run_point(folder, cache=cache)


# ------------------------------------------------------------------------------------------------ memory, NaN


def test_want_of_memory_is_told_with_size_and_batch(tmp_path: Path, launcher: Launcher) -> None:
    folder, data = tmp_path / "p", write_clusters(tmp_path / "data", sizes=(80,))
    size = {"kind": "nequip", "n_params": 1e5, "batch_size": 12, "steps": 3}
    starved = {"target": "ranked_points:run_starved", "cache": tmp_path / "cache", "megabytes": 250}
    make_point(folder, data, **size)
    assert launcher.run(folder, **starved) == 1
    reason = (folder / "failure.txt").read_text().splitlines()[0]
    wanted = (
        r"out of memory \(host\) with N = \S+ parameters and 12 frames a step; lower train.batch_size \(now "
        r"12\) or the model's size.*"
    )
    assert re.fullmatch(wanted, reason), (folder / "failure.txt").read_text()
    make_point(tmp_path / "parts", data, micro_batch=1, **size)  # the same frames one after the other
    assert launcher.run(tmp_path / "parts", **starved) == 0, (tmp_path / "parts/log.txt").read_text()


@pytest.mark.gpu
def test_want_of_gpu_memory_is_told_with_size_and_batch(tmp_path: Path, clusters: Path, cache: Path) -> None:
    make_point(tmp_path / "p", clusters, kind="nequip", n_params=1e6, batch_size=12, steps=3)
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(
            PointFailed,
            match=r"^out of memory \(GPU\) with N = \S+ parameters and 12 frames a step; lower train.batch",
        ):
            run_point(tmp_path / "p", cache=cache, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_loss_that_is_no_number_is_told_with_its_step(
    n_ranks: int, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    folder = tmp_path / "p"
    # logged at every third step only, noticed at each
    make_point(folder, clusters, steps=300, learning_rate=1e3, clip=None, ema=None, warmup=0.0)
    assert launcher.run(folder, cache=cache, ranks=n_ranks) == 1
    reason = (folder / "failure.txt").read_text().splitlines()[0]
    found = re.fullmatch(r"diverged: the loss is (nan|inf) at step (\d+) of 300", reason)
    assert found and int(found[2]) < 10, reason
    assert not (folder / "record.json").exists()


def test_a_finished_point_keeps_its_last_checkpoint_alone(
    stopped: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped[0], tmp_path / "p"))
    assert (folder / "previous.ckpt").exists()
    run_point(folder, cache=cache)
    assert read_record(folder).steps == STEPS
    assert sorted(p.name for p in folder.glob("*.ckpt")) == ["last.ckpt"]
