"""Real spherical harmonics and their Jacobian, in e3nn's convention (component normalisation, polar axis y).

With (X, Y, Z) = (z, x, y), K_lm = sqrt((2l+1) (2 - delta_m0) (l-m)!/(l+m)!) and P_l the Legendre polynomial,

    Y_l,+m = K_lm P_l^(m)(Z) Re (X + iY)^m,      Y_l,-m = K_lm P_l^(m)(Z) Im (X + iY)^m,

where P_l^(m) is the m-th derivative (no Condon-Shortley phase), so that sum_m Y_lm^2 = 2l+1 on the unit
sphere. Agrees with `e3nn.o3.spherical_harmonics(..., normalization="component")` to rounding; parity of
degree l is (-1)^l.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor


def n_components(lmax: int) -> int:
    """Number of components of the degrees 0..lmax: (lmax+1)^2."""
    return (lmax + 1) ** 2


@cache
def solid_coefficients(l: int, m: int) -> list[float]:
    """K_lm times the monomial coefficients of the m-th derivative of P_l, lowest power first."""
    k = math.sqrt((2 * l + 1) * (2 if m else 1) * math.factorial(l - m) / math.factorial(l + m))
    polynomial = np.polynomial.Legendre.basis(l).convert(kind=np.polynomial.Polynomial)
    for _ in range(m):
        polynomial = polynomial.deriv()
    return [float(c) * k for c in np.asarray(polynomial.coef, dtype=float)]


def _evaluate(coefficients: list[float], powers: list[Tensor]) -> Tensor:
    """sum_p c_p Z^p; exact zeros are skipped, since Legendre polynomials are even or odd."""
    terms = [c if p == 0 else c * powers[p] for p, c in enumerate(coefficients) if abs(c) > 1e-14]
    total: Tensor | float = 0.0
    for term in terms:
        total = total + term
    return total if isinstance(total, Tensor) else torch.full_like(powers[0], total)


def spherical_harmonics(directions: Tensor, lmax: int) -> Tensor:
    """Y of unit vectors: (3, ...) -> ((lmax+1)^2, ...), components first, degree l in the rows l^2 ...
    (l+1)^2 - 1, m = -l ... l."""
    return _harmonics(directions, lmax, jacobian=False)[0]


def spherical_harmonics_jacobian(directions: Tensor, lmax: int) -> tuple[Tensor, Tensor]:
    """Y as above, and dY/du (3, (lmax+1)^2, ...) of the polynomials Y(u) off the sphere.

    The derivative along a displacement v = r u is its tangential part over r: (J - u (u.J)) / r.
    """
    y, jacobian = _harmonics(directions, lmax, jacobian=True)
    assert jacobian is not None
    return y, jacobian


def _harmonics(directions: Tensor, lmax: int, *, jacobian: bool) -> tuple[Tensor, Tensor | None]:
    Y, Z, X = directions.unbind(0)
    one, zero = torch.ones_like(X), torch.zeros_like(X)
    z_powers = [one, Z]
    for _ in range(2, lmax + 1):
        z_powers.append(z_powers[-1] * Z)
    re, im = [one], [zero]  # (X + iY)^m
    for _ in range(lmax):
        re, im = [*re, X * re[-1] - Y * im[-1]], [*im, X * im[-1] + Y * re[-1]]
    values, gradients = [], []
    for l in range(lmax + 1):
        radial = [_evaluate(solid_coefficients(l, m), z_powers) for m in range(l + 1)]
        for m in range(-l, l + 1):
            a = abs(m)
            azimuthal = im[a] if m < 0 else re[a]
            values.append(radial[a] * azimuthal if a else radial[0])
            if not jacobian:
                continue
            slope = _derivative(l, a, z_powers)
            d_z = slope * azimuthal if a else slope
            if a == 0:
                d_x = d_y = zero
            else:  # d(X+iY)^m / dX = m (X+iY)^(m-1), along Y the same times i
                lower_re, lower_im = a * re[a - 1], a * im[a - 1]
                d_x = radial[a] * (lower_im if m < 0 else lower_re)
                d_y = radial[a] * (lower_re if m < 0 else -lower_im)
            gradients.append(torch.stack([d_y, d_z, d_x]))  # back to the order x, y, z
    stacked = torch.stack(values)
    return stacked, (torch.stack(gradients, 1) if jacobian else None)


def _derivative(l: int, m: int, z_powers: list[Tensor]) -> Tensor:
    """d/dZ of K_lm P_l^(m)(Z)."""
    coefficients = solid_coefficients(l, m)
    return _evaluate([p * c for p, c in enumerate(coefficients)][1:] or [0.0], z_powers)
