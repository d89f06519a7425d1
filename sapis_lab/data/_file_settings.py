"""Settings of labelled frames from files: which of them, what is left out, and how they are split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sapis_lab.config import Added, Seed
from sapis_lab.data._file_filters import (
    Wanted,
)
from sapis_lab.data._file_labels import (
    FileLabels,
)
from sapis_lab.data._file_slices import split_slice
from sapis_lab.data._group_keys import FilesSplitBy
from sapis_lab.data._groups import SplitBy, refuse_unused_groups
from sapis_lab.data._ordering import Order, RandomOrder
from sapis_lab.data._pools import (
    Files,
    each_one_or_several,
    one_or_several,
    refuse_absolute,
    refuse_unclear_splits,
)
from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats import format_of


def _texts(value: object) -> object:
    """A value alone as a list of one, numbers as text."""
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(v) if isinstance(v, int | float) else v for v in values)


Rules = Annotated[
    dict[str, Wanted],
    BeforeValidator(lambda v: {k: _texts(x) for k, x in v.items()} if isinstance(v, dict) else v),
]


class FileSettings(FileLabels):
    """Which frames of which files, and what is for training and testing."""

    kind: str = "files"
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
    def _consistent(self) -> Self:
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
