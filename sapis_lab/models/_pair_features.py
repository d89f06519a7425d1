"""Features of single pairs, stacked in one tensor, with the Jacobian that turns dE/dfeatures into dE/dv
without a graph.

For a displacement v = r u the rows can be, in this order,

    R_k(r) = sin(k pi x) / (2 x) f(x)          k = 1 ... n_radial, x = r / cutoff: Bessel functions, of order
    one at bond lengths, Y_lm(u)                                    degrees 0 ... lmax,
    R_k(r) u_a                                 k = 1 ... n_directed, a = x, y, z: Cartesian displacements,
    f(x) or log f(x)                           the envelope.

Every row is a known function of v, so d(row)/dv is written down here instead of being differentiated twice by
autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sapis_lab.geometry.harmonics import n_components, spherical_harmonics, spherical_harmonics_jacobian
from sapis_lab.geometry.radial import envelope, log_envelope


class PairFeatures(NamedTuple):
    """Which rows to stack."""

    cutoff: float
    """Å"""
    n_radial: int
    """rows R_k"""
    lmax: int | None = None
    """rows Y_lm up to this degree, none without"""
    n_directed: int = 0
    """radial functions that multiply the Cartesian unit vector"""
    envelope: Literal["value", "log"] | None = None
    """the last row"""

    @property
    def sizes(self) -> list[int]:
        """Rows of every block, in order, empty blocks left out."""
        harmonics = 0 if self.lmax is None else n_components(self.lmax)
        return [
            n for n in (self.n_radial, harmonics, 3 * self.n_directed, int(self.envelope is not None)) if n
        ]

    def rows(self, vectors: Tensor) -> Tensor:
        """(3, ...) -> (F, ...), differentiable."""
        r = vectors.square().sum(0).sqrt()
        u, x = vectors / r, r / self.cutoff
        radial = _bessel(x, self.n_radial) * envelope(x)
        blocks = [radial]
        if self.lmax is not None:
            blocks.append(spherical_harmonics(u, self.lmax))
        if self.n_directed:
            blocks.append((radial[: self.n_directed].unsqueeze(1) * u).flatten(0, 1))
        if self.envelope:
            blocks.append(
                (envelope(x) if self.envelope == "value" else log_envelope(x.clamp_max(1))[0]).unsqueeze(0)
            )
        return torch.cat(blocks)

    def rows_and_pullback(self, vectors: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The rows without a graph, and the map (F, ...) -> (3, ...) from dE/drows to dE/dvectors."""
        r = vectors.square().sum(0).sqrt()
        u, x = vectors / r, r / self.cutoff
        f, slope_f = envelope(x), _envelope_slope(x)
        bessel = _bessel(x, self.n_radial)
        radial, slope = bessel * f, _bessel_slope(x, bessel) * f + bessel * slope_f  # slopes in x
        along = u / self.cutoff  # dx/dv
        blocks, jacobians = [radial], [along.unsqueeze(1) * slope]
        if self.lmax is not None:
            y, jacobian = spherical_harmonics_jacobian(u, self.lmax)
            blocks.append(y)
            jacobians.append((jacobian - u.unsqueeze(1) * (u.unsqueeze(1) * jacobian).sum(0)) / r)
        if self.n_directed:
            eye = torch.eye(3, dtype=u.dtype, device=u.device).view(3, 1, 3, *[1] * r.dim())
            tangential = (eye - u.view(3, 1, 1, *r.shape) * u) / r
            p, s = (t[: self.n_directed].unsqueeze(1) for t in (radial, slope))
            blocks.append((p * u).flatten(0, 1))
            jacobians.append((p * tangential + along.view(3, 1, 1, *r.shape) * (s * u)).flatten(1, 2))
        if self.envelope == "value":
            blocks.append(f.unsqueeze(0))
            jacobians.append((along * slope_f).unsqueeze(1))
        elif self.envelope == "log":
            log_f, slope_log = log_envelope(x.clamp_max(1))
            blocks.append(log_f.unsqueeze(0))
            jacobians.append((along * slope_log).unsqueeze(1))
        stacked = torch.cat(jacobians, 1)
        return torch.cat(blocks), lambda gradient: (stacked * gradient).sum(1)


def _bessel(x: Tensor, n: int) -> Tensor:
    k = math.pi * torch.arange(1, n + 1, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
    return 0.5 * torch.sin(k * x) / x


def _bessel_slope(x: Tensor, bessel: Tensor) -> Tensor:
    k = math.pi * torch.arange(1, len(bessel) + 1, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
    return (0.5 * k * torch.cos(k * x) - bessel) / x


def _envelope_slope(x: Tensor) -> Tensor:
    """df/dx = -168 x^5 (1-x)^2 inside."""
    inside = (1 - x).clamp_min(0.0)
    return -168 * x**5 * inside * inside
