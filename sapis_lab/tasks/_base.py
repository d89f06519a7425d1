"""What training asks of every task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.augmentation import Augmentation
from sapis_lab.batches import BatchMaker, TrainingStream
from sapis_lab.config import KindConfig
from sapis_lab.data import FrameStore
from sapis_lab.derivatives import Prediction
from sapis_lab.heads import HeadConfig, attach
from sapis_lab.models import Model, ModelConfig
from sapis_lab.quantities import declare, kind_measuring
from sapis_lab.references import ReferencesFrom
from sapis_lab.targets import Target

HOPELESS = 10.0
"""A validation error above this multiple of the spread of the training labels counts as diverged: predicting
their mean gives 1."""


class Found(NamedTuple):
    """What an objective predicts of a batch."""

    energy: Tensor | None
    """(B,) eV, without reference energies"""
    forces: Tensor | None
    """(A, 3) eV/Å"""
    stress: Tensor | None
    """(B, 3, 3) eV/Å³"""
    properties: dict[str, Tensor]
    """outputs of the heads by the keys of their targets, in the units of the labels"""
    scales: dict[str, Tensor]
    """spread of the training labels of the same, ()"""

    @classmethod
    def of(cls, prediction: Prediction) -> Found:
        """Energies and their derivatives alone."""
        return cls(prediction.energy, prediction.forces, prediction.stress, {}, {})


def loss_sums(targets: Sequence[Target], found: Found, batch: AtomsBatch, *, scale: Tensor) -> list[Tensor]:
    """`loss_sum` of every target over the batch."""
    return [target.loss_sum(found, batch, scale) for target in targets]


def mean_loss(targets: Sequence[Target], found: Found, batch: AtomsBatch, *, scale: Tensor) -> Tensor:
    """The loss of one batch in which every frame has its labels, on one rank: the sums of targets of frames
    over the frames, those of atoms over the atoms."""
    sums = loss_sums(targets, found, batch, scale=scale)
    n = {"frame": batch.n_frames, "atom": batch.num_nodes}
    return _added([s / n[t.per] for s, t in zip(sums, targets, strict=True)])


def energy_loss(prediction: Prediction, batch: AtomsBatch, *, scale: Tensor, config: LossSettings) -> Tensor:
    """The loss of energies and forces of one batch, by the weights of `config`."""
    return mean_loss(config.targets(), Found.of(prediction), batch, scale=scale)


def _added(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


class Objective(ABC):
    """A model with what it is trained for: the loss of a batch, and the sums from which scores follow."""

    def __init__(self, model: Model, targets: Sequence[Target]) -> None:
        self.model, self.targets = model, tuple(targets)

    @abstractmethod
    def found(self, batch: AtomsBatch, *, differentiable: bool) -> Found:
        """What the model predicts of a batch; with `differentiable` as a function of its parameters."""

    def __call__(self, batch: AtomsBatch, counts: Tensor) -> Tensor:
        """L, (), by autograd; counts (n_targets,): labelled frames, or atoms, to divide the sums by."""
        found = self.found(batch, differentiable=True)
        sums = loss_sums(self.targets, found, batch, scale=self.model.energy_scale)
        return _added([s / counts[k] for k, s in enumerate(sums)])

    @property
    def n_sums(self) -> int:
        """Length of `sums`."""
        return sum(target.n_sums for target in self.targets)

    def sums(self, batch: AtomsBatch) -> Tensor:
        """(n_sums,) float64: the sums of all targets over a batch."""
        found = self.found(batch, differentiable=False)
        every = [s for target in self.targets for s in target.sums(found, batch)]
        return torch.tensor([float(s) for s in every], dtype=torch.float64)

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """The errors over a split, without its name, from its sums (n_sums,), in the order of tables. Of a
        target without a label there, nothing."""
        errors: dict[int, dict[str, float]] = {}
        start = 0
        for k, target in enumerate(self.targets):
            mine = sums[start : start + target.n_sums]
            start += target.n_sums
            errors[k] = target.scores(mine) if mine[-1] else {}
        order = sorted(errors, key=lambda k: self.targets[k].place)
        return {key: value for k in order for key, value in errors[k].items()}

    @property
    def measured(self) -> list[str]:
        """The keys of the errors, without the name of a split, in the order of tables."""
        ordered = sorted(self.targets, key=lambda target: target.place)
        return [measure.key for target in ordered for measure in target.measures()]


class LossSettings(Protocol):
    """Weights of energies and forces."""

    def targets(self) -> tuple[Target, ...]:
        """Energies and forces as targets."""


class TrainSettings(Protocol):
    """What a task reads of `train:`."""

    @property
    def loss(self) -> LossSettings: ...
    @property
    def targets(self) -> tuple[Target, ...]: ...
    @property
    def heads(self) -> Mapping[str, HeadConfig]: ...
    @property
    def references(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def batch_size(self) -> int: ...


class PointSettings(Protocol):
    """What a task reads of a point."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def seed(self) -> int: ...
    @property
    def n_frames(self) -> int: ...
    @property
    def parent(self) -> Any: ...
    @property
    def train(self) -> Any: ...


