"""What the labels in files mean: their keys, units and signs, and the frames that follow from them in eV
and Å."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, model_validator

from sapis_lab import units
from sapis_lab.config import Added
from sapis_lab.data._base import DatasetConfig
from sapis_lab.data._further_labels import (
    DipoleUnit,
    FurtherLabel,
    filled,
    numbers_of_frames,
    of_charges,
    of_dipole,
    read_label,
    refuse_names,
)
from sapis_lab.data._pools import wrap_scattered
from sapis_lab.data._store import Frames
from sapis_lab.elements import SYMBOLS
from sapis_lab.formats import Block, written
from sapis_lab.targets import PropertyName

Place = Callable[[int], str]
"""From the number of a frame in a block to the place it came from."""


def _spelled(names: Mapping[str, float]) -> BeforeValidator:
    return BeforeValidator(lambda text: units.spelled(text, names))


EnergyUnit = Annotated[Literal["eV", "meV", "kcal/mol", "kJ/mol", "Hartree"], _spelled(units.ENERGY)]
LengthUnit = Annotated[Literal["Angstrom", "Bohr", "nm"], _spelled(units.LENGTH)]
StressUnit = Annotated[Literal["GPa", "kbar", "eV/Angstrom^3", "Hartree/Bohr^3"], _spelled(units.STRESS)]
ForceUnit = Annotated[str, BeforeValidator(units.per_length)]

_SIX = {
    "voigt": [[0, 5, 4], [5, 1, 3], [4, 3, 2]],
    "vasp": [[0, 3, 5], [3, 1, 4], [5, 4, 2]],
}
"""Where the elements of a symmetric matrix stand among six numbers."""
_LEVELS = ("head", "level_of_theory", "theory", "functional", "xc", "method", "calculator")
"""Keys of frames (in any case) whose values are levels of theory."""


class FileLabels(DatasetConfig):
    """Base of the kinds that read labelled frames from files."""

    energy_unit: EnergyUnit | None = None
    """Unit of energies in the files (also of isolated atoms); by default what the format fixes, such as eV
    for ASE's own."""
    length_unit: LengthUnit | None = None
    """Unit of positions and cells in the files; by default what the format fixes."""
    force_unit: ForceUnit | None = None
    """Unit of forces, such as 'Hartree/Bohr'; by default energy_unit/length_unit."""
    stress_unit: StressUnit | None = None
    """Unit of stresses; by default energy_unit/length_unit³."""
    energy_is: Literal["total", "per_atom"] = "total"
    """What an energy in the files refers to."""
    forces_are: Literal["forces", "gradient"] = "forces"
    """The sign: forces are -dE/dx; some files store the gradient under the name of forces."""
    stress_is: Literal["tension", "compression"] = "tension"
    """What a positive stress in the files means; VASP writes compression. Not used for virials, which are
    -volume times tension."""
    stress_order: Annotated[Literal["voigt", "vasp"], Added(before="voigt")] = "voigt"
    """Order of six numbers: voigt is xx yy zz yz xz xy, vasp is xx yy zz xy yz zx."""
    energy_key: str | None = "energy"
    """Key of the energy; null: the files have no energies to learn."""
    forces_key: str | None = "forces"
    """Name of the forces; null: the files have no forces."""
    stress_key: str | None = None
    """Key of the stress (3 x 3 numbers, or 6), if it is to be read."""
    virial_key: str | None = None
    """Key of the virial (3 x 3 or 6 numbers, energy unit), if that is to be read instead."""
    dipole_key: Annotated[str | None, Added(before=None)] = None
    """Key (or array) of the dipole moment, 3 numbers, if it is to be read."""
    dipole_unit: Annotated[DipoleUnit, _spelled(units.DIPOLE), Added(before="e*Angstrom")] = "e*Angstrom"
    """Unit of dipole moments in the files."""
    charges_key: Annotated[str | None, Added(before=None)] = None
    """Column (or array) of the partial charges, e, if they are to be read."""
    charge_key: Annotated[str | None, Added(before=None)] = None
    """Key of the total charge, e, if it is to be read; models do not know it and are trained on one charge
    only."""
    spin_key: Annotated[str | None, Added(before=None)] = None
    """Key of the spin multiplicity (1: no unpaired electron), if it is to be read; as the charge."""
    properties: Annotated[dict[PropertyName, FurtherLabel], Added(before={})] = {}
    """Further labels by name: what a target `{kind: property, name: ...}` learns."""
    missing: Annotated[Literal["refuse", "mask", "drop"], Added(before="refuse")] = "refuse"
    """What to do about a frame that lacks one of these labels: refuse the files, leave the label out of the
    loss and the errors (mask), or leave the frame out (drop)."""

    @model_validator(mode="after")
    def _consistent_labels(self) -> FileLabels:
        refuse_names(self.properties)
        for name in ("total_charge", "multiplicity"):
            if name in self.properties:
                raise ValueError(f"properties: {name!r} is read by charge_key and spin_key")
        if self.energy_key is None and self.forces_key is not None:
            raise ValueError("energy_key is null and forces_key is not; forces are learnt with energies")
        if self.forces_key and "gradient" in self.forces_key.casefold() and self.forces_are == "forces":
            raise ValueError(
                f"forces_key: {self.forces_key} names a gradient, which is minus the forces; set forces_are: "
                "gradient"
            )
        if self.stress_key and self.virial_key:
            raise ValueError("give stress_key or virial_key, not both")
        if self.force_unit is not None:
            _refuse_force_unit(self.force_unit)
        return self

    def further_labels(self) -> dict[str, FurtherLabel]:
        """Labels besides energy, forces and stress, by name."""
        own = {}
        if self.dipole_key is not None:
            own["dipole"] = of_dipole(self.dipole_key, self.dipole_unit)
        if self.charges_key is not None:
            own["charges"] = of_charges(self.charges_key)
        if self.charge_key is not None:
            own["total_charge"] = FurtherLabel(key=self.charge_key, unit="e")
        if self.spin_key is not None:
            own["multiplicity"] = FurtherLabel(key=self.spin_key)
        return own | self.properties

    @property
    def stress_columns(self) -> tuple[str, ...]:
        """The column of stress, if it is read."""
        return ("stress",) if self.stress_key or self.virial_key else ()

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Of energy and forces, what the files do not have."""
        keys = {"energy": self.energy_key, "forces": self.forces_key}
        return tuple(name for name, key in keys.items() if key is None)

    @property
    def may_lack(self) -> bool:
        """Whether a frame without one of the labels is no mistake."""
        return self.missing != "refuse"

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all labels besides energy and forces that are read."""
        own = [self.stress_key, self.virial_key]
        return (
            *(key for key in own if key is not None),
            *(label.key or name for name, label in self.further_labels().items()),
        )


