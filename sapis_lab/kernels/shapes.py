"""What a kernel must know of a model, family by family: sizes and constants, without parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GeatShape:
    """Of GEAT, by the names that `models.geat` has for them."""

    lmax: int
    layers: int
    channels: int
    heads: int
    invariants: int
    key_width: int
    n_radial: int
    edge_hidden: int
    coupling_channels: int
    node_width: int
    n_species: int
    born_channels: int
    born_hidden: int
    softmax: bool
    """weights of the neighbours by softmax, not f / mean_neighbors"""
    gaunt: bool
    """the update has the Gaunt product"""
    cutoff: float
    sum_scale: float
    uniform: float
    """1 / mean_neighbors"""
    norm_attention: float
    """1 / (tau n) of the soft norm before (ii)"""
    norm_update: float
    """before (iii)"""
    norm_edge: float
    """of the edge networks; 0: none"""
    norm_readout: float
    """before the readout; 0: none"""
    centers: tuple[float, ...]
    """of the radial functions"""
    widths: tuple[float, ...]
