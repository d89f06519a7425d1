"""Small files in the official layouts of public data sets, with labels that belong together."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.data import prepare

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no public data sets to read"
)

WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
STIFFNESS = 30.0
"""eV/Å²"""


def springs(n, *, seed=0, rest=WATER):
    """(positions, energy, forces) of n frames of atoms joined by springs, distorted and turned, eV and Å."""
    generator = np.random.default_rng(seed)
    turns = np.linalg.qr(generator.normal(size=(n, 3, 3)))[0]
    x = (rest + 0.05 * generator.normal(size=(n, len(rest), 3))) @ turns
    energy, forces = np.full(n, -2000.0), np.zeros(x.shape)
    for i in range(len(rest)):
        for j in range(i):
            r = np.linalg.norm(x[:, j] - x[:, i], axis=1, keepdims=True)
            stretch = r - np.linalg.norm(rest[j] - rest[i])
            energy += 0.5 * STIFFNESS * stretch[:, 0] ** 2
            pull = STIFFNESS * stretch * (x[:, j] - x[:, i]) / r
            forces[:, i] += pull
            forces[:, j] -= pull
    return x, energy, forces


def write_sgdml(path: Path, n: int, *, seed: int = 0, copies: tuple[tuple[int, int], ...] = ()) -> None:
    """An archive of sGDML with n waters, in kcal/mol; of each pair in `copies` the second is the first."""
    x, e, f = springs(n, seed=seed)
    for one, other in copies:
        x[other], e[other], f[other] = x[one], e[one], f[one]
    path.parent.mkdir(parents=True, exist_ok=True)
    factor = units.KCAL_PER_MOL_TO_EV
    z = np.array([8, 1, 1], np.uint8)
    np.savez(path, R=x, E=(e / factor)[:, None], F=f / factor, z=z, name=b"water", theory=b"springs")


def write_xyz(path: Path, n: int, *, seed: int = 0, forces: bool = True, keys: str = "") -> None:
    """Extended XYZ with n waters, eV and Å."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for x, e, f in zip(*springs(n, seed=seed), strict=True):
        columns = "species:S:1:pos:R:3" + (":forces:R:3" if forces else "")
        lines += ["3", f'Properties={columns} energy={e:.12f} {keys} pbc="F F F"']
        for k, symbol in enumerate("OHH"):
            row = [*x[k], *(f[k] if forces else ())]
            lines.append(" ".join([symbol, *(f"{v:.12f}" for v in row)]))
    path.write_text("\n".join(lines) + "\n")


def write_atoms(path: Path) -> None:
    """Energies of isolated atoms of H and O."""
    path.write_text(
        "".join(
            f"1\nProperties=species:S:1:pos:R:3 energy={e}\n{s} 0 0 0\n"
            for s, e in (("H", -13.6), ("O", -1960.0))
        )
    )


def sizes(store):
    """Frames by split."""
    return {name: len(ids) for name, ids in store.splits.items()}


def made(config, cache):
    """The store of a data set."""
    return prepare(config, cache=cache)


def force_rms(store, split="train"):
    """Root mean square of a component of the forces, eV/Å."""
    return float(np.sqrt((store.frames(store.splits[split]).forces.astype(float) ** 2).mean()))
