"""Labelled frames from files of any known format (`sapis_lab.formats`): extended XYZ, .npz archives with the
arrays of sGDML (R, z, E, F) or rMD17 (coords, nuclear_charges, ...), what ASE reads, and others.

Most formats do not say units, the sign of forces, or whether an energy is per atom, and real files differ in
all three; so the config must say the units that the format leaves open, and the checks before sealing compare
energies with forces. Nothing is guessed.

Splits: `train` names one or more files, each with an optional slice as in Python,
`acac/test_MD_300K.xyz[::2]`. Their frames, in order, are permuted once by `seed`; training subsets are
prefixes of that order, and frames held out (`n_validation`, `n_test`) are taken from its end. Validation and
test frames may instead come from files of their own.

Frames that are not wanted are left out: by their keys (`where`, `without`), isolated atoms inside a training
file (their energies become the references), and by the size of their labels (`max_force`, `energy_window`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sapis_lab import units
from sapis_lab.data._base import DatasetInfo, Progress, bytes_estimate
from sapis_lab.data._changes import AsItIs, Change
from sapis_lab.data._checks import check_store
from sapis_lab.data._file_blocks import blocks_of, sources_of
from sapis_lab.data._file_conversion import begun, convert_file, looks_of
from sapis_lab.data._file_filters import (
    copies,
    isolated_energies,
    left_out,
)
from sapis_lab.data._file_found import Found
from sapis_lab.data._file_labels import (
    scales,
)
from sapis_lab.data._file_settings import FileSettings
from sapis_lab.data._file_splits import Scan, Species, needs_sources, splits_of
from sapis_lab.data._group_keys import GroupKeys
from sapis_lab.data._isolated_atoms import check_isolated_atoms, read_isolated_atoms
from sapis_lab.data._ordering import ordered
from sapis_lab.data._places import Places
from sapis_lab.data._pools import (
    Files,
)
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import LABELS, FrameStore
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats import Format


class FilesConfig(FileSettings):
    """Labelled frames from files."""

    version: ClassVar[int] = 1
    kind: Literal["files"] = "files"

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        return info_of_files(self, cutoff=cutoff)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        store_of_files(self, folder, progress=progress)


def info_of_files(config: FilesConfig, *, cutoff: float, change: Change | None = None) -> DatasetInfo:
    """What is known of the frames of files before a store is made of them."""
    root, change = data_root(config.root), change or AsItIs()
    # Every file is read for its species: elements that only a late frame shows decide how many parameters
    # a model has.
    found, keys = Scan(), GroupKeys(config.split_by)
    ranges, files = {}, [0]
    for group, names in _groups(config).items():
        start = len(found)
        for name in names:
            for source in sources_of(config, root, name):
                files.append(len(found))
                for block, _ in blocks_of(config, root, source, change, labels=False):
                    found.add(block, scales(config, source.format.fixed, source.path))
                    keys.add(block, np.ones(len(block), bool), f"{source.path}, frame {block.numbers[0]}")
        ranges[group] = np.arange(start, len(found))
    atoms = found.atoms()
    which = np.searchsorted(files[1:], np.arange(len(found)), side="right")
    splits = splits_of(config, atoms, ranges, keys, which)
    species = np.unique(np.concatenate([atoms.of(k) for ids in splits.values() for k in ids]))
    return DatasetInfo(
        species=tuple(int(z) for z in species),
        n_train=len(splits["train"]),
        n_validation=len(splits["validation"]),
        n_test={name: len(ids) for name, ids in splits.items() if is_test_split(name)},
        mean_atoms=float(np.diff(atoms.offsets).mean()),
        mean_pairs=found.mean_pairs(cutoff),
        periodic=found.periodic,
        bytes_estimate=bytes_estimate(len(found), float(np.diff(atoms.offsets).mean())),
        labels=tuple(
            key
            for key in ("energy", "forces", *config.stress_columns, *config.further_labels())
            if key not in config.unlabelled
        ),
    )


def store_of_files(
    config: FilesConfig,
    folder: Path,
    *,
    progress: Progress,
    change: Change | None = None,
    facts: Mapping[str, Any] = {},
    energies_alone: Collection[str] = (),
    torn: Collection[str] = (),
) -> None:
    """Make, check and seal the store of the frames of files.

    Args:
        facts: what the metadata say besides.   energies_alone: test splits whose frames have energies
        and no forces; with it, all other labels have to be there, whatever `config.missing` says.
        torn: test splits whose atoms may be far from each other.
    """
    root, change = data_root(config.root), change or AsItIs()
    groups = _groups(config)
    further = config.further_labels()
    columns = (*config.stress_columns, *(name for name in further if name in LABELS))
    properties = {name: label.stored for name, label in further.items() if name not in LABELS}
    sources = {g: [s for n in names for s in sources_of(config, root, n)] for g, names in groups.items()}
    looks = looks_of([file for of in sources.values() for source in of for file in source.files])
    store, places, found = begun(config, folder, columns, properties, change, looks)
    ranges = {}
    n_files = sum(len(of) for of in sources.values())
    n_done = 0
    with store.gathered():
        for group, of in sources.items():
            found.starts.setdefault(group, store.n_frames)
            for source in of:
                convert_file(config, root, source, store, places, found, change)
                n_done += 1
                progress("reading files", n_done, n_files)
            found.ends.setdefault(group, store.n_frames)
            ranges[group] = np.arange(found.starts[group], found.ends[group])
    for name, then in looks.items():
        if looks_of([Path(name)])[name] != then:
            raise ValueError(f"{name} was changed while it was read; start again when it is whole")
    found.refuse_mixed_levels()
    found.refuse_mixed_charges()
    if not facts:  # the lists of a public set may name what a part of it does not have
        found.refuse_idle_rules(config)
    dropped = left_out(store, max_force=config.max_force, energy_window=config.energy_window)
    if config.copies == "drop":
        dropped["copies"] = copies(store)
    for ids in dropped.values():
        ranges = {group: np.setdiff1d(of, ids) for group, of in ranges.items()}
    which = places.files() if needs_sources(config) else None
    splits = splits_of(config, Species(store.species, store.offsets), ranges, found.keys, which)
    check_store(
        store,
        splits,
        places,
        length_unit=config.length_unit or str(sources["train"][0].format.fixed.get("length_unit")),
        may_lack=store.labels if config.missing == "mask" else config.unlabelled,
        torn=torn,
    )
    if energies_alone:
        complete = {name: ids for name, ids in splits.items() if name not in energies_alone}
        _refuse_missing(store, complete, places, but=config.unlabelled)
    isolated = _isolated(config, root, sources["train"][0].format, found)
    check_isolated_atoms(store, splits, isolated, places, energy_is=config.energy_is)
    files = [file for of in sources.values() for source in of for file in source.files]
    for named in (config.isolated_atoms, config.topology):
        if isinstance(named, str):
            files.append(need_file(root, named))
    metadata: dict[str, Any] = {
        "origin": ", ".join(config.train),
        "level_of_theory": config.level_of_theory,
        "units": {
            "energy": "eV",
            "length": "Angstrom",
            "force": "eV/Angstrom",
            "stress": "eV/Angstrom^3",
        },
        "converted_from": config.model_dump(
            include={"energy_unit", "length_unit", "force_unit", "stress_unit", "energy_is", "forces_are"}
        ),
        "sources": source_record(root, files),
        **facts,
    }
    if isolated is not None:
        metadata["isolated_atoms"] = {str(z): e for z, e in isolated.items()}
    out = {reason: len(ids) for reason, ids in dropped.items()} | found.n_left_out | change.left_out
    if out := {reason: n for reason, n in out.items() if n}:
        metadata["left_out"] = out
    if found.notes:
        metadata["notes"] = list(found.notes.values())
    names = None if which is None else [str(k) for k in which]
    splits = ordered(config.order, store, splits, seed=config.seed, sources=names)
    store.seal(splits=splits, metadata=metadata)


def _refuse_missing(
    store: FrameStore, splits: Mapping[str, np.ndarray], places: Places, *, but: Collection[str]
) -> None:
    """ValueError for a frame of these splits that lacks a label."""
    for key in store.labels:
        if key in but:
            continue
        lacks = np.isnan(store.label_column(key).reshape(len(store.label_column(key)), -1)).any(1)
        if store.is_per_atom(key):
            lacks = np.logical_or.reduceat(lacks, store.offsets[:-1])
        for name, ids in splits.items():
            if lacks[ids].any():
                raise ValueError(
                    f"{places(int(ids[np.argmax(lacks[ids])]))}: no {key}, wanted in every frame of split "
                    f"{name!r}; is it the official file?"
                )


def _groups(config: FilesConfig) -> dict[str, Files]:
    """The files in the order in which their frames are stored."""
    return {"train": config.train, "validation": config.validation, **config.tests}


def _isolated(config: FilesConfig, root: Path, used: Format, found: Found) -> dict[int, float] | None:
    """Energies of isolated atoms, eV by atomic number: as the settings say, or else as the files do."""
    if config.isolated_atoms is None:
        return isolated_energies(found.isolated) if found.isolated else None
    unit = config.energy_unit or str(used.fixed.get("energy_unit"))
    factor = units.ENERGY[unit]
    if isinstance(config.isolated_atoms, dict):
        return {ATOMIC_NUMBER[s]: e * factor for s, e in config.isolated_atoms.items()}
    path = need_file(root, config.isolated_atoms)
    with reading(root, path):
        return read_isolated_atoms(path, energy_key=config.energy_key or "energy", factor=factor)
