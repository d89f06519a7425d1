"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv:2409.11321).

For a matrix parameter P (m, n) with gradient G, covariances L = E[G G^T] and R = E[G^T G] are followed, and
Q_L, Q_R are their eigenbases, refreshed every `every` steps by one power iteration and a QR decomposition:

    G' = Q_L^T G Q_R,    M' = E[G'],    V' = E[G'^2],    P -= rate Q_L (M' / (sqrt(V') + f + eps)) Q_R^T.

The momentum is kept in the turned basis, and turned on when the bases are refreshed. Stacks of matrices
(k, m, n) are k matrices; a matrix with a side longer than `block` is cut into blocks, each a matrix with
bases of its own, so that a step costs in proportion to the parameters; all blocks of one shape are one
batched product. Vectors have no basis: there it is Adam. The first step only measures L and R.

f is `floor` times the root of the mean of V' over the block: directions without a gradient, which hold
nothing but rounding, would else take full steps. Where both moments decay alike, |M'| <= sqrt(V') by Cauchy
and Schwarz, and no coordinate moves by more than the rate, but for the steps after a change of the bases,
with which V' does not turn.

In directions that no gradient has had so far a covariance is zero up to rounding, which would choose among
them. So bases are those of L + r (tr L / m) diag(1, ..., 2) with a ridge r = 1e-6: then they follow from the
gradients alone, and training on several ranks, or in another form of the step, stays what it is.

This module needs torch alone, so that peer codes can be trained with it in environments of their own; the
settings are `sapis_lab/optimizers/soap.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sapis_lab.kernels import forms_are_off
from sapis_lab.kernels.soap import STATE, Blocks, Matrices, Settings, SoapKernel, soap_kernel

RIDGE = 1e-6
"""r; as in kernels/soap.cpp."""


def ridge(covariance: Tensor) -> Tensor:
    """(k, d) what is added to the diagonals of covariances (k, d, d)."""
    size = covariance.shape[-1]
    weights = 1 + torch.arange(size, dtype=covariance.dtype, device=covariance.device) / size
    return RIDGE * covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) * weights


def parts(side: int, block: int) -> tuple[int, int]:
    """Into how many parts a side is cut, and how long they are; the last one may be filled up with zeros."""
    n = -(-side // block)
    return n, -(-side // n)


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a parameter of this shape is a matrix, or a stack of them, to which bases apply."""
    return len(shape) >= 2 and min(shape[-2:]) > 1


def state_shapes(shape: tuple[int, ...], block: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the state of a parameter besides its step, by name: of matrices (..., M, N) those of their k
    blocks, (k, ...)."""
    if not is_matrix(shape):
        return dict.fromkeys(STATE[:2], shape)
    (rows, m), (columns, n) = (parts(side, block) for side in shape[-2:])
    k = math.prod(shape[:-2]) * rows * columns
    of_blocks = ((m, n), (m, n), (m, m), (m, m), (n, n), (n, n))
    return {name: (k, *sides) for name, sides in zip(STATE, of_blocks, strict=True)}


class Soap(torch.optim.Optimizer):
    """SOAP for stacks of small matrices, Adam for vectors; settings as in `optimizers.soap.SoapConfig`, with
    `vector_betas` those of Adam.

    The state of a parameter is views of the stacks of its shape: `exp_avg` and `exp_avg_sq` (in the turned
    basis), and by side `covariance_left`, `basis_left`, `covariance_right`, `basis_right`, with `step`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        vector_betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        every: int = 10,
        block: int = 64,
        measure: int = 1,
        eps: float = 1e-8,
        floor: float = 0.0,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": betas,
            "vector_betas": vector_betas,
            "weight_decay": weight_decay,
            "every": every,
            "block": block,
            "measure": measure,
            "eps": eps,
            "floor": floor,
        }
        super().__init__(parameters, settings)
        self._stacks: list[_Stack] | None = None
        self._compiled: tuple[list[_Stack], Matrices | None] | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; the stacks are made anew from it."""
        super().load_state_dict(state_dict)
        self._stacks = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["weight_decay"]:
                torch._foreach_mul_(
                    [p for p in group["params"] if p.grad is not None],
                    1 - group["lr"] * group["weight_decay"],
                )
            self._step_vectors(group)
        if self._stacks is None:
            self._stacks, self._compiled = list(self._stacked()), None
        stacks = [stack for stack in self._stacks if any(p.grad is not None for p in stack.parameters)]
        if not stacks:
            return loss
        torch._foreach_add_([self.state[p]["step"] for stack in stacks for p in stack.parameters], 1)
        times = [int(self.state[stack.parameters[0]]["step"]) - 1 for stack in stacks]
        if not self._step_compiled(stacks, times):
            for stack, t in zip(stacks, times, strict=True):
                stack.step(t)
        return loss

    def _step_compiled(self, stacks: list[_Stack], times: list[int]) -> bool:
        """Whether all of them were stepped by the kernel; it makes no first bases."""
        if min(times) == 0 or forms_are_off():
            return False
        if self._compiled is None or self._compiled[0] != stacks:
            parameters = [p for stack in stacks for p in stack.parameters]
            kernel = soap_kernel(parameters)
            made = None
            if isinstance(kernel, SoapKernel):
                made = kernel.matrices(
                    [Blocks(stack.parameters, (stack.rows, stack.columns), stack.tensors) for stack in stacks]
                )
            self._compiled = stacks, made
        matrices = self._compiled[1]
        if matrices is not None:
            matrices.step([stack.settings(t) for stack, t in zip(stacks, times, strict=True)])
        return matrices is not None

    def _step_vectors(self, group: dict[str, Any]) -> None:
        vectors = [p for p in group["params"] if p.grad is not None and not is_matrix(tuple(p.shape))]
        if not vectors:
            return
        for p in vectors:
            if not self.state[p]:
                self.state[p] |= {
                    "step": torch.zeros((), dtype=torch.float64),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in vectors]
        torch._foreach_add_([state["step"] for state in states], 1)
        b1, b2 = group["vector_betas"]
        gradients, t = [p.grad for p in vectors], float(states[0]["step"])
        mean, square = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        kernel = soap_kernel(vectors)
        if isinstance(kernel, SoapKernel):
            kernel.vectors(_settings(group, (b1, b2), t), vectors, mean, square)
            return
        torch._foreach_lerp_(mean, gradients, 1 - b1)
        torch._foreach_mul_(square, b2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - b2)
        root = torch._foreach_sqrt(square)
        torch._foreach_div_(root, math.sqrt(1 - b2**t))
        torch._foreach_add_(root, group["eps"])
        torch._foreach_addcdiv_(vectors, mean, root, -group["lr"] / (1 - b1**t))

    def _stacked(self) -> Iterable[_Stack]:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.requires_grad and is_matrix(tuple(p.shape)):
                    by_shape[p.shape[-2], p.shape[-1]].append(p)
            for parameters in by_shape.values():
                yield _Stack(self, group, parameters)


def _settings(
    group: dict[str, Any],
    betas: tuple[float, float],
    t: float,
    *,
    measure: bool = False,
    refresh: bool = False,
) -> Settings:
    return Settings(
        group["lr"],
        *betas,
        1 - betas[0] ** t,
        1 - betas[1] ** t,
        group["eps"],
        group["floor"],
        measure,
        refresh,
    )


class _Stack:
    """All blocks of one shape as one tensor (k, m, n)."""

    def __init__(self, owner: Soap, group: dict[str, Any], parameters: list[Tensor]) -> None:
        self.group, self.parameters, self.owner = group, parameters, owner
        self.sizes = tuple(parameters[0].shape[-2:])
        (self.rows, m), (self.columns, n) = (parts(side, group["block"]) for side in self.sizes)
        self.shape = (m, n)
        shapes = [state_shapes(tuple(p.shape), group["block"]) for p in parameters]
        self.counts = [shape["exp_avg"][0] for shape in shapes]
        filled = self._blocks(torch.ones(self.sizes)).sum((-2, -1), keepdim=True)
        n_matrices = sum(self.counts) // (self.rows * self.columns)
        self.filled = filled.repeat(n_matrices, 1, 1).to(parameters[0])
        """(k, 1, 1) numbers of each block that are there"""
        self.tensors: dict[str, Tensor] = {}
        for key in STATE:
            known = [owner.state[p].get(key) for p in parameters]
            self.tensors[key] = torch.cat(
                [
                    parameters[0].new_zeros(shape[key]) if old is None else old
                    for shape, old in zip(shapes, known, strict=True)
                ]
            )
        split = {key: value.split(self.counts) for key, value in self.tensors.items()}
        for k, p in enumerate(parameters):
            step = owner.state[p].get("step", torch.zeros((), dtype=torch.float64))
            owner.state[p] = {"step": step, **{key: views[k] for key, views in split.items()}}

    def _blocks(self, x: Tensor) -> Tensor:
        """(..., M, N) -> (k, m, n)."""
        (big_m, big_n), (m, n) = self.sizes, self.shape
        x = x.reshape(-1, big_m, big_n)
        if self.rows == 1 and self.columns == 1:
            return x
        x = torch.nn.functional.pad(x, (0, self.columns * n - big_n, 0, self.rows * m - big_m))
        x = x.view(-1, self.rows, m, self.columns, n).transpose(2, 3)
        return x.reshape(-1, m, n)

    def _whole(self, blocks: Tensor, like: Tensor) -> Tensor:
        """(k, m, n) -> the shape of a parameter."""
        if self.rows == 1 and self.columns == 1:
            return blocks.view_as(like)
        (big_m, big_n), (m, n) = self.sizes, self.shape
        x = blocks.view(-1, self.rows, self.columns, m, n).transpose(2, 3)
        x = x.reshape(-1, self.rows * m, self.columns * n)
        return x[:, :big_m, :big_n].reshape(like.shape)

    def settings(self, t: int) -> Settings:
        """Of the step that follows `t` others."""
        measure, refresh = self._due(t)
        return _settings(self.group, self.group["betas"], t, measure=measure, refresh=refresh)

    def _due(self, t: int) -> tuple[bool, bool]:
        """Whether covariances take this gradient in, and whether the bases are made anew after it."""
        return t % self.group["measure"] == 0, t % self.group["every"] == 0

    def step(self, t: int) -> None:
        """The step of all matrices that follows `t` others; those without a gradient have a gradient of zero
        and do not move."""
        b1, b2 = self.group["betas"]
        measure, refresh = self._due(t)
        gradient = torch.cat(
            [self._blocks(torch.zeros_like(p) if p.grad is None else p.grad) for p in self.parameters]
        )
        if measure:
            self.tensors["covariance_left"].lerp_(gradient @ gradient.mT, 1 - b2)
            self.tensors["covariance_right"].lerp_(gradient.mT @ gradient, 1 - b2)
        if t == 0:
            self._first_bases()
            return
        left, right = self.tensors["basis_left"], self.tensors["basis_right"]
        turned = left.mT @ gradient @ right
        mean, square = self.tensors["exp_avg"], self.tensors["exp_avg_sq"]
        mean.lerp_(turned, 1 - b1)
        square.mul_(b2).addcmul_(turned, turned, value=1 - b2)
        size = square.sum((-2, -1), keepdim=True).div_(self.filled).sqrt_()
        root = square.sqrt().add_(size, alpha=self.group["floor"]).div_(math.sqrt(1 - b2**t))
        root.add_(self.group["eps"])
        update = left @ (mean / root) @ right.mT
        rate, start = self.group["lr"] / (1 - b1**t), 0
        for p, k in zip(self.parameters, self.counts, strict=True):
            if p.grad is not None:
                p.add_(self._whole(update[start : start + k], p), alpha=-rate)
            start += k
        if refresh:
            self._refresh()

    def _first_bases(self) -> None:
        for side in ("left", "right"):
            covariance = self.tensors[f"covariance_{side}"]
            size = covariance.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-30)
            whole = covariance + torch.diag_embed(ridge(covariance))
            bases = torch.linalg.eigh(whole / size.view(-1, 1, 1))[1].flip(-1)
            self.tensors[f"basis_{side}"].copy_(bases)

    def _refresh(self) -> None:
        """One power iteration; the directions stay in the order of their variance."""
        mean, square = self.tensors["exp_avg"], self.tensors["exp_avg_sq"]
        for side, dim in (("left", -2), ("right", -1)):
            covariance, basis = self.tensors[f"covariance_{side}"], self.tensors[f"basis_{side}"]
            product = covariance @ basis + ridge(covariance).unsqueeze(-1) * basis
            variance = (basis * product).sum(-2)
            order = variance.argsort(-1, descending=True)
            columns = order.unsqueeze(-2).expand_as(basis)
            new = torch.linalg.qr(product.gather(-1, columns))[0]
            rows = (order.unsqueeze(-1) if dim == -2 else order.unsqueeze(-2)).expand_as(square)
            square.copy_(square.gather(dim, rows))
            change = new.mT @ basis  # from the old basis to the new one
            mean.copy_(change @ mean if dim == -2 else mean @ change.mT)
            basis.copy_(new)
