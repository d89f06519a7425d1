"""What the tests of all forms compare: one potential, and structures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import Atoms

from sapis_lab.config import kind_class
from sapis_lab.exports import Export, card_of, export
from sapis_lab.potential import Potential

RELATIVE = 1e-5
"""How nearly another program must have our numbers."""
SIZES = (1, 32, 1024)


def small_potential(kind: str = "geat", **settings: object) -> Potential:
    """An untrained potential of silicon and iron with references, whose energies are no small differences."""
    config = kind_class("models", kind)(cutoff=4.0, **settings).at_size(3e3, n_species=2)
    model = config.build(species=(14, 26), mean_neighbors=12.0, seed=0).eval().requires_grad_(False)
    origin = {"id": "small", "fingerprint": "0" * 64, "n_frames": 12}
    return Potential(model, config, {14: -3.0, 26: -5.0}, 12.0, origin)


def atoms_of(n: int, *, periodic: bool, seed: int = 0) -> Atoms:
    """`n` atoms on a rattled lattice of 2.6 Å, in a skewed cell or open."""
    generator = np.random.default_rng(seed)
    k = 1 << max(0, int(np.log2(n))) // 3
    shape = np.array([n // (k * k), k, k])
    corners = np.array([[i, j, l] for i in range(shape[0]) for j in range(k) for l in range(k)])
    cell = 2.6 * np.diag(shape) @ np.array([[1, 0, 0], [0.1, 1, 0], [0.05, -0.1, 1]])
    x = 2.6 * corners @ np.array([[1, 0, 0], [0.1, 1, 0], [0.05, -0.1, 1]])
    x = x + 0.1 * generator.normal(size=x.shape)
    species = generator.choice([14, 26], size=len(x))
    return Atoms(species, x, cell=cell if periodic else None, pbc=periodic)


def near(found: np.ndarray, ours: np.ndarray) -> bool:
    """Whether numbers agree to `RELATIVE` of the largest of ours."""
    found, ours = np.asarray(found, dtype=float), np.asarray(ours, dtype=float)
    scale = max(float(np.abs(ours).max()), 1e-3)
    return bool(found.shape == ours.shape and np.abs(found - ours).max() <= RELATIVE * scale)


def written(potential: Potential, form: Export, place: Path) -> Path:
    """The folder of a potential exported in a form."""
    export(potential, form, place, card=card_of(potential, form))
    return place


def run_script(path: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script of an export, run to its end in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
