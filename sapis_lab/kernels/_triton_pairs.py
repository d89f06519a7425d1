"""Sums over the pairs of a graph as Triton kernels, each an operation of PyTorch's dispatcher without
derivatives; `triton_forms` gives them theirs.

Three forms, linear in each of their arguments, with i the centre and j the neighbour of pair p, l the degree
of component m and h the head of channel c:

    harmonic   sum_pmc w[l,h,p] Y[m,p] U[m,i,c] X[j,c]
    weighted   sum_pmc w[h,p] U[m,i,c] V[m,j,c]
    radial     sum_pmb Y[m,p] R[b,p] U[m,i,(s_j,b)],      s_j the species of j.

The derivative of a form in what belongs to centres sums over the slots of a centre, that in what belongs to
neighbours over the slots that hold an atom, that in what belongs to pairs over components and channels.
Nothing of the size of pairs times channels is written, nothing is added atomically, and every sum has a fixed
order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sapis_lab.kernels._triton_launch import blocks, launch, operation, power

# Shape legend: M components, L degrees, N nodes, C channels, H heads, K slots of a node, P pairs (N K), B
# radial functions, S species. Kernels know the sizes in capitals when they are compiled; those of tiles
# (TILE_...) are powers of two, masked where they exceed what they cover.

TILE = 1024
"""Entries of a tile."""


@triton.jit
def _degree(m):
    """l of component m, up to 6."""
    low = (m >= 1).to(tl.int32) + (m >= 4).to(tl.int32) + (m >= 9).to(tl.int32)
    return low + (m >= 16).to(tl.int32) + (m >= 25).to(tl.int32) + (m >= 36).to(tl.int32)


# --------------------------------------------------------------------------------------------- harmonic form


@triton.jit
def _harmonic_center(
    w,
    y,
    w2,
    y2,
    x,
    neighbor,
    out,
    n_nodes,
    n_slots,
    n_pairs: tl.int64,
    stride_x: tl.int64,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    DUAL: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """One program a node and component."""
    n = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1)
    c = tl.arange(0, TILE_CHANNELS)
    real = c < HEADS * WIDTH
    row = (_degree(m) * HEADS + c // WIDTH) * n_pairs
    total = tl.zeros([TILE_SLOTS, TILE_CHANNELS], out.dtype.element_ty)
    for start in range(0, n_slots, TILE_SLOTS):
        k = start + tl.arange(0, TILE_SLOTS)
        there = k < n_slots
        mask = there[:, None] & real[None, :]
        p = n * n_slots + k
        at = row[None, :] + p[:, None]
        j = tl.load(neighbor + p, mask=there, other=0)
        values = tl.load(x + j[:, None] * stride_x + c[None, :], mask=mask, other=0.0)
        factor = tl.load(y + m * n_pairs + p, mask=there, other=0.0)
        if DUAL:
            factor2 = tl.load(y2 + m * n_pairs + p, mask=there, other=0.0)
            weight = tl.load(w2 + at, mask=mask, other=0.0) * factor[:, None]
            weight += tl.load(w + at, mask=mask, other=0.0) * factor2[:, None]
        else:
            weight = tl.load(w + at, mask=mask, other=0.0) * factor[:, None]
        total += weight * values
    tl.store(out + (m * n_nodes + n) * (HEADS * WIDTH) + c, tl.sum(total, axis=0), mask=real)


@triton.jit
def _harmonic_neighbor(
    u,
    w,
    y,
    w2,
    y2,
    incoming,
    starts,
    out,
    n_slots,
    n_pairs: tl.int64,
    stride_component: tl.int64,
    stride_node: tl.int64,
    DEGREES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    DUAL: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """One program a node, over the slots that hold it."""
    j = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, TILE_CHANNELS)
    real = c < HEADS * WIDTH
    head = c // WIDTH
    total = tl.zeros([TILE_SLOTS, TILE_CHANNELS], out.dtype.element_ty)
    first = tl.load(starts + j)
    last = tl.load(starts + j + 1)
    for start in range(first, last, TILE_SLOTS):
        e = start + tl.arange(0, TILE_SLOTS)
        there = e < last
        mask = there[:, None] & real[None, :]
        p = tl.load(incoming + e, mask=there, other=0)
        i = p // n_slots
        for l in tl.static_range(DEGREES):
            at = (l * HEADS + head)[None, :] * n_pairs + p[:, None]
            weight = tl.load(w + at, mask=mask, other=0.0)
            if DUAL:
                weight2 = tl.load(w2 + at, mask=mask, other=0.0)
            for m in tl.static_range(l * l, (l + 1) * (l + 1)):
                factor = tl.load(y + m * n_pairs + p, mask=there, other=0.0)
                if DUAL:
                    factor2 = tl.load(y2 + m * n_pairs + p, mask=there, other=0.0)
                    product = weight2 * factor[:, None] + weight * factor2[:, None]
                else:
                    product = weight * factor[:, None]
                at_u = m * stride_component + i[:, None] * stride_node + c[None, :]
                total += product * tl.load(u + at_u, mask=mask, other=0.0)
    tl.store(out + j * (HEADS * WIDTH) + c, tl.sum(total, axis=0), mask=real)


@triton.jit
def _harmonic_pair(
    u,
    w,
    y,
    x,
    neighbor,
    on_w,
    on_y,
    n_slots,
    n_pairs: tl.int64,
    stride_component: tl.int64,
    stride_node: tl.int64,
    stride_x: tl.int64,
    DEGREES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_HEADS: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
):
    """One program a node and tile of its slots."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE_SLOTS + tl.arange(0, TILE_SLOTS)
    h = tl.arange(0, TILE_HEADS)
    c = tl.arange(0, TILE_WIDTH)
    there = k < n_slots
    real = (h < HEADS)[:, None] & (c < WIDTH)[None, :]
    channel = h[:, None] * WIDTH + c[None, :]
    p = n * n_slots + k
    j = tl.load(neighbor + p, mask=there, other=0)
    mask = there[:, None, None] & real[None, :, :]
    values = tl.load(x + j[:, None, None] * stride_x + channel[None, :, :], mask=mask, other=0.0)
    mask_w = there[:, None] & (h < HEADS)[None, :]
    for l in tl.static_range(DEGREES):
        at = (l * HEADS + h)[None, :] * n_pairs + p[:, None]
        weight = tl.load(w + at, mask=mask_w, other=0.0)
        total = tl.zeros([TILE_SLOTS, TILE_HEADS], on_w.dtype.element_ty)
        for m in tl.static_range(l * l, (l + 1) * (l + 1)):
            center = tl.load(u + m * stride_component + n * stride_node + channel, mask=real, other=0.0)
            per_head = tl.sum(center[None, :, :] * values, axis=2)
            factor = tl.load(y + m * n_pairs + p, mask=there, other=0.0)
            total += factor[:, None] * per_head
            tl.store(on_y + m * n_pairs + p, tl.sum(weight * per_head, axis=1), mask=there)
        tl.store(on_w + at, total, mask=mask_w)