class Scales(NamedTuple):
    """What numbers of a file are multiplied by, to be eV and Å."""

    energy: float
    length: float
    forces: float
    """With the sign that makes them forces."""
    stress: float
    """With the sign that makes a positive stress tension."""


def scales(labels: FileLabels, fixed: Mapping[str, Any], path: object) -> Scales:
    """The factors for a file whose format fixes the settings `fixed`.

    Raises:
        ValueError: neither the data set nor the format says a unit.
    """

    def said(name: str) -> Any:
        own = getattr(labels, name)
        return own if own is not None else fixed.get(name)

    has_energies = labels.energy_key is not None or bool(labels.stress_columns)
    wanted = {"energy_unit": units.ENERGY, "length_unit": units.LENGTH}
    missing = [n for n in wanted if said(n) is None and (n == "length_unit" or has_energies)]
    if missing:
        text = " and ".join(f"{name} to one of {', '.join(wanted[name])}" for name in missing)
        raise ValueError(f"{path}: its format does not say its units: set {text}")
    energy_unit, length_unit = said("energy_unit") or "eV", said("length_unit")
    energy, length = units.ENERGY[energy_unit], units.LENGTH[length_unit]
    per, _, over = (said("force_unit") or f"{energy_unit}/{length_unit}").rpartition("/")
    sign = -1.0 if labels.forces_are == "gradient" else 1.0
    tension = 1.0 if labels.stress_is == "tension" else -1.0
    stress = units.STRESS[said("stress_unit")] if said("stress_unit") else energy / length**3
    return Scales(energy, length, sign * units.ENERGY[per] / units.LENGTH[over], tension * stress)


