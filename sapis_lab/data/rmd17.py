"""Revised MD17: molecular dynamics frames of ten molecules at 500 K, PBE/def2-SVP (Christensen & von
Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018, 2020, arXiv:2007.09593; data CC0,
doi:10.6084/m9.figshare.12672038).

Reads the official download (`rmd17/npz_data/rmd17_<molecule>.npz` with `rmd17/splits/index_train_0k.csv`,
`index_test_0k.csv`, also without the `rmd17/`) and the pre-split form (`rmd17/rmd17_<molecule>_train_0k.npz`,
`_test_0k.npz`); both give the same store. By the literature's convention the 1000 official training frames
are 950 for training and 50 for validation. Validation takes the *last* ones in the order of the official
split, so no training subset touches them; the rest is shuffled once by `seed`, and subsets are prefixes of
that order. Split numbers must not be mixed: training frames of one split occur in the test set of another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.config import Added, Seed
from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress, bytes_estimate, mean_pairs
from sapis_lab.data._checks import check_store
from sapis_lab.data._ordering import OneSourceOrder, RandomOrder, ordered
from sapis_lab.data._sources import (
    MissingData,
    data_root,
    known_root,
    need_file,
    reading,
    source_record,
)
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Frames, FrameStore
from sapis_lab.formats import open_npz, read_numbers

Molecule = Literal[
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
]
_N_OFFICIAL = 1000
"""Frames of an official training or test split; the authors ask not to train on more, since neighbours in
time are nearly equal."""


class Rmd17Config(DatasetConfig):
    """One molecule and one official split of rMD17."""

    version: ClassVar[int] = 1
    catalogue: ClassVar[str | None] = "rmd17"
    kind: Literal["rmd17"] = "rmd17"
    molecule: Molecule = "ethanol"
    """The molecule, as in the file names."""
    split: int = Field(default=1, ge=1, le=5)
    """Number of the official split."""
    n_validation: int = Field(default=50, ge=1, lt=_N_OFFICIAL)
    """Frames held out of the 1000 official training frames, the last ones."""
    seed: Seed = 0
    """Of the order that defines the training subsets."""
    order: Annotated[OneSourceOrder, Added(before=RandomOrder())] = RandomOrder()
    """Which frames come first among those for training, of which every training set is the beginning: random,
    stratified or farthest, as in `{kind: stratified, by: energy}`."""
    root: Path | None = None
    """Folder that holds `rmd17/`; by default the environment variable SAPIS_DATA."""

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        root = data_root(self.root)
        found = _find(self, root)
        with reading(root, found.train_file), open_npz(found.train_file) as archive:
            species = read_numbers(archive, "nuclear_charges", found.train_file)
            sample = read_numbers(archive, "coords", found.train_file)[:: _N_OFFICIAL // 20][:20]
        n = species.size
        pairs = mean_pairs(
            sample.reshape(-1, 3),
            np.full(len(sample), n),
            np.zeros((len(sample), 3, 3)),
            np.zeros((len(sample), 3), bool),
            cutoff,
        )
        return DatasetInfo(
            species=tuple(int(z) for z in np.unique(species)),
            n_train=_N_OFFICIAL - self.n_validation,
            n_validation=self.n_validation,
            n_test={"test": _N_OFFICIAL},
            mean_atoms=float(n),
            mean_pairs=pairs,
            periodic=False,
            bytes_estimate=bytes_estimate(2 * _N_OFFICIAL, n),
            labels=("energy", "forces"),
        )

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        root = data_root(self.root)
        found = _find(self, root)
        with reading(root, *found.files):
            parts = [_read(found, "train"), _read(found, "test")]
        store = FrameStore.create(folder)
        for k, part in enumerate(parts):
            store.append(part.frames)
            progress("reading rMD17", k + 1, len(parts))
        pool = len(parts[0].frames) - self.n_validation
        splits = {
            "train": nested_order(pool, seed=self.seed),
            "validation": np.arange(pool, len(parts[0].frames)),
            "test": np.arange(len(parts[0].frames), store.n_frames),
        }
        places = [place for part in parts for place in part.places]
        check_store(store, splits, lambda frame: places[frame])
        metadata = {
            "origin": (
                f"rMD17 {self.molecule}, official split {self.split:02d}, doi:10.6084/m9.figshare.12672038, "
                f"CC0"
            ),
            "level_of_theory": "PBE/def2-SVP, ORCA, gas phase",
            "units": {"energy": "eV", "length": "Angstrom", "force": "eV/Angstrom"},
            "converted_from": {"energy": "kcal/mol", "length": "Angstrom"},
            "temperature_kelvin": 500,
            "sources": source_record(root, found.files),
            **self.credits(),
        }
        store.seal(splits=ordered(self.order, store, splits, seed=self.seed), metadata=metadata)


class _Found(NamedTuple):
    """Where the frames of a split are: with index files in the official layout, without in the pre-split
    one."""

    train_file: Path
    test_file: Path
    train_index: Path | None
    test_index: Path | None

    @property
    def files(self) -> list[Path]:
        return [f for f in self if f is not None]


class _Part(NamedTuple):
    frames: Frames
    places: list[str]


def _find(config: Rmd17Config, root: Path) -> _Found:
    name, number = f"rmd17_{config.molecule}", f"{config.split:02d}"
    for base in (root / "rmd17", root):
        pre_split = [base / f"{name}_{part}_{number}.npz" for part in ("train", "test")]
        if all(f.is_file() for f in pre_split):
            return _Found(pre_split[0], pre_split[1], None, None)
        whole = base / "npz_data" / f"{name}.npz"
        if whole.is_file():
            index = [need_file(base, f"splits/index_{part}_{number}.csv") for part in ("train", "test")]
            return _Found(whole, whole, index[0], index[1])
    need_file(root, f"rmd17/npz_data/{name}.npz", f"rmd17/{name}_train_{number}.npz")
    raise MissingData(
        f"missing file: {root}/rmd17/{name}_test_{number}.npz, the test frames that belong to "
        f"{name}_train_{number}.npz"
    )


def _read(found: _Found, part: Literal["train", "test"]) -> _Part:
    file, index_file = (
        (found.train_file, found.train_index) if part == "train" else (found.test_file, found.test_index)
    )
    with open_npz(file) as archive:
        z, x, e, f = (
            read_numbers(archive, key, file) for key in ("nuclear_charges", "coords", "energies", "forces")
        )
    e = e.reshape(-1)
    if z.ndim != 1:
        raise ValueError(f"{file}: nuclear_charges has shape {z.shape}, wanted (n_atoms,)")
    n = len(z)
    for key, value, wanted in (("coords", x, (len(e), n, 3)), ("forces", f, (len(e), n, 3))):
        if value.shape != wanted:
            raise ValueError(
                f"{file}: {key} has shape {value.shape}, wanted {wanted} for {len(e)} energies and {n} atoms"
            )
    chosen = np.arange(len(e)) if index_file is None else _read_index(index_file, len(e), file)
    if len(chosen) != _N_OFFICIAL:
        raise ValueError(
            f"{index_file or file}: {len(chosen)} frames, wanted the {_N_OFFICIAL} of an official {part} "
            f"split"
        )
    frames = Frames(
        n_atoms=np.full(len(chosen), n),
        species=np.tile(z, len(chosen)).astype(np.uint8),
        positions=x[chosen].reshape(-1, 3),
        cell=np.zeros((len(chosen), 3, 3)),
        pbc=np.zeros((len(chosen), 3), dtype=bool),
        energy=e[chosen] * units.KCAL_PER_MOL_TO_EV,
        forces=(f[chosen] * units.KCAL_PER_MOL_TO_EV).reshape(-1, 3),
    )
    return _Part(frames, [f"{file}, frame {k}" for k in chosen])


def _read_index(index_file: Path, n_frames: int, file: Path) -> np.ndarray:
    try:
        chosen = np.loadtxt(index_file, dtype=np.int64, ndmin=1)
    except ValueError as error:
        raise ValueError(f"{index_file}: wanted one frame number per line, {error}") from None
    if chosen.min() < 0 or chosen.max() >= n_frames:
        raise ValueError(f"{index_file}: names frame {chosen.max()}, but {file} has {n_frames}")
    return chosen
