"""Gaunt products are Clebsch-Gordan products of natural parity, exactly."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from sapis_lab.geometry.couplings import degree_of_component, quadrature, spread
from sapis_lab.geometry.harmonics import n_components, spherical_harmonics


def gaunt_tensor(lmax: int) -> torch.Tensor:
    """G_kij (M, M, M), float64: the dense form of the product."""
    to_grid, from_grid = quadrature(lmax)
    return torch.einsum("kg,gi,gj->kij", from_grid, to_grid, to_grid)


@pytest.mark.parametrize("lmax", [1, 2, 3, 4])
def test_every_block_of_the_gaunt_tensor_is_a_multiple_of_the_wigner_3j_tensor(lmax: int) -> None:
    gaunt = gaunt_tensor(lmax)
    for l3 in range(lmax + 1):
        for l1 in range(lmax + 1):
            for l2 in range(lmax + 1):
                k, i, j = (slice(l * l, (l + 1) ** 2) for l in (l3, l1, l2))
                block = gaunt[k, i, j]
                if (l1 + l2 + l3) % 2 or not abs(l1 - l2) <= l3 <= l1 + l2:
                    assert block.abs().max() < 1e-12, "forbidden by parity or by the triangle rule"
                    continue
                wigner = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).permute(2, 0, 1)
                factor = (block * wigner).sum() / wigner.square().sum()
                assert factor.abs() > 0.1
                assert (block - factor * wigner).abs().max() < 1e-12


@pytest.mark.parametrize("lmax", [1, 2, 3, 4])
def test_the_grid_is_exact_for_products_of_three_harmonics(lmax: int) -> None:
    to_grid, from_grid = quadrature(lmax)
    assert torch.allclose(from_grid @ to_grid, torch.eye(n_components(lmax), dtype=torch.float64), atol=1e-12)
    gaunt = gaunt_tensor(lmax)
    assert torch.allclose(gaunt, gaunt.permute(1, 0, 2), atol=1e-12)
    assert torch.allclose(gaunt, gaunt.permute(0, 2, 1), atol=1e-12)


def test_the_gaunt_product_with_a_delta_function_multiplies_values() -> None:
    """a (x) Y(u) projected on degree 0 is a(u): the product of functions, integrated."""
    a = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = torch.nn.functional.normalize(
        torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), dim=0
    )
    y = spherical_harmonics(u, 2)[:, 0]
    assert torch.allclose(torch.einsum("ij,i,j->", gaunt_tensor(2)[0], a, y), a @ y)


def test_spread_repeats_a_value_of_a_degree_over_its_components() -> None:
    values = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    assert torch.equal(spread(2) @ values, values[degree_of_component(2)])
