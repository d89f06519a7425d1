"""Labels of files beyond energy, forces and stress: dipoles, charges, and properties by declaration.

properties:
  gap: {key: epsgap, unit: eV, factor: 27.2114}       # of the comment line, or an array of an .npz
  spin: {key: magmoms, per: atom}                     # a column
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import Config
from sapis_lab.data._store import LABELS, Frames, Property
from sapis_lab.formats import Block, numbers_of, written
from sapis_lab.units import DIPOLE

DipoleUnit = Literal["e*Angstrom", "Debye", "e*Bohr"]


class FurtherLabel(Config):
    """One further label of the files."""

    key: str | None = None
    """Its key in the file: of the comment line or a column of extended XYZ, an array of .npz or HDF5, a
    path of JSON; by default its name."""
    per: Literal["frame", "atom"] = "frame"
    """What it belongs to."""
    rank: Literal[0, 1, 2] = 0
    """Cartesian indices: 0 one number, 1 three, 2 nine."""
    unit: str = Field(default="", max_length=20)
    """After the factor, for people."""
    factor: float = Field(default=1.0)
    """What the numbers in the files are multiplied by."""

    @property
    def stored(self) -> Property:
        """How a store keeps it."""
        return Property(self.per, self.rank, self.unit)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the label of one frame, or atom."""
        return (3,) * self.rank


def refuse_names(labels: Mapping[str, FurtherLabel]) -> None:
    """ValueError for a name that labels of their own have."""
    for name in labels:
        if name in LABELS:
            raise ValueError(f"properties: {name!r} is a label of its own; see the setting {name}_key")


def of_dipole(key: str, unit: DipoleUnit) -> FurtherLabel:
    """The dipole moment as a label, in e Å."""
    return FurtherLabel(key=key, rank=1, unit="e Å", factor=DIPOLE[unit])


def of_charges(key: str) -> FurtherLabel:
    """Partial charges as a label, in e."""
    return FurtherLabel(key=key, per="atom", unit="e")


def read_label(
    block: Block, name: str, label: FurtherLabel, place: Callable[[int], str], *, may_lack: bool
) -> np.ndarray:
    """A label of the frames of a block, (n_frames or n_atoms_total, ...), in its own unit after the factor;
    NaN where they lack it and may.

    Args:
        place: from the number of a frame in the block to the place it came from.

    Raises:
        ValueError: it is not there, or not of that shape.
    """
    key = label.key or name
    there = block.frame_labels if label.per == "frame" else block.atom_labels
    found = written(there, key, place(0))
    shape = (len(block) if label.per == "frame" else len(block.species), *label.shape)
    if found is None and label.per == "atom" and key in block.frame_labels:
        got, n = block.frame_labels[key].shape[1:], int(block.n_atoms[0])
        raise ValueError(
            f"{place(0)}: {key} has shape {got} in every frame, wanted {(n, *label.shape)}, a row an atom"
        )
    if found is None:
        if may_lack:
            return np.full(shape, np.nan)
        what = "key" if label.per == "frame" else "column"
        raise ValueError(
            f"{place(0)}: no {what} {key!r} for the label {name}; it has "
            f"{', '.join((*there, *block.unread)) or 'none'}; set "
            "its key, or missing: mask"
        )
    if label.per == "frame":
        return label.factor * numbers_of_frames(there[found], label.shape, place, found)
    values = there[found]
    if values.dtype.kind not in "iuf" or values.size != int(np.prod(shape)):
        raise ValueError(f"{place(0)}: {found} has shape {values.shape}, wanted numbers of shape {shape}")
    return label.factor * values.reshape(shape).astype(np.float64)


def numbers_of_frames(
    values: np.ndarray, shape: tuple[int, ...], place: Callable[[int], str], key: str
) -> np.ndarray:
    """A label of frames as float64 (n_frames, *shape), whether it is text or numbers. ValueError names the
    first frame where it is neither."""
    if values.dtype == object:
        return np.array(
            [numbers_of(str(text), shape, f"{place(k)}: {key}") for k, text in enumerate(values)]
        ).reshape(len(values), *shape)
    if values.dtype.kind not in "biuf":
        example = values.reshape(-1)[0] if values.size else ""
        raise ValueError(f"{place(0)}: {key} is {str(example)[:80]!r}, wanted {int(np.prod(shape))} numbers")
    if values.size != len(values) * int(np.prod(shape)):
        raise ValueError(f"{place(0)}: {key} has shape {values.shape[1:]}, wanted {shape or 'one number'}")
    return values.astype(np.float64).reshape(len(values), *shape)


def filled(frames: Frames, labels: Mapping[str, np.ndarray]) -> Frames:
    """`frames` with labels, each in its column or among the properties."""
    own = {name: value for name, value in labels.items() if name in LABELS}
    return replace(
        frames,
        **own,  # type: ignore[arg-type]
        properties={name: value for name, value in labels.items() if name not in LABELS},
    )
