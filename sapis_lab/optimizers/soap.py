"""SOAP (Vyas et al., arXiv:2409.11321), whose steps are those of `sapis_lab/soap.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sapis_lab.optimizers._base import AdamSettings, OptimizerConfig
from sapis_lab.soap import Soap, state_shapes

Decay = Annotated[float, Field(ge=0, lt=1)]


class SoapConfig(OptimizerConfig):
    """Adam in the eigenbases of the gradients' covariances, refreshed from time to time."""

    kind: Literal["soap"] = "soap"
    betas: tuple[Decay, Decay] = (0.95, 0.95)
    """Decay rates of the moments, and (the second) of the covariances, of matrices. Vectors have those of
    `train.betas`."""
    every: int = Field(default=10, ge=1, le=10_000)
    """Steps between two refreshments of the bases."""
    block: int = Field(default=64, ge=2, le=10_000)
    """Longest side of a block: longer sides of a matrix are cut into equal parts."""
    measure: int = Field(default=1, ge=1, le=1000)
    """Steps between two gradients that the covariances take in."""
    eps: float = Field(default=1e-8, ge=1e-12, le=1)
    """Added to the roots of the second moments."""
    floor: float = Field(default=1e-3, ge=0, le=1)
    """Of matrices, added to the roots of the second moments: so much of the root of their mean over the
    block."""

    def build(
        self, parameters: Iterable[Tensor], *, learning_rate: float, train: AdamSettings
    ) -> torch.optim.Optimizer:
        return Soap(
            parameters,
            lr=learning_rate,
            betas=self.betas,
            vector_betas=train.betas,
            weight_decay=train.weight_decay,
            every=self.every,
            block=self.block,
            measure=self.measure,
            eps=self.eps,
            floor=self.floor,
        )

    def state_numbers(self, shapes: Iterable[tuple[int, ...]]) -> int:
        return sum(math.prod(s) for shape in shapes for s in state_shapes(shape, self.block).values())
