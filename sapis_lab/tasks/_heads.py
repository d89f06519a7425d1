"""Heads of a model as a task uses them: found by the keys of their targets, scaled by the training labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.data import FrameStore, fit_references
from sapis_lab.heads import Head, HeadConfig, apply, head_of
from sapis_lab.models import Model
from sapis_lab.targets import Target

_ROUNDING = 1e-6
"""Spread over the largest label at which what constants leave of the labels is rounding: those of atoms are
stored in float32, and constants come from a ridge regression."""


def outputs(
    heads: Mapping[str, Head], node_features: Tensor, batch: AtomsBatch, *, differentiable: bool
) -> dict[str, Tensor]:
    """What every head predicts."""
    with torch.set_grad_enabled(differentiable):
        return apply(heads, node_features, batch)


def normalise_heads(
    model: Model,
    targets: Sequence[Target],
    heads: Mapping[str, HeadConfig],
    store: FrameStore,
    ids: np.ndarray,
) -> None:
    """Scale every head by the labels of the training frames `ids`: spread about their mean, or about the best
    sum of a constant per element, for what is a sum over atoms.

    Raises:
        ValueError: no training frame has a label, all labels are the same, or the head is not for periodic
        frames.
    """
    of_heads = [target for target in targets if not target.from_energy]
    if not of_heads:
        return
    n_atoms = float(store.n_atoms(ids).mean())
    for target in of_heads:
        if heads[target.key].open_only and store.pbc[ids].any():
            raise ValueError(
                f"train.heads.{target.key}: kind {heads[target.key].kind!r} is for open frames, since "
                f"positions enter it, and {store.folder} has periodic ones; wanted another head, such as "
                "kind: tensor"
            )
        labels = store.label_rows(target.key, ids).astype(np.float64)
        there = np.asarray(~np.isnan(labels.reshape(len(labels), -1)).any(1))
        labels = labels[there]
        if not len(labels):
            raise ValueError(f"{store.folder}: no training frame has a label of {target.key}")
        size = float(np.abs(labels).max())
        offset: dict[int, float] = {}
        if target.rank == 0:
            labels, offset = _without_constants(
                labels,
                there,
                store,
                ids,
                None if target.per == "frame" else store.frames(ids).species,
                per_element=_per_element(target, heads[target.key]),
            )
        scale = float(np.sqrt(np.mean(labels**2)))
        if not scale > _ROUNDING * size:
            raise ValueError(
                f"{store.folder}: all labels of {target.key} in the training frames are the same, or follow "
                "from the numbers of atoms of every element; there is nothing to learn"
            )
        of_atom = scale / np.sqrt(n_atoms) if target.per == "frame" and _sums(target, heads) else scale
        head_of(model, target.key).normalise(scale=scale, atom_scale=of_atom, offset=offset)


def _sums(target: Target, heads: Mapping[str, HeadConfig]) -> bool:
    return target.rank > 0 or heads[target.key].sums_atoms(target)


def _per_element(target: Target, head: HeadConfig) -> bool:
    return target.per == "atom" or head.sums_atoms(target)


def _without_constants(
    labels: np.ndarray,
    there: np.ndarray,
    store: FrameStore,
    ids: np.ndarray,
    species: np.ndarray | None,
    *,
    per_element: bool,
) -> tuple[np.ndarray, dict[int, float]]:
    """Scalar labels minus what constants explain, and the constants by atomic number.

    Args:
        labels: (n,) those that there are.   there: (n_frames,) or (n_atoms,) bool, where.
        species: (n_atoms,) of labels per atom; None of labels per frame.
    """
    if not per_element:
        mean = float(labels.mean())
        return labels - mean, dict.fromkeys(store.elements, mean)
    if species is not None:
        which = species[there]
        means = {int(z): float(labels[which == z].mean()) for z in np.unique(which)}
        return labels - np.array([means[int(z)] for z in which]), means
    counts = store.composition(np.asarray(ids)[there])
    present = counts.sum(0) > 0
    constants = fit_references(counts[:, present], labels)
    elements = [z for z, is_there in zip(store.elements, present, strict=True) if is_there]
    return labels - counts[:, present] @ constants, dict(zip(elements, constants.tolist(), strict=True))
