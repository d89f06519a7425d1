"""Settings of training, and of one point of a lattice: everything its numbers depend on, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sapis_lab.augmentation import AugmentSetting
from sapis_lab.config import (
    Added,
    Config,
    FrameCount,
    Seed,
    Size,
    composed_kind,
    fingerprint,
    identity,
    kind_class,
)
from sapis_lab.data import DatasetConfig
from sapis_lab.fine_tuning import StartConfig
from sapis_lab.heads import HeadConfig
from sapis_lab.models import ModelConfig
from sapis_lab.optimizers import OptimizerConfig
from sapis_lab.optimizers.adamw import AdamwConfig
from sapis_lab.optimizers.soap import SoapConfig
from sapis_lab.targets import EnergyTarget, ForcesTarget, Target
from sapis_lab.tasks import TaskConfig
from sapis_lab.tasks.energies import EnergiesConfig

_ENERGIES, _ADAMW, _SOAP = EnergiesConfig(), AdamwConfig(), SoapConfig()
MOST_RATE = 1000.0
"""Largest learning rate."""
StepChoice = Literal["auto", "eager", "compiled", "graph"]
"""Forms of the training step that a study may ask for (`step_forms`)."""
Rate = Annotated[float, Field(gt=0, le=MOST_RATE)]
Decay = Annotated[float, Field(ge=0, lt=1)]


_Average = Annotated[float, Field(gt=0, lt=1)]


class RateOfSize(Config):
    """A peak rate that small models exceed: `rate`, times (below / N)^power where N < below."""

    rate: Rate
    """Of all models with at least `below` parameters."""
    below: float = Field(ge=1, le=1e15)
    """N where it begins to rise."""
    power: float = Field(ge=0, le=2)
    """How fast it rises towards small N."""

    def at(self, n_params: float) -> float:
        """To three digits, as it stands in tables."""
        return float(f"{self.rate * max(1.0, self.below / n_params) ** self.power:.3g}")


class EmaShare(Config):
    """A running average whose memory grows with the length of the run."""

    share: float = Field(gt=0, le=1)
    """Steps after which a weight has lost all but 1/e of its part, over all steps."""


class LossConfig(Config):
    """energy_weight * MSE(E) + force_weight * (1/n_atoms) sum_i |F_i - F_i_true|^2, energies and forces over
    the training force RMS.

    The force term is three times the squared force RMSE per component.
    """

    energy_weight: float = Field(default=30.0, ge=0, le=1e6)
    """lambda_E."""
    force_weight: float = Field(default=1.0, ge=0, le=1e6)
    """lambda_F."""
    energy_error: Literal["per_atom", "total"] = "per_atom"
    """MSE of the energy per atom, or of the energy of the frame."""
    force_huber: Annotated[float | None, Field(ge=1e-9, le=1e6), Added(before=None)] = None
    """eV/Å: |F_i - F_i_true|^2 grows from there on like the length rather than its square (pseudo-Huber, per
    atom), so that a few large errors do not decide what the many small ones become; none: the square."""

    def targets(self) -> tuple[Target, ...]:
        """Energies and forces with these weights."""
        return (
            EnergyTarget(weight=self.energy_weight, of=self.energy_error),
            ForcesTarget(weight=self.force_weight, huber=self.force_huber),
        )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.energy_weight + self.force_weight > 0:
            raise ValueError("energy_weight and force_weight are both 0; wanted at least one above 0")
        return self


class TrainConfig(Config):
    """How every point is trained; exactly one of `steps` and `epochs` is the budget."""

    version: ClassVar[int] = 1

    steps: int | None = Field(default=None, ge=1, le=10**9)
    """Optimiser steps of every point: all points equally trained, cost independent of D."""
    epochs: float | None = Field(default=None, gt=0, le=1e6)
    """Passes over the D training frames: cost grows as N D."""
    batch_size: int = Field(default=16, ge=1, le=10**6)
    """Frames per step over all devices; never more than D are used."""
    micro_batch: Annotated[int | None, Field(ge=1, le=10**6), Added(before=None)] = None
    """Most frames that go through the model at a time, on every device: gradients of parts of a batch add up
    to that of the whole, to rounding, in the memory of one part. None, or no less than a device has of a
    batch: all at once."""
    learning_rate: Rate | dict[str, Rate | RateOfSize] = 0.01
    """Peak rate: one for all, or one per model kind or label, with `default` for kinds that are not named;
    per kind it may depend on N."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: cosine to zero, or constant with a linear decay to zero over the last `decay`."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps with a linear rise from zero."""
    decay: float = Field(default=0.2, ge=1e-9, le=1)
    """Share of the steps in the decay of `wsd`."""
    optimizer: Annotated[composed_kind("optimizers", OptimizerConfig), Added(before=_ADAMW)] = _SOAP  # type: ignore[valid-type]
    """How gradients become steps."""
    betas: tuple[Decay, Decay] = (0.95, 0.95)
    """Decay rates of the first and second moment of AdamW, and of vectors in SOAP. Where they are equal no
    parameter moves by more than the learning rate in a step."""
    amsgrad: Annotated[bool, Added(before=False)] = False
    """Divide by the root of the largest second moment so far (Reddi et al., arXiv:1904.09237): long runs
    burst less, where Adam divides by second moments that shrink with the gradients."""
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    """AdamW's decoupled decay, times the learning rate."""
    clip: float | None = Field(default=30.0, ge=1e-12, le=1e12)
    """Largest norm of the gradient of the loss; none: no clipping."""
    ema: _Average | EmaShare | None = EmaShare(share=0.05)
    """Decay of the running average of the weights, which is what is scored, or `{share: ...}` of the steps
    that it reaches back; none: the last weights are."""
    task: Annotated[composed_kind("tasks", TaskConfig), Added(before=_ENERGIES)] = _ENERGIES  # type: ignore[valid-type]
    """What is learnt: `energies` with their derivatives and, beside them, properties; or `properties`
    alone."""
    loss: LossConfig = LossConfig()
    """Weights of energies and forces."""
    targets: Annotated[tuple[composed_kind("targets", Target), ...], Added(before=())] = ()  # type: ignore[valid-type]
    """What is learnt besides: stress, dipole, charges, or any property that the data have."""
    heads: Annotated[dict[str, composed_kind("heads", HeadConfig)], Added(before={})] = {}  # type: ignore[valid-type]
    """What predicts a target that does not come from the energy, by its name; where one has none it gets the
    usual one."""
    references: Literal["ridge", "isolated"] = "ridge"
    """Reference energies of the species: ridge regression on the D frames, or the data set's isolated
    atoms."""
    refit_references: Annotated[bool, Added(before=False)] = True
    """Fit the reference energies once more at the end, to what the trained model leaves of the energies of
    the training frames: a long training ends with a constant offset, which a loss that is mostly of forces
    is slow to take away."""
    start: Annotated[StartConfig | None, Added(before=None)] = None
    """A finished point whose potential training starts from, and what of it is trained; none: from random
    weights. Its model is that of the study's points."""
    augment: AugmentSetting = True
    """Random rotations and reflections of every training frame, for models that are not equivariant (true),
    or none (false), or `{rotations: ..., noise: ...}`."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point type of the model."""
    validations: int = Field(default=10, ge=1, le=10_000)
    """How often the validation error is measured along the training, the end included."""

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"wanted exactly one of steps and epochs, got steps={self.steps} and epochs={self.epochs}; "
                f"set the other to null"
            )
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} exceed the whole schedule")
        return self

    @model_validator(mode="after")
    def _amsgrad_is_heeded(self) -> Self:
        if self.amsgrad and not self.optimizer.has_amsgrad:
            raise ValueError(
                f"amsgrad: {self.optimizer.kind} has none; wanted amsgrad=false, or optimizer=adamw"
            )
        return self

    @model_validator(mode="after")
    def _energies_alone_start(self) -> Self:
        if self.start is not None and (self.heads or self.task.kind != "energies"):
            raise ValueError("start: wanted a training of energies and forces without heads")
        return self

    @model_validator(mode="after")
    def _targets_fit_the_task(self) -> Self:
        known = self.task.targets(self)
        twice = [key for key, n in Counter(target.key for target in known).items() if n > 1]
        if twice:
            raise ValueError(
                f"targets: {twice[0]} is there twice; weights of energy and forces are set in train.loss"
            )
        wanted = {target.key: target for target in known if not target.from_energy}
        for key in self.heads:
            if key not in wanted:
                raise ValueError(
                    f"heads: {key!r} is no target with a head; those are {', '.join(wanted) or 'none'}"
                )
        missing = {key: _usual_head(target) for key, target in wanted.items() if key not in self.heads}
        if missing:  # written out, so that what is recorded says everything
            object.__setattr__(self, "heads", {key: self.heads.get(key) or missing[key] for key in wanted})
        return self

    def rate_of(self, model: ModelConfig, n_params: float) -> float:
        """Peak learning rate of a model with N = `n_params`: by label, by kind, by `default`, or the one rate
        for all."""
        if isinstance(self.learning_rate, float):
            return self.learning_rate
        for key in (model.label, model.kind, "default"):
            if key in self.learning_rate:
                found = self.learning_rate[key]
                return found.at(n_params) if isinstance(found, RateOfSize) else found
        raise ValueError(
            f"train.learning_rate names {', '.join(self.learning_rate)}, but not {model.label!r} or its kind "
            f"{model.kind!r}"
        )

    def ema_decay(self, steps: int) -> float | None:
        """Decay of the running average in a run of `steps`; None without one."""
        if isinstance(self.ema, EmaShare):
            return math.exp(-1 / (self.ema.share * steps))
        return self.ema

    def steps_for(self, n_frames: int) -> int:
        """Optimiser steps at D = n_frames."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * n_frames / min(self.batch_size, n_frames)))


def _usual_head(target: Target) -> HeadConfig:
    kind = target.head or ("tensor" if target.rank else "scalar")
    made = kind_class("heads", kind)(kind=kind)
    assert isinstance(made, HeadConfig)
    return made


PointId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=200)]


class Parent(Config):
    """The finished point of the same study whose trained potential a point starts from."""

    id: PointId
    """The name of its folder, beside that of the point."""
    fingerprint: str
    """Of its settings: a parent made from others is refused."""


class PointConfig(Config):
    """One point of a lattice: this model at this size on the first D frames of this data, with this seed."""

    id: PointId
    """Readable identity, the name of its folder: `geat-l2-n1.0e5-d512-s0`."""
    data: composed_kind("data", DatasetConfig)  # type: ignore[valid-type]
    """The data set."""
    model: composed_kind("models", ModelConfig)  # type: ignore[valid-type]
    """The model with its final widths."""
    n_params_target: Size
    """The number of parameters that was asked for."""
    n_frames: FrameCount
    """D, the length of the prefix of the training order."""
    seed: Seed
    """Seeds the parameters, the order of the batches and the augmentation."""
    train: TrainConfig
    """Training; `learning_rate` is the one number in force."""
    n_params: int | None = Field(default=None, ge=1, le=10**12)
    """The exact N that was planned, which the model built must have; no part of what the numbers depend on,
    since `model` says it."""
    parent: Annotated[Parent | None, Added(before=None)] = None
    """Where training starts: the averaged weights, reference energies and energy scale of that point, its
    model grown to `model` (`sapis_lab.growth`). Optimiser and schedule begin anew, as at any other point
    (`growth` says why), and `flops_train` counts this point's own steps alone."""

    def science(self) -> dict[str, Any]:
        """What the numbers depend on, as plain data: the settings and the version of every kind, without the
        name of the point and the place where its data lie."""
        plain = identity(self)
        del plain["id"], plain["n_params"]
        plain["data"] |= dict.fromkeys(type(self.data).location_fields & plain["data"].keys())
        plain["versions"] = {
            "data": type(self.data).version,
            "model": type(self.model).version,
            "train": type(self.train).version,
        }
        # kinds that came later are named once their numbers have changed
        train = self.train
        later = {"optimizer": train.optimizer, "task": train.task}
        later |= {f"target {target.key}": target for target in train.targets}
        later |= {f"head {key}": head for key, head in train.heads.items()}
        plain["versions"] |= {name: type(k).version for name, k in later.items() if type(k).version > 1}
        plain["versions"] |= {f"data {name}": n for name, n in self.data.later_versions().items()}
        return plain

    @property
    def fingerprint(self) -> str:
        """sha256 of `science()`: records made from anything else are refused."""
        return fingerprint(self.science())
