"""The LightningModule: a model, its loss, an optimiser with a schedule, and a running average of the
weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sapis_lab.batches import Share
from sapis_lab.fine_tuning import optimizer_of
from sapis_lab.models import Model
from sapis_lab.training._config import TrainConfig
from sapis_lab.training._ranks import ALONE, Ranks
from sapis_lab.training.step_forms import MeanLoss


def rate_factor(step: int, *, steps: int, config: TrainConfig) -> float:
    """Learning rate over its peak at optimiser step `step` (from 0) of `steps`: warm-up, then cosine or
    constant and linear decay."""
    share = step / steps
    if share < config.warmup:
        return (step + 1) / (config.warmup * steps + 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (share - config.warmup) / (1 - config.warmup)))
    return min(1.0, (1 - share) / config.decay)


class TrainingModule(L.LightningModule):
    """Trains `model` for `steps` steps, with `mean_loss` the form of the step; `average` holds the weights
    that are scored.

    With several `ranks` each sees its share of the global batch, and all have the loss and the gradients of
    the whole one; `stop_agreed` then says whether `wants_stop()` held on any of them.

    A share may be several micro batches. Their losses are divided by the counts of the global batch, so that
    gradients add up to that of the whole; each has its backward pass before the next one goes through the
    model. (Lightning's accumulate_grad_batches takes means over batches, and counts each as one that the
    schedule, curves and checkpoints would have to know of.)
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        *,
        steps: int,
        learning_rate: float,
        mean_loss: MeanLoss,
        seed: int = 0,
        ranks: Ranks = ALONE,
        wants_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.mean_loss = mean_loss
        self.model, self.config, self.steps, self.learning_rate = model, config, steps, learning_rate
        self.seed = seed
        self.ranks, self.wants_stop, self.stop_agreed = ranks, wants_stop, False
        self.average: list[Tensor] = []
        self.decay = config.ema_decay(steps)
        self.last_loss: Tensor | None = None
        self._later: Share | None = None
        self._still: list[Tensor] = []

    def on_fit_start(self) -> None:
        if self.decay is None:
            return
        # a checkpoint is loaded before the module has moved to its device
        parameters = self._parameters_in_order()
        self.average = [
            a.to(p.device)
            for a, p in zip(self.average or (q.detach().clone() for q in parameters), parameters, strict=True)
        ]

    def training_step(self, share: Share, step: int) -> Tensor:
        """The loss of the first micro batch, ()."""
        # Without a frame (fewer of them than ranks) there is no loss and no gradient, but a backward pass,
        # and with it the sum over ranks.
        loss = (
            self.mean_loss(share.batches[0], share.counts)
            if share.batches
            else share.counts.new_zeros((), requires_grad=True)
        )
        self._later = share._replace(batches=share.batches[1:])
        self.last_loss = loss.detach()
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add up the gradients: of `loss`, then of the micro batches that follow (the gradients of the step
        before are gone only now, not in `training_step`)."""
        loss.backward()
        assert self._later is not None and self.last_loss is not None
        for batch in self._later.batches:
            of_part = self.mean_loss(batch, self._later.counts)
            of_part.backward()
            self.last_loss = self.last_loss + of_part.detach()
        self._later = None

    def on_after_backward(self) -> None:
        assert self.last_loss is not None
        for p in self._still:
            p.grad = None
        self.last_loss, self.stop_agreed = self.ranks.sum_gradients(
            self._parameters_in_order(), loss=self.last_loss, stop=self.wants_stop()
        )

    def configure_optimizers(self) -> Any:
        optimizer = optimizer_of(
            self.model,
            self.config.start,
            build=lambda chosen: self.config.optimizer.build(
                chosen, learning_rate=self.learning_rate, train=self.config
            ),
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._still = [p for p in self.model.parameters() if id(p) not in chosen]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, steps=self.steps, config=self.config)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def update_average(self, steps_done: int) -> None:
        """Move the average towards the weights, faster at the start: decay min(ema, (1 + t)/(10 + t))."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + steps_done) / (10 + steps_done))
        torch._foreach_lerp_(self.average, [p.detach() for p in self._parameters_in_order()], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[Model]:
        """The model with the averaged weights, for the length of a `with` block."""
        if self.decay is None:
            yield self.model
            return
        own = [p.detach().clone() for p in self._parameters_in_order()]
        self._load(self.average)
        try:
            yield self.model
        finally:
            self._load(own)

    @torch.no_grad()
    def _load(self, values: list[Tensor]) -> None:
        for p, value in zip(self._parameters_in_order(), values, strict=True):
            p.copy_(value)

    def _parameters_in_order(self) -> list[Tensor]:
        return list(self.model.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["average"] = self.average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average = list(checkpoint["average"])
