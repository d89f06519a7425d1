"""How a kernel is kept and found again: damaged or foreign libraries are built anew, unsafe folders are not
used, and nothing is fatal.

A compiler of a few lines stands for the real one: it makes a small shared library from C with `cc`, or fails
as it is told.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sapis_lab.errors import Notice
from sapis_lab.files import digest
from sapis_lab.kernels import Refusal, libraries

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
pytestmark = needs_compiler

COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then cat {folder}/version; exit 0; fi
echo built >> {folder}/built
for last; do :; done
{fault}
echo 'int answer(void) {{ return 42; }}' | /usr/bin/gcc -shared -fPIC -x c - -o "$last"
"""


class Compiler:
    """Counts what it builds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "g++"
        folder.mkdir()
        self.say_version("1.0")
        self.behave()

    def behave(self, fault: str = "") -> None:
        self.path.write_text(COMPILER.format(folder=self.folder, fault=fault))
        self.path.chmod(0o755)

    def say_version(self, version: str) -> None:
        (self.folder / "version").write_text(version)
        libraries._version.cache_clear()

    @property
    def n_built(self) -> int:
        return len((self.folder / "built").read_text().split()) if (self.folder / "built").exists() else 0


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler(tmp_path / "compiler")
    monkeypatch.setenv("CXX", str(made.path))
    monkeypatch.setenv("SAPIS_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAPIS_KERNELS", "auto")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return made


def load() -> ctypes.CDLL | Refusal:
    """As a new process does."""
    return libraries.library.__wrapped__("geat")


def answer() -> int:
    found = load()
    assert isinstance(found, ctypes.CDLL)
    return found.answer()


def kept(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache").glob("*.so")
    return path


def test_a_library_is_built_once_and_nothing_else_is_left(compiler: Compiler, tmp_path: Path) -> None:
    assert answer() == answer() == 42 and compiler.n_built == 1
    path = kept(tmp_path)
    assert (path.with_suffix(".sha256")).read_text().strip() == digest(path)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".lock", ".sha256", ".so"]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def of_another_architecture(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[18:20] = (0xF3, 0x00)  # e_machine: RISC-V
    path.write_bytes(data)


def without_its_digest(path: Path) -> None:
    path.with_suffix(".sha256").unlink()


def with_a_damaged_digest(path: Path) -> None:
    path.with_suffix(".sha256").write_bytes(b"\xff\x00")


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    path.rename(path.parent / "other.bin")
    path.symlink_to(path.parent / "other.bin")


def of_another_user(path: Path) -> None:
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        pytest.param(empty, marks=pytest.mark.long),
        pytest.param(garbage, marks=pytest.mark.long),
        of_another_architecture,
        pytest.param(without_its_digest, marks=pytest.mark.long),
        with_a_damaged_digest,
        writable_by_others,
        a_link,
        pytest.param(
            of_another_user, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
        ),
    ],
)
def test_a_library_that_is_not_what_was_built_is_built_again(
    damage: Callable, compiler: Compiler, tmp_path: Path
) -> None:
    libraries.build("geat")
    path = kept(tmp_path)
    damage(path)
    # in a process of its own: a damaged library ends the one that loads it
    code = "from sapis_lab.kernels import libraries; print(libraries.library('geat').answer())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert compiler.n_built == 2 and libraries._is_whole(path)


def test_another_version_of_the_compiler_or_the_c_library_builds_anew(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [libraries.build("geat")]
    compiler.say_version("2.0")
    paths.append(libraries.build("geat"))
    monkeypatch.setattr(libraries, "_c_library", lambda: "glibc 9.99")
    paths.append(libraries.build("geat"))
    assert len(set(paths)) == 3 and compiler.n_built == 3


def test_what_a_killed_process_left_is_removed(compiler: Compiler, tmp_path: Path) -> None:
    left = tmp_path / "cache" / f".{libraries.build('geat').stem}.abc"
    left.mkdir()
    truncated(kept(tmp_path))
    libraries.build("geat")
    assert not left.exists()


# ---------------------------------------------------------------------------------------------------- folders


def falls_back(tmp_path: Path, words: str) -> None:
    """To the temporary folder of this user, which is private, with one notice."""
    with pytest.warns(Notice, match=words) as said:
        assert answer() == 42
    assert len(said) == 1 and "the geat kernel is kept in " in str(said[0].message)
    folder = tmp_path / f"sapis_lab-kernels-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700 and len(list(folder.glob("*.so"))) == 1


def test_without_a_home_the_temporary_folder_serves(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAPIS_KERNEL_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    falls_back(tmp_path, "this user has no home folder")


def test_a_home_that_is_not_there_is_not_made(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAPIS_KERNEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    falls_back(tmp_path, "the home folder .*nobody is not there")
    assert not (tmp_path / "nobody").exists()


@pytest.mark.parametrize("where", ["cache", "."])
def test_a_folder_that_others_can_write_to_is_not_used(
    compiler: Compiler, tmp_path: Path, monkeypatch, where: str
) -> None:
    shared = tmp_path / "shared"
    (shared / "cache").mkdir(parents=True)
    (shared / where).chmod(0o777)
    monkeypatch.setenv("SAPIS_KERNEL_CACHE", str(shared / "cache"))
    falls_back(tmp_path, "can be written to by everybody, who could put other code into")
    assert not list((shared / "cache").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_not_used(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 12345, 12345)
    falls_back(tmp_path, "can be written to by user 12345, its owner")


def test_a_temporary_folder_that_another_has_prepared_is_not_used(
    compiler: Compiler, tmp_path: Path, monkeypatch
) -> None:
    prepared = tmp_path / f"sapis_lab-kernels-{os.geteuid()}"
    prepared.mkdir()
    prepared.chmod(0o777)
    monkeypatch.setenv("SAPIS_KERNEL_CACHE", str(tmp_path / "compiler/version"))  # a file
    with pytest.warns(Notice, match="PyTorch does its work.* is no folder; .*can be written to by everybody"):
        assert isinstance(load(), Refusal)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system with the given options at tmp_path/disk."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> Path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)], capture_output=True
        ).returncode:
            pytest.skip("mounting a file system wants root")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("size=4k", "mode=700"), "No space left|could not write"),
        (("nr_inodes=2", "mode=700"), "No space left"),
        (("ro",), "Read-only file system"),
        (("noexec", "mode=700"), "noexec"),
    ],
)
def test_a_disk_that_cannot_keep_it_gives_way_and_is_left_clean(
    compiler: Compiler, tmp_path: Path, small_disk, monkeypatch, options: tuple[str, ...], words: str
) -> None:
    disk = small_disk(*options)
    monkeypatch.setenv("SAPIS_KERNEL_CACHE", str(disk / "cache"))
    falls_back(tmp_path, words)
    assert {p.suffix for p in disk.rglob("*") if p.is_file()} <= {".lock"}


# --------------------------------------------------------------------------------------------------- compiler


@pytest.mark.parametrize(
    ("fault", "words", "n_built"),
    [
        ("echo no such thing >&2; exit 1", "could not build geat.cpp: no such thing", 1),
        ("kill -9 $$", "was killed twice while it built", 2),
        (
            "echo 'g++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1",
            "was killed twice",
            2,
        ),
        ("exit 0", "could not build geat.cpp: it ended with status 0", 1),
    ],
)
def test_a_compiler_that_fails_leaves_the_work_to_pytorch(
    compiler: Compiler, tmp_path: Path, fault: str, words: str, n_built: int
) -> None:
    compiler.behave(fault)
    with pytest.warns(Notice, match=f"PyTorch does its work.*{words}"):
        assert isinstance(load(), Refusal)
    assert compiler.n_built == n_built and not list((tmp_path / "cache").glob("*.so"))
    compiler.behave()
    assert answer() == 42


def test_a_compiler_that_is_killed_once_is_started_again(compiler: Compiler, tmp_path: Path) -> None:
    compiler.behave(f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; kill -9 $$; }}")
    assert answer() == 42 and compiler.n_built == 2


def test_workers_that_start_together_build_once(compiler: Compiler, tmp_path: Path) -> None:
    compiler.behave("sleep 1")
    code = "from sapis_lab.kernels import libraries; print(libraries.library('geat').answer())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [p.communicate(timeout=60)[0] for p in processes] == ["42\n"] * 3
    assert compiler.n_built == 1


def test_a_build_that_is_killed_is_made_by_the_next(compiler: Compiler, tmp_path: Path) -> None:
    compiler.behave("sleep 30")
    code = "from sapis_lab.kernels import libraries; libraries.library('geat')"
    process = subprocess.Popen([sys.executable, "-c", code])
    while compiler.n_built < 1:
        time.sleep(0.02)
    process.kill()
    process.wait()
    compiler.behave()
    assert answer() == 42
    assert not [p for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")]
