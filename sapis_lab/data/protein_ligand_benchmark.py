"""Affinities of ligands to ten proteins, with docked poses (Hahn et al., LiveCoMS 4, 1497, 2022,
arXiv:2105.06222; CC-BY 4.0).

Reads the folders of github.com/openforcefield/protein-ligand-benchmark, each TARGET with `ligands.yml` (type,
value and unit of every measurement), `ligands.sdf` (poses) and `protein.pdb`, also where they lie as
`00_data/ligands.yml`, `02_ligands/ligands.sdf` and `01_protein/crd/protein.pdb`.

The targets `held_out` are the test, each a split of its own, test_TARGET (a single one is `test`): assays
differ between targets, so that predictions are compared within one, by their order. Ligands of one target
are alike; with other targets' ligands in training alone, what is known of a held-out one is chemistry, not
the series.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.config import Seed, read_yaml
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._complexes import LABELS, Protein, complex_frame, minus_log10, read_ligands, read_protein
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._molecules import rdkit_version
from sapis_lab.data._sources import data_root, known_root, need_file, need_folder, reading, source_record
from sapis_lab.data._splits import nested_order

_FOLDER = "protein_ligand_benchmark"
_KINDS = ("ic50", "ki", "kd")
"""Types of measurement that are concentrations; with a p before them, their -log10."""


class ProteinLigandBenchmarkConfig(DatasetConfig):
    """Ligands, with the protein around them, and their affinity, -log10 of an IC50, Ki or Kd in mol/L."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "protein_ligand"
    kind: Literal["protein_ligand_benchmark"] = "protein_ligand_benchmark"
    targets: tuple[str, ...] = Field(min_length=2)
    """The targets, folders in `protein_ligand_benchmark/`; those that are not held out are for training."""
    held_out: tuple[str, ...] = Field(min_length=1)
    """Targets whose ligands are the test."""
    pocket: float = Field(default=0.0, ge=0, le=30)
    """How far from the ligand atoms of the protein belong to a frame, Å; 0: the ligand alone."""
    n_validation: int = Field(default=30, ge=1, le=10**6)
    """Ligands held out of the training targets for validation, the last of the permuted order."""
    seed: Seed = 0
    """Of the order that defines the training subsets."""
    root: Path | None = None
    """Folder that holds `protein_ligand_benchmark/`; by default the environment variable SAPIS_DATA."""

    @field_validator("targets", "held_out")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"wanted every target once, got {', '.join(names)}")
        for name in names:
            if not name.isascii() or not name.isalnum():
                raise ValueError(f"{name[:40]!r} cannot name a target, wanted letters and digits")
        return names

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        frames, target, _ = _read(self, data_root(self.root))
        splits = _splits(self, target)
        labels = [name for name in LABELS if name != "of_ligand"]
        return info_of(frames, labels=labels, splits=splits, cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        frames, target, files = _read(self, root)
        progress("reading ligands", 1, 1)
        seal_frames(
            folder,
            frames,
            declared=LABELS,
            splits=_splits(self, target),
            may_lack=("energy", "forces"),
            metadata={
                "origin": "protein-ligand-benchmark (Hahn et al. 2022), CC-BY 4.0",
                **self.credits(),
                "descriptors": f"RDKit {rdkit_version()}",
                "sources": source_record(root, files),
            },
        )


def _splits(config: ProteinLigandBenchmarkConfig, target: list[str]) -> dict[str, np.ndarray]:
    strangers = [name for name in config.held_out if name not in config.targets]
    if strangers or len(config.held_out) == len(config.targets):
        raise ValueError(
            f"held_out: {', '.join(strangers or config.held_out)}, wanted some of the targets and not all: "
            f"{', '.join(config.targets)}"
        )
    names = np.array(target)
    pool = np.nonzero(~np.isin(names, config.held_out))[0]
    if len(pool) <= config.n_validation:
        raise ValueError(
            f"n_validation={config.n_validation}, but the training targets have {len(pool)} ligands; lower it"
        )
    order = pool[nested_order(len(pool), seed=config.seed)]
    n = len(pool) - config.n_validation
    splits = {"train": order[:n], "validation": order[n:]}
    if len(config.held_out) == 1:
        return {**splits, "test": np.nonzero(names == config.held_out[0])[0]}
    return {**splits, **{f"test_{name}": np.nonzero(names == name)[0] for name in config.held_out}}


def _read(
    config: ProteinLigandBenchmarkConfig, root: Path
) -> tuple[list[LabelledFrame], list[str], list[Path]]:
    """Frames, the target of each, and the files."""
    frames: list[LabelledFrame] = []
    target: list[str] = []
    files: list[Path] = []
    for name in config.targets:
        base = f"{_FOLDER}/{name}"
        need_folder(root, base)
        measured = need_file(root, f"{base}/ligands.yml", f"{base}/00_data/ligands.yml")
        poses = need_file(root, f"{base}/ligands.sdf", f"{base}/02_ligands/ligands.sdf")
        mine = [measured, poses]
        protein = None
        if config.pocket:
            mine.append(need_file(root, f"{base}/protein.pdb", f"{base}/01_protein/crd/protein.pdb"))
        with reading(root, *mine):
            protein = read_protein(mine[2]) if config.pocket else None
            found = _ligands(read_yaml(measured), measured, poses, protein, config.pocket)
        frames += found
        target += [name] * len(found)
        files += mine
    return frames, target, files


def _ligands(
    measured: dict[str, Any], file: Path, poses: Path, protein: Protein | None, pocket: float
) -> list[LabelledFrame]:
    """The frames of one target, in the order of the poses."""
    found = read_ligands(poses)
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{poses}: {name!r} stands there more than once, wanted one pose a ligand")
    if lacking := sorted(set(map(str, measured)) - set(names)):
        raise ValueError(f"{poses}: no pose of {lacking[0]!r}, which {file} has; wanted one a ligand")
    frames = []
    for name, molecule in found:
        place = f"{poses}, {name}"
        if name not in measured:
            raise ValueError(f"{place}: {file} has no measurement of it; leave the pose out")
        if molecule is None:
            raise ValueError(f"{place}: RDKit does not read the molecule; wanted a valid record of an SDF")
        affinity = _affinity(measured[name], f"{file}, {name}")
        frames.append(complex_frame(molecule, protein, affinity=affinity, pocket=pocket, place=place))
    return frames


def _affinity(entry: Any, place: str) -> float:
    try:
        kind, unit = str(entry["measurement"]["type"]).lower(), str(entry["measurement"]["unit"])
        value = float(entry["measurement"]["value"])
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{place}: no measurement with type, value and unit; wanted all three") from None
    if kind in _KINDS:
        return minus_log10(value, unit, place)
    if kind.removeprefix("p") in _KINDS and np.isfinite(value):
        return value
    raise ValueError(
        f"{place}: a measurement of type {kind[:20]!r}, value {value}; wanted {', '.join(_KINDS)}, or "
        f"-log10 of one as {', '.join('p' + k for k in _KINDS)}"
    )
