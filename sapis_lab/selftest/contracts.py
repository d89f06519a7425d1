"""How well models keep their promises: relative errors of rotation, reflection, translation and permutation,
measured.

`sapis selftest contracts` prints the table; `tests/contracts` holds the same numbers to tolerances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch, Layout, collate, make_graph
from sapis_lab.config import kind_class, kinds
from sapis_lab.derivatives import Prediction, predict
from sapis_lab.models import Model, ModelConfig
from sapis_lab.neighbors import neighbor_list

SPECIES = (1, 6, 8)
"""Atomic numbers of the test structures."""
OPERATIONS = ("rotation", "reflection", "translation", "permutation")
"""What is done to a structure; reflection is a rotation with inversion."""


class Frame(NamedTuple):
    """A structure."""

    positions: np.ndarray
    """(n, 3), Å"""
    species: np.ndarray
    """(n,) atomic numbers"""
    cell: np.ndarray | None = None
    """(3, 3), Å, rows are lattice vectors; None without periodicity"""


def random_molecule(n_atoms: int, rng: np.random.Generator) -> Frame:
    """Atoms at random in a ball as dense as an organic molecule, none nearer than 0.95 Å."""
    radius, positions = 1.35 * n_atoms ** (1 / 3), np.zeros((0, 3))
    while len(positions) < n_atoms:
        p = rng.uniform(-radius, radius, 3)
        if np.linalg.norm(p) < radius and (np.linalg.norm(positions - p, axis=1) > 0.95).all():
            positions = np.concatenate([positions, p[None]])
    return Frame(positions, rng.choice(SPECIES, n_atoms))


def random_crystal(rng: np.random.Generator) -> Frame:
    """A sheared, disordered cubic cell of four atoms about 2.5 Å apart: smaller than the usual cutoff, so
    that images are neighbours."""
    cell = 3.6 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + rng.uniform(
        -0.03, 0.03, (4, 3)
    )
    return Frame(fractional @ cell, np.array([1, 6, 8, 6]), cell)


def batch_of(
    frames: Sequence[Frame], *, layout: Layout, cutoff: float, dtype: torch.dtype, block: bool = False
) -> AtomsBatch:
    """The batch of these frames; `block` forces the block layout of pairs, where every pair has a slot."""
    periodic = any(f.cell is not None for f in frames)
    pairs = [neighbor_list(f.positions, f.cell, f.cell is not None, cutoff) for f in frames]
    edges = [(p.center, p.neighbor, p.shift) for p in pairs]
    n_atoms = np.array([len(f.species) for f in frames])
    return collate(
        n_atoms=n_atoms,
        species=np.concatenate([f.species for f in frames]),
        positions=np.concatenate([f.positions for f in frames]),
        cell=np.stack([np.zeros((3, 3)) if f.cell is None else f.cell for f in frames]),
        graph=make_graph(
            layout=layout, n_atoms=n_atoms, edges=None if block else edges, periodic=periodic, cutoff=cutoff
        ),
        dtype=dtype,
    )


def build(config: ModelConfig, *, dtype: torch.dtype, seed: int) -> Model:
    """A model with random parameters moved off their initial values, since zeros would hide errors."""
    model = config.build(species=SPECIES, mean_neighbors=8.0, seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype))
    return model


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A proper rotation, (3, 3), uniform over SO(3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def equivariance_errors(config: ModelConfig, dtype: torch.dtype, seed: int) -> dict[str, float]:
    """Largest relative error of energies and forces under every operation: {'rotation': ..., 'reflection':
    ..., ...}.

    Energies are compared with the sum of |E_i| of the frame, forces with the largest force of the batch.
    Every frame is transformed in float64 and rounded once, as a user's structure would be.
    """
    rng = np.random.default_rng(seed)
    model = build(config, dtype=dtype, seed=seed)
    frames = [random_molecule(n, rng) for n in (5, 9, 12)]
    plain = _predict(model, frames, dtype)
    scale = _energy_scale(model, frames, dtype)
    errors = {}
    for operation in OPERATIONS:
        matrix, offset = np.eye(3), np.zeros(3)
        orders = [np.arange(len(f.species)) for f in frames]
        if operation in ("rotation", "reflection"):
            matrix = random_rotation(rng) * (1 if operation == "rotation" else -1)
        elif operation == "translation":
            offset = rng.uniform(-5, 5, 3)
        else:
            orders = [rng.permutation(len(f.species)) for f in frames]
        moved = [
            Frame(f.positions[o] @ matrix.T + offset, f.species[o])
            for f, o in zip(frames, orders, strict=True)
        ]
        found = _predict(model, moved, dtype)
        starts = np.cumsum([0, *[len(o) for o in orders[:-1]]])
        order = torch.from_numpy(np.concatenate([o + s for o, s in zip(orders, starts, strict=True)]))
        wanted = plain.forces.double()[order] @ torch.from_numpy(matrix).T
        of_energy = ((found.energy - plain.energy).abs() / scale).max().item()
        of_forces = (found.forces.double() - wanted).abs().max().item() / plain.forces.abs().max().item()
        errors[operation] = max(of_energy, of_forces)
    return errors


def _predict(model: Model, frames: Sequence[Frame], dtype: torch.dtype) -> Prediction:
    return predict(model, batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=dtype))


def _energy_scale(model: Model, frames: Sequence[Frame], dtype: torch.dtype) -> Tensor:
    """(B,) sum of |E_i|: a frame's energy itself may vanish by chance."""
    batch = batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=dtype)
    with torch.no_grad():
        atomic, _, _ = model.atomic_energy(
            model.features(batch.graph.vectors(batch.positions, batch.cell), batch), batch
        )
    return atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic.abs())


def table(*, n_params: float = 1e5, n_seeds: int = 3) -> str:
    """The largest errors over a few seeds, one line per model and precision."""
    lines = [f"{'model':<16}{'precision':<11}{'N':>8}  " + "".join(f"{o:>13}" for o in OPERATIONS)]
    for kind in kinds("models"):
        plain = kind_class("models", kind).model_validate({"kind": kind})
        assert isinstance(plain, ModelConfig)
        config = plain.at_size(n_params, n_species=len(SPECIES))
        size = config.n_params(n_species=len(SPECIES))
        for dtype in (torch.float32, torch.float64):
            runs = [equivariance_errors(config, dtype, seed) for seed in range(n_seeds)]
            worst = {o: max(r[o] for r in runs) for o in OPERATIONS}
            shown = [
                f"{worst[o]:.1e}" + ("*" if config.symmetry == "none" and o in OPERATIONS[:2] else " ")
                for o in OPERATIONS
            ]
            lines.append(
                f"{config.label:<16}{str(dtype).removeprefix('torch.'):<11}{size:>8}  "
                + "".join(f"{s:>13}" for s in shown)
            )
    lines.append(
        "Largest error relative to sum |E_i| (energies) and max |F| (forces). * not promised: the model is "
        "not equivariant."
    )
    return "\n".join(lines)
