"""Exact Gaunt products of spherical functions by Lebedev quadrature, and the index matrices of degree-wise
maps.

The product of two functions with degrees <= lmax, projected back on degrees <= lmax, is a pointwise product
on a quadrature grid that is exact to degree 3 lmax (Lebedev & Laikov 1999, rules from scipy). It equals the
Clebsch-Gordan product restricted to l1 + l2 + l3 even, with fixed path weights (Luo, Chen & Krishnapriyan,
arXiv:2401.10216):

    (a (x) b)_k = sum_ij G_kij a_i b_j,      G_kij = mean over the sphere of Y_k Y_i Y_j.

All constants are made in float64; cast them at use, so that a model in float64 is exact.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from sapis_lab.geometry.harmonics import n_components, spherical_harmonics

_LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21)


@cache
def quadrature(lmax: int) -> tuple[Tensor, Tensor]:
    """Values on the grid `to_grid` (G, M) and the projection back `from_grid` (M, G), float64, M =
    (lmax+1)^2."""
    from scipy.integrate import lebedev_rule

    degree = next(d for d in _LEBEDEV_DEGREES if d >= 3 * lmax)
    points, weights = lebedev_rule(degree)
    to_grid = spherical_harmonics(
        torch.as_tensor(points, dtype=torch.float64, device="cpu"), lmax
    ).T.contiguous()
    weight = torch.as_tensor(weights / weights.sum(), dtype=torch.float64, device="cpu")
    return to_grid, (to_grid * weight[:, None]).T.contiguous()


def degree_of_component(lmax: int) -> Tensor:
    """l of every component, (M,) int64."""
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)], device="cpu")


def spread(lmax: int) -> Tensor:
    """S (M, lmax+1), float64 0/1: S @ w repeats a value per degree over its components."""
    matrix = torch.zeros(n_components(lmax), lmax + 1, dtype=torch.float64, device="cpu")
    matrix[torch.arange(n_components(lmax), device="cpu"), degree_of_component(lmax)] = 1
    return matrix
