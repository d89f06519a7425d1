"""What GEAT knows of the pairs of a graph, with the derivatives that analytic forces need: spherical
harmonics Y_lm of their directions, radial functions times the envelope R_k f (exponential-normal, see
`radial`) and log f.

Slots without a pair have Y = 0 and R f = 0; Y_00 of the pairs (i, i) is 1, and their f too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sapis_lab.geometry.harmonics import spherical_harmonics, spherical_harmonics_jacobian
from sapis_lab.geometry.radial import log_envelope
from sapis_lab.graphs import PairGraph

CLOSED = -1e4
"""log f of slots without a pair: exp underflows to an exact zero."""


class RadialFunctions(NamedTuple):
    """Constants of exp(-beta (exp(-5 r/rc) - mu)^2), one row a function."""

    centers: Tensor
    """(B, 1) mu"""
    widths: Tensor
    """(B, 1) beta"""
    slopes: Tensor
    """(B, 1) 10 beta / rc, of their derivative"""

    @classmethod
    def of(cls, centers: Tensor, widths: Tensor, *, cutoff: float) -> RadialFunctions:
        return cls(centers, widths, 10.0 / cutoff * widths)


class PairFeatures(NamedTuple):
    """Of all slots, and their derivatives along v where these were asked for."""

    harmonics: Tensor
    """Y, (M, G, I, K)"""
    radial: Tensor
    """R f, (B, P)"""
    log_f: Tensor
    """(G, I, K)"""
    jacobians: tuple[Tensor, ...]
    """unit vectors (3, G, I, K), dY/dv (3, M, G, I, K), dR/dr (B, P), dlog f/dr (G, I, K); or none"""

    def pullback(self, along_y: Tensor, along_r: Tensor, along_log_f: Tensor) -> Tensor:
        """dE/dv (3, G, I, K) from the derivatives of E in the features, in their shapes."""
        unit, d_harmonics, d_radial, d_log_f = self.jacobians
        along_r = (along_r * d_radial).sum(0).view(along_log_f.shape) + along_log_f * d_log_f
        return (d_harmonics * along_y).sum(1) + along_r * unit


def pair_features(
    vectors: Tensor,
    graph: PairGraph,
    *,
    lmax: int,
    cutoff: float,
    radial: RadialFunctions,
    jacobian: bool,
) -> PairFeatures:
    """Of the displacements (3, G, I, K), Å."""
    r = vectors.square().sum(0).sqrt()
    unit = vectors / r
    own = graph.is_self()
    near = (graph.is_pair() & (r < cutoff)).to(r.dtype)
    if jacobian:
        y, dy = spherical_harmonics_jacobian(unit, lmax)
    else:
        y = spherical_harmonics(unit, lmax)
    y = torch.cat([torch.maximum(near, own.to(near)).unsqueeze(0), y[1:] * near])
    log_f, slope = log_envelope(r / cutoff)
    f = (log_f.exp() * near).reshape(1, -1)
    decay = torch.exp((-5.0 / cutoff) * r.reshape(1, -1))
    offset = decay - radial.centers
    values = torch.exp(-radial.widths * offset * offset) * f
    log_f = torch.where(near > 0, log_f, torch.where(own, 0.0, CLOSED).to(r.dtype))
    if not jacobian:
        return PairFeatures(y, values, log_f, ())
    slope = slope * near / cutoff
    d_radial = values * (radial.slopes * offset * decay + slope.reshape(1, -1))
    tangential = (dy - unit.unsqueeze(1) * (unit.unsqueeze(1) * dy).sum(0)) * (near / r)
    return PairFeatures(y, values, log_f, (unit, tangential, d_radial, slope))
