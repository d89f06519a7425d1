"""Predictions of a frame do not depend on what it is batched with, nor on the layout of its pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tolerances import EXACT

from sapis_lab.derivatives import Prediction, predict
from sapis_lab.graphs import PairGraph
from sapis_lab.models import Model
from sapis_lab.selftest import Frame, batch_of, random_crystal, random_molecule


def run(model: Model, frames: list[Frame], dtype: torch.dtype, **options: bool) -> Prediction:
    return predict(model, batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=dtype, **options))


def close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, scale: torch.Tensor) -> bool:
    return (a - b).abs().max().item() < EXACT[dtype] * max(1.0, scale.abs().max().item())


@pytest.mark.parametrize(
    "sizes", [(7, 7, 7), (5, 9, 2), (1, 6, 1)], ids=["equal", "mixed", "with isolated atoms"]
)
def test_a_batch_equals_its_frames_one_by_one(
    model: Model, dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    frames = [random_molecule(n, np.random.default_rng(i)) for i, n in enumerate(sizes)]
    together, alone = run(model, frames, dtype), [run(model, [f], dtype) for f in frames]
    assert close(together.energy, torch.cat([p.energy for p in alone]), dtype, together.energy)
    assert close(together.forces, torch.cat([p.forces for p in alone]), dtype, together.forces)
    assert close(
        together.node_features, torch.cat([p.node_features for p in alone]), dtype, together.node_features
    )


def test_a_batch_of_crystals_equals_its_frames_one_by_one(model: Model, dtype: torch.dtype) -> None:
    frames = [random_crystal(np.random.default_rng(i)) for i in range(2)]
    together, alone = run(model, frames, dtype), [run(model, [f], dtype) for f in frames]
    assert close(together.energy, torch.cat([p.energy for p in alone]), dtype, together.energy)
    assert close(together.forces, torch.cat([p.forces for p in alone]), dtype, together.forces)


def test_block_and_table_layouts_agree(model: Model, dtype: torch.dtype) -> None:
    if model.layout != "pairs":
        pytest.skip("the model computes with edges")
    small, large = (random_molecule(n, np.random.default_rng(n)) for n in (4, 14))
    # most pairs are beyond the cutoff
    line = Frame(np.array([[1.2 * i, 0.1 * (i % 2), 0.0] for i in range(14)]), large.species)
    frames = [small, line]
    block, chosen = (
        batch_of(frames, layout="pairs", cutoff=model.cutoff, dtype=dtype, block=b) for b in (True, False)
    )
    assert isinstance(block.graph, PairGraph) and block.graph.block is not None
    assert isinstance(chosen.graph, PairGraph) and chosen.graph.block is None, (
        "wanted a frame sparse enough for the table"
    )
    a, b = predict(model, block), predict(model, chosen)
    assert close(a.energy, b.energy, dtype, a.energy)
    assert close(a.forces, b.forces, dtype, a.forces)


def test_an_isolated_atom_has_a_finite_energy_and_no_force(model: Model, dtype: torch.dtype) -> None:
    p = run(model, [Frame(np.zeros((1, 3)), np.array([6]))], dtype)
    assert torch.isfinite(p.energy).all()
    assert (p.forces == 0).all()


def test_a_supercell_has_a_multiple_of_the_energy(double: Model) -> None:
    cell = random_crystal(np.random.default_rng(7))
    doubled = Frame(
        np.concatenate([cell.positions, cell.positions + cell.cell[0]]),
        np.tile(cell.species, 2),
        cell.cell * np.array([[2], [1], [1]]),
    )
    one, two = run(double, [cell], torch.float64), run(double, [doubled], torch.float64)
    assert torch.allclose(two.energy, 2 * one.energy, rtol=1e-11, atol=1e-11)
    assert torch.allclose(
        two.forces, one.forces.repeat(2, 1), rtol=0, atol=1e-11 * one.forces.abs().max().item()
    )
