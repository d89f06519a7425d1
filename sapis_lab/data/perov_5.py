"""Perovskites ABX3 of 56 elements in cells of five atoms, RPBE with GPAW (Castelli et al., Energy Environ.
Sci. 5, 5814 and 9034, 2012), as in Perov-5 of CDVAE (Xie et al., arXiv:2110.06197; MIT).

Reads the CSV of github.com/txie-93/cdvae, `data/perov_5/{train,val,test}.csv`: a CIF in P1 in a cell of each
row, and beside it

    heat_all, heat_ref     heats of formation, over all the reference phases and over some; eV
    dir_gap, ind_gap       direct and indirect gap, eV

CDVAE calls heat_all eV/atom; matminer says of the same numbers (castelli_perovskites, e_form) that they are
of the whole cell of five atoms. They are kept as they stand, and so their unit is eV, of whichever.
`formation_energy` is heat_all. CIFs list all atoms of the cell; symmetry operations are refused.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.config import Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._crystals import cell_of, crystal
from sapis_lab.data._csv import number_in, read_rows
from sapis_lab.data._held_out import at_random
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._pools import Files, one_or_several, refuse_absolute
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._store import Property

_COLUMNS = {
    "formation_energy": "heat_all",
    "heat_ref": "heat_ref",
    "direct_gap": "dir_gap",
    "indirect_gap": "ind_gap",
}
LABELS = {name: Property(unit="eV") for name in _COLUMNS}


class Perov5Config(DatasetConfig):
    """Perovskites of five atoms with heats of formation and gaps, no energies or forces."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "perov_5"
    kind: Literal["perov_5"] = "perov_5"
    files: Files = ("perov_5/val.csv",)
    """CSV files under `root`, one or a list, whose rows are one pool."""
    n_validation: int = Field(default=200, ge=1, le=10**9)
    """Crystals held out for validation."""
    n_test: int = Field(default=500, ge=1, le=10**9)
    """Crystals held out as the split 'test'."""
    seed: Seed = 0
    """Of the order that defines the training subsets and what is held out."""
    root: Path | None = None
    """Folder that holds `perov_5/`; by default the environment variable SAPIS_DATA."""

    _one_or_several = field_validator("files", mode="before")(one_or_several)

    @field_validator("files")
    @classmethod
    def _are_relative(cls, files: Files) -> Files:
        if not files:
            raise ValueError("files names no file; give at least one")
        for name in files:
            refuse_absolute(name)
        return files

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        frames = _read(self, data_root(self.root))
        return info_of(frames, labels=list(LABELS), splits=_splits(self, frames), cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        frames = _read(self, root)
        progress("reading perovskites", 1, 1)
        seal_frames(
            folder,
            frames,
            declared=LABELS,
            splits=_splits(self, frames),
            may_lack=("energy", "forces"),
            metadata={
                "origin": "Perov-5 of CDVAE (MIT), Castelli et al. 2012",
                **self.credits(),
                "level_of_theory": "RPBE, gaps GLLB-SC (GPAW)",
                "sources": source_record(root, [need_file(root, name) for name in self.files]),
            },
        )


def _splits(config: Perov5Config, frames: list[LabelledFrame]) -> dict[str, np.ndarray]:
    return at_random(
        [frame.species for frame in frames],
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        what=", ".join(config.files),
    )


def _read(config: Perov5Config, root: Path) -> list[LabelledFrame]:
    frames = []
    for name in config.files:
        path = need_file(root, name)
        with reading(root, path):
            for place, row in read_rows(path, ("cif", *_COLUMNS.values())):
                labels = {label: number_in(row, column, place) for label, column in _COLUMNS.items()}
                frames.append(from_cif(row["cif"], place=place, labels=labels))
    return frames


def from_cif(text: str, *, place: str, labels: dict[str, float]) -> LabelledFrame:
    """The crystal of a CIF that lists every atom of its cell.

    Raises:
        ValueError: lengths, angles or atoms are missing or no numbers, a site is not fully occupied, or there
            are symmetry operations besides the identity.
    """
    values, loops = _cif_items(text, place)
    cell = cell_of(
        *(_number(values.get(f"_cell_length_{x}"), f"_cell_length_{x}", place) for x in "abc"),
        *(
            _number(values.get(f"_cell_angle_{x}"), f"_cell_angle_{x}", place)
            for x in ("alpha", "beta", "gamma")
        ),
    )
    operations = loops.get("_symmetry_equiv_pos_as_xyz", loops.get("_space_group_symop_operation_xyz", []))
    others = [one for one in operations if one.replace(" ", "") != "x,y,z"]
    if others:
        raise ValueError(
            f"{place}: the CIF has the symmetry operation {others[0]!r}, wanted every atom listed"
        )
    symbols = loops.get("_atom_site_type_symbol", [])
    axes = [
        [_number(x, f"_atom_site_fract_{axis}", place) for x in loops.get(f"_atom_site_fract_{axis}", [])]
        for axis in "xyz"
    ]
    for k, share in enumerate(loops.get("_atom_site_occupancy", [])):
        if _number(share, "_atom_site_occupancy", place) != 1:
            raise ValueError(f"{place}: the site of atom {k} is occupied by {share}, wanted 1")
    if {len(axis) for axis in axes} != {len(symbols)}:
        raise ValueError(f"{place}: the CIF has {len(symbols)} elements and {len(axes[0])} coordinates")
    return crystal(place, cell=cell, symbols=symbols, fractional=np.array(axes).T, labels=labels)


def _cif_items(text: str, place: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Single values and columns of loops of a CIF without text blocks, by their names."""
    values: dict[str, str] = {}
    loops: dict[str, list[str]] = {}
    names: list[str] = []
    in_loop = False
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            raise ValueError(f"{place}: the line {line[:60]!r} of the CIF has an open quote") from None
        if not words or words[0].startswith("data_"):
            continue
        if words[0] == "loop_":
            names, in_loop = [], True
        elif in_loop and words[0].startswith("_") and not any(loops.get(name) for name in names):
            names.append(words[0])
            loops[words[0]] = []
        elif words[0].startswith("_"):
            in_loop = False
            values[words[0]] = " ".join(words[1:])
        elif in_loop and len(words) == len(names):
            for name, word in zip(names, words, strict=True):
                loops[name].append(word)
        else:
            raise ValueError(
                f"{place}: the line {line[:60]!r} of the CIF has {len(words)} values, wanted {len(names)}"
            )
    return values, loops


def _number(text: str | None, what: str, place: str) -> float:
    try:
        return float((text or "").partition("(")[0])
    except ValueError:
        raise ValueError(f"{place}: {what} of the CIF is {(text or '')[:40]!r}, wanted a number") from None
