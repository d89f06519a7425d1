"""The frames of one data set with those of another among them: replay, against forgetting in a training that
goes on from a potential of the other set, and a test set of it that measures what is forgotten.

Training frames are those of `main` in their order, after every `every` of them one of `replay` in its order,
as long as there are any: D counts both. Validation frames and test sets are those of `main`, and the first
test set of `replay` is `test_replay`.

Energies of two levels of theory differ by energies of atoms, first of all. With `align` those of `replay`
are moved by a sum over atoms, such that the composition explains the same in both; forces are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import composed_kind
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, prepare
from sapis_lab.data._copies import copies
from sapis_lab.data._references import fit_references
from sapis_lab.data._store import Frames, FrameStore

_BLOCK = 4096
"""Frames that are copied at a time."""
_FITTED = 5000
"""Most training frames of each set that energies of atoms are fitted to."""
_COLUMNS = ("stress",)
_ALIKE = 1e-3
"""eV/Å: forces that differ less are those of one level of theory."""


class JoinedConfig(DatasetConfig):
    """One data set with frames of another among its training frames."""

    version: ClassVar[int] = 1
    kind: Literal["joined"] = "joined"
    main: composed_kind("data", DatasetConfig)  # type: ignore[valid-type]
    """What is learnt: a name from configs/data/, or settings."""
    replay: composed_kind("data", DatasetConfig)  # type: ignore[valid-type]
    """What is not to be forgotten."""
    every: int | None = Field(default=1, ge=1, le=10**9)
    """A frame of replay after so many of main; none: none in training, only its test set."""
    align: bool = False
    """Move the energies of replay by energies of atoms to those of main."""

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "every": self.every,
            "align": self.align,
            "main": self.main.identity(),
            "replay": self.replay.identity(),
            "version": type(self).version,
        }

    def info(self, *, cutoff: float) -> DatasetInfo:
        main, replay = (part.info(cutoff=cutoff) for part in (self.main, self.replay))
        n = len(_interleaved(np.arange(main.n_train), np.arange(replay.n_train), self.every))
        share = 1 - main.n_train / n
        n_test = dict(main.n_test)
        n_test["test_replay"] = next(iter(replay.n_test.values()), 0)
        labels = None
        if main.labels is not None and replay.labels is not None:
            labels = tuple(key for key in main.labels if key in replay.labels)
        return DatasetInfo(
            species=tuple(sorted({*main.species, *replay.species})),
            n_train=n,
            n_validation=main.n_validation,
            n_test=n_test,
            mean_atoms=(1 - share) * main.mean_atoms + share * replay.mean_atoms,
            mean_pairs=(1 - share) * main.mean_pairs + share * replay.mean_pairs,
            periodic=main.periodic or replay.periodic,
            bytes_estimate=main.bytes_estimate + replay.bytes_estimate,
            labels=labels,
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        """Raises ValueError where replay has no test set, or its energies cannot be aligned."""
        main, replay = (
            prepare(part, cache=folder.parent, n_workers=n_workers, progress=progress)
            for part in (self.main, self.replay)
        )
        tests = [name for name, ids in replay.splits.items() if name.startswith("test") and len(ids)]
        if not tests:
            raise ValueError(f"replay: {self.replay.kind!r} has no test frames; wanted some")
        atoms = _difference(main, replay) if self.align else np.zeros(len(replay.elements))
        columns = tuple(c for c in _COLUMNS if c in main.columns and c in replay.columns)
        store = FrameStore.create(folder, columns=columns)
        places = {}
        for name, source in (("main", main), ("replay", replay)):
            used = {"train", tests[0]} if source is replay else set(source.splits)
            ids = np.unique(np.concatenate([source.splits[split] for split in sorted(used)]))
            places[name] = np.full(source.n_frames, -1)
            places[name][ids] = store.n_frames + np.arange(len(ids))
            for some, frames in _blocks(source, ids):
                if source is replay:
                    frames.energy[:] += source.composition(some) @ atoms
                store.append(_kept(frames, columns))
                progress("joining frames", store.n_frames, main.n_frames + replay.n_frames)
        splits = {split: places["main"][ids] for split, ids in main.splits.items()}
        of_replay = places["replay"][replay.splits["train"]]
        splits["train"] = _interleaved(splits["train"], of_replay, self.every)
        splits["test_replay"] = places["replay"][replay.splits[tests[0]]]
        _refuse_copies(store, splits)
        energies = {str(z): float(e) for z, e in zip(replay.elements, atoms, strict=True)}
        store.seal(
            splits=splits,
            metadata={
                "origin": "two data sets",
                "main": main.metadata,
                "replay": replay.metadata,
                "aligned by": energies if self.align else {},
            },
        )


def _refuse_copies(store: FrameStore, splits: Mapping[str, np.ndarray]) -> None:
    """ValueError for frames of the two sets that are one configuration with the same forces, in training
    twice, or in training or validation and in a test. With other forces they are labels of another level."""
    names = np.full(store.n_frames, "", dtype=object)
    for name, ids in splits.items():
        names[ids] = name
    found = []
    for group in copies(store, np.nonzero(names)[0]):
        alike = [b for b, copy in zip(group.frames[1:], group.copies, strict=True) if copy.force_gap < _ALIKE]
        same = [str(names[k]) for k in (group.frames[0], *alike)]
        learnt = [name for name in same if name in ("train", "validation")]
        if len(same) > 1 and learnt and (len(learnt) > 1 or len(same) > len(learnt)):
            found.append(same)
    if found:
        raise ValueError(
            f"{len(found)} frames of replay are frames of main with the same forces, the first in "
            f"{' and '.join(found[0])}; D counts distinct frames, and a test frame seen in training makes "
            f"the error look smaller: choose parts that do not overlap"
        )


def _interleaved(main: np.ndarray, replay: np.ndarray, every: int | None) -> np.ndarray:
    """Ids of `main` (n,), after every `every` of them one of `replay` while there are any."""
    if every is None:
        return main
    some = replay[: len(main) // every]
    return np.insert(main, every * (1 + np.arange(len(some))), some)


def _blocks(store: FrameStore, ids: np.ndarray) -> Iterator[tuple[np.ndarray, Frames]]:
    for start in range(0, len(ids), _BLOCK):
        some = ids[start : start + _BLOCK]
        yield some, store.frames(some)


def _kept(frames: Frames, columns: tuple[str, ...]) -> Frames:
    return Frames(
        n_atoms=frames.n_atoms,
        species=frames.species,
        positions=frames.positions,
        cell=frames.cell,
        pbc=frames.pbc,
        energy=frames.energy,
        forces=frames.forces,
        properties={},
        **{c: getattr(frames, c) for c in columns},
    )


def _difference(main: FrameStore, replay: FrameStore) -> np.ndarray:
    """(n elements of replay,) eV: energies of atoms in `main` less those in `replay`, each fitted to its
    training frames."""
    if missing := sorted(set(replay.elements) - set(main.elements)):
        raise ValueError(
            f"align: replay has elements {missing} that main has not, so that nothing says by how much their "
            f"energies differ; wanted align=false, or replay of these elements: {list(main.elements)}"
        )
    fitted = {}
    for name, store in (("main", main), ("replay", replay)):
        ids = np.asarray(store.splits["train"])[:_FITTED]
        ids = ids[~np.isnan(store.energy[ids])]
        present = store.composition(ids).sum(0) > 0
        if not len(ids) or not present.all():
            raise ValueError(f"align: energies of training frames of {name} do not tell those of its atoms")
        values = fit_references(store.composition(ids), store.energy[ids])
        fitted[name] = dict(zip(store.elements, values, strict=True))
    return np.array([fitted["main"][z] - fitted["replay"][z] for z in replay.elements])
