"""Frames generated on the spot: Langevin dynamics of one molecule on an xTB surface, labelled by the same method.

Training, validation and test frames come from separate trajectories, each equilibrated from its own random momenta, so no test frame is
a neighbour in time of a training frame. The training order is stratified over the training trajectories. With tblite one force of ethanol
takes 1.1 ms, so 600 frames, 100 fs apart, are made in 40 to 50 s on two free cores.

Ethanol at 500 K samples what it should: NVE at 1 fs keeps the total energy to 1.7 meV; the configurational temperature
⟨|F|²⟩ / k⟨∇²U⟩ (Rugh, Phys. Rev. Lett. 78, 772, 1997) of the 600 default frames at 1 fs is 518 ± 10 K, the kinetic one 495 K; std(E) of
the training frames, 0.140 eV, is the sqrt(21/2) kT of 21 harmonic vibrations. The RMS force is 1.01 eV/Å per component.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Added
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._generation import LABEL_ACCURACY, Block, TrajectoryTask, generate, read_block
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Frames, FrameStore
from sapis_lab.files import make_folder
from sapis_lab.oracles.xtb import Method


class XtbDataConfig(DatasetConfig):
    """Langevin dynamics of one molecule with GFN-xTB."""

    version: ClassVar[int] = 1
    kind: Literal["xtb"] = "xtb"
    molecule: str = "CH3CH2OH"
    """Name of a molecule in `ase.build.molecule` (the G2 set); the default is ethanol."""
    method: Method = "GFN2-xTB"
    """The surface that is sampled and that labels the frames."""
    temperature: float = Field(default=500.0, gt=0)
    """K."""
    timestep: float = Field(default=1.0, gt=0, le=2.0)
    """fs."""
    friction: float = Field(default=0.01, gt=0)
    """Langevin friction, 1/fs: 0.01 lets momenta forget within 100 fs."""
    interval_fs: float = Field(default=100.0, gt=0)
    """Time between stored frames, fs; a multiple of the timestep."""
    equilibration_fs: float = Field(default=1000.0, ge=0)
    """Time before the first stored frame of every trajectory, fs; a multiple of the timestep."""
    n_train: int = Field(default=400, ge=1)
    """Frames of the training pool."""
    n_validation: int = Field(default=100, ge=1)
    """Frames for validation, from a trajectory of their own."""
    n_test: int = Field(default=100, ge=1)
    """Frames for testing, from a trajectory of their own."""
    n_more: Annotated[int, Field(ge=0), Added(before=0)] = 0
    """Frames labelled later, a multiple of `trajectory_frames`: they join the training pool behind the others, which stay what and where
    they were, as do validation and test frames. Every trajectory of them is in an order of its own."""
    trajectory_frames: int = Field(default=100, ge=1)
    """Frames per trajectory at most; a split with more is spread evenly over several trajectories, which run in parallel."""
    block_frames: int = Field(default=10, ge=1)
    """Frames per atomic block: what an interruption can lose, per worker. Part of the identity, because every block draws its own seed."""
    seed: int = Field(default=0, ge=0)
    """Of all random numbers."""

    @model_validator(mode="after")
    def _whole_steps(self) -> XtbDataConfig:
        for name in ("interval_fs", "equilibration_fs"):
            steps = getattr(self, name) / self.timestep
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"{name}={getattr(self, name)} is not a multiple of timestep={self.timestep} fs; choose one that is")
        return self

    @model_validator(mode="after")
    def _whole_trajectories(self) -> XtbDataConfig:
        if self.n_more % self.trajectory_frames:
            raise ValueError(f"n_more={self.n_more} is not a multiple of trajectory_frames={self.trajectory_frames}; choose one that is")
        return self

    def info(self, *, cutoff: float) -> DatasetInfo:
        atoms = _molecule(self.molecule)
        n = len(atoms)
        n_frames = self.n_train + self.n_more + self.n_validation + self.n_test
        return DatasetInfo(
            species=tuple(int(z) for z in np.unique(atoms.numbers)),
            n_train=self.n_train + self.n_more,
            n_validation=self.n_validation,
            n_test={"test": self.n_test},
            mean_atoms=float(n),
            mean_pairs=mean_pairs(atoms.positions, np.array([n]), np.zeros((1, 3, 3)), np.zeros((1, 3), bool), cutoff),
            periodic=False,
            bytes_estimate=bytes_estimate(n_frames, n),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        blocks = folder / "blocks"
        make_folder(blocks)
        by_split = trajectory_tasks(self, blocks)
        tasks = [task for split in by_split.values() for task in split]
        generate(tasks, n_workers=n_workers, progress=progress, what=f"{self.method} frames of {self.molecule}")
        store = FrameStore.create(folder, columns=("velocities", "time"))
        splits, places, which = {}, [], []
        for name, split in by_split.items():
            first = store.n_frames
            for task in split:
                made = [read_block(task.block_file(b)) for b in range(task.n_blocks)]
                # One append per trajectory, not per block: each costs nine fsyncs.
                frames = _frames(np.array(task.species), made)
                store.append(frames)
                places += [f"{task.block_file(b)}, frame {k}" for b, block in enumerate(made) for k in range(len(block.energy))]
                which += [task.trajectory] * len(frames)
            splits[name] = np.arange(first, store.n_frames)
        splits["train"] = nested_order(self.n_train, seed=self.seed, strata=np.array(which[: self.n_train]))
        more = splits.pop("more", np.empty(0, int)).reshape(-1, self.trajectory_frames)
        later = [np.random.default_rng([self.seed, 1, k]).permutation(trajectory) for k, trajectory in enumerate(more)]
        splits["train"] = np.concatenate([splits["train"], *later])
        check_store(store, splits, lambda frame: places[frame])
        metadata = {
            "origin": f"Langevin dynamics (BAOAB) of {self.molecule} at {self.temperature:g} K, generated",
            "level_of_theory": f"{self.method}, tblite, accuracy {LABEL_ACCURACY:g}",
            "units": {"energy": "eV", "length": "Angstrom", "force": "eV/Angstrom", "time": "fs", "velocity": "Angstrom/fs"},
            "temperature_kelvin": self.temperature,
            "config": self.identity(),
        }
        store.seal(splits=splits, metadata=metadata)
        shutil.rmtree(blocks)


def trajectory_tasks(config: XtbDataConfig, blocks: Path) -> dict[str, list[TrajectoryTask]]:
    """The trajectories of each split; numbers run through all splits, so no two share a seed."""
    atoms = _molecule(config.molecule)
    tasks: dict[str, list[TrajectoryTask]] = {}
    number = 0
    sizes = {"train": config.n_train, "validation": config.n_validation, "test": config.n_test, "more": config.n_more}
    for split, n in sizes.items():
        tasks[split] = []
        n_trajectories = -(-n // config.trajectory_frames)
        for k in range(n_trajectories):
            task = TrajectoryTask(
                folder=blocks,
                species=tuple(int(z) for z in atoms.numbers),
                positions=tuple((float(x), float(y), float(z)) for x, y, z in atoms.positions),
                masses=tuple(float(m) for m in atoms.get_masses()),
                method=config.method,
                temperature=config.temperature,
                timestep=config.timestep,
                friction=config.friction,
                n_equilibration_steps=round(config.equilibration_fs / config.timestep),
                n_interval_steps=round(config.interval_fs / config.timestep),
                n_frames=n // n_trajectories + (k < n % n_trajectories),
                block_frames=config.block_frames,
                seed=config.seed,
                trajectory=number,
            )
            tasks[split].append(task)
            number += 1
    return tasks


def _frames(species: np.ndarray, blocks: list[Block]) -> Frames:
    n_frames = sum(len(block.energy) for block in blocks)
    return Frames(
        n_atoms=np.full(n_frames, len(species)),
        species=np.tile(species, n_frames),
        positions=np.concatenate([block.positions for block in blocks]).reshape(-1, 3),
        cell=np.zeros((n_frames, 3, 3)),
        pbc=np.zeros((n_frames, 3), dtype=bool),
        energy=np.concatenate([block.energy for block in blocks]),
        forces=np.concatenate([block.forces for block in blocks]).reshape(-1, 3),
        velocities=np.concatenate([block.velocities for block in blocks]).reshape(-1, 3),
        time=np.concatenate([block.time for block in blocks]),
    )


def _molecule(name: str):  # noqa: ANN202  (ase.Atoms, imported late)
    try:
        from ase.build import molecule
        from ase.collections import g2
    except ImportError:
        raise ImportError("the starting geometry of an xtb dataset comes from ase, which is not installed: pip install ase") from None
    if name not in g2.names:
        from difflib import get_close_matches

        near = get_close_matches(name, g2.names, n=3, cutoff=0.4)
        raise ValueError(f"molecule={name!r} is not in the G2 set of ase.build.molecule; "
                         f"nearest: {', '.join(near) or 'none'}; ethanol is 'CH3CH2OH'")  # fmt: skip
    return molecule(name)
