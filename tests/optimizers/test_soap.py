"""SOAP in stacks is SOAP matrix by matrix, goes on where it was, and leaves what has no gradient alone."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from sapis_lab.config import kind_class, kinds, load
from sapis_lab.kernels import Refusal, reference_forms
from sapis_lab.kernels.soap import SoapKernel, soap_kernel
from sapis_lab.optimizers import OptimizerConfig
from sapis_lab.optimizers.soap import SoapConfig
from sapis_lab.soap import Soap, parts
from sapis_lab.training import TrainConfig

SHAPES = [(5, 3), (4, 5, 3), (2, 3, 5), (7,), (1, 4), (6, 1), (3, 3)]
SETTINGS = {"lr": 0.01, "betas": (0.9, 0.95), "every": 4, "block": 64}
COMPILER = any(map(shutil.which, ("g++", "clang++", "c++")))


@pytest.fixture(params=["PyTorch", "C++"], autouse=True)
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test holds for both forms of the step."""
    if request.param == "C++" and not COMPILER:
        pytest.skip("no C++ compiler")
    with reference_forms() if request.param == "PyTorch" else nullcontext():
        assert isinstance(soap_kernel(parameters([(2, 2)])), SoapKernel) == (request.param == "C++")
        yield request.param


def parameters(shapes: list[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(True) for s in shapes]


def loss_of(seed: int = 1) -> Callable[[list[Tensor]], Tensor]:
    """A loss whose gradients have directions of very different size in every matrix."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def loss(values: list[Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for k, p in enumerate(values):
            if k not in made:
                scale = torch.logspace(0, 2, p.shape[-1], dtype=torch.float64)
                mix = torch.randn(p.shape[-1], p.shape[-1], generator=generator, dtype=torch.float64)
                made[k] = mix * scale, torch.randn(p.shape, generator=generator, dtype=torch.float64)
            mix, target = made[k]
            total = total + ((p - target) @ mix).square().mean() + 0.1 * (p - target).pow(4).sum()
        return total

    return loss


def walk(optimizer: torch.optim.Optimizer, values: list[Tensor], steps: int) -> list[float]:
    loss, seen = loss_of(), []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        value = loss(values)
        value.backward()
        optimizer.step()
        seen.append(value.item())
    return seen


class Plain:
    """SOAP as the paper has it, for one matrix: the momentum in the space of the parameter, no stacks."""

    def __init__(self, p: Tensor, *, lr: float, betas: tuple[float, float], every: int) -> None:
        m, n = p.shape
        self.p, self.lr, self.betas, self.every, self.t = p, lr, betas, every, -1
        self.mean, self.square = p.new_zeros(m, n), p.new_zeros(m, n)
        self.left, self.right = p.new_zeros(m, m), p.new_zeros(n, n)

    @staticmethod
    def tilted(c: Tensor) -> Tensor:
        return c + 1e-6 * c.diagonal().mean() * torch.diag(1 + torch.arange(len(c)).double() / len(c))

    @torch.no_grad()
    def step(self, g: Tensor) -> None:
        b1, b2 = self.betas
        self.t += 1
        self.left.lerp_(g @ g.T, 1 - b2)
        self.right.lerp_(g.T @ g, 1 - b2)
        if self.t == 0:
            self.bases = [torch.linalg.eigh(self.tilted(c))[1].flip(-1) for c in (self.left, self.right)]
            return
        q, r = self.bases
        self.mean.lerp_(g, 1 - b1)
        turned = q.T @ g @ r
        self.square.mul_(b2).addcmul_(turned, turned, value=1 - b2)
        update = (q.T @ self.mean @ r) / (1 - b1**self.t)
        update = update / ((self.square / (1 - b2**self.t)).sqrt() + 1e-8)
        self.p.sub_(self.lr * q @ update @ r.T)
        if self.t % self.every == 0:
            for side, c in enumerate(map(self.tilted, (self.left, self.right))):
                basis = self.bases[side]
                order = ((basis.T @ c) * basis.T).sum(1).argsort(descending=True)
                self.square = self.square.index_select(side, order)
                self.bases[side] = torch.linalg.qr(c @ basis[:, order])[0]


def test_a_stack_is_the_same_as_one_matrix_after_the_other() -> None:
    stacked, plain = parameters([(3, 4, 5), (4, 5)]), parameters([(3, 4, 5), (4, 5)])
    optimizer = Soap(stacked, **SETTINGS)
    settings = {"lr": SETTINGS["lr"], "betas": SETTINGS["betas"], "every": SETTINGS["every"]}
    matrices = [*plain[0].detach(), plain[1].detach()]
    alone = [Plain(m, **settings) for m in matrices]  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in stacked]
        for p, g in zip(stacked, gradients, strict=True):
            p.grad = g
        optimizer.step()
        for one, g in zip(alone, [*gradients[0], gradients[1]], strict=True):
            one.step(g)
    for a, b in zip(stacked, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


def test_vectors_and_single_rows_take_the_steps_of_adam() -> None:
    shapes = [(7,), (1, 4), (6, 1)]
    ours, theirs = parameters(shapes), parameters(shapes)
    walk(Soap(ours, lr=0.01, weight_decay=0.1), ours, 20)
    walk(torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, eps=1e-8), theirs, 20)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-10)


def test_it_goes_on_bit_for_bit_from_its_state() -> None:
    whole, halves = parameters(), parameters()
    walk(Soap(whole, **SETTINGS), whole, 23)
    first = Soap(halves, **SETTINGS)
    walk(first, halves, 11)
    state = copy.deepcopy(first.state_dict())
    again = [p.detach().clone().requires_grad_(True) for p in halves]
    second = Soap(again, **SETTINGS)
    second.load_state_dict(state)
    walk(second, again, 12)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_its_state_is_tensors_and_as_large_as_is_said() -> None:
    values = parameters([(130, 70), (3, 20, 30), (9,)])
    optimizer = Soap(values, **SETTINGS)
    walk(optimizer, values, 2)
    for state in optimizer.state_dict()["state"].values():
        assert all(isinstance(value, Tensor) for value in state.values())
    numbers = sum(v.numel() for s in optimizer.state.values() for k, v in s.items() if k != "step")
    assert numbers == SoapConfig(block=64).state_numbers(tuple(p.shape) for p in values)


def test_a_long_side_is_cut_into_blocks_with_bases_of_their_own() -> None:
    (whole,), cut = parameters([(8, 6)]), parameters([(8, 6)])
    blocks = [b.detach().clone().requires_grad_(True) for half in cut[0].split(4) for b in half.split(3, 1)]
    generator = torch.Generator().manual_seed(3)
    one, several = Soap([whole], **{**SETTINGS, "block": 4}), Soap(blocks, **SETTINGS)
    for _ in range(15):
        gradient = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        whole.grad = gradient
        for block, g in zip(blocks, [g for half in gradient.split(4) for g in half.split(3, 1)], strict=True):
            block.grad = g.contiguous()
        one.step()
        several.step()
    together = torch.cat([torch.cat(blocks[:2], 1), torch.cat(blocks[2:], 1)])
    assert torch.allclose(whole, together, rtol=1e-10)


@pytest.mark.parametrize(("side", "block", "wanted"), [(64, 64, (1, 64)), (65, 64, (2, 33)), (10, 4, (3, 4))])
def test_parts_of_a_side(side: int, block: int, wanted: tuple[int, int]) -> None:
    assert parts(side, block) == wanted


def test_a_side_that_does_not_divide_is_filled_up_and_nothing_leaks() -> None:
    (value,) = parameters([(7, 5)])
    optimizer = Soap([value], **{**SETTINGS, "block": 3})
    losses = walk(optimizer, [value], 60)
    assert losses[-1] < losses[0] and torch.isfinite(value).all()


def test_parameters_without_a_gradient_stay() -> None:
    values = parameters([(4, 3), (4, 3), (5,)])
    before = [p.detach().clone() for p in values]
    optimizer = Soap(values, **SETTINGS)
    for _ in range(6):
        values[0].grad = torch.ones_like(values[0])
        optimizer.step()
    assert not torch.equal(values[0], before[0])
    assert all(torch.equal(p, b) for p, b in zip(values[1:], before[1:], strict=True))


def test_it_does_better_than_adam_where_directions_differ_in_size_and_are_turned() -> None:
    ends = {}
    for name in ("soap", "adamw"):
        values = parameters([(12, 12)])
        made = kind_class("optimizers", name, OptimizerConfig)(kind=name)
        optimizer = made.build(values, learning_rate=0.05, train=TrainConfig(steps=1))
        ends[name] = walk(optimizer, values, 400)[-1]
    assert ends["soap"] < 0.5 * ends["adamw"]


@pytest.mark.parametrize("kind", kinds("optimizers"))
def test_every_optimiser_loads_by_name_and_goes_on_from_its_state(kind: str) -> None:
    train = load(TrainConfig, {"steps": 5, "optimizer": {"kind": kind}}, source="test")
    values = parameters()
    optimizer = train.optimizer.build(values, learning_rate=0.01, train=train)
    walk(optimizer, values, 5)
    again = [p.detach().clone().requires_grad_(True) for p in values]
    second = train.optimizer.build(again, learning_rate=0.01, train=train)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert walk(optimizer, values, 5) == walk(second, again, 5)
    assert math.isfinite(train.optimizer.state_numbers(tuple(p.shape) for p in values))


MIXED = [(3, 9, 20), (70, 33), (3, 9, 20), (5, 3), (11,), (1, 6), (17, 17)]


@pytest.mark.parametrize("block", [64, 16, 7])
def test_the_forms_agree_and_one_goes_on_where_the_other_was(form: str, block: int) -> None:
    """Blocks that are filled up, parameters that lack a gradient, a covariance that rests, and a floor.

    Bases are made anew after the covariances have full rank: in the directions without any gradient so far
    they are arbitrary.
    """
    settings = {**SETTINGS, "block": block, "measure": 2, "every": 7, "floor": 0.01, "weight_decay": 0.1}

    def steps(optimizer: Soap, values: list[Tensor], *times: int) -> Soap:
        for t in times:
            generator = torch.Generator().manual_seed(t)
            for k, p in enumerate(values):
                g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                scale = torch.logspace(0, 2, p.shape[-1], dtype=p.dtype)
                p.grad = None if k == 2 and t in (4, 5) else g * scale
            optimizer.step()
        return optimizer

    in_torch, other = parameters(MIXED), parameters(MIXED)
    with reference_forms():
        steps(Soap(in_torch, **settings), in_torch, *range(24))
        state = steps(Soap(other, **settings), other, *range(8)).state_dict()
    second = Soap(other, **settings)
    second.load_state_dict(copy.deepcopy(state))
    steps(second, other, *range(8, 24))
    for a, b in zip(in_torch, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_there_is_no_kernel_for_other_types_and_layouts() -> None:
    half, turned = torch.zeros(3, 4, dtype=torch.bfloat16), torch.zeros(3, 4, dtype=torch.float64).mT
    assert isinstance(soap_kernel([half]), Refusal) and isinstance(soap_kernel([turned]), Refusal)
    values, like = [turned.requires_grad_(True)], [torch.zeros_like(turned).contiguous().requires_grad_(True)]
    for some in (values, like):
        walk(Soap(some, **SETTINGS, floor=1e-3), some, 9)
    assert torch.allclose(values[0], like[0], rtol=1e-9)


def test_directions_without_a_gradient_do_not_move() -> None:
    """What rounding and the ridge leave them is small; nothing but the floor tells it from a gradient."""
    values = parameters([(5, 4)])
    before, up = values[0].detach().clone(), torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64)
    optimizer = Soap(values, **SETTINGS, floor=1e-3)
    for t in range(30):
        values[0].grad = (1 + 0.1 * t) * torch.outer(up, torch.ones(4, dtype=torch.float64) / 3)
        optimizer.step()
    moved = before - values[0].detach()
    assert torch.allclose(moved, moved[0, 0] * torch.outer(up, torch.ones(4, dtype=torch.float64)), rtol=0.01)


def test_a_gradient_that_is_not_finite_harms_nothing_but_its_own_block() -> None:
    values = parameters([(6, 6), (6, 6)])
    optimizer = Soap(values, **SETTINGS)
    for t in range(9):
        for p in values:
            p.grad = torch.ones_like(p)
        if t == 3:
            assert values[0].grad is not None
            values[0].grad[2, 3] = math.nan
        optimizer.step()
    assert values[0].isnan().any() and values[1].isfinite().all()


def test_amsgrad_is_refused_where_nothing_heeds_it() -> None:
    with pytest.raises(ValueError, match=r"amsgrad: soap has none; wanted .*adamw"):
        TrainConfig(steps=1, amsgrad=True)
    assert TrainConfig(steps=1, amsgrad=True, optimizer={"kind": "adamw"}).amsgrad
