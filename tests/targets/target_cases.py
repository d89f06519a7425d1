"""Targets of every kind, and batches with what was predicted of them: for tests only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch, collate, make_graph
from sapis_lab.config import kind_class, kinds
from sapis_lab.targets import Target
from sapis_lab.tasks import Found

PROPERTIES: dict[str, dict[str, Any]] = {
    "property": {"name": "gap", "unit": "eV"},
    "vectors of atoms": {"name": "spin", "unit": "µB", "per": "atom", "rank": 1},
    "matrices": {"name": "quadrupole", "unit": "e Å²", "rank": 2, "label": "quadrupole moment"},
}
"""Settings of the kind that needs some: one of every shape."""
SCALE, WEIGHT = 1.7, 2.5
"""The training force RMS, and a weight that no target has by default."""
SIZES = (2, 3, 1, 4)


def cases() -> dict[str, Target]:
    """One target of every kind, and several of the kind that has several forms."""
    plain = {kind: {} for kind in kinds("targets")}
    found = {}
    for name, settings in {**plain, **PROPERTIES}.items():
        kind = name if name in plain else "property"
        found[name] = kind_class("targets", kind, Target)(kind=kind, weight=WEIGHT, **settings)
    return found


def shape_of(target: Target, n_frames: int, n_atoms: int) -> tuple[int, ...]:
    """The shape of its labels."""
    return (n_atoms if target.per == "atom" else n_frames, *(3,) * target.rank)


def world(
    target: Target, *, missing: bool = False, sizes: tuple[int, ...] = SIZES
) -> tuple[AtomsBatch, torch.Tensor]:
    """A batch of crystals with random labels of `target`, the second of which (and the last, of atoms) may be
    missing, and a random prediction of it, float64."""
    rng = np.random.default_rng(5)
    n_atoms = np.array(sizes)
    shape = shape_of(target, len(sizes), int(n_atoms.sum()))
    label, prediction = rng.normal(size=shape), rng.normal(size=shape)
    if missing:
        label[1] = np.nan
        if target.per == "atom":
            label[-1] = np.nan
    return batch_of(target, label, n_atoms), torch.from_numpy(prediction)


def batch_of(target: Target, label: np.ndarray, n_atoms: np.ndarray) -> AtomsBatch:
    """A batch with this label; the k-th cell depends on its number of atoms alone."""
    cells = np.array([np.diag([2.0 + n, 3.0, 2.5]) for n in n_atoms])
    own = {target.key: label} if target.key in ("energy", "forces", "stress") else {}
    return collate(
        n_atoms=n_atoms,
        species=np.ones(n_atoms.sum(), int),
        positions=np.zeros((n_atoms.sum(), 3)),
        cell=cells,
        graph=make_graph(layout="pairs", n_atoms=n_atoms, edges=None, periodic=False, cutoff=1.0),
        labels={} if own else {target.key: label},
        incomplete=(target.key,),
        dtype=torch.float64,
        **own,
    )


def found_of(target: Target, prediction: torch.Tensor) -> Found:
    """What a task would have found."""
    own = {name: prediction if target.key == name else None for name in ("energy", "forces", "stress")}
    spread = torch.tensor(0.4, dtype=torch.float64)
    if target.from_energy:
        return Found(**own, properties={}, scales={})
    return Found(**own, properties={target.key: prediction}, scales={target.key: spread})
