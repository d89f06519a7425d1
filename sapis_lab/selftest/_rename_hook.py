"""Writes down every rename below a folder, and kills its own process at one of them; the standard library
only.

`sapis selftest renames` copies this file to a folder on PYTHONPATH as `sitecustomize.py`, which every Python
process imports when it starts; there is no such hook in the programs themselves. $SAPIS_RENAMES steers it, a
JSON object:

    {"home": folder, "log": file, "kind": kind or null, "side": "before" or "after", "number": of the rename,
    from 1}

The log gets one JSON line a rename, {"kind": ..., "number": ..., "target": ...}, and {"killed": ...} before
the kill. It is shared by all processes, and locked while one of them counts.
"""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

VARIABLE = "SAPIS_RENAMES"
_MANY = ("figures", "tables", "splits")
"""Folders whose files are one kind for each suffix, and so are arrays anywhere."""


def kind_of(target: PurePath, home: PurePath) -> str | None:
    """The kind of the file `target`: its path below `home` without what is different at every point, store or
    figure; None outside.

    points/geat-l2-n3.0e3-d12-s0/record.json -> points/*/record.json; figures/loss_vs_size.pdf ->
    figures/*.pdf
    """
    if not target.is_relative_to(home):
        return None
    *folders, name = target.relative_to(home).parts
    if folders[:1] == ["results"]:
        folders = folders[2:]
    for k, folder in enumerate(folders):
        folders[k] = "*" if k and folders[k - 1] in ("points", "records") else _plain(folder)
    suffix = PurePath(name).suffix
    many = bool(folders) and folders[-1] in _MANY or suffix == ".npy"
    return "/".join([*folders, f"*{suffix}" if many else _plain(name)])


def _plain(name: str) -> str:
    return re.sub(r"\d+(\.\d+)*", "#", re.sub(r"(?<![0-9a-z])[0-9a-f]{8,}", "*", name))


def install(order: dict[str, Any]) -> None:
    """Wrap os.replace and os.rename, through which pathlib and shutil go as well."""
    home = PurePath(os.path.realpath(order["home"]))

    def watched(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **more: Any) -> None:
            path = PurePath(
                os.path.realpath(Path(os.fsdecode(target)).parent), PurePath(os.fsdecode(target)).name
            )
            kind = kind_of(path, home)
            if kind is None:
                rename(source, target, **more)
                return
            hit = _counted(order, kind, path)
            if hit and order["side"] == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target, **more)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)

        return renamed

    os.replace, os.rename = watched(os.replace), watched(os.rename)


def _counted(order: dict[str, Any], kind: str, path: PurePath) -> bool:
    """Write the rename down; whether it is the one to die at."""
    with open(order["log"], "a+", encoding="utf-8") as log:  # noqa: PTH123
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        number = 1 + sum(json.loads(line).get("kind") == kind for line in log)
        hit = kind == order["kind"] and number == order["number"]
        log.write(json.dumps({"kind": kind, "number": number, "target": str(path)}) + "\n")
        if hit:
            log.write(json.dumps({"killed": os.getpid(), "command": sys.argv[:3]}) + "\n")
        return hit


def _run_the_other() -> None:
    """The environment's own `sitecustomize`, which this one hides."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    path = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    _run_the_other()
    if VARIABLE in os.environ:
        install(json.loads(os.environ[VARIABLE]))
