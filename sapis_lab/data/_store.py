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

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from sapis_lab.data._arrays import (
    CHECKED_BYTES,
    GATHERED_BYTES,
    GATHERED_SECONDS,
    MANIFEST,
    Column,
    Damage,
    GrowingArrays,
    damaged,
    read_manifest,
    segments,
)
from sapis_lab.data._neighbor_table import NeighborTable, Progress, neighbor_table
from sapis_lab.data._shards import as_bytes, crc32
from sapis_lab.data._splits import is_test_split
from sapis_lab.errors import ConfigError
from sapis_lab.files import write_with

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
_PROPERTY = "property-"


def _array_of(name: str) -> str:
    """The array that holds the property `name`."""
    return f"{_PROPERTY}{name}"


_CHUNK = 1 << 18
"""Frames, or rows of labels, that are looked at together where all of them are."""
_COMPOSITION_CHUNK = 1 << 14
"""Frames whose elements are counted together: their atoms stay in the cache."""


def _lacks_some(labels: np.ndarray) -> bool:
    return any(bool(np.isnan(labels[k : k + _CHUNK]).any()) for k in range(0, len(labels), _CHUNK))


class Sizes(NamedTuple):
    """What is known of all frames of a store."""

    smallest: int
    """atoms"""
    largest: int
    """atoms"""
    periodic: bool
    """whether any has periodic boundaries"""


