"""What every optimiser kind offers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sapis_lab.config import KindConfig


class AdamSettings(Protocol):
    """What optimisers read of `train:`."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay rates of the first and second moment of Adam."""

    @property
    def amsgrad(self) -> bool:
        """Whether Adam divides by the root of the largest second moment so far."""

    @property
    def weight_decay(self) -> float:
        """Decoupled decay, times the learning rate."""


class OptimizerConfig(KindConfig):
    """Settings of an optimiser; subclasses are the kinds."""

    has_amsgrad: ClassVar[bool] = False
    """Whether `train.amsgrad` says something to it."""

    @abstractmethod
    def build(
        self, parameters: Iterable[Tensor], *, learning_rate: float, train: AdamSettings
    ) -> torch.optim.Optimizer:
        """The optimiser of `parameters` at the peak rate; its state_dict holds tensors and plain Python only,
        and goes on bit for bit where it is loaded."""

    @abstractmethod
    def state_numbers(self, shapes: Iterable[tuple[int, ...]]) -> int:
        """How many floating-point numbers its state has for parameters of these shapes."""
