"""Spherical harmonics are e3nn's, and their Jacobian is the derivative."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from sapis_lab.geometry.harmonics import n_components, spherical_harmonics, spherical_harmonics_jacobian

LMAX = 6


@pytest.fixture
def directions() -> torch.Tensor:
    """(3, 50), unit vectors with the poles and axes among them."""
    v = torch.randn(3, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = torch.cat([v, torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)], 1)
    return v / v.norm(dim=0)


def test_they_agree_with_e3nn(directions: torch.Tensor) -> None:
    wanted = o3.spherical_harmonics(
        list(range(LMAX + 1)), directions.T, normalize=False, normalization="component"
    ).T
    assert (spherical_harmonics(directions, LMAX) - wanted).abs().max() < 1e-12


def test_squares_of_a_degree_add_up_to_its_dimension(directions: torch.Tensor) -> None:
    y = spherical_harmonics(directions, LMAX)
    for l in range(LMAX + 1):
        assert torch.allclose(
            y[l * l : (l + 1) ** 2].square().sum(0),
            torch.full((50,), 2.0 * l + 1, dtype=torch.float64),
            atol=1e-12,
        )


def test_parity_of_a_degree_is_its_sign(directions: torch.Tensor) -> None:
    sign = torch.cat([torch.full((2 * l + 1, 1), (-1.0) ** l, dtype=torch.float64) for l in range(LMAX + 1)])
    assert (
        spherical_harmonics(-directions, LMAX) - sign * spherical_harmonics(directions, LMAX)
    ).abs().max() < 1e-12


def test_rotations_act_on_every_degree_by_an_orthogonal_matrix(directions: torch.Tensor) -> None:
    """Y(R u) = D(R) Y(u) with an orthogonal D that does not mix degrees, found here by least squares."""
    angle = torch.tensor(0.7, dtype=torch.float64)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    about_x = torch.stack([one, zero, zero, zero, c, -s, zero, s, c]).view(3, 3)
    about_y = torch.stack([c, zero, s, zero, one, zero, -s, zero, c]).view(3, 3)
    plain, turned = (spherical_harmonics(u, LMAX) for u in (directions, about_x @ about_y @ directions))
    for l in range(LMAX + 1):
        a, b = plain[l * l : (l + 1) ** 2].T, turned[l * l : (l + 1) ** 2].T
        matrix = torch.linalg.lstsq(a, b).solution
        assert (a @ matrix - b).abs().max() < 1e-11
        assert (matrix @ matrix.T - torch.eye(2 * l + 1, dtype=torch.float64)).abs().max() < 1e-11


def test_the_jacobian_is_the_derivative_along_the_sphere(directions: torch.Tensor) -> None:
    v = (2.5 * directions).requires_grad_(True)
    r = v.norm(dim=0)
    y = spherical_harmonics(v / r, LMAX)
    values, jacobian = spherical_harmonics_jacobian(directions, LMAX)
    tangential = (jacobian - directions[:, None] * (directions[:, None] * jacobian).sum(0)) / 2.5
    assert torch.allclose(values, y, atol=1e-12)
    for m in range(n_components(LMAX)):
        (wanted,) = torch.autograd.grad(y[m].sum(), v, retain_graph=True, allow_unused=True)
        found = tangential[:, m]
        assert found.abs().max() < 1e-12 if wanted is None else (found - wanted).abs().max() < 1e-11
