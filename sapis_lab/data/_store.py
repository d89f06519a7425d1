"""The frame store: labelled configurations as flat memory-mapped arrays plus offsets, appended to and never
rewritten.

Frame k holds the atoms offsets[k]:offsets[k+1]. Energies and positions are float64 (a total energy of 10⁵ eV
has a resolution of 8 meV in float32), forces float32 (their own error is larger). Units are eV, Å, fs, e;
positive stress is tension; see `_arrays` for how appending survives a crash. A store is *sealed* when its
splits are written; the splits name frames by number:

- `train` in its stored order: the training set of size D is `splits["train"][:D]`, so the sets of all sizes
  nest;
- `validation`;
- one or more named `test` or `test_<letters and digits>`.

Sealing again after appending may only lengthen a split: earlier subsets stay what they were.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from sapis_lab.data._arrays import DAMAGED, MANIFEST, Column, GrowingArrays, crc32, read_manifest, segments
from sapis_lab.data._neighbor_table import NeighborTable, neighbor_table
from sapis_lab.data._splits import is_test_split
from sapis_lab.errors import ConfigError
from sapis_lab.files import write_bytes

FORMAT = 1

_PER_FRAME = {"cell": Column("<f8", (3, 3)), "pbc": Column("|b1", (3,)), "energy": Column("<f8")}
_PER_ATOM = {"species": Column("|u1"), "positions": Column("<f8", (3,)), "forces": Column("<f4", (3,))}
_OPTIONAL_PER_FRAME = {
    "stress": Column("<f8", (3, 3)),
    "dipole": Column("<f8", (3,)),
    "time": Column("<f8"),
    "oracle": Column("|u1"),
    "round": Column("<i4"),
}
_OPTIONAL_PER_ATOM = {"velocities": Column("<f4", (3,)), "charges": Column("<f4")}
OPTIONAL = (*_OPTIONAL_PER_FRAME, *_OPTIONAL_PER_ATOM)
LABELS = ("energy", "forces", "stress", "dipole", "charges")
"""Columns that are labels; a row of NaN is a label that is missing."""


class Property(NamedTuple):
    """A further label of a store, by declaration."""

    per: Literal["frame", "atom"] = "frame"
    """What a row belongs to."""
    rank: Literal[0, 1, 2] = 0
    """Cartesian indices of a row: (), (3,) or (3, 3)."""
    unit: str = ""
    """For people; numbers are as they were given."""

    @property
    def column(self) -> Column:
        """Type and shape of a row."""
        return Column("<f8" if self.per == "frame" else "<f4", (3,) * self.rank)


@dataclass(frozen=True)
class Frames:
    """Several frames, their atoms joined in order. Columns a store does not have are None."""

    n_atoms: np.ndarray
    """(n_frames,) int."""
    species: np.ndarray
    """(n_atoms_total,) uint8, atomic numbers."""
    positions: np.ndarray
    """(n_atoms_total, 3) float64, Å."""
    cell: np.ndarray
    """(n_frames, 3, 3) float64, Å, lattice vectors as rows; zeros without periodicity."""
    pbc: np.ndarray
    """(n_frames, 3) bool."""
    energy: np.ndarray
    """(n_frames,) float64, eV, total."""
    forces: np.ndarray
    """(n_atoms_total, 3) float32, eV/Å."""
    stress: np.ndarray | None = None
    """(n_frames, 3, 3) float64, eV/Å³, positive is tension."""
    time: np.ndarray | None = None
    """(n_frames,) float64, fs."""
    oracle: np.ndarray | None = None
    """(n_frames,) uint8, which of metadata["oracles"] made the label."""
    round: np.ndarray | None = None
    """(n_frames,) int32, the round of active learning that asked for the label."""
    velocities: np.ndarray | None = None
    """(n_atoms_total, 3) float32, Å/fs."""
    charges: np.ndarray | None = None
    """(n_atoms_total,) float32, e."""
    dipole: np.ndarray | None = None
    """(n_frames, 3) float64, e Å."""
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further labels by name, as they were declared; NaN where one is missing."""

    def label(self, key: str) -> np.ndarray:
        """The labels of the target `key`, (n_frames or n_atoms_total, ...). KeyError where there are none."""
        found = getattr(self, key) if key in LABELS else self.properties[key]
        if found is None:
            raise KeyError(key)
        return np.asarray(found)

    def __len__(self) -> int:
        return len(self.n_atoms)


_COLUMNS = tuple(f.name for f in fields(Frames) if f.name not in ("n_atoms", "properties"))
_OF_ATOMS = frozenset({**_PER_ATOM, **_OPTIONAL_PER_ATOM})
_PROPERTY = "property-"


