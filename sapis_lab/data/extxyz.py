"""The former name of the kind `files`, under which results were made: extended XYZ and .npz, with the units
always said by the config, and isolated atoms inside a file kept as frames."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sapis_lab.config import Added
from sapis_lab.data._file_labels import EnergyUnit, LengthUnit
from sapis_lab.data._group_keys import FilesSplitBy
from sapis_lab.data.files import FilesConfig


class ExtxyzConfig(FilesConfig):
    """Labelled frames from extended-XYZ or .npz files; `files` is the same for every format."""

    version: ClassVar[int] = 1
    kind: Literal["extxyz"] = "extxyz"  # type: ignore[assignment]
    energy_unit: EnergyUnit
    """Unit of energies in the files (also of isolated atoms)."""
    length_unit: LengthUnit
    """Unit of positions and cells in the files."""
    format: Literal["auto", "extxyz", "npz"] = "auto"
    """File format; auto goes by the ending .npz."""
    split_by: Annotated[FilesSplitBy, Added(before=None)] = None
    """What stays together when frames are held out: `source` (a file), `composition`, `n_atoms` or the name
    of a key of the frames; null: each frame for itself."""
    isolated_frames: Annotated[Literal["take", "keep"], Added(before="keep")] = "keep"
    """What to do with frames of one atom whose config_type is IsolatedAtom: take their energies for
    `isolated_atoms` and leave them out, or keep them as frames like others."""
