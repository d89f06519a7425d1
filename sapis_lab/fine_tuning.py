"""Training that starts from a trained potential: which of its parameters move, and in how many directions.

A new set of frames seldom has the energies of the old one: another level of theory, other pseudopotentials.
Reference energies are therefore fitted anew before the first step, to what the old model leaves of the new
energies; otherwise the first thing that is learnt is their offset.

`low_rank` is the update of Hu et al. (arXiv:2106.09685), W = W_0 + A B, for stacks of matrices: the model
keeps whole weights, and its gradients G are those of the factors, dA = G B^T and dB = A^T G, so that kernels
and families need to know nothing of it. A starts at random and B at zero: training begins with the function
of the old model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sapis_lab.config import Config

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StartConfig(Config):
    """A finished point that training starts from, and what of it is trained."""

    point: str = Field(min_length=1, max_length=1000)
    """Its folder, `results/NAME/points/ID`, relative to the project."""
    weights: Sha256 | None = None
    """sha256 of its weights; written where points are planned, and others are refused."""
    trains: Literal["all", "readout", "last", "low_rank"] = "all"
    """All parameters; the readout; the readout and the last layer; or matrices by factors of rank `rank`
    (vectors and small matrices whole)."""
    rank: int = Field(default=4, ge=1, le=10_000)
    """Of the updates of `low_rank`; matrices with a side of no more than twice that are trained whole."""
    references: Literal["refit", "keep"] = "refit"
    """Reference energies fitted to what the old model leaves of the new energies, or those of the old one."""


def trained_parameters(model: nn.Module, trains: str) -> list[nn.Parameter]:
    """The parameters that `trains` names, in the order of the model.

    Raises:
        ValueError: the model has none of that name.
    """
    if trains not in ("readout", "last"):
        return list(model.parameters())
    names = [name for name, _ in model.named_parameters()]
    blocks = [int(found[2]) for name in names if (found := _BLOCK.match(name))]
    last = max(blocks, default=-1) if trains == "last" else -1
    kept = {n for n in names if n.startswith("readout")}
    kept |= {n for n in names if (found := _BLOCK.match(n)) and int(found[2]) == last}
    if not kept:
        raise ValueError(f"train.start.trains: {type(model).__name__} has no parameters called readout")
    return [p for name, p in model.named_parameters() if name in kept]


def optimizer_of(
    model: nn.Module,
    start: StartConfig | None,
    *,
    build: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
    learning_rate: float,
    seed: int,
) -> torch.optim.Optimizer:
    """The optimiser of what `start` trains of the model; of all of it without one."""
    if start is None:
        return build(list(model.parameters()))
    parameters = trained_parameters(model, start.trains)
    if start.trains != "low_rank":
        return build(parameters)
    return LowRank(parameters, build=build, rank=start.rank, lr=learning_rate, seed=seed)


_BLOCK = re.compile(r"(layers|convolutions|products)\.(\d+)\.")


class LowRank(torch.optim.Optimizer):
    """Another optimiser on factors of the updates of matrices, W = W_0 + A B.

    Args:
        parameters: of the model. Of each with two axes or more the last two are a matrix (m, n), the others
            count them; below min(m, n) = 2 `rank` it is trained whole, like vectors.
        build: the optimiser of the tensors that it is given.
        rank: of the updates.   lr: peak learning rate.   seed: draws A, entries N(0, 1/m).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        build: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
        rank: int,
        lr: float,
        seed: int,
    ) -> None:
        parameters = list(parameters)
        super().__init__(parameters, {"lr": lr})
        generator = torch.Generator().manual_seed(seed)
        self._base: dict[int, Tensor] = {}
        self._factors: dict[int, tuple[Tensor, Tensor]] = {}
        trained: list[Tensor] = []
        for k, p in enumerate(parameters):
            if p.dim() < 2 or min(p.shape[-2:]) <= 2 * rank:
                trained.append(p)
                continue
            *stack, m, n = p.shape
            a = torch.randn(*stack, m, rank, generator=generator, dtype=torch.float64) / m**0.5
            b = torch.zeros(*stack, rank, n)
            self._base[k] = p.detach().clone()
            self._factors[k] = (nn.Parameter(a.to(p)), nn.Parameter(b.to(p)))
            trained += self._factors[k]
        self._inner = build(trained)

    @property
    def n_trained(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for group in self._inner.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of the factors, and the weights that they make."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        (group,) = self.param_groups
        for inner in self._inner.param_groups:
            inner["lr"] = group["lr"]
        for k, (a, b) in self._factors.items():
            gradient = group["params"][k].grad
            a.grad = None if gradient is None else gradient @ b.mT
            b.grad = None if gradient is None else a.mT @ gradient
        self._inner.step()
        for k, (a, b) in self._factors.items():
            group["params"][k].copy_(self._base[k] + a @ b)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Weights at the start, factors, and the state of the optimiser of these."""
        return {
            **super().state_dict(),
            "base": dict(self._base),
            "factors": {k: [f.detach() for f in pair] for k, pair in self._factors.items()},
            "inner": self._inner.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, bit for bit."""
        own = {"base", "factors", "inner"}
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in own})
        with torch.no_grad():
            for k, value in state_dict["base"].items():
                self._base[k].copy_(value)
            for k, pair in state_dict["factors"].items():
                for mine, value in zip(self._factors[k], pair, strict=True):
                    mine.copy_(value)
        self._inner.load_state_dict(state_dict["inner"])
