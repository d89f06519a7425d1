"""Relaxations of adsorbates on slabs of the Open Catalyst Project, RPBE with VASP (Chanussot et al., ACS
Catal. 11, 6059, 2021, arXiv:2010.09990; CC-BY 4.0), for the tasks IS2RE and IS2RS.

Reads trajectories of ASE, one `SYSTEM.traj` a system: every ionic step with total energy and forces, the
latter without constraints, the former extrapolated to no smearing. Every frame carries, beside them,

    relaxed_energy   total energy of the last frame, eV                      per frame
    to_relaxed       from here to the last frame, by the nearest image, Å    per atom, a vector
    fixed, tag       1 for atoms that stay where they are; OC20's tags       per atom
    system, step     number in the name of the file; ionic step from 0       per frame

so that a target `relaxed_energy` on the frames of step 0 is IS2RE, and `to_relaxed` IS2RS. A trajectory whose
last frame has a force above `converged_below` on a free atom has no relaxed state: these two are missing.

`held_out` systems are the split `test`, whole. Their elements must occur in others, which few do as long as
there are few systems. The first frames of the systems in training are the split `test_known`: their later
frames, which may be close, are training frames. Validation is frames of the training trajectories as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.config import Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._sources import data_root, known_root, need_file, need_folder, reading, source_record
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Property

LABELS = {
    "relaxed_energy": Property(unit="eV"),
    "to_relaxed": Property(per="atom", rank=1, unit="Å"),
    "fixed": Property(per="atom"),
    "tag": Property(per="atom"),
    "system": Property(),
    "step": Property(),
}


class Oc20Config(DatasetConfig):
    """Frames of relaxations on surfaces, with the state that each of them ended in."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "oc20_sample"
    kind: Literal["oc20"] = "oc20"
    folder: str = Field(default="oc20", pattern=r"^[A-Za-z0-9_.-]+$")
    """Folder under `root` with the trajectories."""
    systems: tuple[str, ...] = Field(min_length=2)
    """Names of the trajectories, without .traj."""
    held_out: tuple[str, ...] = Field(min_length=1)
    """Systems of the split 'test', of which no frame is in training."""
    n_validation: int = Field(default=60, ge=1, le=10**9)
    """Frames of the training trajectories held out for validation, the last of the permuted order."""
    converged_below: float = Field(default=0.03, gt=0, le=10)
    """The largest force on a free atom of a last frame that is relaxed, eV/Å."""
    least_move: float = Field(default=0.01, ge=1e-3, le=10)
    """A frame in which no coordinate is this far from an earlier frame of its trajectory is left out, Å: D
    counts distinct frames, and relaxations hardly move at their end."""
    seed: Seed = 0
    """Of the order that defines the training subsets, in which every system has its share."""
    root: Path | None = None
    """Folder that holds `oc20/`; by default the environment variable SAPIS_DATA."""

    @field_validator("systems", "held_out")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"wanted every system once, got {', '.join(names)}")
        for name in names:
            if not re.fullmatch(r"[A-Za-z]*[0-9]{1,15}", name):
                raise ValueError(
                    f"{name[:40]!r} cannot name a system, wanted letters and a number: random1000100"
                )
        return names

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        found = _read(self, data_root(self.root))
        labels = ["energy", "forces", "relaxed_energy", "to_relaxed"]
        return info_of(found.frames, labels=labels, splits=_splits(self, found), cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        found = _read(self, root)
        progress("reading trajectories", 1, 1)
        seal_frames(
            folder,
            found.frames,
            declared=LABELS,
            splits=_splits(self, found),
            may_lack=("relaxed_energy", "to_relaxed"),
            metadata={
                "origin": "OC20 (Chanussot et al. 2021), CC-BY 4.0",
                **self.credits(),
                "level_of_theory": "RPBE, PAW (VASP)",
                "not_relaxed": list(found.not_relaxed),
                "n_left_out": found.n_left_out,
                "left_out_because": f"no coordinate is {self.least_move} Å from an earlier frame",
                "sources": source_record(root, list(found.files)),
            },
        )


class _Found(NamedTuple):
    frames: list[LabelledFrame]
    system: np.ndarray
    """(n_frames,) the place of its system in `systems`."""
    step: np.ndarray
    """(n_frames,)"""
    not_relaxed: tuple[str, ...]
    n_left_out: int
    files: tuple[Path, ...]


def _splits(config: Oc20Config, found: _Found) -> dict[str, np.ndarray]:
    strangers = [name for name in config.held_out if name not in config.systems]
    if strangers or len(config.held_out) == len(config.systems):
        raise ValueError(
            f"held_out: {', '.join(strangers or config.held_out)}, wanted some of the systems and not all: "
            f"{', '.join(config.systems)}"
        )
    tested = np.isin(found.system, [config.systems.index(name) for name in config.held_out])
    first = ~tested & (found.step == 0)
    pool = np.nonzero(~tested & ~first)[0]
    n = len(pool) - config.n_validation
    if n < 1:
        raise ValueError(
            f"n_validation={config.n_validation}, but the training trajectories have {len(pool)} frames "
            "after their first; lower it"
        )
    order = pool[nested_order(len(pool), seed=config.seed, strata=found.system[pool])]
    return {
        "train": order[:n],
        "validation": order[n:],
        "test": np.nonzero(tested)[0],
        "test_known": np.nonzero(first)[0],
    }


def _read(config: Oc20Config, root: Path) -> _Found:
    need_folder(root, config.folder)
    frames: list[LabelledFrame] = []
    system, step, files, not_relaxed, n_left_out = [], [], [], [], 0
    for place, name in enumerate(config.systems):
        path = need_file(root, f"{config.folder}/{name}.traj")
        with reading(root, path):
            every, relaxed = _trajectory(path, name, config.converged_below)
        if not relaxed:
            not_relaxed.append(name)
        kept = _distinct(np.array([frame.positions for frame in every]), config.least_move)
        n_left_out += len(every) - len(kept)
        frames += [every[k] for k in kept]
        system += [place] * len(kept)
        step += kept
        files.append(path)
    return _Found(frames, np.array(system), np.array(step), tuple(not_relaxed), n_left_out, tuple(files))


def _distinct(positions: np.ndarray, least: float) -> list[int]:
    """Numbers of the frames (n_frames, n_atoms, 3) that differ from all kept before them, the first among
    them."""
    kept = [0]
    for k in range(1, len(positions)):
        if (np.abs(positions[kept] - positions[k]).max((1, 2)) >= least).all():
            kept.append(k)
    return kept


def _trajectory(path: Path, name: str, converged_below: float) -> tuple[list[LabelledFrame], bool]:
    """The frames of a system, and whether the last is relaxed."""
    from ase.geometry import find_mic

    every = _images(path)
    last = every[-1]
    energies, forces = _labels(every, path)
    free = ~_fixed(last, f"{path}, frame {len(every) - 1}")
    largest = float(np.linalg.norm(forces[-1][free], axis=1).max(initial=0.0))
    relaxed = largest <= converged_below
    number = float(re.sub(r"\D", "", name))
    frames = []
    for k, atoms in enumerate(every):
        place = f"{path}, frame {k}"
        _check_same(atoms, last, place)
        way = find_mic(last.positions - atoms.positions, last.cell, pbc=True)[0]
        labels = {
            "fixed": _fixed(atoms, place),
            "tag": atoms.get_tags(),
            "system": number,
            "step": float(k),
        }
        if relaxed:
            labels |= {"relaxed_energy": energies[-1], "to_relaxed": way}
        frames.append(
            LabelledFrame(
                place,
                atoms.numbers,
                atoms.positions,
                cell=np.array(atoms.cell),
                energy=energies[k],
                forces=forces[k],
                labels=labels,
            )
        )
    return frames, relaxed


def _images(path: Path) -> list[Any]:
    """The frames of a trajectory as ASE's atoms, at least two."""
    from ase.io.trajectory import TrajectoryReader

    try:
        with path.open("rb") as file:  # one that ASE opens stays open where it is damaged
            every = list(TrajectoryReader(file))
    except Exception as error:  # ASE raises what its parts raise: OSError, KeyError, JSON and zlib errors
        words = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path}: cannot be read as a trajectory of ASE ({type(error).__name__}: {words}); copy it again"
        ) from None
    if len(every) < 2:
        raise ValueError(f"{path}: {len(every)} frames, wanted a relaxation from its first to its last")
    return every