def _array_of(name: str) -> str:
    """The array that holds the property `name`."""
    return f"{_PROPERTY}{name}"


def _lacks_some(labels: np.ndarray) -> bool:
    chunk = 1_000_000
    return any(bool(np.isnan(labels[k : k + chunk]).any()) for k in range(0, len(labels), chunk))


class FrameStore:
    """A folder of labelled frames, see the module's docstring. `open` one to read, `create` one to fill and
    `seal`."""

    def __init__(self, arrays: GrowingArrays) -> None:
        self._arrays = arrays
        self._remembered: dict[str, Any] = {}
        self.folder = arrays.folder

    def __reduce__(self) -> tuple[Any, ...]:
        # A data-loading process opens the folder itself; pickling the mapped arrays would copy the whole data
        # set.
        return FrameStore.open, (self.folder,)

    @classmethod
    def open(cls, folder: Path, *, writable: bool = False) -> FrameStore:
        """The store in `folder`; nothing is loaded. With `writable`, bytes of an interrupted append are cut
        off and frames can be added."""
        arrays = GrowingArrays.open(folder, writable=writable)
        if arrays.manifest.get("format") != FORMAT:
            raise ValueError(
                f"{folder} is a store of format {arrays.manifest.get('format')}, this program reads "
                f"{FORMAT}; make it again"
            )
        if not len(arrays["offsets"]):
            raise ValueError(
                f"{folder} holds no frames: its making was interrupted at the start; make it again"
            )
        return cls(arrays)

    @classmethod
    def create(
        cls, folder: Path, *, columns: tuple[str, ...] = (), properties: Mapping[str, Property] | None = None
    ) -> FrameStore:
        """An empty store with the optional `columns` (of stress, dipole, time, oracle, round, velocities,
        charges) and with further labels, `properties` by name."""
        properties = dict(properties or {})
        unknown = sorted(set(columns) - set(OPTIONAL))
        if unknown:
            raise ValueError(f"unknown columns {unknown}; a store may have {', '.join(OPTIONAL)}")
        optional = {k: v for k, v in (_OPTIONAL_PER_FRAME | _OPTIONAL_PER_ATOM).items() if k in columns}
        declared = {_array_of(name): p.column for name, p in properties.items()}
        schema = {"offsets": Column("<i8"), **_PER_FRAME, **_PER_ATOM, **optional, **declared}
        facts = {"properties": {name: p._asdict() for name, p in properties.items()}} if properties else {}
        arrays = GrowingArrays.create(
            Path(folder), schema, format=FORMAT, sealed=False, elements=[], metadata={}, splits={}, **facts
        )
        # Offsets have one row more than there are frames; they are stored rather than summed up from sizes,
        # to be mapped like the rest.
        arrays.append(
            {name: np.zeros((int(name == "offsets"), *column.row)) for name, column in schema.items()}
        )
        return cls(arrays)

    def append(self, frames: Frames) -> None:
        """Add frames at the end; after a crash either all of them are there or none."""
        n_frames, n_atoms = len(frames), int(np.sum(frames.n_atoms))
        rows = {"offsets": self.offsets[-1] + np.cumsum(frames.n_atoms, dtype=np.int64)}
        given = {name: getattr(frames, name) for name in _COLUMNS}
        given |= {_array_of(name): value for name, value in frames.properties.items()}
        for name in dict.fromkeys([*given, *map(_array_of, self.properties)]):
            value, wanted = given.get(name), name in self._arrays
            if wanted != (value is not None):
                have = "has" if wanted else "has no"
                raise ValueError(
                    f"{self.folder} {have} column {name!r}, the frames to append "
                    f"{'lack it' if wanted else 'bring it'}; "
                    "name the same columns in create()"
                )
            if value is not None:
                n = n_atoms if self.is_per_atom(name) else n_frames
                if len(value) != n:
                    raise ValueError(
                        f"{name} has {len(value)} rows, wanted {n} ({n_frames} frames of {n_atoms} "
                        f"atoms together)"
                    )
                rows[name] = value
        self._arrays.append(rows)
        self._forget()

    def remember(self, key: str, value: Any) -> None:
        """Put plain JSON into the metadata of the next sealing, beside what that is given."""
        self._remembered[key] = value

    def seal(self, *, splits: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Write the splits and finish the store. `metadata` is plain JSON: units, level of theory, origin,
        reference energies."""
        splits = {name: np.asarray(ids, dtype=np.int64) for name, ids in splits.items()}
        self._check_splits(splits)
        metadata = {**metadata, **self._remembered}
        (self.folder / "splits").mkdir(exist_ok=True)
        generation = int(self._arrays.manifest.get("generation", 0)) + 1
        for name, ids in splits.items():
            # A new file for every sealing: the manifest goes on naming the old ones until it is replaced.
            file = io.BytesIO()  # numpy's error about a full disk does not say that it is one
            np.save(file, ids, allow_pickle=False)
            write_bytes(self.folder / "splits" / f"{name}-{generation}.npy", file.getbuffer())
        named = np.concatenate(list(splits.values()))
        elements = [int(z) for z in np.unique(self.species[segments(self.offsets, named)[0]])]
        if incomplete := [key for key in self.labels if _lacks_some(self.label_column(key))]:
            self._arrays.manifest["incomplete"] = incomplete
        self._arrays.manifest.update(
            sealed=True,
            generation=generation,
            elements=elements,
            metadata=json.loads(json.dumps(dict(metadata))),
            splits={name: f"{name}-{generation}.npy" for name in splits},
            splits_crc32={name: crc32(ids) for name, ids in splits.items()},
        )
        self._arrays.write_manifest()
        self._forget()

    def _check_splits(self, splits: Mapping[str, np.ndarray]) -> None:
        for name in ("train", "validation"):
            if name not in splits:
                raise ValueError(f"a store needs the split {name!r}, got {sorted(splits)}")
        if not any(name.startswith("test") for name in splits):
            raise ValueError(f"a store needs a split whose name begins with 'test', got {sorted(splits)}")
        for name in splits:
            if name not in ("train", "validation") and not is_test_split(name):
                raise ValueError(
                    f"a split is named {name!r}, wanted train, validation, test, or test_ and letters and "
                    f"digits (test_600K)"
                )
        for name, ids in splits.items():
            if len(ids) and (ids.min() < 0 or ids.max() >= self.n_frames):
                raise ValueError(f"split {name!r} names frame {ids.max()}, the store has {self.n_frames}")
        everything = np.concatenate(list(splits.values()))
        values, counts = np.unique(everything, return_counts=True)
        if (counts > 1).any():
            frame = int(values[np.argmax(counts > 1)])
            raise ValueError(
                f"frame {frame} is named more than once by the splits "
                f"{[n for n, ids in splits.items() if frame in ids]}"
            )
        for name, old in self.splits.items():
            if name not in splits or not np.array_equal(splits[name][: len(old)], old):
                raise ValueError(
                    f"sealing {self.folder} again would change split {name!r}, whose subsets are in use; "
                    f"only lengthen it"
                )

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def sealed(self) -> bool:
        return bool(self._arrays.manifest["sealed"])

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur in the frames named by a split, sorted (known once sealed)."""
        return tuple(self._arrays.manifest["elements"])

    @property
    def metadata(self) -> dict[str, Any]:
        """What the dataset says about itself: units, level of theory, origin."""
        return dict(self._arrays.manifest["metadata"])

    @property
    def isolated_atoms(self) -> dict[int, float] | None:
        """Energies of the isolated atoms at the labels' level of theory, eV by atomic number, if the dataset
        came with them."""
        known = self._arrays.manifest["metadata"].get("isolated_atoms")
        return None if known is None else {int(z): float(e) for z, e in known.items()}

    @property
    def n_frames(self) -> int:
        return int(self._arrays.manifest["arrays"]["offsets"]["n"]) - 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The optional columns present."""
        return tuple(name for name in OPTIONAL if name in self._arrays)

    @property
    def properties(self) -> dict[str, Property]:
        """The further labels that it was created with, by name."""
        declared = self._arrays.manifest.get("properties", {})
        return {name: Property(**said) for name, said in declared.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """Keys of all labels it has a column of: energy, forces, and what it was created with."""
        return (*(key for key in LABELS if key in self._arrays), *self.properties)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Keys of the labels that some frames or atoms lack (known once sealed)."""
        return tuple(self._arrays.manifest.get("incomplete", ()))

    def label_column(self, key: str) -> np.ndarray:
        """All labels of `key`, memory mapped; NaN where one is missing."""
        if key not in self.labels:
            raise ValueError(f"{self.folder} has no labels {key!r}; it has {', '.join(self.labels)}")
        return self._arrays[key if key in LABELS else _array_of(key)]

    def is_per_atom(self, name: str) -> bool:
        """Whether rows of an array, or of a label, belong to atoms."""
        name = name.removeprefix(_PROPERTY)
        declared = self.properties.get(name)
        return declared.per == "atom" if declared else name in {**_PER_ATOM, **_OPTIONAL_PER_ATOM}

    @property
    def offsets(self) -> np.ndarray:
        """(n_frames + 1,) int64: the atoms of frame k are offsets[k]:offsets[k+1]."""
        return self._arrays["offsets"]

    @property
    def species(self) -> np.ndarray:
        return self._arrays["species"]

    @property
    def positions(self) -> np.ndarray:
        return self._arrays["positions"]

    @property
    def cell(self) -> np.ndarray:
        return self._arrays["cell"]

    @property
    def pbc(self) -> np.ndarray:
        return self._arrays["pbc"]

    @property
    def energy(self) -> np.ndarray:
        return self._arrays["energy"]

    @property
    def forces(self) -> np.ndarray:
        return self._arrays["forces"]

    def column(self, name: str) -> np.ndarray:
        """The whole optional column `name`, memory mapped."""
        if name not in self._arrays:
            raise ValueError(
                f"{self.folder} has no column {name!r}; it has "
                f"{', '.join(self.columns) or 'no optional ones'}"
            )
        return self._arrays[name]

    @cached_property
    def splits(self) -> Mapping[str, np.ndarray]:
        """Frame numbers by split, (n,) int64 each; `train` in the order that defines its subsets."""
        files = self._arrays.manifest["splits"]
        folder, wanted = self.folder / "splits", self._arrays.manifest.get("splits_crc32", {})
        loaded = {name: _read_split(folder / file) for name, file in files.items()}
        for name, ids in loaded.items():
            if name in wanted and crc32(ids) != wanted[name]:
                raise ValueError(f"{folder / files[name]}: {DAMAGED}")
        return MappingProxyType(loaded)

    def problems(self) -> list[str]:
        """What in the folder is not what was written there, in sentences; everything is read, neighbour
        tables and splits included."""
        every = [self._arrays]
        every += [
            GrowingArrays(f, read_manifest(f), writable=False)
            for f in sorted(self.folder.glob("neighbors-*"))
            if f.is_dir()
        ]
        found = [f"{arrays.path(name)}: {DAMAGED}" for arrays in every for name in arrays.damaged()]
        self._forget()
        try:
            return found if self.splits else [*found, f"{self.folder} has no splits"]
        except (OSError, ValueError) as error:
            return [*found, str(error)]

    def frames(self, ids: np.ndarray) -> Frames:
        """The frames `ids` (n,) gathered into new arrays, in that order."""
        ids = np.asarray(ids, dtype=np.int64)
        rows, n_atoms = segments(self.offsets, ids)
        gathered = {
            name: self._arrays[name][rows if name in _OF_ATOMS else ids]
            for name in _COLUMNS
            if name in self._arrays
        }
        if "properties" not in self._arrays.manifest:
            return Frames(n_atoms=n_atoms, **gathered)
        more = {
            name: self._arrays[_array_of(name)][rows if declared.per == "atom" else ids]
            for name, declared in self.properties.items()
        }
        return Frames(n_atoms=n_atoms, **gathered, properties=more)

    def composition(self, ids: np.ndarray | None = None) -> np.ndarray:
        """Atoms of each element of `elements` in the frames `ids` (all by default), (n, n_elements) int64."""
        ids = np.arange(self.n_frames) if ids is None else np.asarray(ids)
        rows, n_atoms = segments(self.offsets, ids)
        unknown = np.setdiff1d(self.species[rows], self.elements)
        if len(unknown):
            raise ValueError(
                f"{self.folder}: Z={unknown.tolist()} occurs in the frames asked for but in no split, whose "
                f"elements are "
                f"{list(self.elements)}; ask for frames of a split"
            )
        column = np.searchsorted(self.elements, self.species[rows])
        frame = np.repeat(np.arange(len(ids)), n_atoms)
        n = len(self.elements)
        return np.bincount(frame * n + column, minlength=len(ids) * n).reshape(len(ids), n)

    def neighbors(self, cutoff: float) -> NeighborTable:
        """The neighbour table for `cutoff` (Å), computed once and kept beside the frames."""
        return neighbor_table(self, float(cutoff))

    def _forget(self) -> None:
        self.__dict__.pop("splits", None)


def _read_split(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); remove the store {path.parent.parent} to have it made again"
        ) from None


def is_sealed(folder: Path) -> bool:
    """Whether `folder` holds a finished store."""
    return (Path(folder) / MANIFEST).exists() and bool(read_manifest(Path(folder)).get("sealed"))
