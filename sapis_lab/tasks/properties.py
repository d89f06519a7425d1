"""Properties alone: heads on the features of a trunk that learns no energies, as for molecules with a gap or
a polarisability and no forces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch
from sapis_lab.batches import BatchMaker
from sapis_lab.data import FrameStore
from sapis_lab.derivatives import node_features
from sapis_lab.heads import head_of
from sapis_lab.models import Model
from sapis_lab.targets import Target
from sapis_lab.tasks._base import Found, Objective, PointSettings, Task, TaskConfig, TrainSettings, declared
from sapis_lab.tasks._heads import normalise_heads, outputs


class PropertyObjective(Objective):
    """Outputs of heads; no energies, and no derivatives in positions."""

    def __init__(self, model: Model, targets: Sequence[Target]) -> None:
        super().__init__(model, targets)
        self._heads = {target.key: head_of(model, target.key) for target in targets}

    def found(self, batch: AtomsBatch, *, differentiable: bool) -> Found:
        features = node_features(self.model, batch, differentiable=differentiable)
        properties = outputs(self._heads, features, batch, differentiable=differentiable)
        return Found(None, None, None, properties, {key: head.scale for key, head in self._heads.items()})


class PropertiesConfig(TaskConfig):
    """The targets of `train.targets`, each with its head; `train.loss` is not looked at."""

    kind: Literal["properties"] = "properties"

    def targets(self, train: TrainSettings) -> tuple[Target, ...]:
        if not train.targets:
            raise ValueError("task: properties wants targets, got none; name them in train.targets")
        for target in train.targets:
            if target.from_energy:
                raise ValueError(
                    f"task: properties learns no energies, and so no {target.key}; wanted targets with a "
                    "head, or task: energies"
                )
        return declared(train.targets)

    def objective(self, model: Model, targets: Sequence[Target]) -> Objective:
        return PropertyObjective(model, targets)

    def equip(self, model: Model, train: TrainSettings, *, seed: int) -> None:
        model.forgo_energy()
        super().equip(model, train, seed=seed)

    def prepare(
        self, point: PointSettings, store: FrameStore, ids: np.ndarray, *, siblings: Path | None
    ) -> Task:
        if point.parent is not None:
            raise ValueError(f"{point.id} starts from a parent; models with heads do not grow")
        targets = self.targets(point.train)
        table = store.neighbors(point.model.cutoff)
        mean_neighbors = float(table.n_edges(ids).sum() / store.n_atoms(ids).sum())
        model = point.model.build(species=store.elements, mean_neighbors=mean_neighbors, seed=point.seed)
        self.equip(model, point.train, seed=point.seed)
        dtype = getattr(torch, point.train.precision)
        model = model.to(dtype)
        references = np.zeros(len(store.elements))
        make = BatchMaker(
            store, references, layout=model.layout, cutoff=point.model.cutoff, dtype=dtype, targets=targets
        )
        normalise_heads(model, targets, point.train.heads, store, ids)
        first = targets[0]
        spread = float(head_of(model, first.key).scale)
        return Task(
            store,
            ids,
            make,
            self.objective(model, targets),
            references,
            None,
            mean_neighbors,
            min(point.train.batch_size, point.n_frames),
            judged_by=(first.measures()[0].key, spread, first.unit, "spread"),
        )