class FrameStore:
    """A folder of labelled frames, see the module's docstring. `open` one to read, `create` one to fill and
    `seal`."""

    def __init__(self, arrays: GrowingArrays) -> None:
        self._arrays = arrays
        self._remembered: dict[str, Any] = {}
        self.folder = arrays.folder
        self._n_atoms: int | None = None

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

    @classmethod
    def resume(
        cls, folder: Path, *, columns: tuple[str, ...] = (), properties: Mapping[str, Property] | None = None
    ) -> FrameStore:
        """The store that an interrupted conversion left in `folder`, to go on with after its `progress`; an
        empty one, as of `create`, where there is none, it is sealed, has other columns, or is damaged."""
        try:
            store = cls.open(folder, writable=True)
        except ValueError:
            return cls.create(folder, columns=columns, properties=properties)
        is_same = set(store.columns) == set(columns) and store.properties == dict(properties or {})
        if store.sealed or not is_same:
            return cls.create(folder, columns=columns, properties=properties)
        return store

    def append(self, frames: Frames, *, done: Mapping[str, Any] | None = None) -> None:
        """Add frames at the end; after a crash either all of them are there or none.

        Args:
            done: what has been read with them, plain JSON by keys of the reader's choice, such as
                {"water.xyz": 5000}. It replaces what these keys had in `progress`, together with the frames.
                Frames may be none.
        """
        n_frames, n_atoms = len(frames), int(np.sum(frames.n_atoms))
        if self._n_atoms is None:
            self._n_atoms = int(self.offsets[-1])
        rows = {"offsets": self._n_atoms + np.cumsum(frames.n_atoms, dtype=np.int64)}
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
        facts = {} if done is None else {"progress": {**self.progress, **json.loads(json.dumps(dict(done)))}}
        try:
            self._arrays.append(rows, **facts)
        except BaseException:
            self._n_atoms = None
            raise
        self._n_atoms += n_atoms
        self._forget()

    @property
    def progress(self) -> dict[str, Any]:
        """What `append` was told to be done, by key; nothing once the store is sealed."""
        return dict(self._arrays.fact("progress", {}))

    def gathered(
        self, *, n_bytes: int = GATHERED_BYTES, seconds: float = GATHERED_SECONDS
    ) -> AbstractContextManager[None]:
        """Within this context small appends are brought to the disk together, which spares most of the time
        that it takes; a kill loses the last `seconds` of them at most, and what was said to be done with
        them. See `GrowingArrays.gathered`."""
        return self._arrays.gathered(n_bytes=n_bytes, seconds=seconds)

    def remember(self, key: str, value: Any) -> None:
        """Put plain JSON into the metadata of the next sealing, beside what that is given."""
        self._remembered[key] = value

    def seal(self, *, splits: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Write the splits and finish the store. `metadata` is plain JSON: units, level of theory, origin,
        reference energies."""
        self._arrays.flush()
        splits = {name: np.asarray(ids, dtype=np.int64) for name, ids in splits.items()}
        self._check_splits(splits)
        facts = self._facts(splits)
        metadata = {**metadata, **self._remembered}
        (self.folder / "splits").mkdir(exist_ok=True)
        generation = int(self._arrays.manifest.get("generation", 0)) + 1
        for name, ids in splits.items():
            # A new file for every sealing: the manifest goes on naming the old ones until it is replaced.
            write_with(self.folder / "splits" / f"{name}-{generation}.npy", partial(_save_split, ids))
        self._arrays.manifest.pop("progress", None)
        self._arrays.manifest.update(
            **facts,
            sealed=True,
            generation=generation,
            metadata=json.loads(json.dumps(dict(metadata))),
            splits={name: f"{name}-{generation}.npy" for name in splits},
            splits_crc32={name: crc32(ids) for name, ids in splits.items()},
        )
        self._arrays.write_manifest()
        self._forget()

    def _facts(self, splits: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What the manifest of the sealed store says of its frames: elements, sizes, labels that some lack.
        Of a store that was sealed before, only what is new is looked at."""
        first, new = self._n_known, np.zeros(self.n_frames, dtype=bool)
        for name, ids in splits.items():
            new[ids[len(self.splits.get(name, ())) :]] = True
        elements = sorted({*self.elements, *self._elements_of(new)})
        incomplete = []
        for key in self.labels:
            row = int(self.offsets[first]) if self.is_per_atom(key) else first
            if key in self.incomplete or _lacks_some(self.label_column(key)[row:]):
                incomplete.append(key)
        known = {"n_frames": self.n_frames, **self.sizes._asdict()}
        return {"elements": elements, "known": known} | ({"incomplete": incomplete} if incomplete else {})

    def _elements_of(self, is_meant: np.ndarray) -> list[int]:
        """Atomic numbers of the frames that (n_frames,) bool says."""
        seen = np.zeros(256, dtype=bool)
        for first in range(0, len(is_meant), _CHUNK):
            meant = is_meant[first : first + _CHUNK]
            if not meant.any():
                continue
            offsets = self.offsets[first : first + len(meant) + 1]
            species = self.species[offsets[0] : offsets[-1]]
            if not meant.all():
                species = species[np.repeat(meant, np.diff(offsets))]
            seen |= np.bincount(species, minlength=256) > 0
        return [int(z) for z in np.flatnonzero(seen)]

    @property
    def _n_known(self) -> int:
        """Frames that the facts of the last sealing are about."""
        return int(self._arrays.manifest.get("known", {}).get("n_frames", 0))

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes and periodicity of all frames; of a sealed store they stand in its manifest."""
        facts = self._arrays.manifest.get("known", {})
        smallest, largest = facts.get("smallest", np.iinfo(np.int64).max), facts.get("largest", 0)
        periodic = facts.get("periodic", False)
        for first in range(self._n_known, self.n_frames, _CHUNK):
            n = np.diff(self.offsets[first : min(first + _CHUNK, self.n_frames) + 1])
            smallest, largest = min(smallest, int(n.min())), max(largest, int(n.max()))
            periodic = periodic or bool(self.pbc[first : first + _CHUNK].any())
        return Sizes(smallest, largest, periodic)

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
        self._refuse_frames_named_twice(splits)
        for name, old in self.splits.items():
            if name not in splits or not np.array_equal(splits[name][: len(old)], old):
                raise ValueError(
                    f"sealing {self.folder} again would change split {name!r}, whose subsets are in use; "
                    f"only lengthen it"
                )

    def _refuse_frames_named_twice(self, splits: Mapping[str, np.ndarray]) -> None:
        # A byte a frame; sorting all splits took half a gigabyte for 10⁷ frames.
        seen, twice = np.zeros(self.n_frames, dtype=bool), list[int]()
        for ids in splits.values():
            for k in range(0, len(ids), _CHUNK):
                part = np.sort(ids[k : k + _CHUNK])
                twice += [int(x[0]) for x in (part[seen[part]], part[1:][part[1:] == part[:-1]]) if len(x)]
                seen[part] = True
        if twice:
            frame = min(twice)
            raise ValueError(
                f"frame {frame} is named more than once by the splits "
                f"{[n for n, ids in splits.items() if frame in ids]}"
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
        return self._arrays.n("offsets") - 1

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
        return name.removeprefix(_PROPERTY) in self._of_atoms

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
        loaded = {name: _read_split(self.folder / "splits" / file) for name, file in files.items()}
        if sum(ids.nbytes for ids in loaded.values()) <= CHECKED_BYTES:
            for problem in self._problems_of(loaded):
                raise ValueError(problem)
        return MappingProxyType(loaded)

    def _problems_of(self, splits: Mapping[str, np.ndarray]) -> list[str]:
        files, wanted = self._arrays.manifest["splits"], self._arrays.manifest.get("splits_crc32", {})
        return [
            damaged(self.folder / "splits" / files[name])
            for name, ids in splits.items()
            if name in wanted and crc32(ids) != wanted[name]
        ]

    def problems(self) -> list[str]:
        """What in the folder is not what was written there, in sentences that name the rows; everything is
        read, neighbour tables and splits included."""
        found = _damage_of(self._arrays, of_frames=lambda name: name != "offsets" and self.is_per_atom(name))
        for folder in sorted(self.folder.glob("neighbors-*")):
            if folder.is_dir():
                table = GrowingArrays(folder, read_manifest(folder), writable=False)
                found += _damage_of(table, of_frames=lambda name: name != "offsets")
        self._forget()
        try:
            found += self._problems_of(self.splits)
            return found if self.splits else [*found, f"{self.folder} has no splits"]
        except (OSError, ValueError) as error:
            return [*found, str(error)]

    def frames(self, ids: np.ndarray) -> Frames:
        """The frames `ids` (n,) gathered into new arrays, in that order."""
        ids = np.asarray(ids, dtype=np.int64)
        n_atoms = self.n_atoms(ids)
        rows = None if self._one_size else segments(self.offsets, ids)[0]
        gathered: dict[str, Any] = {
            name: self._rows(name, ids, rows) for name in _COLUMNS if name in self._arrays
        }
        if "properties" not in self._arrays.manifest:
            return Frames(n_atoms=n_atoms, **gathered)
        more = {name: self._rows(_array_of(name), ids, rows) for name in self.properties}
        return Frames(n_atoms=n_atoms, **gathered, properties=more)

    def n_atoms(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int64, the sizes of the frames `ids` (n,)."""
        ids = np.asarray(ids)
        if self._one_size:
            return np.full(len(ids), self._one_size, dtype=np.int64)
        return self.offsets[ids + 1] - self.offsets[ids]

    def label_rows(self, key: str, ids: np.ndarray) -> np.ndarray:
        """The labels of `key` of the frames `ids` (n,), (n or their atoms, ...), in that order."""
        self.label_column(key)
        ids = np.asarray(ids, dtype=np.int64)
        rows = None if self._one_size else segments(self.offsets, ids)[0]
        return self._rows(key if key in LABELS else _array_of(key), ids, rows)

    def _rows(self, name: str, ids: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """The rows of an array that belong to frames; `rows` of their atoms, None where all have one size."""
        values = self._arrays[name]
        if not self.is_per_atom(name):
            return values.take(ids, axis=0)
        if rows is not None:
            return values.take(rows, axis=0)
        # One copy for each frame instead of one for each atom.
        of_frames = values.reshape(-1, self._one_size, *values.shape[1:])
        return of_frames.take(ids, axis=0).reshape(-1, *values.shape[1:])

    @cached_property
    def _of_atoms(self) -> frozenset[str]:
        declared = self.properties
        own = {name for name in (*_PER_ATOM, *_OPTIONAL_PER_ATOM) if name not in declared}
        return frozenset({*own, *(name for name, one in declared.items() if one.per == "atom")})

    @cached_property
    def _one_size(self) -> int:
        """Atoms of every frame of a store whose frames are known to have one size; 0 of any other."""
        is_known = self._n_known == self.n_frames
        return self.sizes.largest if is_known and self.sizes.smallest == self.sizes.largest else 0

    def composition(self, ids: np.ndarray | None = None) -> np.ndarray:
        """Atoms of each element of `elements` in the frames `ids` (all by default), (n, n_elements) int64."""
        n_frames, n = self.n_frames if ids is None else len(ids), len(self.elements)
        column = np.full(256, -1)
        column[list(self.elements)] = np.arange(n)
        counts, unknown = np.empty((n_frames, n), dtype=np.int64), set[int]()
        for first in range(0, n_frames, _COMPOSITION_CHUNK):
            species, n_atoms = self._species_of(ids, first, min(first + _COMPOSITION_CHUNK, n_frames))
            element = column[species]
            if element.min(initial=0) < 0:
                unknown.update(int(z) for z in np.unique(species[element < 0]))
                continue
            cell = np.repeat(n * np.arange(len(n_atoms)), n_atoms) + element
            part = np.bincount(cell, minlength=n * len(n_atoms))
            counts[first : first + len(n_atoms)] = part.reshape(-1, n)
        if unknown:
            raise ValueError(
                f"{self.folder}: Z={sorted(unknown)} occurs in the frames asked for but in no split, whose "
                f"elements are "
                f"{list(self.elements)}; ask for frames of a split"
            )
        return counts

    def _species_of(self, ids: np.ndarray | None, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Species and numbers of atoms of the frames first:last, of `ids` where some are named."""
        if ids is None:
            offsets = self.offsets[first : last + 1]
            return self.species[offsets[0] : offsets[-1]], np.diff(offsets)
        rows, n_atoms = segments(self.offsets, np.asarray(ids[first:last], dtype=np.int64))
        return self.species[rows], n_atoms

    def neighbors(
        self, cutoff: float, *, n_workers: int = 1, progress: Progress | None = None
    ) -> NeighborTable:
        """The neighbour table for `cutoff` (Å), computed once and kept beside the frames; see
        `neighbor_table`."""
        return neighbor_table(self, float(cutoff), n_workers=n_workers, progress=progress)

    def _forget(self) -> None:
        for name in ("splits", "sizes", "_one_size"):
            self.__dict__.pop(name, None)


def _read_split(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); remove the store {path.parent.parent} to have it made again"
        ) from None


def _save_split(ids: np.ndarray, path: Path) -> None:
    # numpy's error about a full disk does not say that it is one
    with path.open("wb") as f:
        header = {"descr": ids.dtype.str, "fortran_order": False, "shape": ids.shape}
        np.lib.format.write_array_header_1_0(f, header)
        f.write(as_bytes(ids))


def _damage_of(arrays: GrowingArrays, *, of_frames: Callable[[str], bool]) -> list[str]:
    """What is damaged in a folder of arrays, in sentences.

    Args:
        of_frames: whether several rows of an array belong to one frame, as its offsets say.
    """
    damage = arrays.damage()
    offsets_are_whole = not any(one.name == "offsets" for one in damage)

    def where(one: Damage) -> str:
        if not (offsets_are_whole and of_frames(one.name)):
            return one.rows
        first, last = np.searchsorted(arrays["offsets"], [one.first, one.end - 1], side="right") - 1
        return f"{one.rows}, of frames {first} to {last}"

    return [damaged(arrays.path(one.name), where(one)) for one in damage]


def is_sealed(folder: Path) -> bool:
    """Whether `folder` holds a finished store."""
    return (Path(folder) / MANIFEST).exists() and bool(read_manifest(Path(folder)).get("sealed"))
