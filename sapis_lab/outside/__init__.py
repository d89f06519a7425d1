"""Kinds that live outside this package: `<folder>/<kind>.py` in the folders of $SAPIS_KINDS.

A model of one's own is one file, `mine/models/mymodel.py`; `SAPIS_KINDS=mine`, or `kinds: mine` in a study,
makes `kind: mymodel` known. It is imported as `sapis_lab.outside.models.mymodel`: being a name of this
package, it is found by the standard import in every process that has the variable, and workers, ranks and
jobs inherit it. Its code runs with the rights of whoever runs the study.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SAPIS_KINDS"
"""Environment variable with folders of kinds, separated as in PATH."""


def folders() -> tuple[Path, ...]:
    """The folders of kinds outside the package, in the order given."""
    return tuple(Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p)


def add(folder: Path) -> None:
    """Make the kinds in `folder` known to this process and to those that it starts.

    Raises:
        ValueError: there is no such folder.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; wanted one with kinds, as {folder.name}/models/mymodel.py")
    if folder not in folders():
        os.environ[VARIABLE] = os.pathsep.join([*map(str, folders()), str(folder)])
    refresh()


def refresh() -> None:
    """Let imports see the folders of the variable as it is now."""
    __path__[:] = [_HERE, *map(str, folders())]


_HERE = str(Path(__file__).parent)
refresh()
