"""The hand-written Jacobian of the pair features is the derivative of the features."""

from __future__ import annotations

import pytest
import torch

from sapis_lab.models._pair_features import PairFeatures

CASES = {
    "radial": PairFeatures(4.0, 8),
    "harmonics": PairFeatures(4.0, 5, lmax=3, envelope="value"),
    "directed": PairFeatures(4.0, 6, n_directed=4, envelope="log"),
    "all": PairFeatures(4.0, 3, lmax=1, n_directed=3, envelope="value"),
}


@pytest.fixture(params=CASES)
def features(request: pytest.FixtureRequest) -> PairFeatures:
    return CASES[request.param]


@pytest.fixture
def vectors() -> torch.Tensor:
    """(3, 6, 5), Å, with lengths from 0.9 Å to beyond the cutoff."""
    v = torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return v / v.norm(dim=0) * torch.linspace(0.9, 4.3, 30, dtype=torch.float64).view(6, 5)


def test_the_pullback_is_the_derivative_of_the_rows(features: PairFeatures, vectors: torch.Tensor) -> None:
    v = vectors.clone().requires_grad_(True)
    rows = features.rows(v)
    found, pullback = features.rows_and_pullback(vectors)
    gradient = torch.randn(rows.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if features.envelope == "log":
        gradient[-1, vectors.norm(dim=0) > 3.99] = (
            0  # beyond, the logarithm is cut: its slope has no meaning and meets a weight of zero
        )
    (wanted,) = torch.autograd.grad(rows, v, gradient)
    assert len(rows) == sum(features.sizes)
    assert torch.allclose(found, rows, atol=1e-13)
    assert (pullback(gradient) - wanted).abs().max() < 1e-10 * wanted.abs().max()


def test_radial_rows_vanish_beyond_the_cutoff(features: PairFeatures, vectors: torch.Tensor) -> None:
    beyond = vectors.norm(dim=0) >= 4.0
    assert beyond.any()
    assert (features.rows(vectors)[: features.n_radial, beyond] == 0).all()
