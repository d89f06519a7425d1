"""What SOAP knows of a matrix stays known when the matrix grows, block by block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sapis_lab.kernels import reference_forms
from sapis_lab.kernels.soap import STATE
from sapis_lab.soap import Soap, state_shapes
from sapis_lab.soap_growth import grown_matrices

EVERY = 4
GROWN = {
    # old shape, new shape, old positions of new rows and columns; blocks of at most 8
    "appended": ((5, 3), (7, 8), [*range(5), -1, -1], [*range(3), *[-1] * 5]),
    "a block more": ((8, 6), (16, 6), [*range(8), *[-1] * 8], list(range(6))),
    "scattered": ((4, 5), (7, 8), [0, -1, 1, 2, -1, 3, -1], [-1, 0, 1, -1, 2, 3, -1, 4]),
    "whole blocks moved": ((16, 6), (24, 7), [*range(8, 16), *[-1] * 8, *range(8)], [*range(6), -1]),
}
CUT = {
    "cut anew": ((6, 5), (10, 5), [*range(6), *[-1] * 4], list(range(5))),
    "cut and filled": ((10, 9), (17, 13), [*range(10), *[-1] * 7], [*range(9), *[-1] * 4]),
    "copied": ((4, 3), (8, 3), [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2]),
}


def weights(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)


def laid(x: Tensor, shape: tuple[int, ...], rows: list[int], columns: list[int]) -> Tensor:
    """The values of x (..., M, N) in their new places, zero elsewhere."""
    new = x.new_zeros(*x.shape[:-2], *shape[-2:])
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            if a >= 0 and b >= 0:
                new[..., i, j] = x[..., a, b]
    return new


def gradient(step: int, shape: tuple[int, ...]) -> Tensor:
    """Of directions of very different size, as those of a network are."""
    generator = torch.Generator().manual_seed(step)
    scale = torch.logspace(0, -2, shape[-1], dtype=torch.float64)
    turn = torch.linalg.qr(
        torch.randn(
            shape[-1],
            shape[-1],
            generator=torch.Generator().manual_seed(99),
            dtype=torch.float64,
        )
    )[0]
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale @ turn


def walked(p: Tensor, steps: int) -> Soap:
    optimizer = Soap([p], lr=0.01, every=EVERY, block=8)
    for step in range(steps):
        p.grad = gradient(step, tuple(p.shape))
        optimizer.step()
    return optimizer


def grown(old: Tensor, optimizer: Soap, shape: tuple[int, ...], rows: list, columns: list, scale: float):
    stack = [torch.arange(n) for n in old.shape[:-2]]
    axes = [*stack, torch.tensor(rows), torch.tensor(columns)]
    state = optimizer.state_dict()["state"][0]
    made = grown_matrices(state, shape, old_shape=old.shape, axes=axes, scale=scale, block=8)
    return {"step": state["step"].clone(), **made}


def momentum(state: dict, p: Tensor) -> Tensor:
    """Turned back, (..., M, N)."""
    optimizer = Soap([p], lr=0.01, block=8)
    optimizer.load_state_dict(
        {"state": {0: state}, "param_groups": [{**optimizer.state_dict()["param_groups"][0]}]}
    )
    stack = next(iter(optimizer._stacked()))
    held = stack.tensors
    return stack._whole(held["basis_left"] @ held["exp_avg"] @ held["basis_right"].mT, p)


@pytest.mark.parametrize("stack", [(), (3,)])
@pytest.mark.parametrize("name", GROWN)
def test_a_grown_matrix_takes_the_steps_of_the_small_one(name: str, stack: tuple[int, ...]) -> None:
    """Blocks that are not cut elsewhere: where new entries have no gradient they never move, and old ones
    move as they would have, over several changes of the bases, up to the ridge, which goes along the whole
    diagonal."""
    old_shape, new_shape, rows, columns = GROWN[name]
    small = weights(*stack, *old_shape)
    before = walked(small, 10)
    large = laid(small.detach(), new_shape, rows, columns).requires_grad_(True)
    state = grown(small, before, tuple(large.shape), rows, columns, 1.0)
    after = Soap([large], lr=0.01, every=EVERY, block=8)
    after.load_state_dict({"state": {0: state}, "param_groups": after.state_dict()["param_groups"]})
    for step in range(10, 10 + 3 * EVERY):
        small.grad = gradient(step, tuple(small.shape))
        large.grad = laid(small.grad, new_shape, rows, columns)
        before.step()
        after.step()
        torch.testing.assert_close(large, laid(small, new_shape, rows, columns), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*GROWN, *CUT])
def test_momentum_covariances_and_squares_grow_with_the_gradient(name: str) -> None:
    old_shape, new_shape, rows, columns = (GROWN | CUT)[name]
    small, scale = weights(*old_shape), 0.7
    before = walked(small, 10)
    state = grown(small, before, new_shape, rows, columns, scale)
    assert {key: tuple(state[key].shape) for key in STATE} == state_shapes(new_shape, 8)
    found = momentum(state, weights(*new_shape))
    wanted = momentum(before.state_dict()["state"][0], small)
    torch.testing.assert_close(found, scale * laid(wanted, new_shape, rows, columns))
    assert wanted.abs().max() > 0.01
    held = before.state_dict()["state"][0]
    copies = len(rows) / 4 if name == "copied" else 1
    for key in ("exp_avg_sq", "covariance_left", "covariance_right"):
        squares, were = (
            s[key].sum() if key == "exp_avg_sq" else s[key].diagonal(dim1=1, dim2=2).sum()
            for s in (state, held)
        )
        torch.testing.assert_close(squares, copies * scale**2 * were, rtol=1e-6, atol=0)
    for side in ("left", "right"):
        basis = state[f"basis_{side}"]
        torch.testing.assert_close(basis.mT @ basis, torch.eye(basis.shape[-1]).to(basis).expand_as(basis))


def test_the_matrices_of_a_stack_keep_their_state_where_they_go() -> None:
    small = weights(2, 3, 4, 5)
    held = walked(small, 10).state_dict()["state"][0]
    axes = [torch.tensor(a) for a in ([1, -1, 0], [0, -1, 2, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4])]
    state = grown_matrices(held, (3, 4, 4, 5), old_shape=(2, 3, 4, 5), axes=axes, scale=1.0, block=8)
    for key in ("exp_avg", "covariance_right"):
        old, new = held[key].unflatten(0, (2, 3)), state[key].unflatten(0, (3, 4))
        for i, a in enumerate(axes[0].tolist()):
            for j, b in enumerate(axes[1].tolist()):
                wanted = old[a, b] if min(a, b) >= 0 else torch.zeros_like(new[i, j])
                torch.testing.assert_close(new[i, j], wanted, rtol=1e-12, atol=0)


def test_a_block_that_is_cut_anew_has_the_covariance_of_its_rows() -> None:
    old_shape, new_shape, rows, columns = CUT["cut anew"]
    small = weights(*old_shape)
    before = walked(small, 10)
    held = before.state_dict()["state"][0]
    state = grown(small, before, new_shape, rows, columns, 1.0)
    whole = held["covariance_left"][0]
    torch.testing.assert_close(state["covariance_left"][0], whole[:5, :5])
    torch.testing.assert_close(state["covariance_left"][1][:1, :1], whole[5:, 5:])
    assert not state["covariance_left"][1][1:].any()
    torch.testing.assert_close(state["covariance_right"].sum(0), held["covariance_right"][0])
    turned = state["basis_left"][0].mT @ whole[:5, :5] @ state["basis_left"][0]
    torch.testing.assert_close(turned, turned.diagonal().diag())


def test_a_matrix_without_a_past_moves_once_it_has_gradients() -> None:
    """Among matrices of its shape that have one, whose count of steps it has."""
    with reference_forms():
        for past in (None, {"exp_avg": torch.ones(1, 4), "exp_avg_sq": torch.ones(1, 4)}):
            old = () if past is None else (1, 4)
            state = grown_matrices(past, (5, 4), old_shape=old, axes=(), scale=1.0, block=8)
            assert not any(state[key].any() for key in STATE if "basis" not in key)
            known, new = weights(5, 4), weights(5, 4)
            held = walked(known, 10).state_dict()["state"][0]
            optimizer = Soap([known, new], lr=0.01, every=EVERY, block=8)
            both = {0: held, 1: {"step": held["step"].clone(), **state}}
            optimizer.load_state_dict({"state": both, "param_groups": optimizer.state_dict()["param_groups"]})
            for step in range(10, 22):
                was = new.detach().clone()
                known.grad, new.grad = gradient(step, (5, 4)), gradient(-step, (5, 4))
                optimizer.step()
                assert 0 < (new - was).square().mean().sqrt() < 1.5 * 0.01