def _refuse_force_unit(text: str) -> None:
    energy, _, length = text.rpartition("/")
    if energy not in units.ENERGY or length not in units.LENGTH:
        raise ValueError(
            f"force_unit={text!r}, wanted an energy ({', '.join(units.ENERGY)}) "
            f"per length ({', '.join(units.LENGTH)}), as in Hartree/Bohr"
        )


def labelled(labels: FileLabels, block: Block, place: Place, to: Scales) -> Frames:
    """The frames of a block in eV and Å, forces as forces and stress as tension.

    Raises:
        ValueError: a label is not there, or has another shape; the message begins with the place.
    """
    frames = Frames(
        n_atoms=block.n_atoms,
        species=_species(block, place),
        positions=block.positions * to.length,
        cell=block.cell * to.length,
        pbc=block.pbc.astype(bool),
        energy=_energy(labels, block, place, to),
        forces=_forces(labels, block, place, to),
    )
    if labels.stress_columns:
        frames = replace(frames, stress=_stress(labels, block, place, to))
    # A cell without periodicity (a box written around a molecule) has no meaning and would make equal frames
    # look different.
    frames.cell[~frames.pbc.any(1)] = 0.0
    wrap_scattered(frames)
    further = {
        name: read_label(block, name, label, place, may_lack=labels.may_lack)
        for name, label in labels.further_labels().items()
    }
    return filled(frames, further)


def _species(block: Block, place: Place) -> np.ndarray:
    z = block.species
    bad = (z < 1) | (z >= len(SYMBOLS)) | (z != np.round(z))
    if bad.any():
        row = int(np.argmax(bad))
        frame = int(np.searchsorted(np.cumsum(block.n_atoms), row, side="right"))
        atom = row - int(np.sum(block.n_atoms[:frame]))
        raise ValueError(
            f"{place(frame)}: atom {atom} has atomic number {z[row]:g}, wanted 1 to {len(SYMBOLS) - 1}"
        )
    return z.astype(np.uint8)


def _energy(labels: FileLabels, block: Block, place: Place, to: Scales) -> np.ndarray:
    key = None
    if labels.energy_key is not None:
        key = written(block.frame_labels, labels.energy_key, place(0))
        if key is None and not labels.may_lack:
            raise ValueError(
                f"{place(0)}: no key {labels.energy_key!r}; it has "
                f"{', '.join((*block.frame_labels, *block.unread))}; set energy_key"
            )
    if key is None:
        return np.full(len(block), np.nan)
    # float64 before anything is multiplied or subtracted: float32 files of total energies resolve 2 meV at 30
    # keV.
    energy = numbers_of_frames(block.frame_labels[key], (), place, key) * to.energy
    return energy * block.n_atoms if labels.energy_is == "per_atom" else energy


def _forces(labels: FileLabels, block: Block, place: Place, to: Scales) -> np.ndarray:
    key = None
    if labels.forces_key is not None:
        key = written(block.atom_labels, labels.forces_key, place(0))
        if key is None and not labels.may_lack:
            raise ValueError(
                f"{place(0)}: no column {labels.forces_key!r}; it has "
                f"{', '.join(('species', 'pos', *block.atom_labels, *block.unread))}; "
                "set forces_key, or leave out files without forces"
            )
    if key is None:
        return np.full(block.positions.shape, np.nan)
    forces = block.atom_labels[key]
    if forces.shape != block.positions.shape or forces.dtype.kind not in "iuf":
        raise ValueError(
            f"{place(0)}: {labels.forces_key} has shape {forces.shape}, wanted {block.positions.shape}"
        )
    return forces * to.forces


def _stress(labels: FileLabels, block: Block, place: Place, to: Scales) -> np.ndarray:
    """(n_frames, 3, 3), eV/Å³, positive is tension."""
    wanted = labels.stress_key or labels.virial_key
    assert wanted is not None
    key = written(block.frame_labels, wanted, place(0))
    crystal, may_lack = block.pbc.all(1), labels.may_lack
    if key is None and may_lack:
        return np.full((len(block), 3, 3), np.nan)
    if key is None:
        raise ValueError(
            f"{place(0)}: no key {wanted!r}; it has {', '.join((*block.frame_labels, *block.unread))}"
        )
    if not crystal.all() and not may_lack:
        k = int(np.argmin(crystal))
        raise ValueError(
            f"{place(k)}: a stress needs three periodic directions, got pbc={block.pbc[k].tolist()}"
        )
    found = np.array(
        [_matrix(v, labels, f"{place(k)}: {key}") for k, v in enumerate(block.frame_labels[key])]
    )
    if labels.virial_key:
        volume = np.abs(np.linalg.det(block.cell)) * to.length**3
        found = -found * to.energy / np.where(volume > 0, volume, np.nan)[:, None, None]
    else:
        found = found * to.stress
    found[~crystal] = np.nan
    return found


