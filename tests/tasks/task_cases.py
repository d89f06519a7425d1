"""Frames with every sort of label, in a store, and the tasks of points on them: for tests only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sapis_lab.config import dump, kind_class, load
from sapis_lab.data import Frames, FrameStore
from sapis_lab.data._store import Property
from sapis_lab.selftest import Frame, random_crystal, random_molecule
from sapis_lab.tasks import Task
from sapis_lab.training import PointConfig

CUTOFF = 4.0
TARGETS: list[dict[str, Any]] = [
    {"kind": "dipole", "weight": 0.7},
    {"kind": "charges", "weight": 1.3},
    {"kind": "property", "name": "gap", "unit": "eV"},
    {"kind": "property", "name": "alpha", "rank": 2},
]
STRESS = {"kind": "stress", "weight": 2.0}
HEADS = {"gap": {"kind": "scalar", "pool": "mean"}, "alpha": {"kind": "tensor", "hidden": 6}}


def frames_of(structure: str) -> list[Frame]:
    if structure == "crystals":
        return [random_crystal(np.random.default_rng(k)) for k in range(8)]
    sizes = (6,) * 8 if structure == "molecules" else (5, 8, 3, 7, 4, 6, 9, 5)
    every = []
    for k, n in enumerate(sizes):
        frame = random_molecule(n, np.random.default_rng(k))
        # every element in every frame, so that any subset knows all
        every.append(frame._replace(species=np.array([1, 6, 8, *frame.species[3:]])))
    return every


def make_store(folder: Path, structure: str = "mixed", *, missing: bool = False) -> FrameStore:
    """Eight frames with random labels of everything; with `missing`, some frames lack some of them."""
    frames, rng = frames_of(structure), np.random.default_rng(9)
    n_atoms = np.array([len(f.species) for f in frames])
    b, a = len(frames), int(n_atoms.sum())
    periodic = frames[0].cell is not None
    labels = {
        "energy": rng.normal(size=b),
        "forces": rng.normal(size=(a, 3)),
        "dipole": rng.normal(size=(b, 3)),
        "charges": rng.normal(size=a),
        "gap": rng.normal(size=b),
        "alpha": symmetric(rng.normal(size=(b, 3, 3))),
    } | ({"stress": 0.1 * symmetric(rng.normal(size=(b, 3, 3)))} if periodic else {})
    if missing:
        atoms = np.repeat(np.arange(b), n_atoms)
        for k, key in enumerate(sorted(labels)):
            lacks = k % 3  # of the first frames, which are those that are trained on
            labels[key][atoms == lacks if len(labels[key]) == a else lacks] = np.nan
        labels["charges"][-2:] = np.nan  # and single atoms
    columns = ("dipole", "charges", *(("stress",) if periodic else ()))
    properties = {"gap": Property("frame", 0, "eV"), "alpha": Property("frame", 2, "")}
    store = FrameStore.create(folder, columns=columns, properties=properties)
    store.append(
        Frames(
            n_atoms=n_atoms,
            species=np.concatenate([f.species for f in frames]).astype(np.uint8),
            positions=np.concatenate([f.positions for f in frames]),
            cell=np.array([np.zeros((3, 3)) if f.cell is None else f.cell for f in frames]),
            pbc=np.full((b, 3), periodic),
            properties={key: labels.pop(key) for key in ("gap", "alpha")},
            **labels,
        )
    )
    splits = {"train": np.arange(6), "validation": np.array([6]), "test": np.array([7])}
    store.seal(splits=splits, metadata={})
    return store


def symmetric(x: np.ndarray) -> np.ndarray:
    return x + x.transpose(0, 2, 1)


def point_of(kind: str, *, periodic: bool = False, task: str = "energies", **train: Any) -> PointConfig:
    """A point that learns everything there is."""
    targets = [t for t in TARGETS if not (periodic and t["kind"] == "dipole")]
    if periodic and task == "energies":
        targets.append(STRESS)
    settings: dict[str, Any] = {"steps": 1, "task": {"kind": task}, "precision": "float64"}
    settings |= {"targets": targets, "heads": HEADS, "batch_size": 4, **train}
    model = dump(kind_class("models", kind)(cutoff=CUTOFF, layers=2).at_size(3e3, n_species=3))
    raw = {"id": "p", "data": {"kind": "xtb"}, "model": model, "n_params_target": 3e3, "seed": 0}
    return load(PointConfig, {**raw, "n_frames": 6, "train": settings}, source="test")


def task_of(point: PointConfig, store: FrameStore, *, off_zero: bool = True) -> Task:
    """The task of the point on the six training frames; with `off_zero` its parameters are moved from where
    they start, since zeros would hide errors."""
    task = point.train.task.prepare(point, store, np.arange(6), siblings=None)
    if off_zero:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for p in task.model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    return task


def gradients(task: Task, ids: np.ndarray) -> dict[str, Tensor]:
    """Loss and gradients of all trained parameters on the frames `ids`, by name."""
    loss = task.objective(task.make(ids), task.make.counts(ids))
    named = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    zeros = (torch.zeros_like(p) for p in named.values())
    there = (z if g is None else g for g, z in zip(found, zeros, strict=True))
    return {"loss": loss.detach(), **dict(zip(named, there, strict=True))}


def apart(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest difference over the largest entry of each."""
    assert found.keys() == wanted.keys()
    return max(
        ((found[k] - wanted[k]).abs().max() / wanted[k].abs().max().clamp_min(1e-3)).item() for k in wanted
    )
