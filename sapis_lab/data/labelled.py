"""Structures that are given, or generated, labelled by any oracle.

    kind: labelled
    structures: mine/frames.xyz                   # extended XYZ under $SAPIS_DATA; labels in it are not read
    oracle: pbe-def2svp                           # configs/oracles/, or settings in full
    n_validation: 50
    n_test: 50

or, instead of `structures`, a system and a generator:

    system: {smiles: CCO, conformers: 10}         # or {crystal: Si, lattice: diamond, a: 5.431}
    generator: {kind: normal_modes, temperature: 500}
    n_frames: 500

Frames are labelled by jobs of an executor, here or through Slurm; what is labelled stays labelled whatever is
killed, and the same call goes on (`_labelling`). A frame whose label fails is left out and recorded with its
reason; the store says which oracle, with which settings, versions and files, made its labels.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from sapis_lab import units
from sapis_lab.config import ConfigError, Seed, composed_kind
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._file_slices import split_slice
from sapis_lab.data._labelling import Frame, Labeller
from sapis_lab.data._oracle_record import oracle_record
from sapis_lab.data._pools import (
    Files,
    each_one_or_several,
    one_or_several,
    pool_splits,
    refuse_absolute,
    refuse_unclear_splits,
    wrap_scattered,
)
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import Frames, FrameStore
from sapis_lab.data._systems import SystemConfig, starts
from sapis_lab.data._trajectories import STORED
from sapis_lab.executors import ExecutorChoice
from sapis_lab.executors.local import LocalConfig
from sapis_lab.files import make_folder
from sapis_lab.formats import read_extxyz
from sapis_lab.generators import GeneratorConfig, Start
from sapis_lab.oracles import Failed, Labels, OracleConfig

_APPEND_ATOMS = 1_000_000
"""Atoms that are appended to a store at a time."""
_SHOWN = 3


class LabelledDataConfig(DatasetConfig):
    """Given or generated structures, labelled by an oracle."""

    version: ClassVar[int] = 1
    location_fields: ClassVar[frozenset[str]] = frozenset({"root", "executor"})

    kind: Literal["labelled"] = "labelled"
    structures: Files = ()
    """Files of structures under `root`, one or a list, extended XYZ, each with an optional slice:
    'mine/a.xyz[::10]'."""
    validation: Files = ()
    """Files of structures for validation, unless `n_validation` frames are held out."""
    tests: dict[str, Files] = {}
    """Files by test split, `test` or `test_<letters and digits>`, unless `n_test` frames are held out."""
    length_unit: Literal["Angstrom", "Bohr", "nm"] = "Angstrom"
    """Unit of positions and cells in the files."""
    system: SystemConfig | None = None
    """What structures are made from, instead of files."""
    generator: composed_kind("generators", GeneratorConfig) | None = None  # type: ignore[valid-type]
    """How; without one the structures of the system themselves, its conformers, are labelled."""
    n_frames: int | None = Field(default=None, ge=1, le=10**7)
    """How many structures the generator makes."""
    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """What labels them."""
    n_train: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of the training pool, the first of the permuted order; by default all that are not held out."""
    n_validation: int = Field(default=0, ge=0, le=10**9)
    """Frames held out for validation."""
    n_test: int = Field(default=0, ge=0, le=10**9)
    """Frames held out as the split 'test'."""
    seed: Seed = 0
    """Of the order of the training frames, of conformers and of what a generator makes."""
    executor: ExecutorChoice = LocalConfig()
    """Where labels are made: local, or slurm with its options; no part of what the frames are."""
    root: Path | None = None
    """Folder that file names are relative to; by default the environment variable SAPIS_DATA."""

    _one_or_several = field_validator("structures", "validation", mode="before")(one_or_several)
    _tests_one_or_several = field_validator("tests", mode="before")(each_one_or_several)

    @model_validator(mode="after")
    def _consistent(self) -> LabelledDataConfig:
        if bool(self.structures) == (self.system is not None):
            raise ValueError(
                f"wanted either structures (files) or system, got {'both' if self.structures else 'neither'}"
            )
        if (self.generator is None) != (self.n_frames is None):
            raise ValueError("generator and n_frames belong together; give both or neither")
        if self.system is None and self.generator is not None:
            raise ValueError("generator wants a system to begin with, got structures (files)")
        refuse_unclear_splits(
            train=self.structures or ("system",),
            validation=self.validation,
            tests=self.tests,
            n_validation=self.n_validation,
            n_test=self.n_test,
        )
        if self.system is not None and (self.validation or self.tests):
            raise ValueError("with a system, frames are held out: give n_validation and n_test")
        for name in self._names():
            refuse_absolute(split_slice(name)[0])
        return self

    def _names(self) -> tuple[str, ...]:
        """All files of structures, with their slices."""
        return (*self.structures, *self.validation, *(n for names in self.tests.values() for n in names))

    def source_root(self) -> Path | None:
        reads = self.structures or (self.system is not None and self.system.file is not None)
        return known_root(self.root) if reads else None

    def info(self, *, cutoff: float) -> DatasetInfo:
        if self.system is not None:
            given = _from_starts(self)
            n = self.n_frames or len(given.frames)
            ranges = {"train": np.arange(n), "validation": np.arange(0)}
        else:
            given = _from_files(self)
            n, ranges = len(given.frames), given.ranges
        splits = _splits(self, ranges, strata=None)
        frames = given.frames
        sample = frames[:: max(1, len(frames) // 20)]
        n_atoms = np.array([len(f.species) for f in sample])
        mean_atoms = float(np.mean([len(f.species) for f in frames]))
        self.oracle.refuse_periodic(np.any([f.pbc for f in frames], axis=0))
        return DatasetInfo(
            species=tuple(sorted({int(z) for f in frames for z in f.species})),
            n_train=len(splits["train"]),
            n_validation=len(splits["validation"]),
            n_test={name: len(ids) for name, ids in splits.items() if is_test_split(name)},
            mean_atoms=mean_atoms,
            mean_pairs=mean_pairs(
                np.concatenate([f.positions for f in sample]),
                n_atoms,
                np.array([f.cell for f in sample]),
                np.array([f.pbc for f in sample]),
                cutoff,
            ),
            periodic=any(f.pbc.any() for f in frames),
            bytes_estimate=bytes_estimate(n, mean_atoms),
            labels=("energy", "forces", *_columns(self, frames)),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        self.executor.check()
        make_folder(folder)
        labeller = Labeller(folder / "labels", self.oracle, self.executor, n_workers, progress)
        given = _from_starts(self, labeller) if self.system is not None else _from_files(self)
        self.oracle.refuse_periodic(np.any([f.pbc for f in given.frames], axis=0))
        splits = _splits(self, given.ranges, strata=given.starts)
        wanted = np.zeros(len(given.frames), dtype=bool)
        wanted[np.concatenate(list(splits.values()))] = True
        numbers = np.nonzero(wanted)[0]  # what no split names costs nothing
        labels = labeller.labelled([given.frames[k] for k in numbers])
        good = [k for k, found in enumerate(labels) if isinstance(found, Labels)]
        failed = {
            f"{given.places[numbers[k]]}: {found.reason}": int(numbers[k])
            for k, found in enumerate(labels)
            if isinstance(found, Failed)
        }
        kept = numbers[good]
        number_in_store = {int(frame): k for k, frame in enumerate(kept)}
        in_store = {
            name: np.array([number_in_store[k] for k in ids.tolist() if k in number_in_store], dtype=np.int64)
            for name, ids in splits.items()
        }
        _refuse_empty(in_store, splits, failed, labeller.folder)
        columns = _columns(self, given.frames)
        store = FrameStore.create(folder, columns=("oracle", *columns))
        _append(store, [given.frames[k] for k in kept], [labels[k] for k in good], columns)
        check_store(
            store,
            in_store,
            lambda frame: given.places[kept[frame]],
            length_unit=self.length_unit,
            may_lack=tuple(name for name in columns if name == "stress"),
        )
        metadata: dict[str, Any] = {
            "origin": self._origin(),
            "level_of_theory": self.oracle.level(),
            "oracles": [oracle_record(self.oracle)],
            "units": {
                "energy": "eV",
                "length": "Angstrom",
                "force": "eV/Angstrom",
                "stress": "eV/Angstrom^3",
            },
            "config": self.identity(),
        }
        if given.files:
            metadata["sources"] = source_record(data_root(self.root), list(given.files))
        if failed:
            metadata["failed_labels"] = list(failed)
        store.seal(splits=in_store, metadata=metadata)
        shutil.rmtree(labeller.folder)

    def _origin(self) -> str:
        if self.system is None:
            return f"structures of {', '.join(self.structures)}, labelled"
        what = self.generator.kind if self.generator is not None else "conformers"
        name = next(
            v for v in self.system.model_dump(exclude={"conformers", "repeat"}).values() if v is not None
        )
        return f"{what} structures of {name}, generated"


class _Given(NamedTuple):
    """Structures before they are labelled."""

    frames: list[Frame]
    places: list[str]
    """Where every frame comes from, in words."""
    ranges: dict[str, np.ndarray]
    """Numbers of the frames of train, validation and each test."""
    starts: np.ndarray | None = None
    """(n_frames,) which start a frame was made from."""
    files: tuple[Path, ...] = ()
    """What was read."""


def _splits(
    config: LabelledDataConfig, ranges: dict[str, np.ndarray], *, strata: np.ndarray | None
) -> dict[str, np.ndarray]:
    return pool_splits(
        ranges,
        train=config.structures or ("generated structures",),
        tests=config.tests,
        n_train=config.n_train,
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        strata=strata,
    )


def _from_files(config: LabelledDataConfig) -> _Given:
    root, factor = data_root(config.root), units.LENGTH[config.length_unit]
    frames: list[Frame] = []
    places, ranges, files = [], {}, []
    for group, names in {
        "train": config.structures,
        "validation": config.validation,
        **config.tests,
    }.items():
        first = len(frames)
        for name in names:
            relative, wanted = split_slice(name)
            path = need_file(root, relative)
            files.append(path)
            before = len(frames)
            with reading(root, path):
                for frame in read_extxyz(path, wanted=wanted):
                    cell = frame.cell * factor if frame.pbc.any() else np.zeros((3, 3))
                    frames.append(Frame(frame.species, frame.positions * factor, cell, frame.pbc))
                    places.append(f"{path}, frame {frame.number}")
            if len(frames) == before:
                raise ValueError(f"{path}: no frames{' in ' + name if name != relative else ''}")
        ranges[group] = np.arange(first, len(frames))
    return _Given(frames, places, ranges, files=tuple(files))


def _from_starts(config: LabelledDataConfig, labeller: Labeller | None = None) -> _Given:
    """The structures of the system; with a labeller and a generator, what is made from them."""
    assert config.system is not None
    begins = starts(config.system, root=config.root, seed=config.seed)
    files = [] if config.system.file is None else [data_root(config.root) / config.system.file]
    each = [
        [
            Frame(
                b.species,
                b.positions,
                np.zeros((3, 3)) if b.cell is None else b.cell,
                np.array(b.pbc),
            )
        ]
        for b in begins
    ]
    if labeller is not None and config.generator is not None:
        assert config.n_frames is not None
        made_from = [Start(b.species, b.positions, b.masses, b.cell, b.pbc) for b in begins]
        each = labeller.generated(made_from, config.generator, n_frames=config.n_frames, seed=config.seed)
    frames = [frame for some in each for frame in some]
    which = np.repeat(np.arange(len(each)), [len(some) for some in each])
    name = begins[0].name
    places = [f"{name}, start {k}, structure {n}" for k, some in enumerate(each) for n in range(len(some))]
    ranges = {"train": np.arange(len(frames)), "validation": np.arange(0)}
    return _Given(frames, places, ranges, which if len(each) > 1 else None, tuple(files))


def _columns(config: LabelledDataConfig, frames: list[Frame]) -> tuple[str, ...]:
    """What is stored of the labels besides energy and forces; a stress where a frame has a volume."""
    return tuple(
        name
        for name in STORED
        if name in type(config.oracle).gives and (name != "stress" or any(f.pbc.all() for f in frames))
    )


def _refuse_empty(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], failed: dict[str, int], folder: Path
) -> None:
    for name, ids in found.items():
        if len(wanted[name]) and not len(ids):
            first = list(failed)[:_SHOWN]
            raise ConfigError(
                f"all {len(wanted[name])} labels of the split {name!r} failed ({len(failed)} in all), the "
                f"first: {'; '.join(first)}; change the oracle's settings or the structures (labels that "
                f"are there lie in {folder})"
            )


def _append(
    store: FrameStore, frames: list[Frame], labels: list[Labels | Failed], columns: tuple[str, ...]
) -> None:
    good = [found for found in labels if isinstance(found, Labels)]
    ends = np.cumsum([len(f.species) for f in frames])
    chunk = (ends - 1) // _APPEND_ATOMS
    for k in np.unique(chunk):
        some = np.nonzero(chunk == k)[0]
        part, found = [frames[i] for i in some], [good[i] for i in some]
        more: dict[str, Any] = {}
        for name in columns:
            values = [getattr(one, name) for one in found]
            missing = np.full((3, 3), np.nan) if name == "stress" else None
            values = [missing if value is None else value for value in values]
            more[name] = np.concatenate(values) if name == "charges" else np.array(values)
        appended = Frames(
            n_atoms=np.array([len(f.species) for f in part]),
            species=np.concatenate([f.species for f in part]).astype(np.uint8),
            positions=np.concatenate([f.positions for f in part]),
            cell=np.array([f.cell for f in part]),
            pbc=np.array([f.pbc for f in part]),
            energy=np.array([one.energy for one in found]),
            forces=np.concatenate([one.forces for one in found]),
            oracle=np.zeros(len(part), dtype=np.uint8),
            **more,
        )
        wrap_scattered(appended)
        store.append(appended)
