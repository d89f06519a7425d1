"""Compiles a C++ file of this folder on first use and loads it.

The library is kept in a cache folder under a name that holds the source, the compiler and its version, its
flags, the C library and the processor: a change of any of them builds anew, and a folder shared between
machines never serves code for another of them. Beside it lies its sha256, written after it: a library that
does not match (cut off, overwritten, of somebody else) is built anew and never loaded. Only folders in which
nobody but this user and root may write are used; where the cache folder is none, a temporary folder of this
user is.

`SAPIS_KERNELS=off` turns kernels off, `SAPIS_KERNELS=require` makes a failed build an error; otherwise the
first failure is reported, as a warning, and PyTorch does the work.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import hashlib
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from sapis_lab.errors import Notice
from sapis_lab.files import digest, read_text, replacing, write_text
from sapis_lab.kernels import Refusal

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
)
WIDE = "-mprefer-vector-width=512"
"""Measured on Zen 4: with it GCC keeps 64-byte vectors in one register (products of 90 instead of 70
GFLOP/s)."""
_SECONDS = 600
"""Longest time of one compilation, s."""
_OF_THE_DISK = (
    "No space left",
    "quota",
    "Read-only file system",
    "cannot create temporary",
    "Input/output error",
    "Permission denied",
)
"""Words of a compiler that cannot write."""


class BuildError(RuntimeError):
    """No compiler, or one that refuses the source."""


class OtherVersionError(RuntimeError):
    """A library that was built from other sources than those of the Python that calls it."""


class FolderError(BuildError):
    """A folder in which no library can be kept, or must not be."""


def mode() -> str:
    """`auto`, `off` or `require`, from $SAPIS_KERNELS."""
    value = os.environ.get("SAPIS_KERNELS", "auto")
    if value not in ("auto", "off", "require"):
        raise ValueError(f"$SAPIS_KERNELS is {value!r}, wanted auto, off or require")
    return value


@cache
def library(name: str, defines: tuple[str, ...] = ()) -> ctypes.CDLL | Refusal:
    """The library of `NAME.cpp` with preprocessor `defines` ("NAME=value"), built if need be; or why there is
    none: kernels are off, or it cannot be built."""
    if mode() == "off":
        return Refusal("off by $SAPIS_KERNELS")
    try:
        return _loaded(name, defines)
    except (BuildError, OSError) as error:
        if mode() == "require":
            raise
        _notice(f"the {name} kernel is not in use, PyTorch does its work, several times slower: {error}")
        return Refusal(str(error))


def _loaded(name: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    """From the cache folder, or else from the temporary folder of this user, with a notice."""
    try:
        return _from(cache_folder(), name, defines)
    except (FolderError, OSError) as error:
        reason = error
    try:
        found = _from(temporary_folder(), name, defines)
    except (FolderError, OSError) as error:
        raise FolderError(f"{reason}; {error}") from None
    _notice(f"the {name} kernel is kept in {temporary_folder()}, until that is emptied: {reason}")
    return found


def _from(folder: Path, name: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    path = build(name, defines, folder=folder)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:  # it is what was built, and still does not fit this system
        raise FolderError(f"{path} cannot be loaded: {error}") from None


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=4)


def build(name: str, defines: tuple[str, ...] = (), *, folder: Path | None = None) -> Path:
    """Path of the shared library of `NAME.cpp`; compiles it (about 10 s) unless it lies whole in `folder`,
    the cache folder by default.

    Raises:
        BuildError: no compiler is found, or it fails; with what it said.   FolderError: the folder cannot be
        used.
    """
    compiler = _compiler()
    source = Path(__file__).parent / f"{name}.cpp"
    flags = [*FLAGS, WIDE] if platform.machine() in ("x86_64", "AMD64") else list(FLAGS)
    flags += [f"-D{define}" for define in defines]
    parts = [*(path.read_bytes() for path in sources(source)), " ".join([compiler, *flags]).encode()]
    about = (_version(compiler), _c_library(), _processor())
    key = hashlib.sha256(b"\0".join([*parts, *(text.encode() for text in about)])).hexdigest()[:16]
    folder = folder or cache_folder()
    target = folder / f"{name}-{key}.so"
    try:
        _make_usable(folder)
        if not _is_whole(target):
            with _alone(target):  # one of the workers that start together builds, the others wait for it
                if not _is_whole(target):
                    _compile([compiler, *flags, str(source)], target)
    except OSError as error:
        raise FolderError(f"{error.filename or folder}: {error.strerror or error}") from None
    return target


def sources(source: Path) -> list[Path]:
    """A C++ file and all that it includes by `#include "..."`, at any depth, in the order of their first
    mention."""
    found, waiting = dict[Path, None](), [source]
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            found[path] = None
            names = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
            waiting += [path.parent / name for name in names]
    return list(found)


def check_numbers(lib: ctypes.CDLL, wanted: Mapping[str, int], *, caller: str) -> None:
    """Raise OtherVersionError unless the functions of `lib`, which take nothing and return a whole number,
    return those that `caller` was written for."""
    for name, number in wanted.items():
        function = getattr(lib, name, None)
        if function is not None:
            function.argtypes, function.restype = [], ctypes.c_int64
        got = "missing" if function is None else function()
        if got != number:
            raise OtherVersionError(
                f"{name} is {got} in {vars(lib)['_name']} and {number} in {caller}: they are of different "
                "versions; install sapis_lab anew, or raise the number in both where one was changed"
            )


def _compile(command: list[str], target: Path) -> None:
    """Build `target` in a folder beside it, then write what it must be: the sha256 of its bytes."""
    for left in target.parent.glob(f".{target.stem}.*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.") as scratch:
        made = Path(scratch) / target.name
        for last in (False, True):
            status, said = _ran([*command, "-o", str(made)], scratch)
            if status == 0 and made.is_file():
                break
            killed = status < 0 or "Killed" in said or "terminated" in said
            if last or not killed:
                _refuse(command, status, said, killed)
        _digest_of(target).unlink(missing_ok=True)
        with replacing(target) as temporary:
            shutil.copyfile(made, temporary)
            wanted = digest(made)
        write_text(_digest_of(target), wanted + "\n")


def _ran(command: list[str], scratch: str) -> tuple[int, str]:
    """Exit status and words of a compiler, whose own temporary files go to `scratch`."""
    environment = {**os.environ, "TMPDIR": scratch, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} has not ended within {_SECONDS} s") from None
    return done.returncode, done.stderr.strip()


def _refuse(command: list[str], status: int, said: str, killed: bool) -> None:
    source, words = Path(command[-1]).name, said[-2000:] or f"it ended with status {status}"
    if killed:
        raise BuildError(
            f"{command[0]} was killed twice while it built {source}; the system may have run out of memory: "
            f"{words}"
        )
    if any(word in said for word in _OF_THE_DISK):
        raise FolderError(f"{command[0]} could not write {source}'s library: {words}")
    raise BuildError(f"{command[0]} could not build {source}: {words}")


# ---------------------------------------------------------------------------------------------------- folders


def cache_folder() -> Path:
    """$SAPIS_KERNEL_CACHE, or sapis_lab/kernels in the user's cache folder. FolderError where there is
    neither that nor a home."""
    chosen = os.environ.get("SAPIS_KERNEL_CACHE") or None
    above = os.environ.get("XDG_CACHE_HOME") or None
    if chosen or above:
        return Path(chosen) if chosen else Path(str(above)) / "sapis_lab" / "kernels"
    try:
        home = Path.home()
    except RuntimeError:
        raise FolderError(
            "this user has no home folder to keep it in; set $SAPIS_KERNEL_CACHE to a folder of yours"
        ) from None
    if not home.is_dir():
        raise FolderError(
            f"the home folder {home} is not there to keep it in; set $SAPIS_KERNEL_CACHE to a folder of yours"
        )
    return home / ".cache" / "sapis_lab" / "kernels"


def temporary_folder() -> Path:
    """A folder for this user alone, where temporary files go. FolderError where there is no such place."""
    try:
        return Path(tempfile.gettempdir()) / f"sapis_lab-kernels-{os.geteuid()}"
    except OSError as error:
        raise FolderError(error.strerror or str(error)) from None


def usable_folder() -> Path:
    """The cache folder or, where that is none, the temporary folder of this user; made, and safe for code.
    FolderError where neither is."""
    try:
        folder = cache_folder()
        _make_usable(folder)
    except (FolderError, OSError):
        folder = temporary_folder()
        _make_usable(folder)
    return folder


def _make_usable(folder: Path) -> None:
    """Make `folder`, for this user alone, where it is missing. FolderError if code in it could be of another
    user, or not be loaded."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder")
    own = (folder.absolute(), folder.resolve())
    for place in dict.fromkeys([*own, *(above for path in own for above in path.parents)]):
        if (who := _other_writer(place.lstat(), kept_here=place in own)) is not None:
            raise FolderError(
                f"{place} can be written to by {who}, who could put other code into {folder}; "
                "take that right away (chmod go-w), or set $SAPIS_KERNEL_CACHE to a folder of yours"
            )
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):  # macOS has no such flag
        raise FolderError(
            f"{folder} lies on a disk from which no program may be run (noexec); set $SAPIS_KERNEL_CACHE to "
            f"another folder"
        )


