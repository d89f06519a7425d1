"""What every dataset kind offers, and how its store is found, made once, and opened.

The folder of a store is named after a fingerprint of the settings that determine its frames: all fields of
the config except where its files lie (`root`), and the kind's `version`. The files' contents are not in the
name, because a machine that trains on an existing store need not have them. Instead the store records size
and sha256 of every file it was made from, and `prepare` refuses to open it when those files are present and
have changed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sapis_lab.catalogue import credits_of
from sapis_lab.config import KindConfig, fingerprint, identity
from sapis_lab.data._arrays import lock
from sapis_lab.data._sources import sha256, with_fetching_advice
from sapis_lab.data._store import FrameStore, is_sealed

_REHASH_BYTES = 64_000_000
"""Source files are hashed again on every opening up to this size together (0.05 s); beyond it only sizes are
compared."""

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total)."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before (or without) making it; for planning."""

    species: tuple[int, ...]
    """Atomic numbers, sorted."""
    n_train: int
    """Frames in the pool from which training subsets are taken."""
    n_validation: int
    n_test: Mapping[str, int]
    """Frames by test split."""
    mean_atoms: float
    """Atoms per frame."""
    mean_pairs: float
    """Ordered pairs within the cutoff per frame; an estimate from a few frames."""
    periodic: bool
    bytes_estimate: int
    """Size of the store without neighbour tables."""
    labels: tuple[str, ...] | None = None
    """Keys of the labels that its frames have; None where the kind does not say."""


class DatasetConfig(KindConfig):
    """Settings of a dataset; subclasses are the dataset kinds."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = None
    """The public set that the kind reads (`sapis_lab.catalogue`); None for formats and generated data."""
    location_fields: ClassVar[frozenset[str]] = frozenset({"root"})
    """Fields that say where files lie and are no part of the dataset's identity."""

    @abstractmethod
    def info(self, *, cutoff: float) -> DatasetInfo:
        """Sizes and species, cheaply: generates and labels nothing. `cutoff` in Å."""

    @abstractmethod
    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        """Make, check and seal the store in `folder`, continuing an interrupted attempt where that is
        possible."""

    def identity(self) -> dict[str, Any]:
        """The settings that determine the frames, as plain Python, with the kind's version."""
        plain = {key: value for key, value in identity(self).items() if key not in self.location_fields}
        return {**plain, **self.later_versions(), "version": type(self).version}

    def later_versions(self) -> dict[str, int]:
        """Versions of the kinds that it is made of, such as its oracle, once their numbers have changed."""
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"{name} version": type(part).version
            for name, part in parts.items()
            if isinstance(part, KindConfig) and type(part).version > 1 and name not in self.location_fields
        }

    @classmethod
    def credits(cls) -> dict[str, Any]:
        """Licence and citation of the public set that the kind reads, for the metadata of its stores; empty
        where it reads none."""
        return credits_of(cls.catalogue) if cls.catalogue is not None else {}

    def source_root(self) -> Path | None:
        """The folder that the recorded source files are relative to; None for generated data or where it is
        not known."""
        return None


def store_folder(config: DatasetConfig, cache: Path) -> Path:
    """Where the store of `config` lies under `cache`: `<kind>-<12 hex digits of the fingerprint of its
    identity>`."""
    return Path(cache) / f"{config.kind}-{fingerprint(config.identity())[:12]}"


def prepare(
    config: DatasetConfig, *, cache: Path, n_workers: int = 1, progress: Progress | None = None
) -> FrameStore:
    """The store of `config`, opened at once if it is there, otherwise made under a lock, so that two
    processes never make it twice.

    Args:
        cache: folder of stores.   n_workers: processes that may work on generating it (no influence on the
        result). progress: called as progress(what, done, total) while it is made.
    """
    folder = store_folder(config, cache)
    if not is_sealed(folder):
        with lock(folder.with_name(f".{folder.name}.lock")):
            if not is_sealed(folder):
                with with_fetching_advice(config.catalogue):
                    config.build_store(
                        folder, n_workers=n_workers, progress=progress or (lambda what, done, total: None)
                    )
    store = FrameStore.open(folder)
    _refuse_changed_sources(config, store)
    return store


def _refuse_changed_sources(config: DatasetConfig, store: FrameStore) -> None:
    root, recorded = config.source_root(), store.metadata.get("sources", {})
    if root is None or not recorded:
        return
    rehash = sum(r["bytes"] for r in recorded.values()) <= _REHASH_BYTES
    for name, record in recorded.items():
        file = root / name
        if not file.is_file():
            continue
        if file.stat().st_size != record["bytes"] or (rehash and sha256(file) != record["sha256"]):
            raise ValueError(
                f"{file} has changed since the store {store.folder} was made from it (sha256 then "
                f"{record['sha256'][:12]}); "
                "restore the file, or delete that folder to make the store anew"
            )


def dataset_info(config: DatasetConfig, *, cutoff: float, cache: Path | None = None) -> DatasetInfo:
    """`config.info(cutoff=...)`, taken from the finished store if `cache` has it, so that the source files
    may be absent."""
    if cache is None or not is_sealed(store_folder(config, cache)):
        with with_fetching_advice(config.catalogue):
            return config.info(cutoff=cutoff)
    store = FrameStore.open(store_folder(config, cache))
    return store_info(store, cutoff=cutoff)


def store_info(store: FrameStore, *, cutoff: float, n_sample: int = 20) -> DatasetInfo:
    """The info of a finished store; pairs are counted in `n_sample` frames spread over it."""
    ids = np.unique(np.linspace(0, store.n_frames - 1, n_sample).astype(int))
    sample = store.frames(ids)
    mean_atoms = len(store.species) / store.n_frames
    return DatasetInfo(
        species=store.elements,
        n_train=len(store.splits["train"]),
        n_validation=len(store.splits["validation"]),
        n_test={name: len(s) for name, s in store.splits.items() if name.startswith("test")},
        mean_atoms=mean_atoms,
        mean_pairs=mean_pairs(sample.positions, sample.n_atoms, sample.cell, sample.pbc, cutoff),
        periodic=bool(sample.pbc.any()),
        bytes_estimate=bytes_estimate(store.n_frames, mean_atoms),
        labels=tuple(key for key in store.labels if not _is_empty(store, key)),
    )


def _is_empty(store: FrameStore, key: str) -> bool:
    """Whether no frame or atom has a label of `key`."""
    if key not in store.incomplete:
        return False
    labels, chunk = store.label_column(key), 1 << 18
    return all(bool(np.isnan(labels[k : k + chunk]).all()) for k in range(0, len(labels), chunk))


def mean_pairs(
    positions: np.ndarray, n_atoms: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> float:
    """Ordered pairs per frame within `cutoff`, averaged over the given frames (shapes as in `Frames`)."""
    from sapis_lab.neighbors import neighbor_list

    frames = np.split(positions, np.cumsum(n_atoms)[:-1])
    return float(
        np.mean([len(neighbor_list(x, cell[k], pbc[k], cutoff).center) for k, x in enumerate(frames)])
    )


def bytes_estimate(n_frames: int, mean_atoms: float) -> int:
    """Size of a store without optional columns: 37 bytes an atom, 99 a frame with its place in a split."""
    return round(n_frames * (37 * mean_atoms + 99))
