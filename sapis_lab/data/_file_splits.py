"""Which frames of files are for training, validation and testing."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sapis_lab.data._base import mean_pairs
from sapis_lab.data._group_keys import GroupKeys
from sapis_lab.data._groups import Groups, SplitBy, groups_of
from sapis_lab.data._pools import pool_splits
from sapis_lab.errors import Notice

if TYPE_CHECKING:
    from sapis_lab.data._file_labels import Scales
    from sapis_lab.data._file_settings import FileSettings
    from sapis_lab.formats import Block

_SAMPLE_FRAMES = 20
"""Frames in which pairs are counted for `info`."""


class Species(NamedTuple):
    """What the splits depend on besides the numbers of frames."""

    species: np.ndarray
    """(n_atoms_total,)"""
    offsets: np.ndarray
    """(n_frames + 1,)"""

    def of(self, frame: int) -> np.ndarray:
        return self.species[self.offsets[frame] : self.offsets[frame + 1]]


def needs_sources(config: FileSettings) -> bool:
    """Whether it matters which file a frame comes from."""
    split_by, order = config.split_by, config.order
    return (isinstance(split_by, SplitBy) and split_by.by == "source") or getattr(order, "by", "") == "source"


def splits_of(
    config: FileSettings,
    atoms: Species,
    ranges: dict[str, np.ndarray],
    keys: GroupKeys,
    which: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Frames by split; `which` is the number of the file of every frame, where it matters."""
    pool, split_by, held_out = ranges["train"], config.split_by, config.n_validation or config.n_test
    groups = None
    if isinstance(split_by, SplitBy) and split_by.by != "key":
        groups = groups_of(
            split_by,
            species=atoms.species,
            offsets=atoms.offsets,
            ids=pool,
            sources=() if which is None else [str(k) for k in which],
        )
    elif held_out:
        largest = isinstance(split_by, SplitBy) and split_by.test == "largest"
        groups = keys.groups(pool, n_atoms=np.diff(atoms.offsets)[pool] if largest else None)
    if groups is not None and split_by == "auto":
        n_splits = 1 + bool(config.n_validation) + bool(config.n_test)
        if len(np.unique(groups.labels)) < n_splits:  # all of one trajectory: nothing can be kept apart
            return _pool_splits(config, atoms, ranges, None)
        try:
            return _pool_splits(config, atoms, ranges, groups)
        except ValueError as error:
            warnings.warn(
                f"frames that share {keys.name} are in several splits: whole groups cannot be held out "
                f"({error}); split_by: null leaves out this notice",
                Notice,
                stacklevel=2,
            )
            groups = None
    return _pool_splits(config, atoms, ranges, groups)


def _pool_splits(
    config: FileSettings, atoms: Species, ranges: dict[str, np.ndarray], groups: Groups | None
) -> dict[str, np.ndarray]:
    filters = ("where", "without", "max_force", "energy_window")
    used = [name for name in filters if getattr(config, name)]
    try:
        return _pooled(config, atoms, ranges, groups)
    except ValueError as error:
        if not used:
            raise
        raise ValueError(f"{error} (some are left out by {', '.join(used)})") from None


def _pooled(
    config: FileSettings, atoms: Species, ranges: dict[str, np.ndarray], groups: Groups | None
) -> dict[str, np.ndarray]:
    return pool_splits(
        ranges,
        train=config.train,
        tests=config.tests,
        n_train=config.n_train,
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        strata=None if config.seed is None else _strata(config, atoms, ranges["train"]),
        groups=groups,
    )


def _strata(config: FileSettings, atoms: Species, ids: np.ndarray) -> np.ndarray | None:
    if config.strata == "none":
        return None
    keys = ["-".join(map(str, np.sort(atoms.of(k)))) for k in ids]
    return np.unique(keys, return_inverse=True)[1]


class Scan:
    """What `info` says of the frames of all files."""

    def __init__(self) -> None:
        self._species: list[np.ndarray] = []
        self._n_atoms: list[np.ndarray] = []
        self._sample: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._stride, self._seen = 1, 0
        self.periodic = False

    def __len__(self) -> int:
        return self._seen

    def add(self, block: Block, to: Scales) -> None:
        self._species.append(block.species.astype(np.uint8))
        self._n_atoms.append(block.n_atoms)
        self.periodic |= bool(block.pbc.any())
        ends = np.cumsum(block.n_atoms)
        for k in range(len(block)):
            if (self._seen + k) % self._stride == 0:
                x = block.positions[ends[k] - block.n_atoms[k] : ends[k]]
                self._sample.append((x * to.length, block.cell[k] * to.length, block.pbc[k]))
            if len(self._sample) > 2 * _SAMPLE_FRAMES:
                self._sample, self._stride = self._sample[::2], 2 * self._stride
        self._seen += len(block)

    def atoms(self) -> Species:
        n_atoms = np.concatenate([*self._n_atoms, np.zeros(0, np.int64)])
        species = np.concatenate([*self._species, np.zeros(0, np.uint8)])
        return Species(species, np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64))

    def mean_pairs(self, cutoff: float) -> float:
        x, cell, pbc = zip(*self._sample, strict=True)
        n_atoms = np.array([len(frame) for frame in x])
        return mean_pairs(np.concatenate(x), n_atoms, np.array(cell), np.array(pbc), cutoff)
