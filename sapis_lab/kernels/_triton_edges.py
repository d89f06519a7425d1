"""The envelope softmax with the filters that it weighs, and the hidden layer of the edge network, as Triton
kernels: each with its first and second derivative, as operations of PyTorch's dispatcher.

With logits e and filters phi of the edge network, envelope f and cotangents in round brackets:

    attention   a = softmax_k(e + log f),      w_d = phi_d a
    first       d = sum_d (w_d) phi_d,         (phi_d) = (w_d) a,      (e) = a (d - <a, d>)
    second      along b of (e) and a_d of (phi_d), with b' = b - <a, b>:
                (w_d) -> a (a_d + b' phi_d),   phi_d -> a b' (w_d),
                e -> a (q - <a, q>),   q = sum_d a_d (w_d) + b d - b <a, d> - d <a, b>;

log f adds to e, and its derivatives are those of e summed over the heads.

    hidden      s = silu(z),   y = r s,        r = (1 + kappa sum_born s^2)^(-1/2)
    first       t = r (y) - kappa r^3 q s,     q = sum (y) s,          (z) = s' t
    second      along c, with d = c s', D = sum_born d s, E = sum d (y):
                (y) -> r d - kappa r^3 D s,
                z -> s'' c t - s' kappa r^3 [ s E + (y) D + q d - 3 kappa r^2 q D s ];

in t and z, what comes from the norm is there for units of the birth only, except for (y) D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sapis_lab.kernels._triton_launch import blocks, launch, operation, power

# Shape legend as in _triton_pairs; D filters of a head, L for the harmonics and a last one.

TILE = 1024
"""Entries of a tile of hidden units and pairs."""


# ------------------------------------------------------------------------------------------------- attention


@triton.jit
def _softmax(e, there):
    """Over the slots that are there."""
    shifted = tl.where(there, e, float("-inf"))
    weight = tl.exp(shifted - tl.max(shifted, axis=0))
    return weight / tl.sum(weight, axis=0)


@triton.jit
def _attention(
    edge,
    log_f,
    on_y,
    on_x,
    n_slots,
    n_pairs: tl.int64,
    HEADS: tl.constexpr,
    DEGREES: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
):
    """One program a node and head."""
    n = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    k = tl.arange(0, TILE_SLOTS)
    there = k < n_slots
    p = n * n_slots + k
    logit = tl.load(edge + h * n_pairs + p, mask=there, other=0.0)
    a = _softmax(logit + tl.load(log_f + p, mask=there, other=0.0), there)
    for d in tl.static_range(DEGREES):
        phi = tl.load(edge + ((d + 1) * HEADS + h) * n_pairs + p, mask=there, other=0.0)
        tl.store(on_y + (d * HEADS + h) * n_pairs + p, phi * a, mask=there)
    phi = tl.load(edge + ((DEGREES + 1) * HEADS + h) * n_pairs + p, mask=there, other=0.0)
    tl.store(on_x + h * n_pairs + p, phi * a, mask=there)


@triton.jit
def _attention_first(
    edge,
    log_f,
    on_y,
    on_x,
    on_edge,
    on_log_f,
    n_slots,
    n_pairs: tl.int64,
    HEADS: tl.constexpr,
    DEGREES: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
):
    """One program a node."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, TILE_SLOTS)
    there = k < n_slots
    p = n * n_slots + k
    envelope = tl.load(log_f + p, mask=there, other=0.0)
    over_heads = tl.zeros([TILE_SLOTS], on_log_f.dtype.element_ty)
    for h in range(HEADS):
        a = _softmax(tl.load(edge + h * n_pairs + p, mask=there, other=0.0) + envelope, there)
        slope = tl.zeros([TILE_SLOTS], on_log_f.dtype.element_ty)
        for d in tl.static_range(DEGREES + 1):
            at = ((d + 1) * HEADS + h) * n_pairs + p
            if d < DEGREES:
                along = tl.load(on_y + (d * HEADS + h) * n_pairs + p, mask=there, other=0.0)
            else:
                along = tl.load(on_x + h * n_pairs + p, mask=there, other=0.0)
            slope += along * tl.load(edge + at, mask=there, other=0.0)
            tl.store(on_edge + at, along * a, mask=there)
        on_logit = a * (slope - tl.sum(a * slope, axis=0))
        tl.store(on_edge + h * n_pairs + p, on_logit, mask=there)
        over_heads += on_logit
    tl.store(on_log_f + p, over_heads, mask=there)


