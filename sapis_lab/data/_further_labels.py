"""Labels of files beyond energy, forces and stress: dipoles, charges, and properties by declaration.

properties:
  gap: {key: epsgap, unit: eV, factor: 27.2114}       # of the comment line, or an array of an .npz
  spin: {key: magmoms, per: atom}                     # a column
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.config import Config
from sapis_lab.data._extxyz import XyzFrame, numbers_of, spelled
from sapis_lab.data._store import LABELS, Frames, Property
from sapis_lab.units import DIPOLE

DipoleUnit = Literal["e*Angstrom", "Debye", "e*Bohr"]


class FurtherLabel(Config):
    """One further label of the files."""

    key: str | None = None
    """Its key in the comment line, or its column, of extended XYZ, or its array in .npz; by default its
    name."""
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


def read_label(frame: XyzFrame, name: str, label: FurtherLabel, place: str, *, may_lack: bool) -> np.ndarray:
    """A label of one frame of extended XYZ, in its own unit after the factor; NaN where it lacks it and may.

    Raises:
        ValueError: it is not there, or not of that shape.
    """
    key = label.key or name
    there = frame.info if label.per == "frame" else frame.columns
    found = key if key in there else spelled(list(there), key, place)
    shape = label.shape if label.per == "frame" else (len(frame.species), *label.shape)
    if found is None:
        if may_lack:
            return np.full(shape, np.nan)
        what = "key" if label.per == "frame" else "column"
        raise ValueError(
            f"{place}: no {what} {key!r} for the label {name}; it has {', '.join(there) or 'none'}; set its "
            "key, or missing: mask"
        )
    if label.per == "frame":
        return label.factor * numbers_of(frame.info[found], shape, f"{place}: {found}")
    values = frame.columns[found]
    if values.dtype.kind not in "iuf" or values.size != int(np.prod(shape)):
        raise ValueError(f"{place}: {found} has shape {values.shape}, wanted numbers of shape {shape}")
    return label.factor * values.reshape(shape).astype(np.float64)


def filled(frames: Frames, labels: Mapping[str, np.ndarray]) -> Frames:
    """`frames` with labels, each in its column or among the properties."""
    own = {name: value for name, value in labels.items() if name in LABELS}
    return replace(
        frames,
        **own,  # type: ignore[arg-type]
        properties={name: value for name, value in labels.items() if name not in LABELS},
    )
