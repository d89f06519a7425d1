"""The operations of GEAT's Triton form, interpreted on the CPU: values of their definitions in PyTorch, first
and second derivatives of central differences."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sapis_lab.geometry.couplings import degree_of_component, quadrature
from sapis_lab.graphs import PairGraph

H, WIDTH, LMAX, B, S = 3, 1, 1, 3, 2
"""Heads, channels of each, largest degree, radial functions and species; neither heads, channels nor radial
functions fill a tile."""
M, L, C = (LMAX + 1) ** 2, LMAX + 1, H * WIDTH


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def graph(layout: str) -> PairGraph:
    """Two molecules of two atoms, or three atoms in a table whose first holds itself in two slots."""
    if layout == "block":
        return PairGraph((2, 2), None, None, None, None, torch.arange(2).repeat_interleave(2), 2, 4.0)
    neighbor = torch.tensor([[0, 2, 0], [1, 0, 2], [2, 0, 0]])
    return PairGraph(None, None, neighbor, neighbor >= 0, None, torch.zeros(3, dtype=torch.int64), 1, 4.0)


Case = tuple[Callable[..., Any], tuple[Tensor, ...], Callable[..., Any]]
"""A form, its arguments, and its definition."""


def cases(layout: str) -> dict[str, Case]:
    from sapis_lab.kernels import _triton_forms as forms

    g = graph(layout)
    at, n, p = forms.neighbors(g), g.n_nodes, g.n_pairs
    center, slots = torch.arange(n).repeat_interleave(g.dims[2]), g.dims[2]
    degree, head = degree_of_component(LMAX), torch.arange(C) // WIDTH
    w, w2, u, v = (
        random(L, H, p, seed=1),
        random(L, H, p, seed=2),
        random(M, n, C, seed=3),
        random(M, n, C, seed=4),
    )
    y, y2, x, r = random(M, p, seed=5), random(M, p, seed=6), random(n, C, seed=7), random(B, p, seed=8)
    r2, edge, log_f = random(B, p, seed=9), random(H * (L + 2), p, seed=10), random(n, slots, seed=11)
    on_y, on_x = random(L, H, p, seed=12), random(H, p, seed=13)
    z, a, b = random(5, 3, seed=14), random(M, n, C, seed=15), random(M, n, C, seed=16)
    kind, kappa, grid = (
        torch.arange(p) % (S + 1) - 1,
        torch.tensor(0.3, dtype=torch.float64),
        quadrature(LMAX),
    )

    def harmonic(w: Tensor, y: Tensor, u: Tensor, x: Tensor) -> Tensor:
        """The form, (M, P, C)."""
        return w[degree][:, head].transpose(1, 2) * y.unsqueeze(-1) * u[:, center] * x[at.of_slot]

    def per_head(t: Tensor) -> Tensor:  # (..., C) -> (..., H)
        return t.view(*t.shape[:-1], H, WIDTH).sum(-1)

    def per_node(t: Tensor, of_slot: Tensor) -> Tensor:  # (M, P, C) -> (M, N, C)
        return t.new_zeros(t.shape[0], n, t.shape[2]).index_add(1, of_slot, t)

    one, ones = torch.ones_like(x), torch.ones_like(u)

    def harmonic_pair(u: Tensor, w: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        on_w = per_head(harmonic(torch.ones_like(w), y, u, x)).transpose(1, 2)
        return on_w.new_zeros(L, H, p).index_add(0, degree, on_w), harmonic(w, torch.ones_like(y), u, x).sum(
            -1
        )

    def radial(y: Tensor, r: Tensor) -> Tensor:
        of_kind = (kind.unsqueeze(1) == torch.arange(S)).double()
        every = torch.einsum("mp,bp,ps->mpsb", y, r, of_kind).reshape(M, p, S * B)
        return per_node(every, center)

    def attention(edge: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.softmax(edge[:H].view(H, n, slots) + log_f, -1).view(H, p)
        filters = edge[H:].view(L + 1, H, p) * weight
        return filters[:L], filters[L]

    def hidden(z: Tensor) -> Tensor:
        s = torch.nn.functional.silu(z)
        return s / torch.sqrt(1 + kappa * s[:4].square().sum(0))

    return {
        "harmonic sum": (
            lambda w, y, x: forms.harmonic_sum(w, y, x, at),
            (w, y, x),
            lambda w, y, x: per_node(harmonic(w, y, ones, x), center),
        ),
        "along two directions": (
            lambda *t: forms._HarmonicCenter.apply(*t, at),
            (w, y, w2, y2, x),
            lambda w, y, w2, y2, x: per_node(harmonic(w2, y, ones, x) + harmonic(w, y2, ones, x), center),
        ),
        "harmonic to neighbours": (
            lambda u, w, y: forms._HarmonicNeighbor.apply(u, w, y, None, None, at),
            (u, w, y),
            lambda u, w, y: per_node(harmonic(w, y, u, one), at.of_slot).sum(0),
        ),
        "to neighbours along two directions": (
            lambda *t: forms._HarmonicNeighbor.apply(*t, at),
            (u, w, y, w2, y2),
            lambda u, w, y, w2, y2: per_node(
                harmonic(w2, y, u, one) + harmonic(w, y2, u, one), at.of_slot
            ).sum(0),
        ),
        "harmonic to pairs": (lambda *t: forms._HarmonicPair.apply(*t, at), (u, w, y, x), harmonic_pair),
        "weighted sum": (
            lambda w, v: forms.weighted_sum(w, v, at),
            (on_x, v),
            lambda w, v: per_node(w[head].T * v[:, at.of_slot], center),
        ),
        "weighted to neighbours": (
            lambda u, w: forms._WeightedNeighbor.apply(u, w, at),
            (u, on_x),
            lambda u, w: per_node(w[head].T * u[:, center], at.of_slot),
        ),
        "inner products": (
            lambda u, v: forms.inner_products(u, v, at, n_products=H),
            (u, v),
            lambda u, v: per_head(u[:, center] * v[:, at.of_slot]).sum(0).T,
        ),
        "radial sum": (
            lambda y, r: forms.radial_sum(y, r, kind, n_nodes=n, n_species=S),
            (y, r),
            radial,
        ),
        "radial along two directions": (
            lambda *t: forms._RadialCenter.apply(*t, kind, n, S),
            (y, r, y2, r2),
            lambda y, r, y2, r2: radial(y2, r) + radial(y, r2),
        ),
        "radial to pairs": (
            lambda u, y, r: forms._RadialPair.apply(u, y, r, kind),
            (random(M, n, S * B, seed=17), y, r),
            lambda u, y, r: torch.autograd.functional.vjp(radial, (y, r), u)[1],
        ),
        "attention": (lambda e, f: forms.attention(e, f, degrees=L), (edge, log_f), attention),
        "attention, first derivative": (
            lambda *t: forms._AttentionFirst.apply(*t),
            (edge, log_f, on_y, on_x),
            lambda *t: torch.autograd.functional.vjp(attention, t[:2], t[2:])[1],
        ),
        "hidden layer": (lambda z: forms.hidden(z, kappa, born=4), (z,), hidden),
        "Gaunt product": (
            lambda a, b: forms.gaunt(a, b, grid),
            (a, b),
            lambda a, b: torch.einsum(
                "mg,gnc->mnc",
                grid[1],
                torch.einsum("gm,mnc->gnc", grid[0], a) * torch.einsum("gm,mnc->gnc", grid[0], b),
            ),
        ),
    }


NAMES = (
    "harmonic sum",
    "along two directions",
    "harmonic to neighbours",
    "to neighbours along two directions",
    "harmonic to pairs",
    "weighted sum",
    "weighted to neighbours",
    "inner products",
    "radial sum",
    "radial along two directions",
    "radial to pairs",
    "attention",
    "attention, first derivative",
    "hidden layer",
    "Gaunt product",
)
ONCE = ("attention, first derivative",)
"""Those that can be differentiated once only."""


def worst(name: str, layout: str) -> float:
    """Largest difference to the definition."""
    form, arguments, definition = cases(layout)[name]
    found, wanted = form(*arguments), definition(*arguments)
    pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def derivatives(name: str, layout: str) -> tuple[bool, bool]:
    """Whether the first and the second are those of central differences, along random directions."""
    form, arguments, _ = cases(layout)[name]
    twice = name in ONCE or gradgradcheck(form, arguments, fast_mode=True)
    return gradcheck(form, arguments, fast_mode=True), twice


def strided() -> bool:
    """Whether arguments that are no contiguous tensors give what their copies give."""
    from sapis_lab.kernels import _triton_forms as forms

    at = forms.neighbors(graph("table"))
    both, w = random(M, 3, 2 * C, seed=20), random(9, H, seed=21).T
    u, v = both.split(C, -1)
    inner = (
        forms.inner_products(u, v, at, n_products=H),
        forms.inner_products(u.contiguous(), v.contiguous(), at, n_products=H),
    )
    sums = forms.weighted_sum(w, v, at), forms.weighted_sum(w.contiguous(), v.contiguous(), at)
    grid = quadrature(LMAX)
    products = forms.gaunt(u, v, grid), forms.gaunt(u.contiguous(), v.contiguous(), grid)
    return all(torch.equal(a, b) for a, b in (inner, sums, products))


@pytest.mark.parametrize("layout", ["block", "table"])
@pytest.mark.parametrize("name", NAMES)
def test_a_form_is_its_definition(interpreter: ProcessPoolExecutor, name: str, layout: str) -> None:
    assert interpreter.submit(worst, name, layout).result() < 1e-13


@pytest.mark.long
@pytest.mark.parametrize("layout", ["block", "table"])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_central_differences(
    interpreter: ProcessPoolExecutor, name: str, layout: str
) -> None:
    assert interpreter.submit(derivatives, name, layout).result() == (True, True)


def test_parts_of_larger_tensors_are_read_in_place(interpreter: ProcessPoolExecutor) -> None:
    assert interpreter.submit(strided).result()
