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

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from sapis_lab import units
from sapis_lab.config import Added, Seed
from sapis_lab.data._base import DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._changes import AsItIs, Change
from sapis_lab.data._checks import check_store
from sapis_lab.data._file_filters import (
    Wanted,
    copies,
    is_isolated,
    isolated_energies,
    kept,
    left_out,
    values_met,
)
from sapis_lab.data._file_labels import (
    FileLabels,
    Scales,
    charges_of,
    complete,
    labelled,
    level_of,
    refuse_other_units,
    scales,
)
from sapis_lab.data._group_keys import FilesSplitBy, GroupKeys
from sapis_lab.data._groups import Groups, SplitBy, groups_of, refuse_unused_groups
from sapis_lab.data._isolated_atoms import check_isolated_atoms, read_isolated_atoms
from sapis_lab.data._ordering import Order, RandomOrder, ordered
from sapis_lab.data._places import Places
from sapis_lab.data._pools import (
    Files,
    each_one_or_several,
    one_or_several,
    pool_splits,
    refuse_absolute,
    refuse_unclear_splits,
)
from sapis_lab.data._sources import data_root, known_root, need_file, need_folder, reading, source_record
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import LABELS, Frames, FrameStore, Property
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.errors import Notice
from sapis_lab.formats import Block, Format, Reading, format_of

_SAMPLE_FRAMES = 20
"""Frames in which pairs are counted for `info`."""
_APPEND_ATOMS = 200_000
"""Atoms that are gathered before they are appended to a store: about 10 MB."""


def _texts(value: object) -> object:
    """A value alone as a list of one, numbers as text."""
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(v) if isinstance(v, int | float) else v for v in values)


Rules = Annotated[
    dict[str, Wanted],
    BeforeValidator(lambda v: {k: _texts(x) for k, x in v.items()} if isinstance(v, dict) else v),
]


