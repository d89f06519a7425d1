"""Cutoff envelopes and radial bases of interatomic distances, with the derivatives that analytic forces need.

Envelope: the polynomial of Gasteiger, Gross & Guennemann (arXiv:2003.03123, eq. 8) with p = 6,
    f(x) = 1 - 28 x^6 + 48 x^7 - 21 x^8 = (1-x)^3 (1 + 3x + 6x^2 + 10x^3 + 15x^4 + 21x^5),   x = r / cutoff,
whose value and first two derivatives vanish at x = 1: energies are twice, forces once continuously
differentiable there. Exponential-normal basis: Unke & Meuwly (arXiv:1902.08408, eq. 7).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def envelope(x: Tensor) -> Tensor:
    """f(x), zero beyond x = 1. The factored form keeps its digits near the cutoff in float32."""
    inside = (1 - x).clamp_min(0.0)
    return inside * inside * inside * _factor(x)


def log_envelope(x: Tensor) -> tuple[Tensor, Tensor]:
    """log f and d(log f)/dx; from x = 1 on the logarithm stays at its value there, 3 log 1e-9 (f = 1e-27)."""
    x = x.clamp_max(1.0)
    inside, factor = (1 - x).clamp_min(1e-9), _factor(x)
    slope = 3 + x * (12 + x * (30 + x * (60 + 105 * x)))
    return 3 * inside.log() + factor.log(), slope / factor - 3 / inside


def _factor(x: Tensor) -> Tensor:
    return 1 + x * (3 + x * (6 + x * (10 + x * (15 + 21 * x))))


def exp_normal_centers(n_radial: int) -> tuple[Tensor, float]:
    """Centres mu_k (float64, evenly from exp(-5) to 1) and width beta of exp(-beta (exp(-5 r/rc) - mu_k)^2):
    dense at bond lengths."""
    low = math.exp(-5.0)
    return torch.linspace(low, 1, n_radial, dtype=torch.float64), (2.0 / n_radial * (1 - low)) ** -2
