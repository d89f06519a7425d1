"""What every policy offers: the next step of a campaign, from the runs so far and from what runs cost.

A decision is a pure function of the table, the prices and the rules: nothing is kept from one call to the
next and nothing is drawn that the table does not determine, so that a history can be decided again.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

from sapis_lab.analysis.laws import Array
from sapis_lab.config import KindConfig, dump, named_kind

Action = Literal["seed", "model", "data", "both", "jump", "repeat", "measure", "label", "stop"]


@dataclass(frozen=True)
class Runs:
    """Finished runs in the order in which they were made, (n,) each."""

    n_params: Array
    n_frames: Array
    loss: Array
    cost: Array
    seed: np.ndarray
    measured: np.ndarray
    """True for measurements (`repeat`, `measure`), which are no part of the campaign's path."""

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def last(self) -> int:
        """The largest run so far, from which the next one steps; of equal ones the later."""
        path = np.where(self.measured, -np.inf, self.cost)
        return int(len(self) - 1 - np.argmax(path[::-1]))

    @property
    def n_measured_since(self) -> int:
        """Measurements since the last run of the path."""
        path = np.flatnonzero(~self.measured)
        return int(len(self) - 1 - path[-1]) if len(path) else 0

    def and_then(
        self, n_params: float, n_frames: float, loss: float, cost: float, *, seed: int, measured: bool
    ) -> Runs:
        """With one run more."""
        more = (n_params, n_frames, loss, cost, seed, measured)
        columns = (self.n_params, self.n_frames, self.loss, self.cost, self.seed, self.measured)
        return Runs(*(np.append(column, value) for column, value in zip(columns, more, strict=True)))

    def take(self, n: int) -> Runs:
        """The first n."""
        return Runs(
            *(c[:n] for c in (self.n_params, self.n_frames, self.loss, self.cost, self.seed, self.measured))
        )


@dataclass(frozen=True)
class Prices:
    """cost(N, D) = kappa N^power D + label max(D - labelled, 0)."""

    kappa: float
    """FLOPs of a parameter for each frame, all epochs together."""
    power: float = 1.0
    """Of N: small models spend more FLOPs on a parameter than large ones."""
    label: float = 0.0
    """Of making one more labelled frame, in FLOPs."""
    labelled: float = np.inf
    """Frames that are there."""

    def of(self, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """cost(N, D), broadcast."""
        N, D = np.asarray(n_params, float), np.asarray(n_frames, float)
        training = self.kappa * N**self.power * D
        return training + self.label * np.maximum(D - self.labelled, 0.0) if self.label else training

    def frames(self, n_params: ArrayLike, cost: float) -> Array:
        """D that N leaves of `cost`."""
        each = self.kappa * np.asarray(n_params, float) ** self.power
        if not self.label:
            return cost / each
        return np.where(
            cost / each <= self.labelled,
            cost / each,
            (cost + self.label * self.labelled) / (each + self.label),
        )

    def params(self, n_frames: float, cost: float) -> float:
        """N that D leaves of `cost`; 0 where the labels alone cost more."""
        left = cost - self.label * max(n_frames - self.labelled, 0.0) if self.label else cost
        return float((max(left, 0.0) / (self.kappa * n_frames)) ** (1 / self.power))


@dataclass(frozen=True)
class Rules:
    """What holds for the whole campaign."""

    growth: float = 2.0
    """Cost of a run over that of the one before."""
    most_params: float = np.inf
    most_frames: float = np.inf
    """Frames that there are or that can be made."""
    sure: float = 0.5
    """Probability that a split must have of being better than growing both."""
    measure: bool = True
    """Cheap measurements are allowed."""
    measurements: int = 4
    """Between two runs of the path, at most."""
    cheap: float = 0.1
    """A measurement may cost this part of the next run at most."""
    overhead: float = 0.02
    """A measurement counts as costing this part of the next run at least: starting, scoring and waiting are
    not free. Few and informative measurements early are worth more than many cheap ones later."""
    tolerance: float = 0.0
    """Stop when the expected loss above its floor is less, in the unit of the loss."""
    min_gain: float = 0.0
    """Stop when the expected gain in ln L per doubling of the cost is less."""
    target: float | None = None
    """A loss; stop when it is reached, or when the floor is above it."""


@dataclass(frozen=True)
class Decision:
    """What to do next, and why."""

    action: Action
    n_params: float = np.nan
    n_frames: float = np.nan
    seed: int = 0
    cost: float = np.nan
    predicted: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    """Median and 95 % interval of the loss that the run will measure."""
    reason: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    """What the reason rests on."""


class PolicyConfig(KindConfig):
    """Settings of a policy; subclasses are the policy kinds."""

    @abstractmethod
    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        """The next step of a campaign.

        Args:
            runs: so far.   prices: of all others.
            next_cost: of the next run of the path.   horizon: what may still be spent, this run included; a
                measurement serves all of it.
            rules: of the campaign. `move` of this package keeps a run within them.

        Raises:
            ValueError: too few runs for a law of N and D.
        """


def policy(given: Any, context: Any = None) -> PolicyConfig:
    """The policy that a name, or a mapping with `kind` and settings, stands for. ValueError names the nearest
    kind when there is none of that name."""
    return named_kind("policies", PolicyConfig, given, context)


def written(policy: PolicyConfig) -> Any:
    """What `policy` reads back: the name of one without settings, else all of them."""
    return dump(policy) if len(type(policy).model_fields) > 1 else policy.kind


def _given(value: Any, info: ValidationInfo) -> PolicyConfig:
    return policy(value, info.context)


PolicyChoice = Annotated[PolicyConfig, BeforeValidator(_given), PlainSerializer(written)]
"""A setting that holds a policy, given and written as its name, or with settings of its own."""
