"""The operations of GEAT's Triton form with their derivatives, as autograd Functions.

The forms over pairs are linear in each argument: a derivative of one is another, or one along two directions
(`dual`), so that their backward passes are made of each other and can be differentiated again and again. The
Gaunt product is its own derivative: sum_g weight_g (T u)_g (T a)_g (T b)_g is symmetric in u, a and b. The
softmax and the hidden layer have their second derivatives written down; a third is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sapis_lab.graphs import PairGraph
from sapis_lab.kernels import _triton_edges as edges
from sapis_lab.kernels import _triton_nodes as nodes
from sapis_lab.kernels import _triton_pairs as pairs

# Shape legend as in _triton_pairs.

Gradients = tuple[Tensor | None, ...]


class Neighbors(NamedTuple):
    """Which node every slot holds, and where every node is held."""

    of_slot: Tensor
    """(P,) int64"""
    incoming: Tensor
    """(P,) int64, the slots sorted by what they hold"""
    starts: Tensor
    """(N + 1,) int64, where those of every node begin"""


def neighbors(graph: PairGraph) -> Neighbors:
    """Of a graph in either layout; shapes and cost depend on its sizes alone, and nothing is read back."""
    (g, i, k), device = graph.dims, graph.frame.device
    nodes_ = torch.arange(g * i + 1, device=device)
    if graph.block is not None:
        of_slot = nodes_[:-1].view(g, 1, k).expand(g, i, k).reshape(-1)
        slots = torch.arange(g * i * k, device=device).view(g, i, k)
        return Neighbors(of_slot, slots.transpose(1, 2).reshape(-1), nodes_ * i)
    assert graph.neighbor is not None
    of_slot = graph.neighbor.reshape(-1).contiguous()
    held, incoming = torch.sort(of_slot, stable=True)
    return Neighbors(of_slot, incoming, torch.searchsorted(held, nodes_))


def _rows(t: Tensor) -> Tensor:
    """With contiguous rows, as node arrays are read."""
    return t if t.stride(-1) == 1 else t.contiguous()


# ------------------------------------------------------------------------------------------------ over pairs


class _HarmonicCenter(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, w: Tensor, y: Tensor, w2: Tensor | None, y2: Tensor | None, x: Tensor, at: Neighbors
    ) -> Tensor:
        ctx.save_for_backward(w, y, w2, y2, x)
        ctx.at = at
        found: Tensor = pairs.harmonic_center(*_contiguous(w, y, w2, y2), _rows(x), at.of_slot)
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Gradients:  # type: ignore[override]
        w, y, w2, y2, x = ctx.saved_tensors
        on_x = _HarmonicNeighbor.apply(u, w, y, w2, y2, ctx.at) if ctx.needs_input_grad[4] else None
        return *_on_pairs(u, w, y, w2, y2, x, ctx.at), on_x, None


class _HarmonicNeighbor(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, u: Tensor, w: Tensor, y: Tensor, w2: Tensor | None, y2: Tensor | None, at: Neighbors
    ) -> Tensor:
        ctx.save_for_backward(u, w, y, w2, y2)
        ctx.at = at
        found: Tensor = pairs.harmonic_neighbor(_rows(u), *_contiguous(w, y, w2, y2), at.incoming, at.starts)
        return found

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Gradients:  # type: ignore[override]
        u, w, y, w2, y2 = ctx.saved_tensors
        on_u = _HarmonicCenter.apply(w, y, w2, y2, x, ctx.at) if ctx.needs_input_grad[0] else None
        return on_u, *_on_pairs(u, w, y, w2, y2, x, ctx.at), None


class _HarmonicPair(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, u: Tensor, w: Tensor, y: Tensor, x: Tensor, at: Neighbors
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(u, w, y, x)
        ctx.at = at
        found: tuple[Tensor, Tensor] = pairs.harmonic_pair(_rows(u), *_contiguous(w, y), _rows(x), at.of_slot)
        return found

    @staticmethod
    def backward(ctx: Any, along_w: Tensor, along_y: Tensor) -> Gradients:  # type: ignore[override]
        u, w, y, x = ctx.saved_tensors
        needs, dual = ctx.needs_input_grad, (w, y, along_w, along_y)
        on_u = _HarmonicCenter.apply(*dual, x, ctx.at) if needs[0] else None
        on_w, on_y = (
            _HarmonicPair.apply(u, along_w, along_y, x, ctx.at) if needs[1] or needs[2] else (None, None)
        )
        on_x = _HarmonicNeighbor.apply(u, *dual, ctx.at) if needs[3] else None
        return on_u, on_w, on_y, on_x, None


def _on_pairs(
    u: Tensor, w: Tensor, y: Tensor, w2: Tensor | None, y2: Tensor | None, x: Tensor, at: Neighbors
) -> Gradients:
    """Derivatives of the form, or of that along two directions w2 Y + w Y2, in w, y, w2 and y2."""
    if w2 is None or y2 is None:
        return *_HarmonicPair.apply(u, w, y, x, at), None, None
    on_w2, on_y = _HarmonicPair.apply(u, w2, y, x, at)
    on_w, on_y2 = _HarmonicPair.apply(u, w, y2, x, at)
    return on_w, on_y, on_w2, on_y2


def _contiguous(*some: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if t is None else t.contiguous() for t in some)


class _WeightedCenter(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, v: Tensor, at: Neighbors) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(w, v)
        ctx.at = at
        found: Tensor = pairs.weighted_center(w.contiguous(), _rows(v), at.of_slot)
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Gradients:  # type: ignore[override]
        (w, v), needs = ctx.saved_tensors, ctx.needs_input_grad
        on_w = _WeightedPair.apply(u, v, ctx.at, w.shape[0]) if needs[0] else None
        return on_w, _WeightedNeighbor.apply(u, w, ctx.at) if needs[1] else None, None


class _WeightedNeighbor(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, w: Tensor, at: Neighbors) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(u, w)
        ctx.at = at
        found: Tensor = pairs.weighted_neighbor(_rows(u), w.contiguous(), at.incoming, at.starts)
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Gradients:  # type: ignore[override]
        (u, w), needs = ctx.saved_tensors, ctx.needs_input_grad
        on_u = _WeightedCenter.apply(w, v, ctx.at) if needs[0] else None
        return on_u, _WeightedPair.apply(u, v, ctx.at, w.shape[0]) if needs[1] else None, None


class _WeightedPair(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, at: Neighbors, heads: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(u, v)
        ctx.at = at
        found: Tensor = pairs.weighted_pair(_rows(u), _rows(v), at.of_slot, heads)
        return found

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Gradients:  # type: ignore[override]
        (u, v), needs = ctx.saved_tensors, ctx.needs_input_grad
        on_u = _WeightedCenter.apply(w, v, ctx.at) if needs[0] else None
        return on_u, _WeightedNeighbor.apply(u, w, ctx.at) if needs[1] else None, None, None


class _RadialCenter(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        y: Tensor,
        r: Tensor,
        y2: Tensor | None,
        r2: Tensor | None,
        kind: Tensor,
        n_nodes: int,
        n_species: int,
    ) -> Tensor:
        ctx.save_for_backward(y, r, y2, r2)
        ctx.kind = kind
        found: Tensor = pairs.radial_center(*_contiguous(y, r, y2, r2), kind, n_nodes, n_species)
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Gradients:  # type: ignore[override]
        y, r, y2, r2 = ctx.saved_tensors
        if y2 is None:
            return *_RadialPair.apply(u, y, r, ctx.kind), *(None,) * 5
        on_y2, on_r = _RadialPair.apply(u, y2, r, ctx.kind)
        on_y, on_r2 = _RadialPair.apply(u, y, r2, ctx.kind)
        return on_y, on_r, on_y2, on_r2, *(None,) * 3


class _RadialPair(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, u: Tensor, y: Tensor, r: Tensor, kind: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(u, y, r)
        ctx.kind = kind
        found: tuple[Tensor, Tensor] = pairs.radial_pair(_rows(u), *_contiguous(y, r), kind)
        return found

    @staticmethod
    def backward(ctx: Any, along_y: Tensor, along_r: Tensor) -> Gradients:  # type: ignore[override]
        (u, y, r), needs = ctx.saved_tensors, ctx.needs_input_grad
        sizes = u.shape[1], u.shape[2] // r.shape[0]
        on_u = _RadialCenter.apply(y, r, along_y, along_r, ctx.kind, *sizes) if needs[0] else None
        on_y, on_r = _RadialPair.apply(u, along_y, along_r, ctx.kind) if any(needs[1:]) else (None, None)
        return on_u, on_y, on_r, None


def harmonic_sum(w: Tensor, y: Tensor, x: Tensor, at: Neighbors) -> Tensor:
    """sum_k w[l,h,p] Y[m,p] X[j,c], (M, N, C).

    Args:
        w: (L, H, P), per degree and head.   y: (M, P).   x: (N, C).
    """
    found: Tensor = _HarmonicCenter.apply(w, y, None, None, x, at)
    return found


def weighted_sum(w: Tensor, v: Tensor, at: Neighbors) -> Tensor:
    """sum_k w[h,p] V[m,j,c], (M, N, C); w (H, P), v (M, N, C)."""
    found: Tensor = _WeightedCenter.apply(w, v, at)
    return found


def inner_products(u: Tensor, v: Tensor, at: Neighbors, *, n_products: int) -> Tensor:
    """sum_mc U[m,i,c] V[m,j,c] over every of `n_products` equal parts of the channels, (n_products, P)."""
    found: Tensor = _WeightedPair.apply(u, v, at, n_products)
    return found


def radial_sum(y: Tensor, r: Tensor, kind: Tensor, *, n_nodes: int, n_species: int) -> Tensor:
    """sum_k Y[m,p] R[b,p] delta(s, s_j), (M, N, S B).

    Args:
        y: (M, P).   r: (B, P).   kind: (P,), s_j, or -1 for a neighbour that is none.
    """
    found: Tensor = _RadialCenter.apply(y, r, None, None, kind, n_nodes, n_species)
    return found


# ---------------------------------------------------------------------------------------------- within pairs


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, edge: Tensor, log_f: Tensor, degrees: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(edge, log_f)
        found: tuple[Tensor, Tensor] = edges.attention(*_contiguous(edge, log_f), degrees)
        return found

    @staticmethod
    def backward(ctx: Any, on_y: Tensor, on_x: Tensor) -> Gradients:  # type: ignore[override]
        return *_AttentionFirst.apply(*ctx.saved_tensors, on_y, on_x), None


class _AttentionFirst(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, edge: Tensor, log_f: Tensor, on_y: Tensor, on_x: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(edge, log_f, on_y, on_x)
        found: tuple[Tensor, Tensor] = edges.attention_first(*_contiguous(edge, log_f, on_y, on_x))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_edge: Tensor, to_log_f: Tensor) -> Gradients:
        found: Gradients = edges.attention_second(*_contiguous(*ctx.saved_tensors, to_edge, to_log_f))
        return found


class _Hidden(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, kappa: Tensor, born: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(z)
        ctx.kappa, ctx.born = kappa, born
        found: Tensor = edges.hidden(z.contiguous(), kappa, born)
        return found

    @staticmethod
    def backward(ctx: Any, on_out: Tensor) -> Gradients:  # type: ignore[override]
        return _HiddenFirst.apply(*ctx.saved_tensors, on_out, ctx.kappa, ctx.born), None, None


class _HiddenFirst(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, on_out: Tensor, kappa: Tensor, born: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(z, on_out)
        ctx.kappa, ctx.born = kappa, born
        found: Tensor = edges.hidden_first(*_contiguous(z, on_out), kappa, born)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_z: Tensor) -> Gradients:
        found = edges.hidden_second(*_contiguous(*ctx.saved_tensors, to_z), ctx.kappa, ctx.born)
        return *found, None, None


def attention(edge: Tensor, log_f: Tensor, *, degrees: int) -> tuple[Tensor, Tensor]:
    """a phi_d, with a = softmax_k(e + log f): weights of the harmonics (L, H, P) and of the values (H, P).

    Args:
        edge: (H (L + 2), P), the logits e of the heads, then their filters phi of every degree, and the last
        ones.   log_f: (N, K).
    """
    found: tuple[Tensor, Tensor] = _Attention.apply(edge, log_f, degrees)
    return found


def hidden(z: Tensor, kappa: Tensor, *, born: int) -> Tensor:
    """silu(z) / sqrt(1 + kappa sum_born silu(z)^2), (units, P); kappa ()."""
    found: Tensor = _Hidden.apply(z, kappa, born)
    return found


# -------------------------------------------------------------------------------------------------- of atoms


class _Gaunt(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, grid: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(a, b)
        ctx.grid = grid
        found: Tensor = nodes.gaunt(_rows(a), _rows(b), *grid)
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Gradients:  # type: ignore[override]
        (a, b), needs = ctx.saved_tensors, ctx.needs_input_grad
        on_a = _Gaunt.apply(u, b, ctx.grid) if needs[0] else None
        return on_a, _Gaunt.apply(u, a, ctx.grid) if needs[1] else None, None


def gaunt(a: Tensor, b: Tensor, grid: tuple[Tensor, Tensor]) -> Tensor:
    """from_grid ((to_grid a) (to_grid b)), (M, N, C); grid: to_grid (G, M) and from_grid (M, G)."""
    found: Tensor = _Gaunt.apply(a, b, grid)
    return found
