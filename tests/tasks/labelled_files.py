"""Files of labelled frames, and points on them: for tests only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write

from sapis_lab.config import dump_yaml, load
from sapis_lab.files import write_text
from sapis_lab.training import PointConfig

MODEL = {
    "kind": "geat",
    "lmax": 1,
    "layers": 1,
    "channels": 8,
    "heads": 2,
    "invariants": 4,
    "n_radial": 8,
    "edge_hidden": 12,
}
XYZ = {"kind": "extxyz", "n_validation": 6, "n_test": 6, "energy_unit": "eV", "length_unit": "Angstrom"}
DYNAMICS = {
    "kind": "dynamics",
    "system": {"molecule": "H2O"},
    "oracle": {"kind": "xtb"},
    "n_train": 24,
    "n_validation": 6,
    "n_test": 6,
    "trajectory_frames": 24,
    "interval_fs": 20,
    "equilibration_fs": 20,
}
"""Water with charges and dipole moments, a second to make."""


def write_crystals(path: Path, *, n: int = 32, moment: bool = False) -> None:
    """Strained and disordered argon (Lennard-Jones) with energies, forces, stress and a moment `mu`."""
    rng, made = np.random.default_rng(0), []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
        strain = 0.03 * rng.normal(size=(3, 3)) + 0.04 * rng.normal() * np.eye(3)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.1, rc=5.0, smooth=True)
        atoms.get_stress(), atoms.get_forces()
        if moment:
            atoms.info["mu"] = rng.normal(size=3)
        made.append(atoms)
    write(path, made, format="extxyz")


def write_chains(path: Path, *, n: int = 60) -> None:
    """Bent chains of 3 to 6 carbon and oxygen atoms with a `gap` and a `size`, without energies or forces."""
    rng, made = np.random.default_rng(0), []
    for k in range(n):
        m = 3 + k % 4
        x = np.cumsum(np.column_stack([1.3 * np.ones(m), rng.normal(scale=0.4, size=(m, 2))]), 0)
        atoms = Atoms(rng.choice(["C", "O"], m), x + rng.normal(scale=0.05, size=(m, 3)))
        atoms.numbers[:2] = 6, 8
        oxygens = (atoms.numbers == 8).sum()
        atoms.info["gap"] = 1.0 + 4.0 * oxygens / m + 0.5 * np.mean(np.diff(x[:, 1]) ** 2)
        atoms.info["size"] = 2.0 * m - 0.7 * oxygens + np.sum(np.diff(x[:, 1]) ** 2)
        atoms.info["count"] = 2.0 * m - 0.7 * oxygens
        atoms.info["constant"] = 3.0
        made.append(atoms)
    write(path, made, format="extxyz")


def make_point(
    folder: Path, data: dict[str, Any], *, n_frames: int, steps: int = 200, **train: Any
) -> PointConfig:
    """A point in `folder`: its config.yaml."""
    settings = {"steps": steps, "batch_size": 6, "learning_rate": 0.02, "validations": 2, **train}
    raw = {"id": folder.name, "data": data, "model": MODEL, "n_params_target": 1000, "n_frames": n_frames}
    config = load(PointConfig, {**raw, "seed": 0, "train": settings}, source="test")
    write_text(folder / "config.yaml", dump_yaml(config))
    return config
