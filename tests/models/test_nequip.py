"""The convolution of the NequIP-like model is e3nn's tensor product."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from e3nn import o3

from sapis_lab.geometry.harmonics import n_components, spherical_harmonics
from sapis_lab.models._layers import block, paths
from sapis_lab.models.nequip import Convolution, NequipConfig


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    """e3nn keeps its tensors in the default precision: cast to float64 afterwards, they are wrong by 1e-8."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64_by_default")
@pytest.mark.parametrize("lmax", [1, 2, 3])
def test_messages_equal_the_uvu_product_of_e3nn(lmax: int) -> None:
    c, n_edges, degrees = 3, 7, range(lmax + 1)
    generator = torch.Generator().manual_seed(lmax)
    convolution = Convolution(
        NequipConfig(lmax=lmax, channels=c), degrees, degrees, n_species=2, mean_neighbors=8.0
    )
    directions = torch.randn(3, n_edges, dtype=torch.float64, generator=generator)
    harmonics = spherical_harmonics(directions / directions.norm(dim=0), lmax)
    x = torch.randn(n_edges, n_components(lmax), c, dtype=torch.float64, generator=generator)
    members = paths(degrees, degrees, degrees)
    weights = torch.randn(n_edges, len(members), c, dtype=torch.float64, generator=generator)

    # ours: rows by l3, component, path
    matrices = (harmonics.T @ convolution.table(x)).view(n_edges, -1, n_components(lmax))
    rows = torch.bmm(matrices, x).split(convolution.rows, 1)

    irreps = o3.Irreps([(c, (l, (-1) ** l)) for l in degrees])
    product = o3.TensorProduct(
        irreps,
        o3.Irreps.spherical_harmonics(lmax),
        [(c, (p.l3, (-1) ** p.l3)) for p in members],
        [(p.l1, p.l2, k, "uvu", True) for k, p in enumerate(members)],
        shared_weights=False,
        internal_weights=False,
    )
    # e3nn: channel, then component
    flat = torch.cat([x[:, block(l)].transpose(1, 2).reshape(n_edges, -1) for l in degrees], 1)
    wanted = product(flat, harmonics.T, weights.reshape(n_edges, -1)).split(
        [c * (2 * p.l3 + 1) for p in members], 1
    )

    for l3 in degrees:
        same = [k for k, p in enumerate(members) if p.l3 == l3]
        ours = rows[l3].view(n_edges, 2 * l3 + 1, len(same), c)
        for position, k in enumerate(same):
            expected = wanted[k].view(n_edges, c, 2 * l3 + 1).transpose(1, 2)
            assert (ours[:, :, position] * weights[:, None, k] - expected).abs().max() < 1e-12


def test_paths_have_natural_parity() -> None:
    assert all((p.l1 + p.l2 + p.l3) % 2 == 0 for p in paths(range(4), range(4), range(4)))
    assert len(paths(range(3), range(3), range(3))) == 11
