"""Labelled frames from files: extended XYZ, or .npz archives with the arrays of sGDML (R, z, E, F) or rMD17
(coords, nuclear_charges, ...).

Files do not say their units, the sign of their forces, or whether an energy is per atom, and real ones differ
in all three; so the config must say the units, and the checks before sealing compare energies with forces.
Nothing is guessed.

Splits: `train` names one or more files, each with an optional slice as in Python,
`acac/test_MD_300K.xyz[::2]`. Their frames, in order, are permuted once by `seed`; training subsets are
prefixes of that order, and frames held out (`n_validation`, `n_test`) are taken from its end. Validation and
test frames may instead come from files of their own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from sapis_lab import units
from sapis_lab.config import Added, Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._elements import ATOMIC_NUMBER, SYMBOLS
from sapis_lab.data._extxyz import (
    XyzFrame,
    numbers_of,
    read_extxyz,
    read_species,
    written,
)
from sapis_lab.data._further_labels import (
    DipoleUnit,
    FurtherLabel,
    filled,
    of_charges,
    of_dipole,
    read_label,
    refuse_names,
)
from sapis_lab.data._isolated_atoms import check_isolated_atoms, read_isolated_atoms
from sapis_lab.data._npz import npz_arrays
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
from sapis_lab.data._sources import data_root, known_root, need_file, reading, source_record
from sapis_lab.data._splits import is_test_split
from sapis_lab.data._store import LABELS, Frames, FrameStore
from sapis_lab.targets import PropertyName

_STRESS_UNITS = {"GPa": 1 / units.EV_PER_A3_TO_GPA, "kbar": 0.1 / units.EV_PER_A3_TO_GPA}
_INFO_FRAMES = 500
"""Frames read for `info`."""


class ExtxyzConfig(DatasetConfig):
    """Labelled frames from extended-XYZ or .npz files."""

    version: ClassVar[int] = 1
    kind: Literal["extxyz"] = "extxyz"
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
    strata: Literal["none", "composition"] = "none"
    """Whether every training subset holds each composition in its share."""
    energy_unit: Literal["eV", "meV", "kcal/mol", "kJ/mol", "Hartree"]
    """Unit of energies in the files (also of isolated atoms)."""
    length_unit: Literal["Angstrom", "Bohr", "nm"]
    """Unit of positions and cells in the files."""
    force_unit: str | None = None
    """Unit of forces, such as 'Hartree/Bohr'; by default energy_unit/length_unit."""
    stress_unit: Literal["GPa", "kbar"] | None = None
    """Unit of stresses; by default energy_unit/length_unit³."""
    energy_is: Literal["total", "per_atom"] = "total"
    """What an energy in the files refers to."""
    forces_are: Literal["forces", "gradient"] = "forces"
    """The sign: forces are -dE/dx; some files store the gradient under the name of forces."""
    stress_is: Literal["tension", "compression"] = "tension"
    """What a positive stress in the files means; VASP writes compression. Not used for virials, which are
    -volume times tension."""
    format: Literal["auto", "extxyz", "npz"] = "auto"
    """File format; auto goes by the ending .npz."""
    energy_key: str | None = "energy"
    """Key of the energy in the comment line of extended XYZ; null: the files have no energies to learn."""
    forces_key: str | None = "forces"
    """Name of the forces column in extended XYZ; null: the files have no forces."""
    stress_key: str | None = None
    """Key of the stress (9 numbers, or 6 in the order xx yy zz yz xz xy), if it is to be read."""
    virial_key: str | None = None
    """Key of the virial (9 or 6 numbers, energy unit), if that is to be read instead."""
    dipole_key: Annotated[str | None, Added(before=None)] = None
    """Key (or array) of the dipole moment, 3 numbers, if it is to be read."""
    dipole_unit: Annotated[DipoleUnit, Added(before="e*Angstrom")] = "e*Angstrom"
    """Unit of dipole moments in the files."""
    charges_key: Annotated[str | None, Added(before=None)] = None
    """Column (or array) of the partial charges, e, if they are to be read."""
    properties: Annotated[dict[PropertyName, FurtherLabel], Added(before={})] = {}
    """Further labels by name: what a target `{kind: property, name: ...}` learns."""
    missing: Annotated[Literal["refuse", "mask"], Added(before="refuse")] = "refuse"
    """What to do about a frame that lacks one of these labels: refuse the files, or leave the label out of
    the loss and the errors."""
    npz_keys: dict[Literal["species", "positions", "energy", "forces", "cell", "pbc"], str] = {}
    """Array names in .npz files; by default those of sGDML and rMD17 are recognised. A cell alone means
    periodic."""
    isolated_atoms: dict[str, float] | str | None = None
    """Energies of isolated atoms at the labels' level of theory: a file of one-atom frames, or {H: -13.6,
    ...} in energy_unit."""
    level_of_theory: str = ""
    """For the record: method and basis of the labels."""
    root: Path | None = None
    """Folder that file names are relative to; by default the environment variable SAPIS_DATA."""

    _one_or_several = field_validator("train", "validation", mode="before")(one_or_several)
    _tests_one_or_several = field_validator("tests", mode="before")(each_one_or_several)

    @model_validator(mode="after")
    def _consistent(self) -> ExtxyzConfig:
        refuse_unclear_splits(
            train=self.train,
            validation=self.validation,
            tests=self.tests,
            n_validation=self.n_validation,
            n_test=self.n_test,
        )
        refuse_names(self.properties)
        if self.energy_key is None and self.forces_key is not None:
            raise ValueError("energy_key is null and forces_key is not; forces are learnt with energies")
        if self.stress_key and self.virial_key:
            raise ValueError("give stress_key or virial_key, not both")
        if self.force_unit is not None:
            _force_factor(self)
        for symbol in self.isolated_atoms if isinstance(self.isolated_atoms, dict) else ():
            if symbol not in ATOMIC_NUMBER:
                raise ValueError(f"isolated_atoms names {symbol!r}, wanted chemical symbols such as H or Cl")
        for name in (*self.train, *self.validation, *(n for names in self.tests.values() for n in names)):
            refuse_absolute(_split_slice(name)[0])
        if isinstance(self.isolated_atoms, str):
            refuse_absolute(self.isolated_atoms)
        return self

    def further_labels(self) -> dict[str, FurtherLabel]:
        """Labels besides energy, forces and stress, by name."""
        own = {}
        if self.dipole_key is not None:
            own["dipole"] = of_dipole(self.dipole_key, self.dipole_unit)
        if self.charges_key is not None:
            own["charges"] = of_charges(self.charges_key)
        return own | self.properties

    def _stress_column(self) -> tuple[str, ...]:
        return ("stress",) if self.stress_key or self.virial_key else ()

    def _unlabelled(self) -> tuple[str, ...]:
        """Of energy and forces, what the files do not have."""
        keys = {"energy": self.energy_key, "forces": self.forces_key}
        return tuple(name for name, key in keys.items() if key is None)

    def _groups(self) -> dict[str, Files]:
        """The files in the order in which their frames are stored."""
        return {"train": self.train, "validation": self.validation, **self.tests}

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        root = data_root(self.root)
        first = _read_file(self, root, self.train[0], at_most=_INFO_FRAMES).frames
        some = slice(None, None, max(1, len(first) // 20))
        x = np.concatenate(np.split(first.positions, np.cumsum(first.n_atoms)[:-1])[some])
        # Every file is read for its species: elements that only a late frame shows decide how many parameters
        # a model has.
        scanned: list[np.ndarray] = []
        ranges = {}
        for group, names in self._groups().items():
            start = len(scanned)
            for name in names:
                scanned += _scan(self, root, name)
            ranges[group] = np.arange(start, len(scanned))
        n_atoms = np.array([len(z) for z in scanned])
        atoms = _Species(np.concatenate(scanned), np.concatenate([[0], np.cumsum(n_atoms)]))
        splits = _splits(self, atoms, ranges)
        species = np.unique(np.concatenate([atoms.of(k) for ids in splits.values() for k in ids]))
        return DatasetInfo(
            species=tuple(int(z) for z in species),
            n_train=len(splits["train"]),
            n_validation=len(splits["validation"]),
            n_test={name: len(ids) for name, ids in splits.items() if is_test_split(name)},
            mean_atoms=float(n_atoms.mean()),
            mean_pairs=mean_pairs(x, first.n_atoms[some], first.cell[some], first.pbc[some], cutoff),
            periodic=bool(first.pbc.any()),
            bytes_estimate=bytes_estimate(len(scanned), float(n_atoms.mean())),
            labels=tuple(
                key
                for key in ("energy", "forces", *self._stress_column(), *self.further_labels())
                if key not in self._unlabelled()
            ),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        groups = self._groups()
        further = self.further_labels()
        store = FrameStore.create(
            folder,
            columns=(*self._stress_column(), *(name for name in further if name in LABELS)),
            properties={name: label.stored for name, label in further.items() if name not in LABELS},
        )
        places: list[str] = []
        ranges = {}
        n_files = sum(len(names) for names in groups.values())
        n_done = 0
        for group, names in groups.items():
            first = store.n_frames
            for name in names:
                part = _read_file(self, root, name)
                store.append(part.frames)
                places += part.places
                n_done += 1
                progress("reading files", n_done, n_files)
            ranges[group] = np.arange(first, store.n_frames)
        splits = _splits(self, _Species(store.species, store.offsets), ranges)
        check_store(
            store,
            splits,
            lambda frame: places[frame],
            length_unit=self.length_unit,
            may_lack=store.labels if self.missing == "mask" else self._unlabelled(),
        )
        isolated = _isolated_atoms(self, root)
        check_isolated_atoms(store, splits, isolated, places, energy_is=self.energy_is)
        files = [need_file(root, _split_slice(name)[0]) for names in groups.values() for name in names]
        if isinstance(self.isolated_atoms, str):
            files.append(need_file(root, self.isolated_atoms))
        metadata = {
            "origin": ", ".join(self.train),
            "level_of_theory": self.level_of_theory,
            "units": {
                "energy": "eV",
                "length": "Angstrom",
                "force": "eV/Angstrom",
                "stress": "eV/Angstrom^3",
            },
            "converted_from": self.model_dump(
                include={"energy_unit", "length_unit", "force_unit", "stress_unit", "energy_is", "forces_are"}
            ),
            "sources": source_record(root, files),
        }
        if isolated is not None:
            metadata["isolated_atoms"] = {str(z): e for z, e in isolated.items()}
        sources = [place.rpartition(", frame ")[0] for place in places]
        splits = ordered(self.order, store, splits, seed=self.seed, sources=sources)
        store.seal(splits=splits, metadata=metadata)


class _Species(NamedTuple):
    """What the splits depend on besides the numbers of frames."""

    species: np.ndarray
    """(n_atoms_total,)"""
    offsets: np.ndarray
    """(n_frames + 1,)"""

    def of(self, frame: int) -> np.ndarray:
        return self.species[self.offsets[frame] : self.offsets[frame + 1]]


def _scan(config: ExtxyzConfig, root: Path, name: str) -> list[np.ndarray]:
    """The species of every frame of one file (with its slice), without the labels."""
    relative, wanted = _split_slice(name)
    path = need_file(root, relative)
    with reading(root, path):
        if _format(config, path) == "npz":
            arrays = _arrays(config, path)
            z, n_frames = arrays["species"], len(arrays["energy"])
            return list(np.broadcast_to(z, (n_frames, z.shape[-1]))[wanted])
        return read_species(path, wanted=wanted)


class _Part(NamedTuple):
    frames: Frames
    places: list[str]


def _splits(config: ExtxyzConfig, atoms: _Species, ranges: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return pool_splits(
        ranges,
        train=config.train,
        tests=config.tests,
        n_train=config.n_train,
        n_validation=config.n_validation,
        n_test=config.n_test,
        seed=config.seed,
        strata=None if config.seed is None else _strata(config, atoms, ranges["train"]),
    )


def _strata(config: ExtxyzConfig, atoms: _Species, ids: np.ndarray) -> np.ndarray | None:
    if config.strata == "none":
        return None
    keys = ["-".join(map(str, np.sort(atoms.of(k)))) for k in ids]
    return np.unique(keys, return_inverse=True)[1]


# ---------------------------------------------------------------------------------------------- reading files


def _split_slice(name: str) -> tuple[str, slice]:
    """'a.xyz[::2]' -> ('a.xyz', slice(None, None, 2))."""
    match = re.fullmatch(r"(.+?)(?:\[(-?\d*)(:)(-?\d*)(?::(\d*))?\])?", name)
    if match is None or match[1].endswith("]"):
        raise ValueError(f"{name!r}: wanted a file name with an optional slice such as [::2] or [:100]")
    if match[3] is None:
        return match[1], slice(None)
    if match[5] and int(match[5]) == 0:
        raise ValueError(f"{name!r}: a slice with step 0, wanted a step of at least 1 such as [::2]")
    return match[1], slice(*(int(part) if part else None for part in (match[2], match[4], match[5])))


def _format(config: ExtxyzConfig, path: Path) -> str:
    if config.format != "auto":
        return config.format
    if path.suffix in (".pkl", ".pickle", ".pt", ".lmdb"):
        raise ValueError(
            f"{path}: pickled formats are refused because reading them runs code; convert it to extended XYZ "
            f"or .npz"
        )
    return "npz" if path.suffix == ".npz" else "extxyz"


def _read_file(config: ExtxyzConfig, root: Path, name: str, *, at_most: int | None = None) -> _Part:
    """The frames of one file (with its slice) in eV and Å, and where each came from."""
    relative, wanted = _split_slice(name)
    path = need_file(root, relative)
    with reading(root, path):
        is_npz = _format(config, path) == "npz"
        part = _read_npz(config, path, wanted) if is_npz else _read_xyz(config, path, wanted, at_most)
    if not len(part.frames):
        raise ValueError(f"{path}: no frames{' in ' + name if name != relative else ''}")
    return part


def _read_xyz(config: ExtxyzConfig, path: Path, wanted: slice, at_most: int | None) -> _Part:
    raw = []
    further: dict[str, list[np.ndarray]] = {name: [] for name in config.further_labels()}
    for frame in read_extxyz(path, wanted=wanted):
        place = f"{path}, frame {frame.number}"
        raw.append(_labels(config, frame, place))
        for name, label in config.further_labels().items():
            further[name].append(read_label(frame, name, label, place, may_lack=config.missing == "mask"))
        if at_most is not None and len(raw) >= at_most:
            break
    if not raw:
        raise ValueError(f"{path}: no frames in the slice {wanted.start, wanted.stop, wanted.step}")
    stress = None if raw[0].stress is None else np.array([r.stress for r in raw])
    n_atoms = np.array([len(r.frame.species) for r in raw])
    frames = Frames(
        n_atoms=n_atoms,
        species=_species(
            np.concatenate([r.frame.species for r in raw]),
            n_atoms,
            [f"{path}, frame {r.frame.number}" for r in raw],
        ),
        positions=np.concatenate([r.frame.positions for r in raw]) * units.LENGTH[config.length_unit],
        cell=np.array([r.frame.cell for r in raw]) * units.LENGTH[config.length_unit],
        pbc=np.array([r.frame.pbc for r in raw]),
        energy=_total(config, np.array([r.energy for r in raw]), n_atoms),
        forces=np.concatenate([r.forces for r in raw]) * _force_factor(config),
        stress=stress,
    )
    # A cell without periodicity (a box written around a molecule) has no meaning and would make equal frames
    # look different.
    frames.cell[~frames.pbc.any(1)] = 0.0
    wrap_scattered(frames)
    together = {
        name: np.concatenate(v) if config.further_labels()[name].per == "atom" else np.array(v)
        for name, v in further.items()
    }
    return _Part(filled(frames, together), [f"{path}, frame {r.frame.number}" for r in raw])


class _Labels(NamedTuple):
    frame: XyzFrame
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def _labels(config: ExtxyzConfig, frame: XyzFrame, place: str) -> _Labels:
    """Energy and forces of one frame as the file has them, stress already as tension in eV/Å³; NaN for what
    is not there and may be missing."""
    energy_key, forces_key = (
        None if key is None else written(there, key, place)
        for there, key in ((frame.info, config.energy_key), (frame.columns, config.forces_key))
    )
    may_lack = config.missing == "mask"
    if energy_key is None and config.energy_key is not None and not may_lack:
        raise ValueError(
            f"{place}: no key {config.energy_key!r} in the comment line; it has {', '.join(frame.info)}; set "
            f"energy_key"
        )
    if forces_key is None and config.forces_key is not None and not may_lack:
        raise ValueError(
            f"{place}: no column {config.forces_key!r}; it has "
            f"{', '.join(('species', 'pos', *frame.columns))}; "
            "set forces_key, or leave out files without forces"
        )
    energy = float("nan")
    if energy_key is not None:
        energy = float(numbers_of(frame.info[energy_key], (), f"{place}: {energy_key}"))
    forces = np.full(frame.positions.shape, np.nan) if forces_key is None else frame.columns[forces_key]
    if forces.shape != frame.positions.shape:
        raise ValueError(
            f"{place}: {config.forces_key} has shape {forces.shape}, wanted {frame.positions.shape}"
        )
    return _Labels(frame, energy, forces, _stress(config, frame, place))


def _stress(config: ExtxyzConfig, frame: XyzFrame, place: str) -> np.ndarray | None:
    wanted = config.stress_key or config.virial_key
    if wanted is None:
        return None
    key = written(frame.info, wanted, place)
    if config.missing == "mask" and (key is None or not frame.pbc.all()):
        return np.full((3, 3), np.nan)
    if key is None:
        raise ValueError(f"{place}: no key {wanted!r} in the comment line; it has {', '.join(frame.info)}")
    if not frame.pbc.all():
        raise ValueError(f"{place}: a stress needs three periodic directions, got pbc={frame.pbc.tolist()}")
    text = frame.info[key]
    six = len(text.replace(",", " ").split()) == 6
    value = numbers_of(text, (6,) if six else (3, 3), f"{place}: {key}")
    if six:
        value = value[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    if np.abs(value - value.T).max() > 1e-3 * max(1e-12, np.abs(value).max()):
        raise ValueError(f"{place}: {key} is not symmetric: {value.tolist()}")
    length = units.LENGTH[config.length_unit]
    if config.virial_key:
        return -value * units.ENERGY[config.energy_unit] / (abs(np.linalg.det(frame.cell)) * length**3)
    factor = (
        units.ENERGY[config.energy_unit] / length**3
        if config.stress_unit is None
        else _STRESS_UNITS[config.stress_unit]
    )
    return value * factor * (1 if config.stress_is == "tension" else -1)


def _arrays(config: ExtxyzConfig, path: Path) -> dict[str, np.ndarray]:
    absent = {"energy": config.energy_key is None, "forces": config.forces_key is None}
    further = {f"label {name}": label.key or name for name, label in config.further_labels().items()}
    keys: dict[str, str] = dict(config.npz_keys)  # type: ignore[arg-type]
    return npz_arrays(path, keys, without=[key for key, is_so in absent.items() if is_so], further=further)


def _read_npz(config: ExtxyzConfig, path: Path, wanted: slice) -> _Part:
    if config.stress_key or config.virial_key:
        raise ValueError(
            f"{path}: stress is read from extended XYZ only; leave out stress_key and virial_key"
        )
    arrays = _arrays(config, path)
    x, e, f, z = (arrays[k].astype(np.float64) for k in ("positions", "energy", "forces", "species"))
    n_frames, n = len(e), z.shape[-1]
    for what, value in (("positions", x), ("forces", f)):
        if value.shape != (n_frames, n, 3):
            raise ValueError(
                f"{path}: {what} have shape {value.shape}, wanted {(n_frames, n, 3)} for {n_frames} energies "
                f"and {n} atoms"
            )
    numbers = np.arange(n_frames)[wanted]
    places = [f"{path}, frame {k}" for k in numbers]
    n_atoms = np.full(len(numbers), n)
    cell = np.zeros((len(numbers), 3, 3))
    if "cell" in arrays:
        cell = (
            np.broadcast_to(arrays["cell"].reshape(-1, 3, 3), (n_frames, 3, 3))[wanted]
            * units.LENGTH[config.length_unit]
        )
        cell[~arrays["pbc"][wanted].any(1)] = 0.0  # as in extended XYZ
    frames = Frames(
        n_atoms=n_atoms,
        species=_species(np.broadcast_to(z, (n_frames, n))[wanted].reshape(-1), n_atoms, places),
        positions=x[wanted].reshape(-1, 3) * units.LENGTH[config.length_unit],
        cell=cell,
        pbc=arrays["pbc"][wanted],
        energy=_total(config, e[wanted], n_atoms),
        forces=f[wanted].reshape(-1, 3) * _force_factor(config),
    )
    wrap_scattered(frames)
    further = {}
    for name, label in config.further_labels().items():
        shape = (n_frames, *((n,) if label.per == "atom" else ()), *label.shape)
        values = arrays[f"label {name}"]
        if values.size != int(np.prod(shape)) or len(values) != n_frames:
            raise ValueError(f"{path}: {label.key or name} has shape {values.shape}, wanted {shape}")
        values = label.factor * values.astype(np.float64).reshape(shape)[wanted]
        further[name] = values.reshape(-1, *label.shape) if label.per == "atom" else values
    return _Part(filled(frames, further), places)


def _species(z: np.ndarray, n_atoms: np.ndarray, places: list[str]) -> np.ndarray:
    bad = (z < 1) | (z >= len(SYMBOLS)) | (z != np.round(z))
    if bad.any():
        row = int(np.argmax(bad))
        frame = int(np.searchsorted(np.cumsum(n_atoms), row, side="right"))
        atom = row - int(np.sum(n_atoms[:frame]))
        raise ValueError(
            f"{places[frame]}: atom {atom} has atomic number {z[row]:g}, wanted 1 to {len(SYMBOLS) - 1}"
        )
    return z.astype(np.uint8)


def _total(config: ExtxyzConfig, energy: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    # float64 before anything is multiplied or subtracted: float32 files of total energies resolve 2 meV at 30
    # keV.
    energy = energy.astype(np.float64) * units.ENERGY[config.energy_unit]
    return energy * n_atoms if config.energy_is == "per_atom" else energy


def _force_factor(config: ExtxyzConfig) -> float:
    sign = -1.0 if config.forces_are == "gradient" else 1.0
    energy, _, length = (config.force_unit or f"{config.energy_unit}/{config.length_unit}").rpartition("/")
    if energy not in units.ENERGY or length not in units.LENGTH:
        raise ValueError(
            f"force_unit={config.force_unit!r}, wanted an energy ({', '.join(units.ENERGY)}) "
            f"per length ({', '.join(units.LENGTH)}), as in Hartree/Bohr"
        )
    return sign * units.ENERGY[energy] / units.LENGTH[length]


def _isolated_atoms(config: ExtxyzConfig, root: Path) -> dict[int, float] | None:
    factor = units.ENERGY[config.energy_unit]
    if config.isolated_atoms is None:
        return None
    if isinstance(config.isolated_atoms, dict):
        return {ATOMIC_NUMBER[s]: e * factor for s, e in config.isolated_atoms.items()}
    path = need_file(root, config.isolated_atoms)
    with reading(root, path):
        return read_isolated_atoms(
            path, energy_key=config.energy_key or "energy", factor=units.ENERGY[config.energy_unit]
        )
