"""What is tuned, and how: the `tune:` section of a study file. Light: neither torch nor Optuna is
imported."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from sapis_lab.config import Config, FrameCount, Size
from sapis_lab.quantities import Quantity, quantity
from sapis_lab.targets import LOSS

Bounds = tuple[float, float]
Choice = StrictBool | StrictInt | StrictFloat | StrictStr | None

COSTS = (
    "flops_train",
    "flops_inference_per_frame",
    "seconds_train",
    "cpu_seconds_train",
    "seconds_total",
    "n_params",
)
"""What may stand beside an error as an objective; all of them are better when smaller."""


_MOST_STEPS = 10_000


class Axis(Config):
    """The values that one setting may take: exactly one of `log`, `linear` and `choice`. Settings that are
    whole numbers get whole ones."""

    log: Bounds | None = None
    """Smallest and largest value, in steps of equal ratio."""
    linear: Bounds | None = None
    """Smallest and largest value, in steps of equal size."""
    step: Annotated[float, Field(gt=0)] | None = None
    """With `linear`: the values are the smallest, that plus one step, and so on."""
    choice: Annotated[tuple[Choice, ...], Field(min_length=1)] | None = None
    """The values themselves, without an order: numbers, words, true, false or null."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("log", "linear", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"wanted exactly one of log, linear and choice, got {' and '.join(given) or 'none of them'}"
            )
        if self.step is not None and self.linear is None:
            raise ValueError(f"step goes with linear, not with {given[0]}")
        if self.bounds is not None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"wanted the smallest and the largest value, got [{low:g}, {high:g}]")
            if self.log is not None and low <= 0:
                raise ValueError(f"log wants values above 0, got a smallest value of {low:g}")
            if self.step is not None and not 1 <= (high - low) / self.step <= _MOST_STEPS:
                raise ValueError(
                    f"step: {self.step:g} divides [{low:g}, {high:g}] into none or too many; wanted 1 to "
                    f"{_MOST_STEPS} steps"
                )
        if self.choice is not None and len(set(map(repr, self.choice))) < len(self.choice):
            raise ValueError(f"wanted distinct values, got {list(self.choice)}")
        return self

    @property
    def bounds(self) -> Bounds | None:
        """Smallest and largest value of a range."""
        return self.log or self.linear


class TuneOptions(Config):
    """The `tune:` section. Every (model, N, D) is tuned on its own; a trial is one point, trained like any
    other."""

    space: dict[str, Axis] = Field(min_length=1)
    """What to vary, by its dotted name in a point's config: train.learning_rate, model.heads,
    n_params_target, n_frames."""
    trials: int = Field(default=20, ge=1, le=100_000)
    """Trials of every (model, N, D); those that were pruned, diverged or failed count."""
    sampler: Literal["tpe", "gp", "cmaes"] = "tpe"
    """tpe: tree-structured Parzen estimators, for any space; gp: Gaussian process, for few trials and smooth
    errors; cmaes: evolution strategy, for many trials, one objective and no choices (it needs the extra
    `cmaes`)."""
    pruner: Literal["none", "median", "asha", "hyperband"] = "none"
    """Ends trials early by their validation errors: below the median of the others, or by successive halving
    with a factor of 3."""
    objectives: tuple[str, ...] | None = None
    """What to make small at the end of the training: quantities of a record. Several give a Pareto front, as
    in [val_force_rmse, flops_train]. The study's `law.quantity` when not given."""
    n_params: tuple[Size, ...] | None = None
    """Sizes N at which to tune; those of the lattice when not given."""
    n_frames: tuple[FrameCount, ...] | None = None
    """Data amounts D at which to tune; those of the lattice when not given."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the sampler. The seed of a trial's point is the first of the lattice, or they take turns where
    it has several."""

    @field_validator("n_params", "n_frames")
    @classmethod
    def _distinct(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError(f"wanted distinct values, got {list(values)}")
        return values

    @field_validator("objectives")
    @classmethod
    def _can_be_made_small(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for key in keys or ():
            _refuse_objective(quantity(key))
        if keys is not None and (not keys or len(set(keys)) < len(keys)):
            raise ValueError(f"wanted one or more distinct quantities, got {list(keys)}")
        return keys

    def objectives_of(self, law_quantity: str) -> tuple[str, ...]:
        """The objectives, given the quantity of the study's law. ValueError where pruner or sampler cannot
        serve them."""
        keys = self.objectives or (law_quantity,)
        for key in keys:
            _refuse_objective(quantity(key))
        if self.pruner != "none" and (len(keys) > 1 or not keys[0].startswith("val_")):
            raise ValueError(
                f"tune.pruner: {self.pruner!r} compares validation errors along the training, so it wants "
                f"one objective such as "
                f"val_force_rmse, got {', '.join(keys)}; use pruner: none"
            )
        if self.sampler == "cmaes":
            words = [name for name, axis in self.space.items() if axis.choice is not None]
            if len(keys) > 1 or words:
                what = f"has the choice {words[0]}" if words else f"has {len(keys)} objectives"
                raise ValueError(
                    f"tune.sampler: 'cmaes' wants one objective and ranges of numbers, but this study "
                    f"{what}; use tpe or gp"
                )
        return keys


def _refuse_objective(q: Quantity) -> None:
    if q.evaluation:
        raise ValueError(
            f"tune.objectives: {q.key!r} is measured by an evaluation, after the training; use an error of "
            f"the training such as {LOSS}"
        )
    if q.key.startswith("test_"):
        raise ValueError(
            f"tune.objectives: {q.key!r} would choose settings by the test frames, which then test nothing; "
            f"use {'val' + q.key[4:]!r}"
        )
    if q.split == "train":
        raise ValueError(
            f"tune.objectives: {q.key!r} would choose settings by frames that were learnt, which favours "
            f"learning them by heart; use {q.on_validation!r}"
        )
    if q.better != "lower" and q.key not in COSTS:
        raise ValueError(
            f"tune.objectives: {q.key!r} is neither an error nor a cost; known costs are {', '.join(COSTS)}"
        )
