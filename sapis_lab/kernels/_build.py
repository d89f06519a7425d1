"""Compiles a C++ file of this folder on first use and loads it.

The library is kept in a cache folder under a name that holds the source, the compiler, its flags and the processor: a change of any of
them builds anew, and a folder shared between machines never serves code for another processor. `SAPIS_KERNELS=off` turns kernels off,
`SAPIS_KERNELS=require` makes a failed build an error; otherwise the first failure is reported, as a warning, and PyTorch does the work.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-shared", "-fPIC",
)  # fmt: skip
WIDE = "-mprefer-vector-width=512"
"""Measured on Zen 4: with it GCC keeps 64-byte vectors in one register (products of 90 instead of 70 GFLOP/s)."""


class BuildError(RuntimeError):
    """No compiler, or one that refuses the source."""


def mode() -> str:
    """`auto`, `off` or `require`, from $SAPIS_KERNELS."""
    value = os.environ.get("SAPIS_KERNELS", "auto")
    if value not in ("auto", "off", "require"):
        raise ValueError(f"$SAPIS_KERNELS is {value!r}, wanted auto, off or require")
    return value


@cache
def library(name: str, defines: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The library of `NAME.cpp` with preprocessor `defines` ("NAME=value"), built if need be; None where kernels are off or none can be
    built."""
    if mode() == "off":
        return None
    try:
        return ctypes.CDLL(str(build(name, defines)))
    except (BuildError, OSError) as error:
        if mode() == "require":
            raise
        text = f"the {name} kernel is not in use, PyTorch does its work, several times slower: {error}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None


def build(name: str, defines: tuple[str, ...] = (), *, folder: Path | None = None) -> Path:
    """Path of the shared library of `NAME.cpp`; compiles it (about 10 s) unless it lies in the cache.

    Raises:
        BuildError: no compiler is found, or it fails; with what it said.
    """
    compiler = _compiler()
    source = Path(__file__).parent / f"{name}.cpp"
    flags = [*FLAGS, WIDE] if platform.machine() in ("x86_64", "AMD64") else list(FLAGS)
    flags += [f"-D{define}" for define in defines]
    parts = [source.read_bytes(), *(h.read_bytes() for h in sorted(source.parent.glob("*.h"))), " ".join([compiler, *flags]).encode()]
    key = hashlib.sha256(b"\0".join([*parts, _processor().encode()])).hexdigest()[:16]
    folder = folder or cache_folder()
    target = folder / f"{name}-{key}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{target.stem}.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the workers that start together builds, the others wait for it
        if target.exists():
            return target
        made = Path(scratch) / target.name
        done = subprocess.run([compiler, *flags, str(source), "-o", str(made)], capture_output=True, text=True)
        if done.returncode:
            raise BuildError(f"{compiler} could not build {source.name}: {done.stderr.strip()[-2000:]}")
        made.replace(target)  # atomic: a library is there whole or not at all
    return target


def cache_folder() -> Path:
    """$SAPIS_KERNEL_CACHE, or sapis_lab/kernels in the user's cache folder."""
    chosen = os.environ.get("SAPIS_KERNEL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sapis_lab" / "kernels"


def _compiler() -> str:
    for candidate in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        found = shutil.which(candidate)
        if found:
            return found
    raise BuildError("no C++ compiler found: tried $CXX, g++, clang++ and c++")


def _processor() -> str:
    """What decides the instructions of -march=native."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
