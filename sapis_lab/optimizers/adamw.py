"""AdamW (Loshchilov & Hutter, arXiv:1711.05101), with the settings `betas`, `amsgrad` and `weight_decay` of
`train:`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sapis_lab.optimizers._base import AdamSettings, OptimizerConfig


class AdamwConfig(OptimizerConfig):
    """Every parameter by itself, over the root of its second moment."""

    kind: Literal["adamw"] = "adamw"
    has_amsgrad: ClassVar[bool] = True

    def build(
        self, parameters: Iterable[Tensor], *, learning_rate: float, train: AdamSettings
    ) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=learning_rate,
            betas=train.betas,
            amsgrad=train.amsgrad,
            weight_decay=train.weight_decay,
            fused=True,
        )

    def state_numbers(self, shapes: Iterable[tuple[int, ...]]) -> int:
        return 2 * sum(math.prod(shape) for shape in shapes)
