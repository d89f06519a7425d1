"""The public sets of configs/data/ whose files are small: sizes, elements and forces are those that their
sources state."""

import os
from pathlib import Path

import numpy as np
import pytest
from public_cases import force_rms, made, needs_files, sizes

from sapis_lab.config import kind_class, read_yaml
from sapis_lab.data import SYMBOLS

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"

SETS = {
    # name: splits, atoms of frames, elements (or their number), RMS of a force component of training, eV/Å
    "3bpa-300K": ({"train": 400, "validation": 50, "test": 50}, (27, 27), "H C N O", 0.948),
    "ani1x-sample": ({"train": 6, "validation": 1, "test": 1}, (13, 19), "H C N O", 0.894),
    "ani2x-diatomics": ({"train": 4706, "validation": 500, "test": 500}, (2, 2), 7, 1.606),
    "carbon-lda": ({"train": 70, "validation": 15, "test": 15}, (4, 4), "C", 0.905),
    "comp6-s66x8": ({"train": 378, "validation": 50, "test": 100}, (6, 34), "H C N O", 0.186),
    "cu-ace": ({"train": 798, "validation": 100, "test": 100}, (1, 125), "Cu", 0.691),
    "ethanol-ccsdt": ({"train": 748, "validation": 50, "test": 200}, (9, 9), "H C O", 1.196),
    "ethanol-methanol": ({"train": 1250, "validation": 50, "test_ethmeth": 1145}, (6, 9), "H C O", 1.149),
    "lips-200": ({"train": 150, "validation": 20, "test": 30}, (83, 83), "Li P S", 0.611),
    "mlearn-cu": ({"train": 242, "validation": 20, "test": 31, "test_distinct": 18}, (6, 108), "Cu", 0.754),
    "mlearn-li": ({"train": 221, "validation": 20, "test": 29, "test_distinct": 26}, (2, 84), "Li", 0.254),
    "mlearn-ni": ({"train": 243, "validation": 20, "test": 31, "test_distinct": 18}, (6, 108), "Ni", 0.852),
    "oc20-bulks": ({"train": 1226, "validation": 100, "test": 100}, (1, 54), 54, 0.1385),
    "oxides": ({"train": 235, "validation": 30, "test": 30}, (3, 24), "O Ti V Ru Sn Ir", 0.01433),
    "qm9-first20": ({"train": 14, "validation": 3, "test": 3}, (3, 11), "H C N O", None),
    "rmd17-aspirin": ({"train": 950, "validation": 50, "test": 1000}, (21, 21), "H C O", 1.259),
    "spice-sample": ({"train": 45, "validation": 5, "test": 5}, (5, 27), "H C N Na", 0.871),
    "water-rpbed3": ({"train": 250, "validation": 32, "test": 40}, (24, 384), "H O", 1.217),
}


QUICK = ("ani1x-sample", "carbon-lda", "cu-ace", "mlearn-ni", "oxides", "qm9-first20", "spice-sample")
"""Sets that every run of the suite looks at."""


def config(name):
    raw = read_yaml(CONFIGS / f"{name}.yaml")
    return kind_class("data", raw["kind"]).model_validate(raw)


@needs_files
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in SETS]
)
def test_a_public_set_is_as_its_source_says(tmp_path, name):
    splits, atoms, elements, rms = SETS[name]
    store = made(config(name), tmp_path)
    assert sizes(store) == splits
    n_atoms = np.diff(store.offsets)
    assert (n_atoms.min(), n_atoms.max()) == atoms
    found = " ".join(SYMBOLS[z] for z in store.elements)
    assert found == elements if isinstance(elements, str) else len(store.elements) == elements
    if rms is not None:
        assert force_rms(store) == pytest.approx(rms, rel=0.002)
    assert store.metadata["level_of_theory"] and store.metadata["sources"]


def test_every_config_of_a_public_set_says_how_to_make_it():
    for path in CONFIGS.glob("*.yaml"):
        comment = "".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))
        if read_yaml(path)["kind"] not in ("xtb", "dynamics", "labelled"):
            assert "SAPIS_DATA" in comment, path.stem
        if "sapis data prepare" in comment:
            assert f"sapis data prepare {path.stem}" in comment, path.stem


@pytest.mark.long
@needs_files
def test_water_of_runner_is_in_bohr_and_hartree(tmp_path):
    store = made(config("water-rpbed3"), tmp_path)
    lines = (Path(os.environ["SAPIS_DATA"]) / "water_rpbed3/input.data").read_text().splitlines()
    atom = next(line.split() for line in lines if line.startswith("atom"))
    energy = float(next(line.split()[1] for line in lines if line.startswith("energy")))
    cell = next(line.split()[1:] for line in lines if line.startswith("lattice"))
    assert store.positions[0, 0] == pytest.approx(float(atom[1]) * 0.529177210903, rel=1e-9)
    assert store.forces[0, 0] == pytest.approx(float(atom[7]) * 51.422067, rel=1e-5)
    assert store.energy[0] == pytest.approx(energy * 27.211386245988, rel=1e-12)
    assert store.cell[0, 0, 0] == pytest.approx(float(cell[0]) * 0.529177210903, rel=1e-9)
    rows = store.forces.astype(float) / 51.422067
    assert np.sqrt((rows**2).mean()) == pytest.approx(0.0238, abs=1e-4)  # as its source says, Hartree/Bohr


@needs_files
def test_forces_of_copper_are_as_large_as_its_source_says(tmp_path):
    rows = made(config("cu-ace"), tmp_path).forces.astype(float)
    assert np.sqrt((rows**2).mean()) == pytest.approx(0.77, abs=0.01)
    assert np.abs(rows).max() == pytest.approx(30.9, abs=0.1)


@pytest.mark.long
@needs_files
@pytest.mark.parametrize("name", ["water-rpbed3", "water-pbe0ts"])
def test_forces_of_water_pull_stretched_bonds_together(tmp_path, name):
    store = made(config(name), tmp_path)
    distances, pulls = [], []
    for k in range(0, store.n_frames, 20):
        atoms = slice(store.offsets[k], store.offsets[k + 1])
        x, z, f, cell = store.positions[atoms], store.species[atoms], store.forces[atoms], store.cell[k]
        part = (x[z == 1][:, None] - x[z == 8][None]) @ np.linalg.inv(cell)
        bond = (part - np.round(part)) @ cell
        r = np.linalg.norm(bond, axis=-1)
        nearest = (np.arange(len(r)), r.argmin(1))
        distances.append(r[nearest])
        pulls.append((f[z == 1] * bond[nearest]).sum(1) / r[nearest])
    # bonds near their length have about 40 eV/Å²
    r, pull = np.concatenate(distances), np.concatenate(pulls)
    r, pull = r[(some := np.abs(r - 1) < 0.1)], pull[some]
    assert -60 < np.polyfit(r, pull, 1)[0] < -20 and np.corrcoef(r, pull)[0, 1] < -0.6
