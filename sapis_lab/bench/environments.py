"""Virtual environments of the peer codes, one a code, since their requirements exclude each other.

    python -m sapis_lab.bench.environments nequip mace --root .sapis/peers

makes `<root>/<name>/` with torch first and then the code at the version that was measured, under a constraint
that keeps torch where it is; all packages that came with it are listed in `<root>/<name>/installed.txt`. An
environment that is complete is left alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(".sapis/peers")
"""Where environments are looked for, unless the environment variable `SAPIS_PEERS` names another folder."""
TORCH = "torch==2.13.0"
MAIN = "main"
"""The environment in which this package itself runs."""


@dataclass(frozen=True)
class Environment:
    """What is installed beside torch."""

    packages: tuple[str, ...]
    """requirements with exact versions"""
    module: str
    """what must be importable in the end (not schnetpack itself, which needs the help of its adapter)"""
    without: tuple[str, ...] = ()
    """requirements of the first package that are not met, because they exclude our torch; the others are
    installed one by one"""


ENVIRONMENTS: dict[str, Environment] = {
    "nequip": Environment(("nequip==0.19.1", "nequip-allegro==0.8.3"), "nequip"),
    "mace": Environment(("mace-torch==0.3.16",), "mace"),
    # asks for sympy <= 1.12 (torch 2.13 wants >= 1.13.3) but works with torch's; a resolver that may choose
    # falls back to 2.0.4
    "schnetpack": Environment(("schnetpack==2.1.1",), "sympy", without=("sympy",)),
    "torchmdnet": Environment(("torchmd-net==3.1.0",), "torchmdnet"),
    # its extra "torch" pins torch 2.11; of the rest of it DPA4 with given edges needs e3nn alone. The package
    # itself starts with the help of its adapter only
    "deepmd": Environment(("deepmd-kit==3.2.0", "e3nn==0.6.0"), "e3nn"),
    # the last version for Python 3.11; those from 0.6.0 on want 3.12 and have the same model
    "orb": Environment(("orb-models==0.5.5",), "orb_models"),
}


def default_root() -> Path:
    """The folder of environments."""
    return Path(os.environ.get("SAPIS_PEERS", ROOT)).resolve()


def python_of(name: str, root: Path | None = None) -> Path:
    """The interpreter of an environment; ours for `main`.

    Raises:
        ValueError: the environment is unknown or was not made.
    """
    if name == MAIN:
        return Path(sys.executable)
    _known(name)
    folder = (root or default_root()) / name
    if not _complete(folder):
        raise ValueError(
            f"no environment {folder}; make it with: python -m sapis_lab.bench.environments {name} --root "
            f"{folder.parent}"
        )
    return folder / "bin" / "python"


def is_made(name: str, root: Path | None = None) -> bool:
    """True where an environment is complete."""
    return name == MAIN or _complete((root or default_root()) / name)


def command(name: str, module: str, *arguments: str, root: Path | None = None) -> list[str]:
    """The command that runs `main(arguments)` of the module `sapis_lab.bench.<module>` in an environment.

    Peers' environments lack this package, and a path to its parent folder may hold anything (site-packages,
    when installed): the module gets a stand-in for `sapis_lab` that has a path and no contents (see
    `peer.load_adapter`).
    """
    package = Path(__file__).resolve().parents[1]
    start = (
        "import importlib, sys, types\n"
        "module, *arguments = sys.argv[1:]\n"
        f"package = types.ModuleType('sapis_lab'); package.__path__ = [{str(package)!r}]; "
        f"sys.modules['sapis_lab'] = package\n"
        if name != MAIN
        else "import importlib, sys\nmodule, *arguments = sys.argv[1:]\n"
    ) + "sys.exit(importlib.import_module('sapis_lab.bench.' + module).main(arguments))"
    return [str(python_of(name, root)), "-P", "-c", start, module, *arguments]


def make_environments(
    names: Iterable[str], root: Path | str | None = None, *, torch: str = TORCH
) -> list[Path]:
    """The environments `names` under `root`, made where they are not complete; returns their folders.

    Args:
        torch: the requirement of torch, for another build (`torch==2.13.0+cpu`).

    Raises:
        ValueError: an unknown name.   subprocess.CalledProcessError: pip failed; what it said is in
        `<root>/<name>/install.log`.
    """
    names = list(names)
    for name in names:
        _known(name)
    folders = []
    for name in names:
        folder = Path(root or default_root()).resolve() / name
        folders.append(folder)
        if _complete(folder):
            print(f"{name}: complete in {folder}", flush=True)
            continue
        print(f"{name}: making {folder}", flush=True)
        _make(folder, ENVIRONMENTS[name], torch)
    return folders


def _known(name: str) -> None:
    if name not in ENVIRONMENTS:
        raise ValueError(f"no environment {name!r}; there are {', '.join(ENVIRONMENTS)}")


def _complete(folder: Path) -> bool:
    return (folder / "installed.txt").is_file()


def _make(folder: Path, environment: Environment, torch: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = str(folder / "bin" / "python")
    with (folder / "install.log").open("w") as log:

        def run(*arguments: str) -> None:
            subprocess.run(arguments, check=True, stdout=log, stderr=subprocess.STDOUT)

        def install(*arguments: str) -> None:
            run(python, "-m", "pip", "install", "--no-input", *arguments)

        run(sys.executable, "-m", "venv", str(folder))
        install(torch)
        constraint = folder / "constraints.txt"
        constraint.write_text(torch + "\n")
        if environment.without:
            install("--no-deps", environment.packages[0])
            wanted = [
                r
                for r in _requirements(python, environment.packages[0])
                if _bare(r) not in environment.without
            ]
            install("-c", str(constraint), *wanted, *environment.packages[1:])
        else:
            install("-c", str(constraint), *environment.packages)
        run(python, "-c", f"import {environment.module}")
    listing = subprocess.run(
        [python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True
    ).stdout
    (folder / "installed.txt").write_text(listing)


def _bare(requirement: str) -> str:
    """The name in front of versions and markers."""
    for k, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:k].lower()
    return requirement.lower()


def _requirements(python: str, package: str) -> list[str]:
    """What an installed package requires, without its extras."""
    code = f"import importlib.metadata as m; print('\\n'.join(m.requires({_bare(package)!r}) or []))"
    lines = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [line for line in lines if "extra ==" not in line and "extra==" not in line]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this module; see its docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m sapis_lab.bench.environments", description="Virtual environments of the peer codes."
    )
    parser.add_argument(
        "names", nargs="*", default=list(ENVIRONMENTS), help=f"of {', '.join(ENVIRONMENTS)}; all by default"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the environments, default $SAPIS_PEERS or .sapis/peers"
    )
    parser.add_argument("--torch", default=TORCH, help=f"requirement of torch, default {TORCH}")
    given = parser.parse_args(arguments)
    make_environments(given.names, given.root, torch=given.torch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
