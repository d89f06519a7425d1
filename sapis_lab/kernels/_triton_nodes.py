"""The Gaunt product of the features of atoms as a Triton kernel, an operation of PyTorch's dispatcher.

    (a (x) b)_m = sum_g F_mg (sum_m' T_gm' a_m') (sum_m' T_gm' b_m'),      F_mg = weight_g T_gm,

T the spherical harmonics on the points g of a quadrature (geometry.couplings). What is on the grid stays in
registers.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sapis_lab.kernels._triton_launch import blocks, launch, operation, power

TILE = 1024
"""Entries of a tile of components and columns."""


@triton.jit
def _gaunt(
    a,
    b,
    to_grid,
    from_grid,
    out,
    n_columns,
    stride_component_a: tl.int64,
    stride_node_a: tl.int64,
    stride_component_b: tl.int64,
    stride_node_b: tl.int64,
    POINTS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    TILE_COMPONENTS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
):
    """One program a tile of columns (node, channel)."""
    column = tl.program_id(0).to(tl.int64) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    m = tl.arange(0, TILE_COMPONENTS)
    n = column // CHANNELS
    c = column % CHANNELS
    mask = (m < COMPONENTS)[:, None] & (column < n_columns)[None, :]
    at_a = m[:, None] * stride_component_a + (n * stride_node_a + c)[None, :]
    at_b = m[:, None] * stride_component_b + (n * stride_node_b + c)[None, :]
    left = tl.load(a + at_a, mask=mask, other=0.0)
    right = tl.load(b + at_b, mask=mask, other=0.0)
    total = tl.zeros([TILE_COMPONENTS, TILE_COLUMNS], out.dtype.element_ty)
    for g in range(POINTS):
        there = tl.load(to_grid + g * COMPONENTS + m, mask=m < COMPONENTS, other=0.0)
        back = tl.load(from_grid + m * POINTS + g, mask=m < COMPONENTS, other=0.0)
        product = tl.sum(there[:, None] * left, axis=0) * tl.sum(there[:, None] * right, axis=0)
        total += back[:, None] * product[None, :]
    tl.store(out + m[:, None].to(tl.int64) * n_columns + column[None, :], total, mask=mask)


@operation
def gaunt(a: Tensor, b: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    """a (x) b (M, N, C) of two such with contiguous rows; to_grid (G, M), from_grid (M, G)."""
    m, n, channels = a.shape
    out, tile = a.new_empty(a.shape), power(m)
    columns = blocks(n * channels, row=tile, tile=TILE)
    launch(
        _gaunt,
        (triton.cdiv(n * channels, columns),),
        *(a, b, to_grid, from_grid, out, n * channels),
        *(a.stride(0), a.stride(1), b.stride(0), b.stride(1)),
        POINTS=to_grid.shape[0],
        COMPONENTS=m,
        CHANNELS=channels,
        TILE_COMPONENTS=tile,
        TILE_COLUMNS=columns,
        tile=tile * columns,
    )
    return out
