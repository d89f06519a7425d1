"""Systems of DeePMD-kit: folders of .npy arrays (Wang et al., Comput. Phys. Commun. 228 (2018) 178; the
format: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html).

A system is a folder with `type.raw` (one number an atom, from 0), `type_map.raw` (a chemical symbol for each
number), and folders `set.*`, each with coord.npy (n, 3 n_atoms), box.npy (n, 9; lattice vectors as rows),
energy.npy (n,), force.npy (n, 3 n_atoms) and perhaps virial.npy (n, 9). A file `nopbc` says that its frames
are open. In a mixed system every frame has its own elements: set.*/real_atom_types.npy (n, n_atoms), where -1
fills up frames that have fewer atoms. The format fixes the units eV and Å, energies that are totals, and
forces; a positive virial is pressure, so that stress (positive is tension) = -virial / volume.

The arrays are usually float32, energies too: totals are then multiples of 2^-9 eV from 16,384 to 32,768 eV.
They are taken as they are to float64, in which everything is subtracted later; what rounding did before, an
error of up to half such a step, stays. The metadata of a store name the step as `energy_step`. For water of
192 atoms at -29,944 eV it is 2.0 meV a frame: 0.56 meV of noise (RMS), 3 µeV per atom.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from sapis_lab.config import Added, Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._groups import Groups, SplitBySetting, groups_of, refuse_unused_groups
from sapis_lab.data._isolated_atoms import check_isolated_atoms
from sapis_lab.data._ordering import Order, RandomOrder, ordered
from sapis_lab.data._pools import (
    Files,
    each_one_or_several,
    one_or_several,
    pool_splits,
    refuse_absolute,
    refuse_unclear_splits,
    wrap_scattered,
)
from sapis_lab.data._sources import data_root, known_root, need_file, need_folder, reading, source_record
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import Frames, FrameStore
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.files import read_text
from sapis_lab.formats import npy_shape, read_npy

_SAMPLE = 20
"""Frames in which pairs are counted for `info`."""


class DeepmdConfig(DatasetConfig):
    """Systems of DeePMD-kit, folders of .npy arrays."""

    version: ClassVar[int] = 1
    kind: Literal["deepmd"] = "deepmd"
    train: Files
    """Folders of systems under `root` for training, one or a list: 'water_pbe0ts/data_0'."""
    validation: Files = ()
    """Folders for validation, unless `n_validation` frames are held out of those for training."""
    tests: dict[str, Files] = {}
    """Folders for testing by split name, `test` or `test_<letters and digits>`, unless `n_test` frames are
    held out."""
    n_train: int | None = Field(default=None, ge=1, le=10**9)
    """Frames of the training pool, the first of the permuted order; by default all that are not held out."""
    n_validation: int = Field(default=0, ge=0, le=10**9)
    """Frames held out of the training systems for validation, the last of the permuted order."""
    n_test: int = Field(default=0, ge=0, le=10**9)
    """Frames held out of the training systems as the split 'test'."""
    split_by: Annotated[SplitBySetting, Added(before=None)] = None
    """What stays together when frames are held out: `source` (a system), `composition` or `n_atoms`, as in
    `{by: n_atoms, test: largest}`; null: each frame for itself."""
    seed: Seed | None = 0
    """Of the order of the training frames, numpy's default_rng(seed).permutation; null keeps the order of the
    systems and their sets."""
    order: Annotated[Order, Added(before=RandomOrder())] = RandomOrder()
    """Which frames come first among those for training, of which every training set is the beginning: random,
    stratified or farthest, as in `{kind: stratified, by: energy}`."""
    type_map: tuple[str, ...] = ()
    """Chemical symbols by number of type, for systems without a type_map.raw."""
    stress_from: Literal["none", "virial"] = "none"
    """Whether stress is read, from virial.npy, which every set must then have."""
    isolated_atoms: dict[str, float] | None = None
    """Energies of isolated atoms at the labels' level of theory, eV: {H: -13.6, ...}."""
    level_of_theory: str = ""
    """For the record: method and basis of the labels."""
    root: Path | None = None
    """Folder that names of systems are relative to; by default the environment variable SAPIS_DATA."""

    _one_or_several = field_validator("train", "validation", mode="before")(one_or_several)
    _tests_one_or_several = field_validator("tests", mode="before")(each_one_or_several)

    @model_validator(mode="after")
    def _consistent(self) -> DeepmdConfig:
        refuse_unclear_splits(
            train=self.train,
            validation=self.validation,
            tests=self.tests,
            n_validation=self.n_validation,
            n_test=self.n_test,
        )
        refuse_unused_groups(self.split_by, n_validation=self.n_validation, n_test=self.n_test)
        for names in self._groups().values():
            for name in names:
                refuse_absolute(name)
        for field, symbols in (("type_map", self.type_map), ("isolated_atoms", self.isolated_atoms or ())):
            for symbol in symbols:
                if symbol not in ATOMIC_NUMBER:
                    raise ValueError(f"{field} names {symbol!r}, wanted chemical symbols such as H or Cl")
        return self

    def _groups(self) -> dict[str, Files]:
        """The systems in the order in which their frames are stored."""
        return {"train": self.train, "validation": self.validation, **self.tests}

    def _splits(self, ranges: dict[str, np.ndarray], groups: Groups | None) -> dict[str, np.ndarray]:
        return pool_splits(
            ranges,
            train=self.train,
            tests=self.tests,
            n_train=self.n_train,
            n_validation=self.n_validation,
            n_test=self.n_test,
            seed=self.seed,
            groups=groups,
        )

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        root = data_root(self.root)
        n_atoms: list[np.ndarray] = []
        atoms: list[np.ndarray] = []
        sources: list[str] = []
        elements: set[int] = set()
        ranges, n_frames = {}, 0
        for group, names in self._groups().items():
            start = n_frames
            for name in names:
                for part in _sets(_system(self, root, name)):
                    with reading(root, *part.files):
                        species = _species(part)
                    n_atoms.append((species > 0).sum(1))
                    if self.split_by is not None:
                        atoms.append(species[species > 0])
                        sources += [name] * len(species)
                    elements |= {int(z) for z in np.unique(species) if z > 0}
                    n_frames += len(species)
            ranges[group] = np.arange(start, n_frames)
        groups = groups_of(
            self.split_by,
            species=np.concatenate(atoms or [np.zeros(0, int)]),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(n_atoms))]),
            ids=ranges["train"],
            sources=sources,
        )
        splits = self._splits(ranges, groups)
        first = next(_sets(_system(self, root, self.train[0])))
        with reading(root, *first.files):
            sample = _frames(self, first, at_most=_SAMPLE)
        mean_atoms = float(np.concatenate(n_atoms).mean())
        return DatasetInfo(
            species=tuple(sorted(elements)),
            n_train=len(splits["train"]),
            n_validation=len(splits["validation"]),
            n_test={name: len(ids) for name, ids in splits.items() if is_test_split(name)},
            mean_atoms=mean_atoms,
            mean_pairs=mean_pairs(sample.positions, sample.n_atoms, sample.cell, sample.pbc, cutoff),
            periodic=bool(sample.pbc.any()),
            bytes_estimate=bytes_estimate(n_frames, mean_atoms),
            labels=("energy", "forces", *(("stress",) if self.stress_from == "virial" else ())),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root, groups = data_root(self.root), self._groups()
        store = FrameStore.create(folder, columns=("stress",) if self.stress_from == "virial" else ())
        places: list[str] = []
        sources: list[str] = []
        files: list[Path] = []
        step, n_done, ranges = 0.0, 0, {}
        for group, names in groups.items():
            first = store.n_frames
            for name in names:
                for part in _sets(_system(self, root, name)):
                    with reading(root, *part.files):
                        frames = _frames(self, part)
                        step = max(step, _energy_step(part))
                    store.append(frames)
                    places += [f"{part.folder}, frame {k}" for k in range(len(frames))]
                    sources += [name] * len(frames)
                    files += part.files
                n_done += 1
                progress("reading systems", n_done, sum(len(names) for names in groups.values()))
            ranges[group] = np.arange(first, store.n_frames)
        together = groups_of(
            self.split_by,
            species=store.species,
            offsets=store.offsets,
            ids=ranges["train"],
            sources=sources,
        )
        splits = self._splits(ranges, together)
        check_store(store, splits, lambda frame: places[frame])
        isolated = {ATOMIC_NUMBER[s]: e for s, e in (self.isolated_atoms or {}).items()} or None
        check_isolated_atoms(store, splits, isolated, places.__getitem__, energy_is="total")
        metadata = {
            "origin": ", ".join(self.train),
            "level_of_theory": self.level_of_theory,
            "units": {
                "energy": "eV",
                "length": "Angstrom",
                "force": "eV/Angstrom",
                "stress": "eV/Angstrom^3",
            },
            "energy_step": step,
            "sources": source_record(root, files),
        }
        if isolated is not None:
            metadata["isolated_atoms"] = {str(z): e for z, e in isolated.items()}
        splits = ordered(self.order, store, splits, seed=self.seed, sources=sources)
        store.seal(splits=splits, metadata=metadata)


class _System(NamedTuple):
    """A folder of sets."""

    folder: Path
    types: np.ndarray
    """(n_atoms,) int, as in type.raw."""
    numbers: np.ndarray
    """(n_types,) atomic numbers by type."""
    map_source: str
    """What names the elements, for messages."""
    periodic: bool
    files: tuple[Path, ...]
    """Those that all its sets share."""


class _Set(NamedTuple):
    """One folder of arrays."""

    folder: Path
    system: _System
    files: tuple[Path, ...]
    """All that its frames come from."""

    def file(self, name: str) -> Path:
        """The file of an array.

        Raises:
            ValueError: it is not there.
        """
        return need_file(self.folder, f"{name}.npy")


def _system(config: DeepmdConfig, root: Path, name: str) -> _System:
    folder = need_folder(root, name)
    type_file, map_file, open_file = (folder / n for n in ("type.raw", "type_map.raw", "nopbc"))
    need_file(folder, type_file.name)
    files = [type_file]
    symbols, source = config.type_map, "type_map"
    if map_file.is_file():
        with reading(root, map_file):
            symbols, source = tuple(read_text(map_file).split()), str(map_file)
            for symbol in symbols:
                if symbol not in ATOMIC_NUMBER:
                    raise ValueError(
                        f"{map_file}: names {symbol[:20]!r}, wanted chemical symbols such as H or Cl"
                    )
        files.append(map_file)
    if not symbols:
        raise ValueError(
            f"missing file: wanted {map_file}, which names the elements of the types; put it there, or set "
            f"type_map"
        )
    with reading(root, type_file):
        types = _whole_numbers(type_file)
    if open_file.is_file():
        files.append(open_file)
    numbers = np.array([ATOMIC_NUMBER[symbol] for symbol in symbols])
    return _System(folder, types, numbers, source, not open_file.is_file(), tuple(files))


def _whole_numbers(path: Path) -> np.ndarray:
    """The types of atoms in `path`, (n_atoms,) int."""
    words = read_text(path).split()
    for k, word in enumerate(words):
        if not word.isdecimal():
            raise ValueError(f"{path}: type of atom {k} is {word[:20]!r}, wanted a whole number from 0")
    if not words:
        raise ValueError(f"{path}: no types, wanted one whole number an atom")
    return np.array([int(word) for word in words])


_ARRAYS = ("coord", "box", "energy", "force", "virial", "real_atom_types")


def _sets(system: _System) -> Iterator[_Set]:
    folders = sorted(path for path in system.folder.glob("set.*") if path.is_dir())
    if not folders:
        raise ValueError(
            f"{system.folder}: no folder set.*, wanted at least set.000 with coord.npy and labels"
        )
    for folder in folders:
        files = (path for name in _ARRAYS if (path := folder / f"{name}.npy").is_file())
        yield _Set(folder, system, (*system.files, *files))


def _n_frames(part: _Set) -> int:
    """Frames of a set, as its coordinates say; nothing but a header is read."""
    path = part.file("coord")
    shape, n_atoms = npy_shape(path), len(part.system.types)
    if len(shape) != 2 or shape[1] != 3 * n_atoms or not shape[0]:
        raise ValueError(
            f"{path}: coord has shape {shape}, wanted (n_frames, {3 * n_atoms}) for the {n_atoms} atoms of "
            f"{part.system.folder / 'type.raw'}"
        )
    return shape[0]


def _array(part: _Set, name: str, n_frames: int, *row: int) -> np.ndarray:
    """The array `name` of a set as float64 (n_frames, *row)."""
    path = part.file(name)
    found = read_npy(path)
    wanted = (n_frames, int(np.prod(row))) if row else (n_frames,)
    if found.shape != wanted and not (not row and found.shape == (n_frames, 1)):
        raise ValueError(
            f"{path}: {name} has shape {found.shape}, wanted {wanted} for the {n_frames} frames of coord.npy"
        )
    return found.astype(np.float64).reshape(n_frames, *row)


def _species(part: _Set) -> np.ndarray:
    """Atomic numbers, (n_frames, n_atoms); 0 where a mixed system has no atom."""
    system, n_frames = part.system, _n_frames(part)
    mixed = part.folder / "real_atom_types.npy"
    if mixed.is_file():
        types, source = _array(part, "real_atom_types", n_frames, len(system.types)), mixed
        bad = (types != np.round(types)) | (types < -1) | (types >= len(system.numbers))
    else:
        types, source = np.tile(system.types, (n_frames, 1)), system.folder / "type.raw"
        bad = types >= len(system.numbers)
    if bad.any():
        frame, atom = np.argwhere(bad)[0]
        of_frame = f", frame {frame}" if mixed.is_file() else ""
        raise ValueError(
            f"{source}{of_frame}: atom {atom} has type {types[frame, atom]:g}, wanted 0 to "
            f"{len(system.numbers) - 1}: {system.map_source} names {len(system.numbers)} elements"
        )
    return np.append(system.numbers, 0)[types.astype(np.int64)]


def _frames(config: DeepmdConfig, part: _Set, *, at_most: int | None = None) -> Frames:
    """The frames of a set."""
    z = _species(part)
    n_frames, n = z.shape
    real = z > 0
    if not real.any(1).all():
        raise ValueError(
            f"{part.folder / 'real_atom_types.npy'}, frame {int(np.argmin(real.any(1)))}: every type is -1, "
            f"wanted an atom; remove the frame"
        )
    x, f = _array(part, "coord", n_frames, n, 3), _array(part, "force", n_frames, n, 3)
    energy = _array(part, "energy", n_frames)
    pbc = np.full((n_frames, 3), part.system.periodic)
    cell = np.zeros((n_frames, 3, 3))
    if part.system.periodic:
        if not (part.folder / "box.npy").is_file():
            raise ValueError(
                f"missing file: wanted {part.folder / 'box.npy'} with the cells; put it there, or an empty "
                f"file {part.system.folder / 'nopbc'} if the frames are open"
            )
        cell = _array(part, "box", n_frames, 3, 3)
    some = slice(at_most)
    frames = Frames(
        n_atoms=real[some].sum(1),
        species=z[some][real[some]].astype(np.uint8),
        positions=x[some][real[some]],
        cell=cell[some],
        pbc=pbc[some],
        energy=energy[some],
        forces=f[some][real[some]],
        stress=_stress(part, cell)[some] if config.stress_from == "virial" else None,
    )
    wrap_scattered(frames)
    return frames


def _stress(part: _Set, cell: np.ndarray) -> np.ndarray:
    """Stress of the frames of a set, (n_frames, 3, 3), eV/Å³."""
    if not part.system.periodic:
        raise ValueError(
            f"{part.system.folder / 'nopbc'}: a stress needs periodic frames; set stress_from: none, or "
            f"leave the system out"
        )
    volume = np.abs(np.linalg.det(cell))
    if not volume.all():
        raise ValueError(f"{part.folder / 'box.npy'}, frame {int(np.argmin(volume))}: the cell has no volume")
    return -_array(part, "virial", len(cell), 3, 3) / volume[:, None, None]


def _energy_step(part: _Set) -> float:
    """eV between neighbouring numbers of the type in which energies are written, at the largest energy."""
    energy = read_npy(part.file("energy"))
    if energy.dtype.kind != "f":
        return 1.0
    return float(np.spacing(np.abs(energy).max(initial=0)))
