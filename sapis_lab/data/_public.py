"""Base of the kinds that read a public data set in its official form, so that a user names it and no unit,
sign, level of theory or reference energy.

A kind says which settings of the kind `files` its few settings mean; reading, checks and splits are those of
`files`. Licence and citation stand in the catalogue of public data under the name `catalogue`, which the
metadata of a store name too.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from sapis_lab.data._base import DatasetConfig, DatasetInfo, Progress
from sapis_lab.data._changes import Change
from sapis_lab.data._pools import refuse_absolute
from sapis_lab.data._sources import data_root, known_root, need_file
from sapis_lab.data.files import FilesConfig, info_of_files, store_of_files

_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class PublicFiles:
    """What settings of a public data set mean."""

    config: FilesConfig
    change: Change | None = None
    """What is done to the frames before their labels are read, in one pass over them."""
    energies_alone: frozenset[str] = frozenset()
    """Test splits whose frames have energies and no forces."""
    torn: frozenset[str] = frozenset()
    """Test splits whose atoms may be far from each other: dissociation."""


class PublicData(DatasetConfig):
    """A public data set."""

    location_fields: ClassVar[frozenset[str]] = frozenset({"root", "folder"})
    catalogue: ClassVar[str]
    """Its name in the catalogue of public data, which has licence and citation."""
    place: ClassVar[str]
    """The usual folder of its files below `root`."""

    folder: str | None = None
    """Folder of the official files below `root`; by default the usual one, as the kind says."""
    root: Path | None = None
    """Folder of data sets; by default the environment variable SAPIS_DATA."""

    @field_validator("folder")
    @classmethod
    def _relative(cls, folder: str | None) -> str | None:
        if folder is not None:
            refuse_absolute(folder)
        return folder

    @abstractmethod
    def files(self) -> PublicFiles:
        """The settings of `files` that these mean. ValueError names an official file that is not there."""

    def source_root(self) -> Path | None:
        return known_root(self.root)

    def info(self, *, cutoff: float) -> DatasetInfo:
        public = self.files()
        return info_of_files(_as_published(public.config), cutoff=cutoff, change=public.change)

    def build_store(self, folder: Path, *, n_workers: int, progress: Progress) -> None:
        public = self.files()
        facts = self.credits()
        store_of_files(
            _as_published(public.config),
            folder,
            progress=progress,
            change=public.change,
            facts=facts,
            energies_alone=public.energies_alone,
            torn=public.torn,
        )

    def within(self, name: str) -> str:
        """The name below `root` of something in the folder of the set."""
        return f"{self.folder or type(self).place}/{name}"

    def official(self, *names: str) -> str:
        """The name below `root` of the first of these files that is there.

        Raises:
            ValueError: none is; the message names them all, and archives beside that may hold them.
        """
        root = data_root(self.root)
        try:
            return need_file(root, *(self.within(name) for name in names)).relative_to(root).as_posix()
        except ValueError as error:
            packed = _archives(root / self.within(""))
            if not packed:
                raise
            raise ValueError(f"{error}; unpack it there if it is in {' or '.join(packed)}") from None


def _archives(folder: Path) -> list[str]:
    """Names of archives in a folder, the first three."""
    if not folder.is_dir():
        return []
    return sorted(file.name for file in folder.iterdir() if file.name.lower().endswith(_PACKED))[:3]


def _as_published(config: FilesConfig) -> FilesConfig:
    """`config` with the splits that the kind says: frames are not kept apart by what they carry."""
    return config.model_copy(update={"split_by": None})