def _other_writer(facts: os.stat_result, *, kept_here: bool) -> str | None:
    """Who else may change what lies in a folder; None if nobody may but this user and root.

    Args:
        kept_here: the libraries lie there, and not only the folder that holds them: in one with the sticky
            bit, such as /tmp, nobody may move what is not theirs, but everybody may add files.
    """
    if facts.st_uid not in (0, os.geteuid()) and (kept_here or facts.st_uid != _unmapped_root()):
        return f"user {facts.st_uid}, its owner"
    if stat.S_ISLNK(facts.st_mode) or (facts.st_mode & stat.S_ISVTX and not kept_here):
        return None
    if facts.st_mode & stat.S_IWOTH:
        return "everybody"
    if facts.st_mode & stat.S_IWGRP and not _is_private(facts.st_gid):
        return f"group {facts.st_gid}"
    return None


@cache
def _unmapped_root() -> int | None:
    """The user as whom root's files appear in a container whose root is none (a user namespace without it);
    None elsewhere."""
    try:
        first, outside, n = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
        whole = (first, outside) == (0, 0) and n > 2**31
        return None if whole else int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return None


def _is_private(gid: int) -> bool:
    """Whether a group holds this user alone: many systems give everyone such a group, and every file the
    right to be written by it."""
    if gid == 0:
        return True
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock of a library's making, where the file system has locks; without, two make the same one
    after the other."""
    fd = os.open(target.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _digest_of(target: Path) -> Path:
    return target.with_suffix(".sha256")


def _is_whole(target: Path) -> bool:
    """The library is there, of this user or root, and has the bytes that it was built with."""
    try:
        facts = target.lstat()
        if not stat.S_ISREG(facts.st_mode) or _other_writer(facts, kept_here=True) is not None:
            return False
        return read_text(_digest_of(target), limit=1000).strip() == digest(target)
    except (OSError, ValueError):
        return False


# ---------------------------------------------------------------------------------------- what a library fits


def _compiler() -> str:
    for candidate in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        found = shutil.which(candidate)
        if found:
            return found
    raise BuildError("no C++ compiler found: tried $CXX, g++, clang++ and c++")


@cache
def _version(compiler: str) -> str:
    """What a compiler says of itself: an upgrade leaves its path as it was."""
    try:
        done = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler} cannot be run: {error}") from None
    return done.stdout


def _c_library() -> str:
    """Name and version of the C library that this process runs with, and the width of its pointers."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        name = None
    return " ".join([name or " ".join(platform.libc_ver()), *platform.architecture(), platform.system()])


def _processor() -> str:
    """What decides the instructions of -march=native."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