def _labels(every: list[Any], path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Total energies, eV, and forces without constraints, (n_atoms, 3) eV/Å, of every frame."""
    energies, forces = [], []
    for k, atoms in enumerate(every):
        there = {} if atoms.calc is None else atoms.calc.results
        for key in ("energy", "forces"):
            if key not in there:
                raise ValueError(f"{path}, frame {k}: no {key}; it has {', '.join(there) or 'no labels'}")
        energies.append(float(there["energy"]))
        forces.append(np.asarray(there["forces"], dtype=np.float64))
    return energies, forces


def _fixed(atoms: Any, place: str) -> np.ndarray:
    """(n_atoms,) bool, atoms that are fixed altogether."""
    from ase.constraints import FixAtoms

    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                f"{place}: a constraint {type(constraint).__name__}, wanted atoms that are fixed altogether "
                "(FixAtoms)"
            )
        fixed[constraint.index] = True
    return fixed


def _check_same(atoms: Any, last: Any, place: str) -> None:
    """ValueError for a frame that is of another system than the last one, or not periodic."""
    if not np.array_equal(atoms.numbers, last.numbers):
        raise ValueError(f"{place}: other elements than in the last frame, wanted one system a trajectory")
    if not np.allclose(atoms.cell, last.cell, atol=1e-6):
        raise ValueError(f"{place}: another cell than in the last frame, wanted a relaxation at fixed cell")
    if not atoms.pbc.all():
        raise ValueError(f"{place}: pbc={atoms.pbc.tolist()}, wanted three periodic directions")
