"""The frames on which force errors at equal time are compared: a batch file (see `peer`) with edges and
splits, made once.

- acac: configs/data/acac-300K.yaml, 450 frames at 300 K, 50 held back; tests at 300 K and, extrapolating, at
  600 K
- ethanol: configs/data/rmd17-ethanol.yaml, 950 frames at 500 K, 50 held back; every second frame of its test
- 3bpa: configs/data/3bpa-mixedT.yaml, 400 frames of 27 atoms at 300, 600 and 1200 K, 50 held back, 50 for
  testing
- lips: configs/data/lips-200.yaml, 150 frames of 83 atoms in a periodic cell, 20 held back, 30 for testing
- water: configs/data/water-pbe0ts.yaml, 280 frames of 192 atoms in a periodic cell, 40 held back; every
  second of 80 frames for testing; 1 frame a step
- mlearn-si, mlearn-ge: configs/data/mlearn-si.yaml and mlearn-ge.yaml, 194 and 208 crystals of 12 to 96
  atoms, 20 held back, 25 for testing, 22 of which are no training frames turned; 4 frames a step

Energies are minus the isolated atoms, where the data has them, and minus the training frames' mean per atom.
Arrays `split_<name>` hold the frame numbers: train, validation, and the tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sapis_lab.config import expand_use, kind_class
from sapis_lab.data import DatasetConfig, FrameStore, prepare
from sapis_lab.files import replacing

CUTOFF = 5.0
"""Å"""
SOURCES = {
    "acac": "acac-300K",
    "ethanol": "rmd17-ethanol",
    "3bpa": "3bpa-mixedT",
    "lips": "lips-200",
    "water": "water-pbe0ts",
    "mlearn-si": "mlearn-si",
    "mlearn-ge": "mlearn-ge",
}
"""Name here -> name in configs/data."""
TEST_STRIDE = {"ethanol": 2, "water": 2}
DEFAULT_BATCH = 5
BATCH_SIZES = {"water": 1, "mlearn-si": 4, "mlearn-ge": 4}
"""Frames a step where they are not DEFAULT_BATCH, for all codes alike: about 200 atoms, so that a short
budget has enough steps."""


def prepare_data(name: str, cache: Path) -> Path:
    """The batch file of one of `SOURCES` under `cache`, made where it is not there (needs SAPIS_DATA
    then)."""
    if name not in SOURCES:
        raise ValueError(f"no accuracy data {name!r}; there are {', '.join(SOURCES)}")
    path = Path(cache) / f"{name}.npz"
    if not path.is_file():
        settings = expand_use(SOURCES[name], "data")
        config = kind_class("data", settings["kind"]).model_validate(settings)
        assert isinstance(config, DatasetConfig)
        arrays = batch_file(
            prepare(config, cache=Path(cache) / "stores"), cutoff=CUTOFF, test_stride=TEST_STRIDE.get(name, 1)
        )
        with replacing(path) as temporary, temporary.open("wb") as f:
            np.savez(f, **arrays)  # type: ignore[arg-type]
    return path


def batch_file(store: FrameStore, *, cutoff: float, test_stride: int = 1) -> dict[str, np.ndarray]:
    """The arrays of a batch file from a frame store.

    Args:
        cutoff: Å.   test_stride: every how many-th frame of a test is kept.
    """
    fitted = ("train", "validation")
    splits = {name: store.splits[name] for name in fitted}
    splits |= {name: ids[::test_stride] for name, ids in store.splits.items() if name not in fitted}
    ids = np.concatenate(list(splits.values()))
    ends = np.cumsum([len(part) for part in splits.values()])
    frames, edges, composition = store.frames(ids), store.neighbors(cutoff).edges(ids), store.composition(ids)
    isolated = store.isolated_atoms or {}
    energy = frames.energy - composition @ np.array([isolated.get(z, 0.0) for z in store.elements])
    train = slice(0, ends[0])
    energy = energy - (energy[train] / frames.n_atoms[train]).mean() * frames.n_atoms
    offsets = np.concatenate([[0], np.cumsum(frames.n_atoms)])
    first_atom = np.repeat(offsets[:-1], edges.n_edges)
    return {
        "z": frames.species,
        "pos": frames.positions,
        "F": np.asarray(frames.forces, dtype=np.float64),
        "E": energy,
        "cell": frames.cell,
        "pbc": frames.pbc,
        "ptr": offsets,
        "i": edges.center + first_atom,
        "j": edges.neighbor + first_atom,
        "S": edges.shift,
        "eptr": np.concatenate([[0], np.cumsum(edges.n_edges)]),
        "cutoff": np.array(cutoff),
        **{
            f"split_{name}": np.arange(end - len(part), end)
            for (name, part), end in zip(splits.items(), ends, strict=True)
        },
    }


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """12 hex digits of the contents of a batch file."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:12]