def _widths(w: Tensor, channels: int) -> tuple[int, int]:
    """Heads, and channels of a head."""
    heads = w.shape[-2]
    return heads, channels // heads


@operation
def harmonic_center(
    w: Tensor, y: Tensor, w2: Tensor | None, y2: Tensor | None, x: Tensor, neighbor: Tensor
) -> Tensor:
    """sum_k w[l,h,p] Y[m,p] X[j,c] (M, N, C), or with `w2` and `y2` of w2 Y + w Y2.

    w (L, H, P) and y (M, P) contiguous, x (N, C) with contiguous rows, neighbor (P,).
    """
    (m, p), (n, channels) = y.shape, x.shape
    heads, width = _widths(w, channels)
    out, tile = x.new_empty(m, n, channels), power(channels)
    slots = blocks(p // n, row=tile, tile=TILE)
    launch(
        _harmonic_center,
        (n, m),
        *(w, y, w if w2 is None else w2, y if y2 is None else y2, x, neighbor, out),
        *(n, p // n, p, x.stride(0)),
        HEADS=heads,
        WIDTH=width,
        DUAL=w2 is not None,
        TILE_SLOTS=slots,
        TILE_CHANNELS=tile,
        tile=slots * tile,
    )
    return out


@operation
def harmonic_neighbor(
    u: Tensor,
    w: Tensor,
    y: Tensor,
    w2: Tensor | None,
    y2: Tensor | None,
    incoming: Tensor,
    starts: Tensor,
) -> Tensor:
    """sum_pm w[l,h,p] Y[m,p] U[m,i,c] over the slots p that hold j, (N, C); u (M, N, C) with contiguous rows,
    incoming (P,) the slots sorted by what they hold, starts (N + 1,) where those of every node begin."""
    (_, n, channels), p = u.shape, y.shape[1]
    heads, width = _widths(w, channels)
    out, tile = u.new_empty(n, channels), power(channels)
    slots = blocks(p // n, row=tile, tile=TILE)
    launch(
        _harmonic_neighbor,
        (n,),
        *(u, w, y, w if w2 is None else w2, y if y2 is None else y2, incoming, starts, out),
        *(p // n, p, u.stride(0), u.stride(1)),
        DEGREES=w.shape[0],
        HEADS=heads,
        WIDTH=width,
        DUAL=w2 is not None,
        TILE_SLOTS=slots,
        TILE_CHANNELS=tile,
        tile=slots * tile,
    )
    return out


@operation
def harmonic_pair(u: Tensor, w: Tensor, y: Tensor, x: Tensor, neighbor: Tensor) -> tuple[Tensor, Tensor]:
    """sum_mc Y[m,p] U[m,i,c] X[j,c] over the components of l and the channels of h, (L, H, P), and sum_c
    w[l,h,p] U[m,i,c] X[j,c], (M, P)."""
    (_, n, channels), p = u.shape, y.shape[1]
    heads, width = _widths(w, channels)
    on_w, on_y = torch.empty_like(w), torch.empty_like(y)
    tiles = power(heads), power(width)
    slots = blocks(p // n, row=tiles[0] * tiles[1], tile=TILE)
    launch(
        _harmonic_pair,
        (n, triton.cdiv(p // n, slots)),
        *(u, w, y, x, neighbor, on_w, on_y),
        *(p // n, p, u.stride(0), u.stride(1), x.stride(0)),
        DEGREES=w.shape[0],
        HEADS=heads,
        WIDTH=width,
        TILE_SLOTS=slots,
        TILE_HEADS=tiles[0],
        TILE_WIDTH=tiles[1],
        tile=slots * tiles[0] * tiles[1],
    )
    return on_w, on_y


# --------------------------------------------------------------------------------------------- weighted form


@triton.jit
def _weighted_center(
    w,
    v,
    neighbor,
    out,
    n_nodes,
    n_slots,
    n_pairs: tl.int64,
    stride_component: tl.int64,
    stride_node: tl.int64,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """One program a node and component."""
    n = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1)
    c = tl.arange(0, TILE_CHANNELS)
    real = c < HEADS * WIDTH
    row = (c // WIDTH) * n_pairs
    total = tl.zeros([TILE_SLOTS, TILE_CHANNELS], out.dtype.element_ty)
    for start in range(0, n_slots, TILE_SLOTS):
        k = start + tl.arange(0, TILE_SLOTS)
        there = k < n_slots
        mask = there[:, None] & real[None, :]
        p = n * n_slots + k
        j = tl.load(neighbor + p, mask=there, other=0)
        at = m * stride_component + j[:, None] * stride_node + c[None, :]
        weight = tl.load(w + row[None, :] + p[:, None], mask=mask, other=0.0)
        total += weight * tl.load(v + at, mask=mask, other=0.0)
    tl.store(out + (m * n_nodes + n) * (HEADS * WIDTH) + c, tl.sum(total, axis=0), mask=real)


@triton.jit
def _weighted_neighbor(
    u,
    w,
    incoming,
    starts,
    out,
    n_nodes,
    n_slots,
    n_pairs: tl.int64,
    stride_component: tl.int64,
    stride_node: tl.int64,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """One program a node and component, over the slots that hold it."""
    j = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1)
    c = tl.arange(0, TILE_CHANNELS)
    real = c < HEADS * WIDTH
    row = (c // WIDTH) * n_pairs
    total = tl.zeros([TILE_SLOTS, TILE_CHANNELS], out.dtype.element_ty)
    first = tl.load(starts + j)
    last = tl.load(starts + j + 1)
    for start in range(first, last, TILE_SLOTS):
        e = start + tl.arange(0, TILE_SLOTS)
        there = e < last
        mask = there[:, None] & real[None, :]
        p = tl.load(incoming + e, mask=there, other=0)
        at = m * stride_component + (p // n_slots)[:, None] * stride_node + c[None, :]
        weight = tl.load(w + row[None, :] + p[:, None], mask=mask, other=0.0)
        total += weight * tl.load(u + at, mask=mask, other=0.0)
    tl.store(out + (m * n_nodes + j) * (HEADS * WIDTH) + c, tl.sum(total, axis=0), mask=real)


@triton.jit
def _weighted_pair(
    u,
    v,
    neighbor,
    on_w,
    n_slots,
    n_pairs: tl.int64,
    stride_component_u: tl.int64,
    stride_node_u: tl.int64,
    stride_component_v: tl.int64,
    stride_node_v: tl.int64,
    COMPONENTS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_HEADS: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
):
    """One program a node and tile of its slots."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE_SLOTS + tl.arange(0, TILE_SLOTS)
    h = tl.arange(0, TILE_HEADS)
    c = tl.arange(0, TILE_WIDTH)
    there = k < n_slots
    real = (h < HEADS)[:, None] & (c < WIDTH)[None, :]
    mask = there[:, None, None] & real[None, :, :]
    channel = h[:, None] * WIDTH + c[None, :]
    p = n * n_slots + k
    j = tl.load(neighbor + p, mask=there, other=0)
    total = tl.zeros([TILE_SLOTS, TILE_HEADS], on_w.dtype.element_ty)
    for m in range(COMPONENTS):
        center = tl.load(u + m * stride_component_u + n * stride_node_u + channel, mask=real, other=0.0)
        at = m * stride_component_v + j[:, None, None] * stride_node_v + channel[None, :, :]
        total += tl.sum(center[None, :, :] * tl.load(v + at, mask=mask, other=0.0), axis=2)
    at_w = h[None, :] * n_pairs + p[:, None]
    tl.store(on_w + at_w, total, mask=there[:, None] & (h < HEADS)[None, :])


@operation
def weighted_center(w: Tensor, v: Tensor, neighbor: Tensor) -> Tensor:
    """sum_k w[h,p] V[m,j,c] (M, N, C); w (H, P) contiguous, v (M, N, C) with contiguous rows."""
    (m, n, channels), p = v.shape, w.shape[1]
    heads, width = _widths(w, channels)
    out, tile = v.new_empty(m, n, channels), power(channels)
    slots = blocks(p // n, row=tile, tile=TILE)
    launch(
        _weighted_center,
        (n, m),
        *(w, v, neighbor, out, n, p // n, p, v.stride(0), v.stride(1)),
        HEADS=heads,
        WIDTH=width,
        TILE_SLOTS=slots,
        TILE_CHANNELS=tile,
        tile=slots * tile,
    )
    return out


@operation
def weighted_neighbor(u: Tensor, w: Tensor, incoming: Tensor, starts: Tensor) -> Tensor:
    """sum_p w[h,p] U[m,i,c] over the slots p that hold j, (M, N, C)."""
    (m, n, channels), p = u.shape, w.shape[1]
    heads, width = _widths(w, channels)
    out, tile = u.new_empty(m, n, channels), power(channels)
    slots = blocks(p // n, row=tile, tile=TILE)
    launch(
        _weighted_neighbor,
        (n, m),
        *(u, w, incoming, starts, out, n, p // n, p, u.stride(0), u.stride(1)),
        HEADS=heads,
        WIDTH=width,
        TILE_SLOTS=slots,
        TILE_CHANNELS=tile,
        tile=slots * tile,
    )
    return out


@operation
def weighted_pair(u: Tensor, v: Tensor, neighbor: Tensor, heads: int) -> Tensor:
    """sum_mc U[m,i,c] V[m,j,c] over the channels of h, (H, P)."""
    (m, n, channels), p = u.shape, len(neighbor)
    on_w = u.new_empty(heads, p)
    tiles = power(heads), power(channels // heads)
    slots = blocks(p // n, row=tiles[0] * tiles[1], tile=TILE)
    launch(
        _weighted_pair,
        (n, triton.cdiv(p // n, slots)),
        *(u, v, neighbor, on_w, p // n, p, u.stride(0), u.stride(1), v.stride(0), v.stride(1)),
        COMPONENTS=m,
        HEADS=heads,
        WIDTH=channels // heads,
        TILE_SLOTS=slots,
        TILE_HEADS=tiles[0],
        TILE_WIDTH=tiles[1],
        tile=slots * tiles[0] * tiles[1],
    )
    return on_w


# ----------------------------------------------------------------------------------------------- radial form


@triton.jit
def _radial_center(
    y,
    r,
    y2,
    r2,
    kind,
    out,
    n_nodes,
    n_slots,
    n_pairs: tl.int64,
    SPECIES: tl.constexpr,
    COMPONENTS: tl.constexpr,
    RADIAL: tl.constexpr,
    DUAL: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_COMPONENTS: tl.constexpr,
    TILE_RADIAL: tl.constexpr,
):
    """One program a node and species."""
    n = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1)
    m = tl.arange(0, TILE_COMPONENTS)
    b = tl.arange(0, TILE_RADIAL)
    total = tl.zeros([TILE_COMPONENTS, TILE_RADIAL], out.dtype.element_ty)
    for start in range(0, n_slots, TILE_SLOTS):
        k = start + tl.arange(0, TILE_SLOTS)
        p = n * n_slots + k
        there = k < n_slots
        there = there & (tl.load(kind + p, mask=there, other=-1) == s)
        at_y = m[None, :] * n_pairs + p[:, None]
        at_r = b[None, :] * n_pairs + p[:, None]
        mask_y = there[:, None] & (m < COMPONENTS)[None, :]
        mask_r = there[:, None] & (b < RADIAL)[None, :]
        left = tl.load(y + at_y, mask=mask_y, other=0.0)
        right = tl.load(r + at_r, mask=mask_r, other=0.0)
        if DUAL:
            left2 = tl.load(y2 + at_y, mask=mask_y, other=0.0)
            right2 = tl.load(r2 + at_r, mask=mask_r, other=0.0)
            product = left2[:, :, None] * right[:, None, :] + left[:, :, None] * right2[:, None, :]
        else:
            product = left[:, :, None] * right[:, None, :]
        total += tl.sum(product, axis=0)
    at = ((m * n_nodes + n)[:, None] * SPECIES + s) * RADIAL + b[None, :]
    tl.store(out + at, total, mask=(m < COMPONENTS)[:, None] & (b < RADIAL)[None, :])


@triton.jit
def _radial_pair(
    u,
    y,
    r,
    kind,
    on_y,
    on_r,
    n_slots,
    n_pairs: tl.int64,
    stride_component: tl.int64,
    stride_node: tl.int64,
    COMPONENTS: tl.constexpr,
    RADIAL: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
    TILE_COMPONENTS: tl.constexpr,
    TILE_RADIAL: tl.constexpr,
):
    """One program a node and tile of its slots."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE_SLOTS + tl.arange(0, TILE_SLOTS)
    m = tl.arange(0, TILE_COMPONENTS)
    b = tl.arange(0, TILE_RADIAL)
    there = k < n_slots
    p = n * n_slots + k
    s = tl.load(kind + p, mask=there, other=-1)
    at_y = m[None, :] * n_pairs + p[:, None]
    at_r = b[None, :] * n_pairs + p[:, None]
    mask_y = there[:, None] & (m < COMPONENTS)[None, :]
    mask_r = there[:, None] & (b < RADIAL)[None, :]
    mask = mask_y[:, :, None] & mask_r[:, None, :] & (s >= 0)[:, None, None]
    row = (m * stride_component + n * stride_node)[None, :, None]
    column = s[:, None, None] * RADIAL + b[None, None, :]
    center = tl.load(u + row + column, mask=mask, other=0.0)
    left = tl.load(y + at_y, mask=mask_y, other=0.0)
    right = tl.load(r + at_r, mask=mask_r, other=0.0)
    tl.store(on_y + at_y, tl.sum(center * right[:, None, :], axis=2), mask=mask_y)
    tl.store(on_r + at_r, tl.sum(center * left[:, :, None], axis=1), mask=mask_r)


@operation
def radial_center(
    y: Tensor,
    r: Tensor,
    y2: Tensor | None,
    r2: Tensor | None,
    kind: Tensor,
    n_nodes: int,
    n_species: int,
) -> Tensor:
    """sum_k Y[m,p] R[b,p] delta(s, s_j) (M, N, S B), or with `y2` and `r2` of Y2 R + Y R2; y (M, P) and r (B,
    P) contiguous, kind (P,) the row of the species of every neighbour, -1 for none."""
    (m, p), b = y.shape, r.shape[0]
    out, tiles = y.new_empty(m, n_nodes, n_species * b), (power(m), power(b))
    slots = blocks(p // n_nodes, row=tiles[0] * tiles[1], tile=2 * TILE)
    launch(
        _radial_center,
        (n_nodes, n_species),
        *(y, r, y if y2 is None else y2, r if r2 is None else r2, kind, out, n_nodes, p // n_nodes, p),
        SPECIES=n_species,
        COMPONENTS=m,
        RADIAL=b,
        DUAL=y2 is not None,
        TILE_SLOTS=slots,
        TILE_COMPONENTS=tiles[0],
        TILE_RADIAL=tiles[1],
        tile=slots * tiles[0] * tiles[1],
    )
    return out


@operation
def radial_pair(u: Tensor, y: Tensor, r: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """sum_b R[b,p] U[m,i,(s_j,b)] (M, P) and sum_m Y[m,p] U[m,i,(s_j,b)] (B, P); u (M, N, S B) with
    contiguous rows."""
    (m, p), b, n = y.shape, r.shape[0], u.shape[1]
    on_y, on_r, tiles = torch.empty_like(y), torch.empty_like(r), (power(m), power(b))
    slots = blocks(p // n, row=tiles[0] * tiles[1], tile=2 * TILE)
    launch(
        _radial_pair,
        (n, triton.cdiv(p // n, slots)),
        *(u, y, r, kind, on_y, on_r, p // n, p, u.stride(0), u.stride(1)),
        COMPONENTS=m,
        RADIAL=b,
        TILE_SLOTS=slots,
        TILE_COMPONENTS=tiles[0],
        TILE_RADIAL=tiles[1],
        tile=slots * tiles[0] * tiles[1],
    )
    return on_y, on_r