@triton.jit
def _attention_second(
    edge,
    log_f,
    on_y,
    on_x,
    to_edge,
    to_log_f,
    out_y,
    out_x,
    out_edge,
    out_log_f,
    n_slots,
    n_pairs: tl.int64,
    HEADS: tl.constexpr,
    DEGREES: tl.constexpr,
    TILE_SLOTS: tl.constexpr,
):
    """One program a node; `on_` are the cotangents of the first derivative, `to_` those of its results."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, TILE_SLOTS)
    there = k < n_slots
    p = n * n_slots + k
    envelope = tl.load(log_f + p, mask=there, other=0.0)
    shared = tl.load(to_log_f + p, mask=there, other=0.0)
    over_heads = tl.zeros([TILE_SLOTS], out_log_f.dtype.element_ty)
    for h in range(HEADS):
        a = _softmax(tl.load(edge + h * n_pairs + p, mask=there, other=0.0) + envelope, there)
        b = tl.load(to_edge + h * n_pairs + p, mask=there, other=0.0) + shared
        mean_b = tl.sum(a * b, axis=0)
        slope = tl.zeros([TILE_SLOTS], out_log_f.dtype.element_ty)
        q = tl.zeros([TILE_SLOTS], out_log_f.dtype.element_ty)
        for d in tl.static_range(DEGREES + 1):
            at = ((d + 1) * HEADS + h) * n_pairs + p
            phi = tl.load(edge + at, mask=there, other=0.0)
            along = tl.load(to_edge + at, mask=there, other=0.0)
            result = a * (along + (b - mean_b) * phi)
            if d < DEGREES:
                weight = tl.load(on_y + (d * HEADS + h) * n_pairs + p, mask=there, other=0.0)
                tl.store(out_y + (d * HEADS + h) * n_pairs + p, result, mask=there)
            else:
                weight = tl.load(on_x + h * n_pairs + p, mask=there, other=0.0)
                tl.store(out_x + h * n_pairs + p, result, mask=there)
            tl.store(out_edge + at, a * (b - mean_b) * weight, mask=there)
            slope += weight * phi
            q += along * weight
        q += b * slope - b * tl.sum(a * slope, axis=0) - slope * mean_b
        on_logit = a * (q - tl.sum(a * q, axis=0))
        tl.store(out_edge + h * n_pairs + p, on_logit, mask=there)
        over_heads += on_logit
    tl.store(out_log_f + p, over_heads, mask=there)


@operation
def attention(edge: Tensor, log_f: Tensor, degrees: int) -> tuple[Tensor, Tensor]:
    """Weights of the filters of the harmonics (L, H, P) and of the last filter (H, P).

    edge (H (L + 2), P) contiguous: the logits of the heads, their filters of every degree, the last ones;
    log_f (N, K).
    """
    (n, slots), p, heads = log_f.shape, edge.shape[1], edge.shape[0] // (degrees + 2)
    on_y, on_x, tile = edge.new_empty(degrees, heads, p), edge.new_empty(heads, p), power(slots)
    launch(
        _attention,
        (n, heads),
        *(edge, log_f, on_y, on_x, slots, p),
        HEADS=heads,
        DEGREES=degrees,
        TILE_SLOTS=tile,
        tile=tile,
    )
    return on_y, on_x


@operation
def attention_first(edge: Tensor, log_f: Tensor, on_y: Tensor, on_x: Tensor) -> tuple[Tensor, Tensor]:
    """Along the cotangents of both weights, of the edge network (H (L + 2), P) and of log f; log_f (N, K)."""
    (n, slots), (degrees, heads, p), tile = log_f.shape, on_y.shape, power(log_f.shape[1])
    on_edge, on_log_f = torch.empty_like(edge), torch.empty_like(log_f)
    launch(
        _attention_first,
        (n,),
        *(edge, log_f, on_y, on_x, on_edge, on_log_f, slots, p),
        HEADS=heads,
        DEGREES=degrees,
        TILE_SLOTS=tile,
        tile=tile,
    )
    return on_edge, on_log_f


@operation
def attention_second(
    edge: Tensor, log_f: Tensor, on_y: Tensor, on_x: Tensor, to_edge: Tensor, to_log_f: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along the cotangents of both results of `attention_first`, of its four arguments in the order edge,
    log_f, on_y, on_x."""
    (n, slots), (degrees, heads, p), tile = log_f.shape, on_y.shape, power(log_f.shape[1])
    out = [torch.empty_like(t) for t in (on_y, on_x, edge, log_f)]
    launch(
        _attention_second,
        (n,),
        *(edge, log_f, on_y, on_x, to_edge, to_log_f, *out, slots, p),
        HEADS=heads,
        DEGREES=degrees,
        TILE_SLOTS=tile,
        tile=tile,
    )
    return out[2], out[3], out[0], out[1]


