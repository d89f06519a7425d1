"""A data set of trajectories: which split has which of them, and how their blocks become a store. Shared by
the kinds that generate data.

Every split has trajectories of its own, numbered through all splits, so that no two share a seed. The
training pool is ordered so that small subsets hold frames of all its trajectories; frames labelled later
(`n_more`) join behind the others, which stay where they were.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Added, Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._generation import Block, TrajectoryTask, generate, read_block
from sapis_lab.data._oracle_record import oracle_record
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Frames, FrameStore
from sapis_lab.files import make_folder
from sapis_lab.oracles import OracleConfig
from sapis_lab.samplers import SamplerConfig

STORED = ("stress", "charges", "dipole")
"""Labels besides energy and forces for which a store has a column."""


class Structure(NamedTuple):
    """Where every trajectory begins."""

    name: str
    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3), Å."""
    masses: np.ndarray
    """(n_atoms,), amu."""
    cell: np.ndarray | None = None
    """(3, 3), Å."""
    pbc: tuple[bool, bool, bool] = (False, False, False)


class TrajectoryDataConfig(DatasetConfig):
    """Base of the kinds that generate their frames along trajectories."""

    interval_fs: float = Field(default=100.0, gt=0, le=1e6)
    """Time between stored frames, fs; a multiple of the timestep."""
    equilibration_fs: float = Field(default=1000.0, ge=0, le=1e9)
    """Time before the first stored frame of every trajectory, fs; a multiple of the timestep."""
    n_train: int = Field(default=400, ge=1, le=10**7)
    """Frames of the training pool."""
    n_validation: int = Field(default=100, ge=1, le=10**7)
    """Frames for validation, from a trajectory of their own."""
    n_test: int = Field(default=100, ge=1, le=10**7)
    """Frames for testing, from a trajectory of their own."""
    n_more: Annotated[int, Field(ge=0, le=10**7), Added(before=0)] = 0
    """Frames labelled later, a multiple of `trajectory_frames`: they join the training pool behind the
    others, which stay what and where they were, as do validation and test frames. Every trajectory of them is
    in an order of its own."""
    trajectory_frames: int = Field(default=100, ge=1, le=10**7)
    """Frames per trajectory at most; a split with more is spread evenly over several trajectories, which run
    in parallel."""
    block_frames: int = Field(default=10, ge=1, le=10**7)
    """Frames per atomic block: what an interruption can lose, per worker. Part of the identity, because every
    block draws its own seed."""
    seed: Seed = 0
    """Of all random numbers."""

    @abstractmethod
    def structure(self) -> Structure:
        """Where every trajectory begins.

        Raises:
            ValueError: there is none of that name, or the oracle cannot label it.   ImportError: a package is
            missing.
        """

    def starts(self) -> tuple[Structure, ...]:
        """What the trajectories begin with, in turn: structures of the same atoms."""
        return (self.structure(),)

    @abstractmethod
    def surface(self) -> OracleConfig:
        """What is sampled and labels the frames."""

    @abstractmethod
    def dynamics(self) -> SamplerConfig:
        """How it is sampled."""

    @property
    def label_columns(self) -> tuple[str, ...]:
        """What is stored of the labels besides energy and forces."""
        return ()

    @model_validator(mode="after")
    def _whole_trajectories(self) -> TrajectoryDataConfig:
        if self.n_more % self.trajectory_frames:
            raise ValueError(
                f"n_more={self.n_more} is not a multiple of trajectory_frames={self.trajectory_frames}; "
                f"choose one that is"
            )
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> TrajectoryDataConfig:
        for name in ("interval_fs", "equilibration_fs"):
            steps = self.dynamics().steps_of(getattr(self, name), name=name)
            if name == "interval_fs" and steps < 1:
                raise ValueError(f"interval_fs={self.interval_fs} is less than one timestep")
        return self

    def info(self, *, cutoff: float) -> DatasetInfo:
        begin = self.structure()
        n = len(begin.species)
        cell = np.zeros((1, 3, 3)) if begin.cell is None else begin.cell[None]
        return DatasetInfo(
            species=tuple(int(z) for z in np.unique(begin.species)),
            n_train=self.n_train + self.n_more,
            n_validation=self.n_validation,
            n_test={"test": self.n_test},
            mean_atoms=float(n),
            mean_pairs=mean_pairs(begin.positions, np.array([n]), cell, np.array([begin.pbc]), cutoff),
            periodic=any(begin.pbc),
            bytes_estimate=bytes_estimate(self.n_train + self.n_more + self.n_validation + self.n_test, n),
            labels=("energy", "forces", *self.label_columns),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        blocks = folder / "blocks"
        make_folder(blocks)
        by_split = trajectory_tasks(self, blocks)
        tasks = [task for split in by_split.values() for task in split]
        oracle = self.surface()
        name = getattr(oracle, "method", oracle.kind)
        generate(
            tasks, n_workers=n_workers, progress=progress, what=f"{name} frames of {self.structure().name}"
        )
        store = FrameStore.create(folder, columns=("velocities", "time", *self.label_columns))
        made = _fill(store, by_split)
        splits = _splits(self, made)
        check_store(store, splits, lambda frame: made.places[frame])
        metadata: dict[str, Any] = {
            "origin": self.origin(),
            "level_of_theory": oracle.level(),
            "oracles": [oracle_record(oracle)],
            "units": {
                "energy": "eV",
                "length": "Angstrom",
                "force": "eV/Angstrom",
                "time": "fs",
                "velocity": "Angstrom/fs",
            },
            **self.more_metadata(),
            "config": self.identity(),
        }
        if made.failed:
            metadata["failed_labels"] = made.failed
        store.seal(splits=splits, metadata=metadata)
        shutil.rmtree(blocks)

    def origin(self) -> str:
        """What the frames are, in a sentence."""
        return f"{self.dynamics().kind} dynamics of {self.structure().name}, generated"

    def more_metadata(self) -> dict[str, Any]:
        """Further facts for the store."""
        return {}


def trajectory_tasks(config: TrajectoryDataConfig, blocks: Path) -> dict[str, list[TrajectoryTask]]:
    """The trajectories of each split; numbers run through all splits, so no two share a seed."""
    begins, sampler, oracle = config.starts(), config.dynamics(), config.surface()
    columns = config.label_columns
    tasks: dict[str, list[TrajectoryTask]] = {}
    number = 0
    sizes = {
        "train": config.n_train,
        "validation": config.n_validation,
        "test": config.n_test,
        "more": config.n_more,
    }
    for split, n in sizes.items():
        tasks[split] = []
        n_trajectories = -(-n // config.trajectory_frames)
        for k in range(n_trajectories):
            begin = begins[number % len(begins)]
            task = TrajectoryTask(
                folder=blocks,
                species=tuple(int(z) for z in begin.species),
                positions=tuple((float(x), float(y), float(z)) for x, y, z in begin.positions),
                masses=tuple(float(m) for m in begin.masses),
                cell=None
                if begin.cell is None
                else tuple((float(x), float(y), float(z)) for x, y, z in begin.cell),
                pbc=begin.pbc,
                oracle=oracle,
                sampler=sampler,
                columns=columns,
                n_equilibration_steps=sampler.steps_of(config.equilibration_fs, name="equilibration_fs"),
                n_interval_steps=sampler.steps_of(config.interval_fs, name="interval_fs"),
                n_frames=n // n_trajectories + (k < n % n_trajectories),
                block_frames=config.block_frames,
                seed=config.seed,
                trajectory=number,
            )
            tasks[split].append(task)
            number += 1
    return tasks


class _Made(NamedTuple):
    """What a store was filled with."""

    ids: dict[str, np.ndarray]
    """Frames of each split, in the order of the trajectories."""
    trajectories: np.ndarray
    """(n_frames,) the trajectory of every frame."""
    places: list[str]
    """Where every frame comes from, in words."""
    failed: list[str]
    """Frames that could not be labelled, in words."""


def _fill(store: FrameStore, by_split: Mapping[str, list[TrajectoryTask]]) -> _Made:
    made = _Made({}, np.empty(0, int), [], [])
    which: list[int] = []
    for name, split in by_split.items():
        first = store.n_frames
        for task in split:
            blocks = [read_block(task.block_file(b)) for b in range(task.n_blocks)]
            # One append per trajectory, not per block: each costs nine fsyncs.
            n_frames = sum(len(block.energy) for block in blocks)
            if n_frames:
                store.append(_frames(task, blocks))
            for b, block in enumerate(blocks):
                made.places.extend(f"{task.block_file(b)}, frame {k}" for k in range(len(block.energy)))
                made.failed.extend(block.failed)
            which += [task.trajectory] * n_frames
        made.ids[name] = np.arange(first, store.n_frames)
    return made._replace(trajectories=np.array(which, dtype=int))


def _splits(config: TrajectoryDataConfig, made: _Made) -> dict[str, np.ndarray]:
    splits = dict(made.ids)
    more = splits.pop("more", np.empty(0, int))
    strata = made.trajectories[splits["train"]]
    splits["train"] = nested_order(len(strata), seed=config.seed, strata=strata)
    numbers = made.trajectories[more]
    by_trajectory = [more[numbers == number] for number in dict.fromkeys(numbers.tolist())]
    later = [
        np.random.default_rng([config.seed, 1, k]).permutation(ids) for k, ids in enumerate(by_trajectory)
    ]
    splits["train"] = np.concatenate([splits["train"], *later])
    return splits


def _frames(task: TrajectoryTask, blocks: list[Block]) -> Frames:
    species, n_frames = np.array(task.species), sum(len(block.energy) for block in blocks)
    cell = np.zeros((3, 3)) if task.cell is None else np.array(task.cell)
    more: dict[str, Any] = {
        name: np.concatenate([block.more[name] for block in blocks if len(block.energy)])
        for name in task.columns
    }
    if "charges" in more:
        more["charges"] = more["charges"].reshape(-1)
    return Frames(
        n_atoms=np.full(n_frames, len(species)),
        species=np.tile(species, n_frames),
        positions=np.concatenate([block.positions for block in blocks]).reshape(-1, 3),
        cell=np.tile(cell, (n_frames, 1, 1)),
        pbc=np.tile(np.array(task.pbc), (n_frames, 1)),
        energy=np.concatenate([block.energy for block in blocks]),
        forces=np.concatenate([block.forces for block in blocks]).reshape(-1, 3),
        velocities=np.concatenate([block.velocities for block in blocks]).reshape(-1, 3),
        time=np.concatenate([block.time for block in blocks]),
        **more,
    )


def g2_molecule(name: str) -> Structure:
    """A molecule of the G2 set, by its name in `ase.build.molecule`. ValueError names the nearest ones when
    there is none."""
    try:
        from ase.build import molecule
        from ase.collections import g2
    except ImportError:
        raise ImportError(
            "starting geometries of molecules come from ase, which is not installed: pip install ase"
        ) from None
    if name not in g2.names:
        from difflib import get_close_matches

        near = get_close_matches(name, g2.names, n=3, cutoff=0.4)
        raise ValueError(
            f"molecule={name!r} is not in the G2 set of ase.build.molecule; "
            f"nearest: {', '.join(near) or 'none'}; ethanol is 'CH3CH2OH'"
        )
    atoms = molecule(name)
    return Structure(name, np.array(atoms.numbers), np.array(atoms.positions), np.array(atoms.get_masses()))