class FilesConfig(FileLabels):
    """Labelled frames from files."""

    version: ClassVar[int] = 1
    kind: Literal["files"] = "files"
    train: Files
    """Training files under `root`, one or a list, each with an optional slice: 'acac/train_300K.xyz',
    'a.xyz[:1000]'."""
    validation: Files = ()
    """Validation files, unless `n_validation` frames are held out of the training files."""
    tests: dict[str, Files] = {}
    """Test files by split name, `test` or `test_<letters and digits>` such as test_600K, unless `n_test`
    frames are held out."""
    n_train: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of the training pool, the first of the permuted order; by default all that are not held out."""
    n_validation: int = Field(default=0, ge=0, le=10**9)
    """Frames held out of the training files for validation."""
    n_test: int = Field(default=0, ge=0, le=10**9)
    """Frames held out of the training files as the split 'test'."""
    seed: Seed | None = 0
    """Of the order of the training frames, numpy's default_rng(seed).permutation; null keeps the order of the
    files."""
    order: Annotated[Order, Added(before=RandomOrder())] = RandomOrder()
    """Which frames come first among those for training, of which every training set is the beginning: random,
    stratified or farthest, as in `{kind: stratified, by: energy}`."""
    split_by: Annotated[FilesSplitBy, Added(before=None)] = "auto"
    """What stays together when frames are held out: `source` (a file), `composition`, `n_atoms` or the name
    of a key of the frames, as in `{by: n_atoms, test: largest}`; null: each frame for itself. auto goes by a
    key such as group, trajectory, molecule or sid where all frames carry one."""
    strata: Literal["none", "composition"] = "none"
    """Whether every training subset holds each composition in its share."""
    format: str = "auto"
    """File format, a module of `sapis_lab.formats`; auto goes by the ending, extended XYZ where it says
    nothing."""
    npz_keys: dict[Literal["species", "positions", "energy", "forces", "cell", "pbc"], str] = {}
    """Names of arrays in .npz and HDF5 files; by default the usual ones are recognised. A cell alone means
    periodic."""
    topology: Annotated[str | None, Added(before=None)] = None
    """For trajectories of positions alone: the file under `root` with their elements, such as a PDB file; by
    default the only one beside them."""
    isolated_atoms: dict[str, float] | str | None = None
    """Energies of isolated atoms at the labels' level of theory: a file of one-atom frames, or {H: -13.6,
    ...} in energy_unit."""
    isolated_frames: Annotated[Literal["take", "keep"], Added(before="keep")] = "take"
    """What to do with frames of one atom whose config_type is IsolatedAtom: take their energies for
    `isolated_atoms` and leave them out, or keep them as frames like others."""
    where: Annotated[Rules, Added(before={})] = {}
    """Keys of frames and the values, one or a list, of those that are wanted: {config_type: [bulk,
    surface]}."""
    without: Annotated[Rules, Added(before={})] = {}
    """Keys of frames and the values of those that are left out."""
    max_force: Annotated[float | None, Field(gt=0, le=1e6), Added(before=None)] = None
    """Frames with a larger force on an atom, eV/Å, are left out."""
    energy_window: Annotated[float | None, Field(gt=0, le=1e6), Added(before=None)] = None
    """Frames whose energy per atom, less fitted references of the elements, is farther from the median, eV,
    are left out."""
    copies: Annotated[Literal["refuse", "drop"], Added(before="refuse")] = "refuse"
    """What to do about a frame that is the same configuration as an earlier one, in the order of train,
    validation, tests: refuse the files, or leave it out."""
    level_of_theory: str = ""
    """For the record: method and basis of the labels."""
    root: Path | None = None
    """Folder that file names are relative to; by default the environment variable SAPIS_DATA."""

    _one_or_several = field_validator("train", "validation", mode="before")(one_or_several)
    _tests_one_or_several = field_validator("tests", mode="before")(each_one_or_several)

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        format_of(Path("name"), name)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> FilesConfig:
        refuse_unclear_splits(
            train=self.train,
            validation=self.validation,
            tests=self.tests,
            n_validation=self.n_validation,
            n_test=self.n_test,
        )
        if isinstance(self.split_by, SplitBy):
            refuse_unused_groups(self.split_by, n_validation=self.n_validation, n_test=self.n_test)
        for symbol in self.isolated_atoms if isinstance(self.isolated_atoms, dict) else ():
            if symbol not in ATOMIC_NUMBER:
                raise ValueError(f"isolated_atoms names {symbol!r}, wanted chemical symbols such as H or Cl")
        for name in (*self.train, *self.validation, *(n for names in self.tests.values() for n in names)):
            refuse_absolute(split_slice(name)[0])
        for file in (self.isolated_atoms, self.topology):
            if isinstance(file, str):
                refuse_absolute(file)
        return self

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
    found, keys = _Scan(), GroupKeys(config.split_by)
    ranges, files = {}, [0]
    for group, names in _groups(config).items():
        start = len(found)
        for name in names:
            for source in _sources(config, root, name):
                files.append(len(found))
                for block, _ in _blocks(config, root, source, change, labels=False):
                    found.add(block, scales(config, source.format.fixed, source.path))
                    keys.add(block, np.ones(len(block), bool), f"{source.path}, frame {block.numbers[0]}")
        ranges[group] = np.arange(start, len(found))
    atoms = found.atoms()
    which = np.searchsorted(files[1:], np.arange(len(found)), side="right")
    splits = _splits(config, atoms, ranges, keys, which)
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
    sources = {g: [s for n in names for s in _sources(config, root, n)] for g, names in groups.items()}
    looks = _looks([file for of in sources.values() for source in of for file in source.files])
    store, places, found = _begun(config, folder, columns, properties, change, looks)
    ranges = {}
    n_files = sum(len(of) for of in sources.values())
    n_done = 0
    with store.gathered():
        for group, of in sources.items():
            found.starts.setdefault(group, store.n_frames)
            for source in of:
                _convert(config, root, source, store, places, found, change)
                n_done += 1
                progress("reading files", n_done, n_files)
            found.ends.setdefault(group, store.n_frames)
            ranges[group] = np.arange(found.starts[group], found.ends[group])
    for name, then in looks.items():
        if _looks([Path(name)])[name] != then:
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
    which = places.files() if _by_source(config) else None
    splits = _splits(config, Species(store.species, store.offsets), ranges, found.keys, which)
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


def _begun(
    config: FilesConfig,
    folder: Path,
    columns: tuple[str, ...],
    properties: Mapping[str, Property],
    change: Change,
    looks: dict[str, list[int]],
) -> tuple[FrameStore, Places, _Found]:
    """The store that an interrupted conversion of these files left, with what it knew then, or an empty one.
    One that groups frames by a key begins again: which group a frame belongs to is not kept."""
    store = FrameStore.resume(folder, columns=columns, properties=properties)
    state = store.progress.get(_PROGRESS)
    if state is None or state["found"]["looks"] != looks or (config.split_by is not None and state["keyed"]):
        store = FrameStore.create(folder, columns=columns, properties=properties)
        return store, Places(), _Found(keys=GroupKeys(config.split_by), looks=looks)
    change.left_out |= state["left_out"]
    found = _Found.from_plain(state["found"])
    found.keys = GroupKeys(config.split_by)
    return store, Places.from_plain(state["places"]), found


def _looks(files: list[Path]) -> dict[str, list[int]]:
    """Size, times of the last changes and number on the disk of files, by their path: what tells that they
    are what they were."""
    found = {str(file): file.stat() for file in files}
    return {n: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for n, s in found.items()}


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


def _isolated(config: FilesConfig, root: Path, used: Format, found: _Found) -> dict[int, float] | None:
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


class Species(NamedTuple):
    """What the splits depend on besides the numbers of frames."""

    species: np.ndarray
    """(n_atoms_total,)"""
    offsets: np.ndarray
    """(n_frames + 1,)"""

    def of(self, frame: int) -> np.ndarray:
        return self.species[self.offsets[frame] : self.offsets[frame + 1]]


class _Scan:
    """What `info` says of the frames of all files."""

    def __init__(self) -> None:
        self._species: list[np.ndarray] = []
        self._n_atoms: list[np.ndarray] = []
        self._sample: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._stride, self._seen = 1, 0
        self.periodic = False

    def __len__(self) -> int:
        return self._seen

    def add(self, block: Block, to: Scales) -> None:
        self._species.append(block.species.astype(np.uint8))
        self._n_atoms.append(block.n_atoms)
        self.periodic |= bool(block.pbc.any())
        ends = np.cumsum(block.n_atoms)
        for k in range(len(block)):
            if (self._seen + k) % self._stride == 0:
                x = block.positions[ends[k] - block.n_atoms[k] : ends[k]]
                self._sample.append((x * to.length, block.cell[k] * to.length, block.pbc[k]))
            if len(self._sample) > 2 * _SAMPLE_FRAMES:
                self._sample, self._stride = self._sample[::2], 2 * self._stride
        self._seen += len(block)

    def atoms(self) -> Species:
        n_atoms = np.concatenate([*self._n_atoms, np.zeros(0, np.int64)])
        species = np.concatenate([*self._species, np.zeros(0, np.uint8)])
        return Species(species, np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64))

    def mean_pairs(self, cutoff: float) -> float:
        x, cell, pbc = zip(*self._sample, strict=True)
        n_atoms = np.array([len(frame) for frame in x])
        return mean_pairs(np.concatenate(x), n_atoms, np.array(cell), np.array(pbc), cutoff)


@dataclass
class _Found:
    """What is met on the way through the files."""

    isolated: dict[int, dict[str, float]] = field(default_factory=dict)
    """Energies of isolated atoms, eV, by atomic number and place."""
    levels: dict[str, dict[str, str]] = field(default_factory=dict)
    """Values of keys that name a level of theory, each with the place where it was met first."""
    charges: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """Values of keys that hold a charge or a spin which is not read, by the setting that would read them and
    key, each with the place where it was met first."""
    n_left_out: dict[str, int] = field(default_factory=dict)
    """Frames that were left out, by reason."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a reader of the data should know, by what it is about."""
    largest_gap: float = 0.0
    """Largest difference between energy and free energy of a frame, eV."""
    starts: dict[str, int] = field(default_factory=dict)
    """The first frame of every split that has files."""
    ends: dict[str, int] = field(default_factory=dict)
    """Behind the last frame of each, once it is whole."""
    looks: dict[str, list[int]] = field(default_factory=dict)
    """Of the files, see `_looks`."""
    met: set[tuple[str, str, str]] = field(default_factory=set)
    """Of `where` and `without`, the keys and values that some frame has."""
    keys: GroupKeys = field(default_factory=lambda: GroupKeys(None))
    """What frames say of the group that they belong to."""

    def plain(self) -> dict[str, Any]:
        """As JSON, without the keys of groups."""
        every = {name: value for name, value in vars(self).items() if name != "keys"}
        charges = [[*key, value] for key, value in self.charges.items()]
        return {**every, "charges": charges, "met": sorted(self.met)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> _Found:
        """What `plain` gave."""
        charges = {(setting, key): value for setting, key, value in plain["charges"]}
        isolated = {int(z): value for z, value in plain["isolated"].items()}
        met = {(rule, key, value) for rule, key, value in plain["met"]}
        return cls(**{**plain, "charges": charges, "isolated": isolated, "met": met})

    def count(self, reason: str, n: int) -> None:
        self.n_left_out[reason] = self.n_left_out.get(reason, 0) + n

    def refuse_idle_rules(self, config: FilesConfig) -> None:
        """ValueError where `where` or `without` names what no frame has: a slip would let frames in, or
        out."""
        for rule, wanted in (("where", config.where), ("without", config.without)):
            for key, values in wanted.items():
                for value in values:
                    if (rule, key, value) not in self.met:
                        raise ValueError(
                            f"{', '.join(config.train)}: {rule} names {key}: {value}, which no frame has; "
                            "correct it, or leave it out"
                        )

    def refuse_mixed_levels(self) -> None:
        """ValueError where the frames are of several levels of theory."""
        for key, values in self.levels.items():
            if len(values) > 1:
                told = ", ".join(f"{value} ({place})" for value, place in list(values.items())[:4])
                raise ValueError(
                    f"frames of several levels of theory: {key} is {told}; choose one with where: {{{key}: "
                    f"{next(iter(values))}}}, or all with where: {{{key}: [{', '.join(values)}]}} if their "
                    "labels belong to one surface"
                )

    def refuse_mixed_charges(self) -> None:
        """ValueError where the frames are of several charges or spins, which nobody reads: the same positions
        then have several energies."""
        for (setting, key), values in self.charges.items():
            if len(values) > 1:
                told = ", ".join(f"{value} ({place})" for value, place in list(values.items())[:4])
                raise ValueError(
                    f"frames of several charges or spins: {key} is {told}; choose one with where: {{{key}: "
                    f"{next(iter(values))}}}, or read it with {setting}: {key}"
                )

    def compare_energies(self, gap: float) -> None:
        """Keep the largest difference between energies and free energies."""
        self.largest_gap = max(self.largest_gap, gap)
        if self.largest_gap > 1e-6:
            self.notes["free_energy"] = (
                f"energy is read; the files also have free_energy, which differs by up to "
                f"{self.largest_gap:.3g} eV a frame and whose derivatives the forces are in VASP and GPAW; "
                "energy_key: free_energy reads it"
            )


class _Source(NamedTuple):
    """One file, or folder, with its slice."""

    path: Path
    wanted: slice
    name: str
    format: Format
    files: list[Path]
    """What is read of it."""


def _sources(config: FilesConfig, root: Path, name: str) -> list[_Source]:
    relative, wanted = split_slice(name)
    path = root / relative
    is_folder = path.is_dir()
    path = need_folder(root, relative) if is_folder else need_file(root, relative)
    with reading(root, path):
        used = format_of(path, config.format)
    if str(config.kind) == "extxyz" and used.name not in ("extxyz", "npz"):
        raise ValueError(
            f"{path}: is of the format {used.name} by its name, and the kind extxyz reads extended XYZ and "
            ".npz; set kind: files, or format: extxyz"
        )
    files = sorted(f for f in path.rglob("*") if f.is_file()) if is_folder else [path]
    return [_Source(path, wanted, name, used, files)]


def file_source(config: FilesConfig, root: Path, name: str) -> _Source:
    """The one file, or folder, `name` under `root`."""
    return _sources(config, root, name)[0]


def file_blocks(config: FilesConfig, root: Path, source: _Source) -> Iterator[Block]:
    """The frames of a file with all labels, as it has them."""
    told = source.format.units_told(source.path, _reading(config, root, source, labels=True))
    refuse_other_units(told, config, source.format.fixed, source.path)
    return (block for block, _ in _blocks(config, root, source, AsItIs(), labels=True, every=True))


def _reading(
    config: FilesConfig, root: Path, source: _Source, *, labels: bool, every: bool = False
) -> Reading:
    names: dict[str, str | None] = dict(config.npz_keys)  # type: ignore[arg-type]
    for label in config.unlabelled:
        names[label] = None
    keys = tuple(dict.fromkeys((*(config.keys if labels else ()), *config.where, *config.without)))
    return Reading(
        wanted=source.wanted,
        labels=labels,
        names=names,
        keys=keys,
        energy=config.energy_key,
        forces=config.forces_key,
        every=every,
        may_lack=config.may_lack,
        topology=None if config.topology is None else need_file(root, config.topology),
    )


def _blocks(
    config: FilesConfig,
    root: Path,
    source: _Source,
    change: Change,
    *,
    labels: bool,
    every: bool = False,
    skip: int = 0,
    met: set[tuple[str, str, str]] | None = None,
) -> Iterator[tuple[Block, int]]:
    """The frames of a file that the keys choose, changed, with how many of the file have been read; isolated
    atoms are among them. The first `skip` frames are not read."""
    read = _reading(config, root, source, labels=labels, every=every)._replace(skip=skip)
    n_frames = skip
    with reading(root, *source.files):
        for block in source.format.blocks(source.path, read):
            n_frames += len(block)
            place = f"{source.path}, frame {block.numbers[0]}"
            if met is not None:
                met |= values_met(block, config.where, config.without, place)
            found = change(block.chosen(kept(block, config.where, config.without, place)))
            if config.isolated_frames == "take" and not labels:
                found = found.chosen(~is_isolated(found))
            if len(found):
                yield found, n_frames
    if not n_frames:
        part = f" in {source.name}" if source.name.endswith("]") else ""
        raise ValueError(f"{source.path}: no frames{part}")


def _convert(
    config: FilesConfig,
    root: Path,
    source: _Source,
    store: FrameStore,
    places: Places,
    found: _Found,
    change: Change,
) -> None:
    """Append the frames of one file to the store; with what was read of it until an interruption, the
    others."""
    mark = (store.progress.get(_PROGRESS) or {}).get("read", {})
    skip = int(mark.get(source.name, 0))
    to = scales(config, source.format.fixed, source.path)
    held: list[Frames] = []
    with reading(root, *source.files):
        told = source.format.units_told(source.path, _reading(config, root, source, labels=True))
        refuse_other_units(told, config, source.format.fixed, source.path)
        for block, n_read in _blocks(config, root, source, change, labels=True, skip=skip, met=found.met):

            def place(k: int, numbers: np.ndarray = block.numbers) -> str:
                return f"{source.path}, frame {numbers[k]}"

            frames = labelled(config, block, place, to)
            alone = is_isolated(block) if config.isolated_frames == "take" else np.zeros(len(block), bool)
            for one in np.nonzero(alone)[0].tolist():
                z = int(block.species[np.cumsum(block.n_atoms)[one] - 1])
                found.isolated.setdefault(z, {})[place(one)] = float(frames.energy[one])
            found.count("isolated_atoms", int(alone.sum()))
            for key, values in level_of(block).items():
                if not {key, key.casefold()} & set(config.where):
                    for k, value in enumerate(values):
                        found.levels.setdefault(key, {}).setdefault(str(value), place(k))
            for where, values in charges_of(config, block).items():
                if not {where[1], where[1].casefold()} & set(config.where):
                    for k, value in enumerate(values):
                        if not alone[k]:
                            found.charges.setdefault(where, {}).setdefault(_plain(value), place(k))
            found.compare_energies(_energy_gap(config, block, to))
            keep = ~alone
            if config.missing == "drop":
                whole = complete(config, frames)
                found.count("missing_labels", int((keep & ~whole).sum()))
                keep &= whole
            if not keep.all():
                frames = _chosen(frames, keep)
            places.add(source.path, block.numbers[keep])
            found.keys.add(block, keep, place(0))
            held.append(frames)
            if sum(int(part.n_atoms.sum()) for part in held) > _APPEND_ATOMS:
                _append(store, held, _state(source.name, n_read, places, found, change))
                held = []
        _append(store, held, _state(source.name, 10**15, places, found, change))


def _plain(value: Any) -> str:
    """A value as text; 1, 1.0 and "1.0" are the same."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)


def _energy_gap(config: FilesConfig, block: Block, to: Scales) -> float:
    """Largest difference between energy and free energy of the frames, eV, where the energy is read."""
    values = [block.frame_labels.get(key) for key in ("energy", "free_energy")]
    if config.energy_key != "energy" or any(value is None for value in values):
        return 0.0
    try:
        energy, free = (np.array(value, dtype=np.float64) for value in values)
        gap = np.abs(energy - free)
    except ValueError:
        return 0.0
    return float(np.max(gap[np.isfinite(gap)], initial=0.0)) * to.energy


def _append(store: FrameStore, held: list[Frames], state: dict[str, Any]) -> None:
    before = store.progress.get(_PROGRESS) or {}
    done = {_PROGRESS: {**before, **state, "read": {**before.get("read", {}), **state["read"]}}}
    parts = [part for part in held if len(part)]
    if parts:
        store.append(_together(parts), done=done)


_PROGRESS = "files"


def _state(name: str, n_read: int, places: Places, found: _Found, change: Change) -> dict[str, Any]:
    """What an interrupted conversion needs to go on, as JSON."""
    return {
        "read": {name: n_read},
        "places": places.plain(),
        "found": found.plain(),
        "left_out": dict(change.left_out),
        "keyed": found.keys.name is not None,
    }


def _together(parts: list[Frames]) -> Frames:
    if len(parts) == 1:
        return parts[0]
    names = [name for name, value in vars(parts[0]).items() if value is not None and name != "properties"]
    return Frames(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        properties={
            name: np.concatenate([part.properties[name] for part in parts]) for name in parts[0].properties
        },
    )


def _chosen(frames: Frames, keep: np.ndarray) -> Frames:
    """The frames `keep`, (n_frames,) bool."""
    atoms = np.repeat(keep, frames.n_atoms)

    def rows(value: np.ndarray) -> np.ndarray:
        return value[atoms] if len(value) == len(atoms) and len(value) != len(keep) else value[keep]

    # of one atom a frame the two masks are the same
    given = {
        name: value for name, value in vars(frames).items() if value is not None and name != "properties"
    }
    return Frames(
        **{name: rows(value) for name, value in given.items()},
        properties={name: rows(value) for name, value in frames.properties.items()},
    )


def _by_source(config: FilesConfig) -> bool:
    """Whether it matters which file a frame comes from."""
    split_by, order = config.split_by, config.order
    return (isinstance(split_by, SplitBy) and split_by.by == "source") or getattr(order, "by", "") == "source"


def _splits(
    config: FilesConfig,
    atoms: Species,
    ranges: dict[str, np.ndarray],
    keys: GroupKeys,
    which: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Frames by split; `which` is the number of the file of every frame, where it matters."""
    pool, split_by, held_out = ranges["train"], config.split_by, config.n_validation or config.n_test
    groups = None
    if isinstance(split_by, SplitBy) and split_by.by != "key":
        groups = groups_of(
            split_by,
            species=atoms.species,
            offsets=atoms.offsets,
            ids=pool,
            sources=() if which is None else [str(k) for k in which],
        )
    elif held_out:
        largest = isinstance(split_by, SplitBy) and split_by.test == "largest"
        groups = keys.groups(pool, n_atoms=np.diff(atoms.offsets)[pool] if largest else None)
    if groups is not None and split_by == "auto":
        n_splits = 1 + bool(config.n_validation) + bool(config.n_test)
        if len(np.unique(groups.labels)) < n_splits:  # all of one trajectory: nothing can be kept apart
            return _pool_splits(config, atoms, ranges, None)
        try:
            return _pool_splits(config, atoms, ranges, groups)
        except ValueError as error:
            warnings.warn(
                f"frames that share {keys.name} are in several splits: whole groups cannot be held out "
                f"({error}); split_by: null leaves out this notice",
                Notice,
                stacklevel=2,
            )
            groups = None
    return _pool_splits(config, atoms, ranges, groups)


def _pool_splits(
    config: FilesConfig, atoms: Species, ranges: dict[str, np.ndarray], groups: Groups | None
) -> dict[str, np.ndarray]:
    filters = ("where", "without", "max_force", "energy_window")
    used = [name for name in filters if getattr(config, name)]
    try:
        return _pooled(config, atoms, ranges, groups)
    except ValueError as error:
        if not used:
            raise
        raise ValueError(f"{error} (some are left out by {', '.join(used)})") from None


def _pooled(
    config: FilesConfig, atoms: Species, ranges: dict[str, np.ndarray], groups: Groups | None
) -> dict[str, np.ndarray]:
    return pool_splits(
        ranges,
        train=config.train,
        tests=config.tests,
        n_train=config.n_train,
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        strata=None if config.seed is None else _strata(config, atoms, ranges["train"]),
        groups=groups,
    )


def _strata(config: FilesConfig, atoms: Species, ids: np.ndarray) -> np.ndarray | None:
    if config.strata == "none":
        return None
    keys = ["-".join(map(str, np.sort(atoms.of(k)))) for k in ids]
    return np.unique(keys, return_inverse=True)[1]


def split_slice(name: str) -> tuple[str, slice]:
    """'a.xyz[::2]' -> ('a.xyz', slice(None, None, 2))."""
    match = re.fullmatch(r"(.+?)(?:\[(-?\d*)(:)(-?\d*)(?::(\d*))?\])?", name)
    if match is None or match[1].endswith("]"):
        raise ValueError(f"{name!r}: wanted a file name with an optional slice such as [::2] or [:100]")
    if match[3] is None:
        return match[1], slice(None)
    if match[5] and int(match[5]) == 0:
        raise ValueError(f"{name!r}: a slice with step 0, wanted a step of at least 1 such as [::2]")
    return match[1], slice(*(int(part) if part else None for part in (match[2], match[4], match[5])))
