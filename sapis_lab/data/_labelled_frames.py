"""Frames one at a time, each with its labels by name: what readers of molecules and crystals hand over, made
into a checked and sealed store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.data._base import DatasetInfo, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._pools import wrap_scattered
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import Frames, FrameStore, Property

_SAMPLE = 20
"""Frames in which pairs are counted for a plan."""
UNITS = {"energy": "eV", "length": "Angstrom", "force": "eV/Angstrom"}


@dataclass(frozen=True)
class LabelledFrame:
    """One frame in eV and Å."""

    place: str
    """Where it comes from, for messages."""
    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3) Å."""
    cell: np.ndarray | None = None
    """(3, 3) Å, rows are lattice vectors; None without periodicity, otherwise all three directions are
    periodic."""
    energy: float = float("nan")
    """Total, eV."""
    forces: np.ndarray | None = None
    """(n_atoms, 3) eV/Å."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Further labels by name; NaN, or none, where one is missing."""


def joined(frames: Sequence[LabelledFrame], declared: Mapping[str, Property]) -> Frames:
    """Frames as a store takes them, with the labels that are `declared`."""
    n_atoms = np.array([len(frame.species) for frame in frames])
    labels: dict[str, np.ndarray] = {}
    for name, kind in declared.items():
        shape = (3,) * kind.rank
        if kind.per == "atom":
            rows = [_of_atoms(frame, name, (len(frame.species), *shape)) for frame in frames]
            labels[name] = np.concatenate(rows)
        else:
            labels[name] = np.array([frame.labels.get(name, np.full(shape, np.nan)) for frame in frames])
    zero = np.zeros((3, 3))
    made = Frames(
        n_atoms=n_atoms,
        species=np.concatenate([frame.species for frame in frames]).astype(np.uint8),
        positions=np.concatenate([frame.positions for frame in frames]).astype(np.float64),
        cell=np.array([zero if frame.cell is None else frame.cell for frame in frames]),
        pbc=np.array([[frame.cell is not None] * 3 for frame in frames]),
        energy=np.array([frame.energy for frame in frames]),
        forces=np.concatenate(
            [np.full((len(f.species), 3), np.nan) if f.forces is None else f.forces for f in frames]
        ),
        properties=labels,
    )
    wrap_scattered(made)
    return made


def _of_atoms(frame: LabelledFrame, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(frame.labels.get(name, np.full(shape, np.nan)), dtype=np.float64).reshape(shape)


def seal_frames(
    folder: Path,
    frames: Sequence[LabelledFrame],
    *,
    declared: Mapping[str, Property],
    splits: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    may_lack: Collection[str] = (),
) -> None:
    """Make, check and seal the store of `frames` in `folder`.

    Args:
        declared: the further labels.   splits: numbers of `frames` by split.   metadata: as
            `FrameStore.seal`, without units.   may_lack: labels that may be missing.
    """
    store = FrameStore.create(folder, properties=declared)
    store.append(joined(frames, declared))
    check_store(store, splits, lambda k: frames[k].place, may_lack=may_lack)
    store.seal(splits=splits, metadata={"units": UNITS, **metadata})


def info_of(
    frames: Sequence[LabelledFrame],
    *,
    labels: Sequence[str],
    splits: Mapping[str, np.ndarray],
    cutoff: float,
) -> DatasetInfo:
    """What is known of `frames` before a store is made of them; `labels` are the keys that they have."""
    some = [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, _SAMPLE).astype(int))]
    sample = joined(some, {})
    n_atoms = np.array([len(frame.species) for frame in frames])
    named = np.concatenate(list(splits.values()))
    return DatasetInfo(
        species=tuple(int(z) for z in np.unique(np.concatenate([frames[k].species for k in named]))),
        n_train=len(splits["train"]),
        n_validation=len(splits["validation"]),
        n_test={name: len(ids) for name, ids in splits.items() if is_test_split(name)},
        mean_atoms=float(n_atoms.mean()),
        mean_pairs=mean_pairs(sample.positions, sample.n_atoms, sample.cell, sample.pbc, cutoff),
        periodic=bool(sample.pbc.any()),
        bytes_estimate=bytes_estimate(len(frames), float(n_atoms.mean())),
        labels=tuple(labels),
    )
