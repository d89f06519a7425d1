"""Affinities of complexes in the form of PDBbind (Wang et al., J. Med. Chem. 47, 2977, 2004).

PDBbind may not be handed on; this reads a folder of one's own: an index (INDEX_general_PL_data.2020 and the
like), whose lines are

    code  resolution  year  -log10(K)  Ki=0.1uM // reference (ligand)

and for every code `CODE/CODE_ligand.sdf` and `CODE/CODE_protein.pdb`, or both without the folder CODE/.
Left out, and counted in the metadata: values that are bounds or guesses (<, >, ~ in place of =), and ligands
that RDKit does not read. The affinity is the fourth column; it must follow from the fifth to 0.02.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.config import Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._complexes import LABELS, complex_frame, minus_log10, read_ligands, read_protein
from sapis_lab.data._held_out import at_random
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._molecules import rdkit_version
from sapis_lab.data._pools import refuse_absolute
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.files import read_lossy

_AGREES = 0.02
"""The index rounds to two decimals."""


class PdbbindConfig(DatasetConfig):
    """Ligands, with the protein around them, and their affinity, -log10 of a Ki, Kd or IC50 in mol/L."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "pdbbind"
    kind: Literal["pdbbind"] = "pdbbind"
    folder: str = "pdbbind"
    """Folder under `root` with the complexes."""
    index: str
    """The index file, in that folder."""
    pocket: float = Field(default=0.0, ge=0, le=30)
    """How far from the ligand atoms of the protein belong to a frame, Å; 0: the ligand alone."""
    n_validation: int = Field(ge=1, le=10**6)
    """Complexes held out for validation."""
    n_test: int = Field(ge=1, le=10**6)
    """Complexes held out as the split 'test'."""
    seed: Seed = 0
    """Of the order that defines the training subsets and what is held out."""
    root: Path | None = None
    """Folder that `folder` is relative to; by default the environment variable SAPIS_DATA."""

    @field_validator("folder", "index")
    @classmethod
    def _is_relative(cls, name: str) -> str:
        refuse_absolute(name)
        return name

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        found = _read(self, data_root(self.root))
        labels = [name for name in LABELS if name != "of_ligand"]
        return info_of(found.frames, labels=labels, splits=_splits(self, found.frames), cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        found = _read(self, root)
        progress("reading complexes", 1, 1)
        seal_frames(
            folder,
            found.frames,
            declared=LABELS,
            splits=_splits(self, found.frames),
            may_lack=("energy", "forces"),
            metadata={
                "origin": f"PDBbind, {self.index}",
                **self.credits(),
                "descriptors": f"RDKit {rdkit_version()}",
                "n_left_out": sum(found.left_out.values()),
                "left_out_because": dict(found.left_out),
                "sources": source_record(root, found.files),
            },
        )


class _Found(NamedTuple):
    frames: list[LabelledFrame]
    left_out: Counter[str]
    files: list[Path]


class _Entry(NamedTuple):
    code: str
    affinity: float
    exact: bool


def _splits(config: PdbbindConfig, frames: list[LabelledFrame]) -> dict[str, np.ndarray]:
    return at_random(
        [frame.species for frame in frames],
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        what=config.index,
    )


def _read(config: PdbbindConfig, root: Path) -> _Found:
    index = need_file(root, f"{config.folder}/{config.index}")
    with reading(root, index):
        entries = [
            _entry(line, f"{index}, line {number}")
            for number, line in enumerate(read_lossy(index).splitlines(), start=1)
            if line.strip() and not line.startswith("#")
        ]
    frames, files, left_out = [], [index], Counter[str]()
    for entry in entries:
        if not entry.exact:
            left_out["the value is a bound or a guess"] += 1
            continue
        mine = [_file(config, root, entry.code, "ligand.sdf")]
        if config.pocket:
            mine.append(_file(config, root, entry.code, "protein.pdb"))
        with reading(root, *mine):
            _, molecule = read_ligands(mine[0])[0]
            if molecule is None:
                left_out["RDKit does not read the ligand"] += 1
                continue
            protein = read_protein(mine[1]) if config.pocket else None
            frames.append(
                complex_frame(
                    molecule, protein, affinity=entry.affinity, pocket=config.pocket, place=str(mine[0])
                )
            )
        files += mine
    if not frames:
        raise ValueError(f"{index}: none of its {len(entries)} complexes can be used: {dict(left_out)}")
    return _Found(frames, left_out, files)


def _file(config: PdbbindConfig, root: Path, code: str, what: str) -> Path:
    return need_file(root, f"{config.folder}/{code}/{code}_{what}", f"{config.folder}/{code}_{what}")


def _entry(line: str, place: str) -> _Entry:
    words = line.split()
    value = (
        re.fullmatch(r"(?:Ki|Kd|IC50)([=~<>]+)([0-9.eE+-]+)([a-zA-Z]+)", words[4]) if len(words) > 4 else None
    )
    if value is None or not re.fullmatch(r"[0-9][A-Za-z0-9]{3}", words[0]):
        raise ValueError(
            f"{place}: {line[:60]!r}, wanted code, resolution, year, -log10(K) and K as in 1jld 2.50 1997 "
            "8.05 Ki=9nM"
        )
    try:
        affinity, concentration = float(words[3]), float(value[2])
    except ValueError:
        raise ValueError(f"{place}: {words[3]} and {words[4]}, wanted numbers") from None
    exact = value[1] == "="
    follows = minus_log10(concentration, value[3], place)
    if exact and abs(follows - affinity) > _AGREES:
        raise ValueError(
            f"{place}: the affinity {affinity} does not follow from {words[4]}, which gives {follows:.2f}"
        )
    return _Entry(words[0], affinity, exact)