# ---------------------------------------------------------------------------------------------- hidden layer


@triton.jit
def _hidden(
    z,
    kappa,
    out,
    n_pairs: tl.int64,
    UNITS: tl.constexpr,
    BORN: tl.constexpr,
    TILE_UNITS: tl.constexpr,
    TILE_PAIRS: tl.constexpr,
):
    """One program a tile of pairs."""
    p = tl.program_id(0).to(tl.int64) * TILE_PAIRS + tl.arange(0, TILE_PAIRS)
    unit = tl.arange(0, TILE_UNITS)
    at = unit[:, None] * n_pairs + p[None, :]
    mask = (unit < UNITS)[:, None] & (p < n_pairs)[None, :]
    x = tl.load(z + at, mask=mask, other=0.0)
    s = x / (1.0 + tl.exp(-x))
    born = tl.where((unit < BORN)[:, None], s, 0.0)
    r = tl.rsqrt(1.0 + tl.load(kappa) * tl.sum(born * born, axis=0))
    tl.store(out + at, s * r[None, :], mask=mask)


@triton.jit
def _hidden_first(
    z,
    on_out,
    kappa,
    on_z,
    n_pairs: tl.int64,
    UNITS: tl.constexpr,
    BORN: tl.constexpr,
    TILE_UNITS: tl.constexpr,
    TILE_PAIRS: tl.constexpr,
):
    """One program a tile of pairs."""
    p = tl.program_id(0).to(tl.int64) * TILE_PAIRS + tl.arange(0, TILE_PAIRS)
    unit = tl.arange(0, TILE_UNITS)
    at = unit[:, None] * n_pairs + p[None, :]
    mask = (unit < UNITS)[:, None] & (p < n_pairs)[None, :]
    x = tl.load(z + at, mask=mask, other=0.0)
    g = tl.load(on_out + at, mask=mask, other=0.0)
    strength = tl.load(kappa)
    sigma = 1.0 / (1.0 + tl.exp(-x))
    s = x * sigma
    born = tl.where((unit < BORN)[:, None], s, 0.0)
    r = tl.rsqrt(1.0 + strength * tl.sum(born * born, axis=0))
    q = strength * r * r * r * tl.sum(g * s, axis=0)
    slope = sigma * (1.0 + x * (1.0 - sigma))
    tl.store(on_z + at, slope * (g * r[None, :] - born * q[None, :]), mask=mask)


