"""What importing the data package must not bring along."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "sapis_lab.data",
        "sapis_lab.data.rmd17",
        "sapis_lab.data.extxyz",
        "sapis_lab.data.deepmd",
        "sapis_lab.data.mlearn",
        "sapis_lab.data.xtb",
        "sapis_lab.data.dynamics",
        "sapis_lab.data.labelled",
        "sapis_lab.oracles.xtb",
        "sapis_lab.oracles.pyscf",
        "sapis_lab.oracles.openmm",
        "sapis_lab.oracles.mmff",
        "sapis_lab.oracles.lennard_jones",
        "sapis_lab.oracles.stillinger_weber",
        "sapis_lab.oracles.tersoff",
    ],
)
def test_importing_data_needs_no_chemistry_package_and_no_torch(module):
    heavy = ("ase", "vesin", "tblite", "pyscf", "openmm", "rdkit", "torch", "scipy", "pandas")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_store_of_open_molecules_is_read_and_its_neighbors_built_without_any_of_them(tmp_path):
    code = f"""
import sys
for name in ("ase", "vesin", "tblite", "torch", "scipy"): sys.modules[name] = None
import numpy as np
from sapis_lab.data import Frames, FrameStore
store = FrameStore.create({str(tmp_path)!r})
x = np.random.default_rng(0).uniform(0, 4, (6, 3))
box = dict(cell=np.zeros((2, 3, 3)), pbc=np.zeros((2, 3), bool))
labels = dict(energy=np.arange(2.0), forces=x)
store.append(Frames(n_atoms=np.array([3, 3]), species=np.full(6, 8), positions=x, **labels, **box))
print(len(store.neighbors(100.0).center))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "12"
