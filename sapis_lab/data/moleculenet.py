"""Molecules of a CSV of SMILES with measured labels, as those of MoleculeNet (Wu et al., Chem. Sci. 9, 513,
2018, arXiv:1703.00564): ESOL, FreeSolv.

Every row becomes one conformer (see `_molecules`), since the files have no geometry. Rows of which none can
be made are left out and counted, with the reason, in the metadata of the store. A molecule that stands in
several rows is one frame with the mean of their labels: copies of it in training and test would make the
error look smaller. Stored beside the labels are the descriptors of every molecule, its formal charge among
them.

split_by: scaffold puts whole Bemis-Murcko scaffolds into one split, the most common ones into training: the
molecules of the test are then of other frameworks than those that a model has seen.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Config, Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._csv import number_in, read_rows
from sapis_lab.data._held_out import at_random, by_group
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._molecules import (
    DESCRIPTORS,
    canonical,
    conformer,
    descriptors,
    rdkit_version,
    read_smiles,
    scaffold,
    species_of,
)
from sapis_lab.data._pools import refuse_absolute
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._store import LABELS, Property
from sapis_lab.targets import PropertyName

_SAMPLE = 20
"""Molecules that are embedded for a plan."""
_MOST_WORDS = 20
"""Rows that are left out and named in the metadata; all are counted."""


class MeasuredLabel(Config):
    """One label of the molecules."""

    column: str | None = None
    """Its column in the file; by default its name."""
    unit: str = Field(default="", max_length=20)
    """After the factor, for people."""
    factor: float = 1.0
    """What the numbers in the file are multiplied by."""


class MoleculenetConfig(DatasetConfig):
    """Molecules from SMILES, with labels of whole molecules and no energies or forces."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "moleculenet"
    kind: Literal["moleculenet"] = "moleculenet"
    file: str
    """The CSV under `root`, with a line of column names: moleculenet/SAMPL.csv."""
    smiles_column: str = "smiles"
    """The column of SMILES."""
    properties: dict[PropertyName, MeasuredLabel] = Field(min_length=1)
    """Labels by name: what a target `{kind: property, name: ...}` learns."""
    missing: Literal["refuse", "mask"] = "refuse"
    """What to do about a row that lacks a label: refuse the file, or leave the label out of the loss and the
    errors."""
    split_by: Literal["random", "scaffold"] = "random"
    """What is held out: single molecules, or whole Bemis-Murcko scaffolds."""
    n_validation: int = Field(ge=1, le=10**9)
    """Molecules held out for validation; of whole scaffolds as many as fit in that number."""
    n_test: int = Field(ge=1, le=10**9)
    """Molecules held out as the split 'test', likewise."""
    seed: Seed = 0
    """Of the order that defines the training subsets and what is held out."""
    conformer_seed: int = Field(default=1, ge=1, le=2**31 - 1)
    """Of the embedding of every molecule."""
    origin: str = ""
    """For the record: where the labels come from, and their licence."""
    root: Path | None = None
    """Folder that the file name is relative to; by default the environment variable SAPIS_DATA."""

    @model_validator(mode="after")
    def _consistent(self) -> MoleculenetConfig:
        refuse_absolute(self.file)
        for name in self.properties:
            if name in (*LABELS, *DESCRIPTORS):
                raise ValueError(
                    f"properties: {name!r} is a label of its own, wanted another name than "
                    f"{', '.join((*LABELS, *DESCRIPTORS))}"
                )
        return self

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        """As far as SMILES tell: which molecules have no conformer shows when the store is made."""
        found = _read(self, data_root(self.root))
        some = {int(k) for k in np.linspace(0, len(found.molecules) - 1, _SAMPLE)}
        frames = []
        for k, one in enumerate(found.molecules):
            made = conformer(one.molecule, seed=self.conformer_seed) if k in some else "not made for a plan"
            species = species_of(one.molecule)
            spread = 4.0 * np.arange(len(species))[:, None] * np.array([1.0, 0.0, 0.0])
            frames.append(
                LabelledFrame(one.place, species, spread if isinstance(made, str) else made.positions)
            )
        splits = _splits(self, found.molecules)
        return info_of(frames, labels=[*self.properties, *DESCRIPTORS], splits=splits, cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        found = _read(self, root)
        frames, kept, left_out = [], [], list(found.left_out)
        for k, one in enumerate(found.molecules):
            made = conformer(one.molecule, seed=self.conformer_seed)
            progress("making conformers", k + 1, len(found.molecules))
            if isinstance(made, str):
                left_out.append((one.place, made))
                continue
            labels = {**one.labels, **descriptors(one.molecule)}
            frames.append(LabelledFrame(one.place, made.species, made.positions, labels=labels))
            kept.append(one)
        if not frames:
            raise ValueError(
                f"{root / self.file}: none of its {len(left_out)} rows becomes a conformer; {left_out[0][0]}:"
                f" {left_out[0][1]}"
            )
        declared = {name: Property(unit=label.unit) for name, label in self.properties.items()}
        seal_frames(
            folder,
            frames,
            declared=declared | DESCRIPTORS,
            splits=_splits(self, kept),
            may_lack=("energy", "forces", *(self.properties if self.missing == "mask" else ())),
            metadata={
                "origin": self.origin or self.file,
                **self.credits(),
                "geometry": f"one ETKDGv3 conformer relaxed in MMFF94, RDKit {rdkit_version()}",
                "n_left_out": len(left_out),
                "left_out_because": dict(Counter(why for _, why in left_out)),
                "left_out": [f"{place}: {why}" for place, why in left_out[:_MOST_WORDS]],
                "n_repeated_rows": found.n_repeated,
                "largest_difference_of_repeated": found.differences,
                "sources": source_record(root, [need_file(root, self.file)]),
            },
        )


class _Molecule(NamedTuple):
    place: str
    molecule: Any
    """With hydrogens."""
    labels: dict[str, float]


class _Found(NamedTuple):
    molecules: list[_Molecule]
    left_out: list[tuple[str, str]]
    """Place and reason."""
    n_repeated: int
    """Rows of molecules that an earlier row has."""
    differences: dict[str, float]
    """Between the labels of such rows, the largest of each label."""


def _read(config: MoleculenetConfig, root: Path) -> _Found:
    path = need_file(root, config.file)
    columns = {name: label.column or name for name, label in config.properties.items()}
    rows: dict[str, list[_Molecule]] = {}
    left_out = []
    with reading(root, path):
        for place, row in read_rows(path, (config.smiles_column, *columns.values())):
            labels = {
                name: label.factor * number_in(row, columns[name], place, may_lack=config.missing == "mask")
                for name, label in config.properties.items()
            }
            molecule = read_smiles(row[config.smiles_column])
            if isinstance(molecule, str):
                left_out.append((place, f"{row[config.smiles_column][:60]!r} is {molecule}"))
                continue
            rows.setdefault(canonical(molecule), []).append(_Molecule(place, molecule, labels))
    if not rows:
        raise ValueError(
            f"{path}: no row has a molecule" + (f"; {': '.join(left_out[0])}" if left_out else "")
        )
    merged = [_merged(same) for same in rows.values()]
    several = [same for same in rows.values() if len(same) > 1]
    differences = {
        name: max((float(np.ptp([one.labels[name] for one in same])) for same in several), default=0.0)
        for name in config.properties
    }
    known = {name: d for name, d in differences.items() if math.isfinite(d)}
    return _Found(merged, left_out, sum(len(same) - 1 for same in several), known)


def _merged(same: list[_Molecule]) -> _Molecule:
    """Rows of one molecule as one, with the mean of the labels that there are."""
    labels = {}
    for name in same[0].labels:
        there = [one.labels[name] for one in same if not math.isnan(one.labels[name])]
        labels[name] = float(np.mean(there)) if there else float("nan")
    return same[0]._replace(labels=labels)


def _splits(config: MoleculenetConfig, molecules: list[_Molecule]) -> dict[str, np.ndarray]:
    species = [species_of(one.molecule) for one in molecules]
    sizes = {"n_validation": config.n_validation, "n_test": config.n_test}
    if config.split_by == "random":
        return at_random(species, **sizes, seed=config.seed, what=config.file)
    groups = [scaffold(one.molecule) for one in molecules]
    return by_group(species, groups, **sizes, seed=config.seed, what=config.file)
