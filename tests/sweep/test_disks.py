"""Every command on a disk that is full, has no inodes left or is read-only: one line that says what to do,
status 74, nothing half written, and the same command goes on afterwards. On real file systems, which only
root can mount."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from stub_points import StubPoint

from sapis_lab import cli
from sapis_lab.config import plainly, read_yaml
from sapis_lab.errors import DiskError, disk_error
from sapis_lab.files import is_temporary
from sapis_lab.sweep import engine
from sapis_lab.sweep.tuner.request import TuneRequest
from sapis_lab.sweep.tuner.run_tune import run_tune

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = r"No space left on device; make room on that disk and run the same command again to continue"
READ_ONLY = r"Read-only file system; make that folder writable and run the same command again to continue"


class Disk:
    """A small file system."""

    def __init__(self, place: Path, options: str) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        ).returncode:
            pytest.skip("mounting a file system wants root")

    def fill(self, *, leaving: int = 0) -> None:
        """Leave `leaving` bytes."""
        facts = os.statvfs(self.place)
        with (self.place / "filler").open("wb") as f:
            f.truncate(0)
            f.write(bytes(facts.f_bavail * facts.f_frsize - leaving))

    def use_up_inodes(self) -> None:
        for k in range(os.statvfs(self.place).f_favail):
            (self.place / f"filler{k}").touch()

    def make_room(self) -> None:
        for path in self.place.glob("filler*"):
            path.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)

    def assert_clean(self) -> None:
        assert not [p for p in self.place.rglob("*") if is_temporary(p)]


@pytest.fixture
def disk() -> Iterator[Callable[..., Disk]]:
    """Mounts a file system."""
    made: list[Disk] = []

    def mount(place: Path, options: str = "size=4m") -> Disk:
        made.append(Disk(place, options))
        return made[-1]

    yield mount
    for one in made:
        subprocess.run(["umount", "--lazy", str(one.place)], check=True)


@pytest.fixture
def sapis_here(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs `sapis` in this process: exit status and errors."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sapis", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def assert_told(result: tuple[int, str], place: Path, what: str) -> None:
    """One line with a path below `place`, and status 74."""
    status, told = result
    assert status == 74, told
    (line,) = told.strip().splitlines()
    assert line.startswith("error: ") and f"{place}" in line and line.endswith(what), line


# ----------------------------------------------------------------------------------------------------- errors


def test_an_error_of_the_disk_stays_one_where_others_become_bad_settings():
    def full() -> None:
        raise OSError(28, "No space left on device", "/x/runs.csv")

    with pytest.raises(DiskError, match=f"^the analysis failed: /x/runs.csv: {FULL}$"):
        plainly(full, about="the analysis failed")
    with pytest.raises(DiskError, match=f"^/x/runs.csv: {FULL}$"):
        plainly(lambda: plainly(full))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), DiskError("full"), OSError(30, "ro", "/x")]
)
def test_the_command_ends_with_74(sapis_here, monkeypatch, error):
    def fail(names):
        raise error

    monkeypatch.setattr("sapis_lab.sweep.status.known_studies", fail)
    ended, told = sapis_here("study", "list")
    assert ended == 74 and told.startswith("error: ") and told.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_takes_no_more_is_an_error(project):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sapis_lab.cli", "study", "list"]
        done = subprocess.run(command, cwd=project, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74 and done.stderr == f"error: {FULL}\n"


def test_what_is_no_error_of_the_disk_is_not_called_one(sapis_here, monkeypatch):
    def fail(names):
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr("sapis_lab.sweep.status.known_studies", fail)
    monkeypatch.setattr(sys, "argv", ["sapis", "study", "list"])
    with pytest.raises(OSError, match="timed out"):
        cli.main()
    assert disk_error(OSError(110, "Connection timed out")) is None


# --------------------------------------------------------------------------------------------------- commands


def test_answers_on_a_full_disk(sapis_here, project, disk):
    results = disk(project / "results", "size=3m")
    folder = results.place / "q"
    shutil.copytree(
        REPOSITORY / "results/quickstart-scale",
        folder,
        ignore=shutil.ignore_patterns("figures", "tables", "report.html"),
    )
    study = read_yaml(folder / "study.yaml")
    study["law"] |= {"bootstrap": 100, "calibrate": 0}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    results.fill(leaving=100_000)  # the laws fit in, the figures do not
    assert_told(sapis_here("figures", "q"), folder / "figures", FULL)
    results.assert_clean()
    results.make_room()
    results.remount("ro")
    assert_told(sapis_here("report", "q"), folder, READ_ONLY)
    results.remount("rw")
    assert sapis_here("figures", "q")[0] == 0
    assert (folder / "report.html").stat().st_size > 0 and list((folder / "figures").glob("*.pdf"))


@pytest.mark.parametrize(
    "words", [("study", "run", "smoke"), ("scale", "quickstart-scale"), ("tune", "rate-rule")]
)
def test_a_study_whose_folder_cannot_be_made_is_told(sapis_here, project, disk, monkeypatch, words):
    if words[0] == "tune" and "SAPIS_DATA" not in os.environ:
        pytest.skip("SAPIS_DATA is not set: no rMD17 files to tune on")
    monkeypatch.setattr("sapis_lab.data.prepare", lambda *_, **__: pytest.fail("data were made"))
    results = disk(project / "results", "size=1m,nr_inodes=10")
    results.remount("ro")
    assert_told(sapis_here(*words), results.place, READ_ONLY)
    results.remount("rw")
    results.use_up_inodes()
    assert_told(sapis_here(*words), results.place, FULL)
    results.make_room()
    results.fill()
    assert_told(sapis_here(*words), results.place, FULL)
    results.assert_clean()


def test_points_on_a_full_disk_go_on_when_there_is_room(tmp_path, disk):
    results = disk(tmp_path / "r", "size=1m")
    points = [StubPoint(id=f"p{k}") for k in range(3)]
    how = {
        "folder": results.place,
        "cache": tmp_path,
        "target": "stub_points:run_point",
        "preload": ["stub_points"],
    }
    results.fill(leaving=8192)
    with pytest.raises(OSError, match="No space left on device") as full:
        engine.run(points, **how)
    assert str(full.value.filename).startswith(str(results.place))
    results.assert_clean()
    results.make_room()
    assert [r.id for r in engine.run(points, **how)] == ["p0", "p1", "p2"]


def test_cleaning_makes_room_on_a_full_disk_and_says_what_it_may_not_delete(sapis_here, project, disk):
    results = disk(project / "results", "size=1m")
    folder = results.place / "q"
    shutil.copytree(
        REPOSITORY / "results/quickstart-scale",
        folder,
        ignore=shutil.ignore_patterns("figures", "tables", "scale", "*.html"),
    )
    left = folder / ".runs.csv.123.tmp"
    left.write_bytes(bytes(10_000))
    (folder / ".lock").touch()  # as a study that ran has left it
    results.remount("ro")
    assert_told(sapis_here("study", "clean", "q", "--yes"), folder, READ_ONLY)
    results.remount("rw")
    results.fill()
    assert sapis_here("study", "clean", "q", "--yes")[0] == 0
    assert not left.exists()


def test_an_archive_on_a_full_disk_is_told(sapis_here, project, disk):
    shutil.copytree(REPOSITORY / "results/quickstart-scale", project / "results/q")
    target = disk(project / "disk", "size=64k")
    assert_told(
        sapis_here("study", "export", "q", "--to", str(target.place / "q.zip")), target.place / "q.zip", FULL
    )
    target.assert_clean()


@pytest.mark.parametrize(("leaving", "what"), [(0, FULL), (60_000, FULL), (200_000, FULL), (None, READ_ONLY)])
def test_a_tuning_on_a_full_disk_goes_on_when_there_is_room(project, disk, tmp_path_factory, leaving, what):
    study = {
        "question": "?",
        "data": "ethanol-xtb-tiny",
        "models": ["geat"],
        "lattice": {"n_params": [3e3], "n_frames": [8]},
        "train": {"use": "default", "steps": 20, "batch_size": 4},
        "tune": {
            "space": {"train.learning_rate": {"log": [1e-3, 0.1]}},
            "trials": 40 if leaving == 200_000 else 2,
        },
    }
    (project / "studies" / "t.yaml").write_text(yaml.safe_dump(study))
    results = disk(project / "results", "size=2m")
    stores = tmp_path_factory.getbasetemp() / "stores"
    request = TuneRequest(
        "t", (f"run.cache={stores}",), workers=1, target="tuned_points:run_point", preload=("tuned_points",)
    )
    if leaving is None:
        results.remount("ro")
    else:
        results.fill(leaving=leaving)
    with pytest.raises((DiskError, OSError)) as told:
        run_tune(request, Console(file=io.StringIO()))
    error = told.value if isinstance(told.value, DiskError) else disk_error(told.value)
    assert str(error).startswith(f"{results.place}/t") and str(error).endswith(what)
    results.assert_clean()
    if leaving is None:
        results.remount("rw")
    results.make_room()
    if leaving != 200_000:
        assert run_tune(request, Console(file=io.StringIO())) == 0
