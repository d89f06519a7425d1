"""Crystals of the Materials Project with their formation energies and gaps, PBE (Jain et al., APL Mater. 1,
011002, 2013; CC-BY 4.0).

Reads a JSON list of entries, each with its structure either plainly (`lattice`, `species`, `frac_coords`) or
as pymatgen writes it (`structure.lattice.matrix`, `structure.sites` with `species` and `abc`), and

    formation_energy_per_atom    eV/atom       energy_per_atom    eV/atom       band_gap    eV

Most elements are rare in a small file; what is held out has none that training lacks (see `_held_out`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.config import Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._crystals import crystal
from sapis_lab.data._held_out import at_random
from sapis_lab.data._labelled_frames import LabelledFrame, info_of, seal_frames
from sapis_lab.data._pools import refuse_absolute
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._store import Property
from sapis_lab.files import read_json_list

_FIELDS = {
    "formation_energy": "formation_energy_per_atom",
    "energy_per_atom": "energy_per_atom",
    "band_gap": "band_gap",
}
LABELS = {
    "formation_energy": Property(unit="eV/atom"),
    "energy_per_atom": Property(unit="eV/atom"),
    "band_gap": Property(unit="eV"),
}


class MaterialsProjectConfig(DatasetConfig):
    """Crystals with formation energies and gaps, no forces."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "materials_project"
    kind: Literal["materials_project"] = "materials_project"
    file: str
    """The JSON list under `root`."""
    missing: Literal["refuse", "mask"] = "refuse"
    """What to do about an entry that lacks a label: refuse the file, or leave the label out of the loss and
    the errors."""
    n_validation: int = Field(ge=1, le=10**9)
    """Crystals held out for validation."""
    n_test: int = Field(ge=1, le=10**9)
    """Crystals held out as the split 'test'."""
    seed: Seed = 0
    """Of the order that defines the training subsets and what is held out."""
    root: Path | None = None
    """Folder that the file name is relative to; by default the environment variable SAPIS_DATA."""

    @field_validator("file")
    @classmethod
    def _is_relative(cls, file: str) -> str:
        refuse_absolute(file)
        return file

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        frames = _read(self, data_root(self.root))
        return info_of(frames, labels=list(LABELS), splits=_splits(self, frames), cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        frames = _read(self, root)
        progress("reading crystals", 1, 1)
        seal_frames(
            folder,
            frames,
            declared=LABELS,
            splits=_splits(self, frames),
            may_lack=("energy", "forces", *(LABELS if self.missing == "mask" else ())),
            metadata={
                "origin": f"Materials Project, {self.file}, CC-BY 4.0",
                **self.credits(),
                "level_of_theory": "PBE and PBE+U (VASP)",
                "sources": source_record(root, [need_file(root, self.file)]),
            },
        )


def _splits(config: MaterialsProjectConfig, frames: list[LabelledFrame]) -> dict[str, np.ndarray]:
    return at_random(
        [frame.species for frame in frames],
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        what=config.file,
    )


def _read(config: MaterialsProjectConfig, root: Path) -> list[LabelledFrame]:
    path = need_file(root, config.file)
    with reading(root, path):
        entries = read_json_list(path, then="copy it again")
        if not entries:
            raise ValueError(f"{path}: an empty list, wanted crystals")
        return [_crystal(e, f"{path}, frame {k}", config.missing == "mask") for k, e in enumerate(entries)]


def _crystal(entry: dict[str, Any], place: str, may_lack: bool) -> LabelledFrame:
    labels = {name: _label(entry, key, place, may_lack) for name, key in _FIELDS.items()}
    lattice, symbols, fractional = _plain(entry) if "lattice" in entry else _of_pymatgen(entry, place)
    return crystal(
        place,
        cell=_array(lattice, "lattice", (3, 3), place),
        symbols=symbols,
        fractional=_array(fractional, "fractional coordinates", (len(symbols), 3), place),
        labels=labels,
    )


def _plain(entry: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    symbols = entry.get("species")
    return entry["lattice"], symbols if isinstance(symbols, list) else [], entry.get("frac_coords")


def _of_pymatgen(entry: dict[str, Any], place: str) -> tuple[Any, list[Any], Any]:
    try:
        lattice, sites = entry["structure"]["lattice"]["matrix"], entry["structure"]["sites"]
        species = [site["species"] for site in sites]
        fractional = [site["abc"] for site in sites]
        shared = next((k for k, s in enumerate(species) if len(s) != 1 or s[0]["occu"] != 1), None)
        symbols = [s[0]["element"] for s in species]
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"{place}: no structure; wanted lattice, species and frac_coords, or a structure as pymatgen "
            f"writes it; there are {', '.join(map(str, entry))[:120]}"
        ) from None
    if shared is not None:
        raise ValueError(f"{place}: site {shared} is shared or partly empty, wanted one atom a site")
    return lattice, symbols, fractional


def _label(entry: dict[str, Any], key: str, place: str, may_lack: bool) -> float:
    value = entry.get(key)
    if value is None and may_lack:
        return float("nan")
    if value is None:
        raise ValueError(f"{place}: no {key}; leave the entry out, or set missing: mask")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{place}: {key} is {str(value)[:40]!r}, wanted a finite number")
    return float(value)


def _array(value: Any, what: str, shape: tuple[int, ...], place: str) -> np.ndarray:
    try:
        found = np.array(value)
    except ValueError:  # rows of different lengths
        found = np.array(None)
    if found.dtype.kind not in "iuf" or found.shape != shape:
        raise ValueError(f"{place}: {what} {str(value)[:60]!r}, wanted numbers of shape {shape}")
    return found.astype(np.float64)
