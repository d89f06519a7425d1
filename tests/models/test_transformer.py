"""Attention of the transformer is a smooth weighted mean with the atom itself as its sink."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sapis_lab.models.transformer import TransformerConfig
from sapis_lab.selftest import Frame, batch_of, build, random_molecule


def attention(frames: list[Frame], cutoff: float) -> torch.Tensor:
    model = build(TransformerConfig(cutoff=cutoff), dtype=torch.float64, seed=0)
    with torch.no_grad():
        return model(batch_of(frames, layout="pairs", cutoff=cutoff, dtype=torch.float64, block=True)).extras[
            "attention"
        ]


def test_weights_of_an_atom_add_up_to_one() -> None:
    weights = attention([random_molecule(8, np.random.default_rng(0))], 4.0)
    assert torch.allclose(weights.sum(3), torch.ones(4, 1, 8, dtype=torch.float64))


def test_an_atom_attends_to_itself_only_once_its_neighbour_has_left() -> None:
    for distance, largest in ((3.99, 1e-5), (4.01, 1e-20)):
        weights = attention([Frame(np.array([[0.0, 0, 0], [distance, 0, 0]]), np.array([6, 8]))], 4.0)
        assert 0 <= weights[..., 0, 1].max() < largest


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels=10 is no multiple of heads=4"):
        TransformerConfig(channels=10)