def _matrix(value: Any, labels: FileLabels, place: str) -> np.ndarray:
    """(3, 3), symmetric, from text or numbers, six or nine of them."""
    if isinstance(value, str):
        parts = value.replace(",", " ").replace("[", " ").replace("]", " ").split()
        try:
            numbers = np.array([float(part) for part in parts])
        except ValueError:
            numbers = np.zeros(0)
    else:
        numbers = np.asarray(value, dtype=np.float64).reshape(-1)
    if numbers.size not in (6, 9):
        raise ValueError(f"{place} is {str(value)[:80]!r}, wanted 9 numbers, or 6")
    found = numbers[_SIX[labels.stress_order]] if numbers.size == 6 else numbers.reshape(3, 3)
    if np.abs(found - found.T).max() > 1e-3 * max(1e-12, np.abs(found).max()):
        raise ValueError(f"{place} is not symmetric: {found.tolist()}")
    return found


def level_of(block: Block) -> dict[str, np.ndarray]:
    """Values of the keys that name a level of theory, (n_frames,) each, by key."""
    return {
        key: value
        for key, value in block.frame_labels.items()
        if key.casefold() in _LEVELS and value.dtype.kind in "OU" and value.ndim == 1
    }


_CHARGE_NAMES = {
    "charge_key": ("charge", "total_charge", "net_charge", "formal_charge", "smiles_charge"),
    "spin_key": ("spin", "multiplicity", "spin_multiplicity", "total_spin", "n_unpaired"),
}
"""Keys of frames (in any case) that hold the total charge, or the spin, by the setting that reads them."""


def charges_of(labels: FileLabels, block: Block) -> dict[tuple[str, str], np.ndarray]:
    """Values, (n_frames,), of the keys that hold a charge or a spin which the settings do not read, by
    setting
    and key."""
    found = {}
    for setting, names in _CHARGE_NAMES.items():
        if getattr(labels, setting) is not None:
            continue
        for key, value in block.frame_labels.items():
            if key.casefold() in names and value.ndim == 1 and key not in labels.keys:
                found[setting, key] = value
    return found


def complete(labels: FileLabels, frames: Frames) -> np.ndarray:
    """(n_frames,) bool: the frames that have all labels that the settings name."""
    keep = np.ones(len(frames), bool)
    starts = np.cumsum(frames.n_atoms) - frames.n_atoms
    named = ("energy", "forces", *labels.stress_columns, *labels.further_labels())
    for name in named:
        if name in labels.unlabelled:
            continue
        value = frames.label(name)
        lacks = np.isnan(value.reshape(len(value), -1)).any(1)
        per_atom = name in ("forces", "charges") or (
            name in frames.properties and labels.further_labels()[name].per == "atom"
        )
        keep &= ~(np.logical_or.reduceat(lacks, starts) if per_atom and len(lacks) else lacks)
    return keep


def refuse_other_units(
    told: Mapping[str, str], labels: FileLabels, fixed: Mapping[str, Any], path: Any
) -> None:
    """ValueError where a file states units of positions, energies or forces, `told`, and the settings say
    others."""
    energy = labels.energy_unit or fixed.get("energy_unit")
    length = labels.length_unit or fixed.get("length_unit")
    said = {"positions": length, "energy": energy, "forces": labels.force_unit or f"{energy}/{length}"}
    for what, text in told.items():
        names = units.LENGTH if what == "positions" else units.ENERGY
        found = units.per_length(text) if what == "forces" else units.spelled(text, names)
        if found != said[what]:
            setting = {"positions": "length_unit", "energy": "energy_unit", "forces": "force_unit"}[what]
            raise ValueError(
                f"{path}: states that {what} are in {text[:40]!r}, and the settings say {said[what]}; set "
                f"{setting}: {found}"
            )
