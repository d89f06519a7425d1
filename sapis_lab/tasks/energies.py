"""Energies and what follows from them: forces, stress, and heads that learn properties beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch
from sapis_lab.batches import BatchMaker
from sapis_lab.config import home
from sapis_lab.data import FrameStore
from sapis_lab.derivatives import predict
from sapis_lab.elements import SYMBOLS
from sapis_lab.files import digest
from sapis_lab.growth import grow
from sapis_lab.heads import head_of
from sapis_lab.models import Model
from sapis_lab.potential import WEIGHTS, load_potential
from sapis_lab.references import ReferencesFrom
from sapis_lab.targets import ForcesTarget, Target
from sapis_lab.tasks._base import Found, Objective, PointSettings, Task, TaskConfig, TrainSettings, declared
from sapis_lab.tasks._heads import normalise_heads, outputs
from sapis_lab.tasks._references import references_of


class EnergyObjective(Objective):
    """Energies, forces and on demand stress, by one derivative; outputs of heads from the same features."""

    def __init__(self, model: Model, targets: Sequence[Target]) -> None:
        super().__init__(model, targets)
        self._stress = any(target.key == "stress" for target in targets)
        self._heads = {t.key: head_of(model, t.key) for t in targets if not t.from_energy}

    def found(self, batch: AtomsBatch, *, differentiable: bool) -> Found:
        made = predict(
            self.model,
            batch,
            stress="where periodic" if self._stress else False,
            differentiable=differentiable,
        )
        if not self._heads:
            return Found(made.energy, made.forces, made.stress, {}, {})
        properties = outputs(self._heads, made.node_features, batch, differentiable=differentiable)
        scales = {key: head.scale for key, head in self._heads.items()}
        return Found(made.energy, made.forces, made.stress, properties, scales)


class EnergiesConfig(TaskConfig):
    """Energies and forces by the weights of `train.loss`, and `train.targets` beside them."""

    kind: Literal["energies"] = "energies"

    def targets(self, train: TrainSettings) -> tuple[Target, ...]:
        """Energy, forces, then the further targets in their order."""
        return declared((*train.loss.targets(), *train.targets))

    def objective(self, model: Model, targets: Sequence[Target]) -> Objective:
        return EnergyObjective(model, targets)

    def prepare(
        self, point: PointSettings, store: FrameStore, ids: np.ndarray, *, siblings: Path | None
    ) -> Task:
        targets = self.targets(point.train)
        table = store.neighbors(point.model.cutoff)
        mean_neighbors = float(table.n_edges(ids).sum() / store.n_atoms(ids).sum())
        force_rms = _force_rms(store, ids)
        made_from: ReferencesFrom | None
        start = point.train.start
        if start is not None:
            model, references, mean_neighbors = _started(point, store)
            made_from = ReferencesFrom.of_frames(
                store.composition(ids), store.elements, kind=point.train.references
            )
        elif point.parent is None:
            references = references_of(point, store, ids)
            made_from = ReferencesFrom.of_frames(
                store.composition(ids), store.elements, kind=point.train.references
            )
            model = point.model.build(species=store.elements, mean_neighbors=mean_neighbors, seed=point.seed)
        else:
            if any(not target.from_energy for target in targets):
                raise ValueError(f"{point.id} starts from a parent; models with heads do not grow")
            model, references, made_from, mean_neighbors = _inherited(point, store, siblings)
        self.equip(model, point.train, seed=point.seed)
        dtype = getattr(torch, point.train.precision)
        model = model.to(dtype)
        if point.parent is None and start is None:
            model.energy_scale.fill_(force_rms)
        make = BatchMaker(
            store, references, layout=model.layout, cutoff=point.model.cutoff, dtype=dtype, targets=targets
        )
        normalise_heads(model, targets, point.train.heads, store, ids)
        return Task(
            store,
            ids,
            make,
            self.objective(model, targets),
            references,
            made_from,
            mean_neighbors,
            min(point.train.batch_size, point.n_frames),
            judged_by=(ForcesTarget().measures()[0].key, force_rms, ForcesTarget.unit, "force RMS"),
        )


_FRAMES = 1 << 18
"""Frames whose forces are looked at together. The mean over more of them is made of theirs, which may move
its last bit."""


def _force_rms(store: FrameStore, ids: np.ndarray) -> float:
    means, n, some_lack = [], [], "forces" in store.incomplete
    for first in range(0, len(ids), _FRAMES):
        forces = store.label_rows("forces", ids[first : first + _FRAMES])
        squares = forces.astype(np.float64) ** 2
        labelled = squares.size - int(np.isnan(squares).sum()) if some_lack else squares.size
        if labelled:
            means.append(np.nanmean(squares) if some_lack else np.mean(squares))
            n.append(labelled)
    if not means:
        raise ValueError(
            f"{store.folder}: no training frame has forces, which set the scale of energies; "
            "wanted some, or train.task=properties"
        )
    return float(np.sqrt(means[0] if len(means) == 1 else np.average(means, weights=n)))


def _inherited(
    point: PointSettings, store: FrameStore, siblings: Path | None
) -> tuple[Model, np.ndarray, ReferencesFrom | None, float]:
    """Model, reference energies (n_species,) eV with their record, and mean neighbours of a point that starts
    from its parent: the same function, in a model of the point's size."""
    assert point.parent is not None
    if siblings is None:
        raise ValueError(f"{point.id} starts from {point.parent.id}, but nothing says where that point lies")
    born = load_potential(siblings / point.parent.id)
    if born.origin.get("fingerprint") != point.parent.fingerprint:
        raise ValueError(
            f"{siblings / point.parent.id} was made from other settings than the parent that {point.id} "
            f"names; run that one again"
        )
    if tuple(born.model.species) != tuple(store.elements):
        raise ValueError(
            f"{point.parent.id} knows the elements {list(born.model.species)}, its child's data have "
            f"{list(store.elements)}"
        )
    grown = grow(born.model.train().requires_grad_(True), point.model, seed=point.seed)
    if grown.config != point.model:
        raise ValueError(
            f"{point.id}: its model is not the one that {point.parent.id} grows to; wanted {grown.config!r}"
        )
    references = np.array([born.references[int(z)] for z in store.elements])
    return grown.model, references, born.references_from, born.mean_neighbors


def _started(point: PointSettings, store: FrameStore) -> tuple[Model, np.ndarray, float]:
    """Model, reference energies (n_species of the store,) eV, and mean neighbours of the point that
    `train.start` names."""
    start = point.train.start
    folder = home() / start.point
    born = load_potential(folder)
    if start.weights not in (None, digest(folder / WEIGHTS)):
        raise ValueError(f"train.start.point: the weights of {start.point} have changed since it was planned")
    if born.heads or not born.model.gives_energy:
        raise ValueError(f"train.start.point: {start.point} has heads; wanted one of energies alone")
    if born.config != point.model:
        raise ValueError(
            f"train.start.point: {start.point} is another model than {point.id} was planned with"
        )
    if unknown := sorted(set(store.elements) - set(born.model.species)):
        names = ", ".join(SYMBOLS[z] for z in unknown)
        raise ValueError(
            f"train.start.point: {start.point} knows the elements "
            f"{', '.join(SYMBOLS[z] for z in born.model.species)}, the data have {names} as well"
        )
    references = np.array([born.references[int(z)] for z in store.elements])
    return born.model.train().requires_grad_(True), references, born.mean_neighbors
