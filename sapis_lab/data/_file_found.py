"""What is met on the way through the files of a data set: isolated atoms, levels of theory, charges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sapis_lab.data._group_keys import GroupKeys

if TYPE_CHECKING:
    from sapis_lab.data._file_settings import FileSettings


@dataclass
class Found:
    """What is met on the way through the files."""

    isolated: dict[int, dict[str, float]] = field(default_factory=dict)
    """Energies of isolated atoms, eV, by atomic number and place."""
    levels: dict[str, dict[str, str]] = field(default_factory=dict)
    """Values of keys that name a level of theory, each with the place where it was met first."""
    charges: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """Values of keys that hold a charge or a spin which is not read, by the setting that would read them and
    key, each with the place where it was met first."""
    n_left_out: dict[str, int] = field(default_factory=dict)
    """Frames that were left out, by reason."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a reader of the data should know, by what it is about."""
    largest_gap: float = 0.0
    """Largest difference between energy and free energy of a frame, eV."""
    starts: dict[str, int] = field(default_factory=dict)
    """The first frame of every split that has files."""
    ends: dict[str, int] = field(default_factory=dict)
    """Behind the last frame of each, once it is whole."""
    looks: dict[str, list[int]] = field(default_factory=dict)
    """Of the files, see `looks_of`."""
    met: set[tuple[str, str, str]] = field(default_factory=set)
    """Of `where` and `without`, the keys and values that some frame has."""
    keys: GroupKeys = field(default_factory=lambda: GroupKeys(None))
    """What frames say of the group that they belong to."""

    def plain(self) -> dict[str, Any]:
        """As JSON, without the keys of groups."""
        every = {name: value for name, value in vars(self).items() if name != "keys"}
        charges = [[*key, value] for key, value in self.charges.items()]
        return {**every, "charges": charges, "met": sorted(self.met)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Found:
        """What `plain` gave."""
        charges = {(setting, key): value for setting, key, value in plain["charges"]}
        isolated = {int(z): value for z, value in plain["isolated"].items()}
        met = {(rule, key, value) for rule, key, value in plain["met"]}
        return cls(**{**plain, "charges": charges, "isolated": isolated, "met": met})

    def count(self, reason: str, n: int) -> None:
        self.n_left_out[reason] = self.n_left_out.get(reason, 0) + n

    def refuse_idle_rules(self, config: FileSettings) -> None:
        """ValueError where `where` or `without` names what no frame has: a slip would let frames in, or
        out."""
        for rule, wanted in (("where", config.where), ("without", config.without)):
            for key, values in wanted.items():
                for value in values:
                    if (rule, key, value) not in self.met:
                        raise ValueError(
                            f"{', '.join(config.train)}: {rule} names {key}: {value}, which no frame has; "
                            "correct it, or leave it out"
                        )

    def refuse_mixed_levels(self) -> None:
        """ValueError where the frames are of several levels of theory."""
        for key, values in self.levels.items():
            if len(values) > 1:
                told = ", ".join(f"{value} ({place})" for value, place in list(values.items())[:4])
                raise ValueError(
                    f"frames of several levels of theory: {key} is {told}; choose one with where: {{{key}: "
                    f"{next(iter(values))}}}, or all with where: {{{key}: [{', '.join(values)}]}} if their "
                    "labels belong to one surface"
                )

    def refuse_mixed_charges(self) -> None:
        """ValueError where the frames are of several charges or spins, which nobody reads: the same positions
        then have several energies."""
        for (setting, key), values in self.charges.items():
            if len(values) > 1:
                told = ", ".join(f"{value} ({place})" for value, place in list(values.items())[:4])
                raise ValueError(
                    f"frames of several charges or spins: {key} is {told}; choose one with where: {{{key}: "
                    f"{next(iter(values))}}}, or read it with {setting}: {key}"
                )

    def compare_energies(self, gap: float) -> None:
        """Keep the largest difference between energies and free energies."""
        self.largest_gap = max(self.largest_gap, gap)
        if self.largest_gap > 1e-6:
            self.notes["free_energy"] = (
                f"energy is read; the files also have free_energy, which differs by up to "
                f"{self.largest_gap:.3g} eV a frame and whose derivatives the forces are in VASP and GPAW; "
                "energy_key: free_energy reads it"
            )