@dataclass
class Task:
    """What one point trains on and with."""

    store: FrameStore
    train_ids: np.ndarray
    make: BatchMaker
    objective: Objective
    references: np.ndarray
    """(n_species,) eV; zeros where energies are not learnt."""
    references_from: ReferencesFrom | None
    mean_neighbors: float
    batch_size: int
    judged_by: tuple[str, float, str, str]
    """The error that must not exceed HOPELESS times a spread: its key without the split, the spread, its
    unit, and what it is the spread of."""

    @property
    def model(self) -> Model:
        """The model that is trained, heads included."""
        return self.objective.model

    def stream(
        self,
        *,
        seed: int,
        augment: bool | Augmentation = False,
        first_step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        micro_batch: int | None = None,
    ) -> TrainingStream:
        """The batches of the training frames in the order of `seed`, from `first_step()` on, of one rank of
        `world`; with `augment` each frame changed at random, and at most `micro_batch` frames together."""
        return TrainingStream(
            self.make,
            self.train_ids,
            batch_size=self.batch_size,
            seed=seed,
            augment=augment,
            first_step=first_step,
            rank=rank,
            world=world,
            micro_batch=micro_batch,
        )

    @property
    def learns_energies(self) -> bool:
        """Energies are among the targets, so that reference energies matter."""
        return any(target.key == "energy" for target in self.objective.targets)

    def refer_to(self, references: np.ndarray) -> Task:
        """The same task with other reference energies (n_species,), eV."""
        return replace(self, references=references, make=replace(self.make, references=references))

    def divergence(self, metrics: Mapping[str, float]) -> str | None:
        """Why a training that ended with these errors has diverged, in words; None where it has not."""
        bad = [k for k, v in metrics.items() if not math.isfinite(v)]
        if bad:
            return f"diverged: {bad[0]} is {metrics[bad[0]]} at the end of the training"
        key, spread, unit, what = self.judged_by
        error = metrics.get(f"val_{key}")
        if error is None or error <= HOPELESS * spread:
            return None
        times = f"{error / spread:.0f} times" if spread else "far more than"
        label = key.replace("_rmse", " RMSE").replace("_", " ")
        return f"diverged: validation {label} {error:.3g} {unit} at the end, {times} the {what} of the data"


class TaskConfig(KindConfig):
    """Settings of what a training learns; subclasses are the task kinds."""

    @abstractmethod
    def targets(self, train: TrainSettings) -> tuple[Target, ...]:
        """All that is learnt under these settings, in the order of the terms of the loss.

        Raises:
            ValueError: the settings do not say what, or name what this task cannot learn.
        """

    @abstractmethod
    def objective(self, model: Model, targets: Sequence[Target]) -> Objective:
        """The objective of a model whose heads are attached."""

    @abstractmethod
    def prepare(
        self, point: PointSettings, store: FrameStore, ids: np.ndarray, *, siblings: Path | None
    ) -> Task:
        """The task of a point on the frames `ids` of a store.

        Args:
            siblings: the folder of the points, where one that names a parent finds it.

        Raises:
            ValueError: the settings do not fit the data.
        """

    def shapes(self, model: ModelConfig, train: TrainSettings, *, n_species: int) -> list[tuple[int, ...]]:
        """Shapes of the trainable parameters of `model` under this task, heads included; without storage."""
        with torch.device("meta"):
            made = model.build(species=tuple(range(1, n_species + 1)), mean_neighbors=1.0, seed=0)
            self.equip(made, train, seed=0)
        return [tuple(p.shape) for p in made.parameters() if p.requires_grad]

    def n_params(self, model: ModelConfig, train: TrainSettings, *, n_species: int) -> int:
        """Number of the trainable parameters of `model` under this task, heads included."""
        return sum(math.prod(shape) for shape in self.shapes(model, train, n_species=n_species))

    def equip(self, model: Model, train: TrainSettings, *, seed: int) -> None:
        """Attach the heads of the targets that need one; their parameters are drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for target in self.targets(train):
                if not target.from_energy:
                    attach(model, target, train.heads[target.key])


def declared(targets: Sequence[Target]) -> tuple[Target, ...]:
    """`targets`, their errors made known as quantities.

    Raises:
        ValueError: the error of one has the name of that of a kind of targets, which tables know already.
    """
    for target in targets:
        for measure in target.measures():
            kind = kind_measuring(measure.key)
            if kind not in (None, target.kind):
                raise ValueError(
                    f"targets: {target.key!r} would be scored by {measure.key}, an error of the target "
                    f"{kind!r}; wanted another name"
                )
        declare(*target.measures())
    return tuple(targets)
