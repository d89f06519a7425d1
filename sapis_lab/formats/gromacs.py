"""Trajectories of GROMACS (.xtc, .trr), in nm: positions and cells alone, so energy_key and forces_key are
null. Elements come from a topology: the setting `topology`, or the one PDB file beside the trajectory.
Positions of .xtc are rounded, usually to 0.001 nm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sapis_lab.formats import _trajectory
from sapis_lab.formats._base import MOST_ATOMS, Block, Reading, first_bytes

ENDINGS = (".xtc", ".trr")
FIXED = {"length_unit": "nm"}

_MAGIC = {1995: "XTCTrajectoryFile", 2023: "XTCTrajectoryFile", 1993: "TRRTrajectoryFile"}


def count(path: Path) -> int:
    """Frames of the trajectory."""
    return _trajectory.count(path, _opener(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames."""
    yield from _trajectory.blocks(path, reading, _opener(path))


def _opener(path: Path) -> str:
    """The class that reads it. ValueError where it is none, or its first frame is absurd."""
    start = first_bytes(path, 100)
    words = np.frombuffer(start[: len(start) // 4 * 4], ">i4")
    opener = _MAGIC.get(int(words[0])) if len(words) > 4 else None
    if opener is None:
        raise ValueError(f"{path}: not a trajectory of GROMACS (its first bytes are others), wanted one")
    n_atoms = int(words[1]) if opener.startswith("XTC") else 1
    if not 1 <= n_atoms <= MOST_ATOMS:
        raise ValueError(f"{path}: its header promises {n_atoms} atoms, wanted 1 to {MOST_ATOMS:,}")
    return opener