@triton.jit
def _hidden_second(
    z,
    on_out,
    to_z,
    kappa,
    out_z,
    out_on,
    n_pairs: tl.int64,
    UNITS: tl.constexpr,
    BORN: tl.constexpr,
    TILE_UNITS: tl.constexpr,
    TILE_PAIRS: tl.constexpr,
):
    """One program a tile of pairs; `to_z` is the cotangent of the result of the first derivative."""
    p = tl.program_id(0).to(tl.int64) * TILE_PAIRS + tl.arange(0, TILE_PAIRS)
    unit = tl.arange(0, TILE_UNITS)
    at = unit[:, None] * n_pairs + p[None, :]
    mask = (unit < UNITS)[:, None] & (p < n_pairs)[None, :]
    x = tl.load(z + at, mask=mask, other=0.0)
    g = tl.load(on_out + at, mask=mask, other=0.0)
    c = tl.load(to_z + at, mask=mask, other=0.0)
    strength = tl.load(kappa)
    sigma = 1.0 / (1.0 + tl.exp(-x))
    s = x * sigma
    is_born = (unit < BORN)[:, None]
    born = tl.where(is_born, s, 0.0)
    slope = sigma * (1.0 + x * (1.0 - sigma))
    curvature = sigma * (1.0 - sigma) * (2.0 + x * (1.0 - 2.0 * sigma))
    d = c * slope
    r = tl.rsqrt(1.0 + strength * tl.sum(born * born, axis=0))
    cubed = strength * r * r * r
    q = tl.sum(g * s, axis=0)
    along_born = tl.sum(d * born, axis=0)
    along = tl.sum(d * g, axis=0)
    t = g * r[None, :] - born * (cubed * q)[None, :]
    of_norm = born * (along - 3.0 * strength * r * r * q * along_born)[None, :]
    of_norm += g * along_born[None, :] + tl.where(is_born, d, 0.0) * q[None, :]
    tl.store(out_on + at, d * r[None, :] - s * (cubed * along_born)[None, :], mask=mask)
    tl.store(out_z + at, curvature * c * t - slope * of_norm * cubed[None, :], mask=mask)


def _sizes(z: Tensor, born: int) -> tuple[tuple[int], dict[str, int]]:
    """Grid and constants."""
    tile = power(z.shape[0])
    pairs = blocks(z.shape[1], row=tile, tile=TILE)
    constants = {"UNITS": z.shape[0], "BORN": born, "TILE_UNITS": tile, "TILE_PAIRS": pairs}
    return (triton.cdiv(z.shape[1], pairs),), {**constants, "tile": tile * pairs}


@operation
def hidden(z: Tensor, kappa: Tensor, born: int) -> Tensor:
    """silu(z) over the soft norm of its first `born` units; z (units, P) contiguous, kappa ()."""
    out, (grid, constants) = torch.empty_like(z), _sizes(z, born)
    launch(_hidden, grid, z, kappa, out, z.shape[1], **constants)
    return out


@operation
def hidden_first(z: Tensor, on_out: Tensor, kappa: Tensor, born: int) -> Tensor:
    """Along the cotangent of `hidden`, of z."""
    on_z, (grid, constants) = torch.empty_like(z), _sizes(z, born)
    launch(_hidden_first, grid, z, on_out, kappa, on_z, z.shape[1], **constants)
    return on_z


@operation
def hidden_second(z: Tensor, on_out: Tensor, to_z: Tensor, kappa: Tensor, born: int) -> tuple[Tensor, Tensor]:
    """Along the cotangent of `hidden_first`, of z and on_out."""
    out_z, out_on, (grid, constants) = torch.empty_like(z), torch.empty_like(z), _sizes(z, born)
    launch(_hidden_second, grid, z, on_out, to_z, kappa, out_z, out_on, z.shape[1], **constants)
    return out_z, out_on
