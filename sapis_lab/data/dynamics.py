"""Frames generated on the spot: any system, moved by any sampler on the surface of any oracle, which labels
them.

    kind: dynamics
    system: {molecule: CH3CH2OH}                  # or {file: mine/start.xyz, repeat: [2, 2, 2]}
    oracle: {kind: xtb, method: GFN2-xTB}
    sampler: {kind: langevin, temperature: 500}

Training, validation and test frames come from separate trajectories, each from its own random momenta. What
the oracle gives besides energy and forces (charges, stress) is stored with the frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Config, composed_kind
from sapis_lab.data._sources import data_root, known_root, need_file, source_record
from sapis_lab.data._trajectories import STORED, Structure, TrajectoryDataConfig, g2_molecule
from sapis_lab.oracles import OracleConfig
from sapis_lab.samplers import SamplerConfig
from sapis_lab.samplers.langevin import LangevinConfig

Count = Annotated[int, Field(ge=1, le=100)]


class SystemConfig(Config):
    """The structure that every trajectory begins with: a molecule by name, or the first frame of a file."""

    molecule: str | None = None
    """Name of a molecule in `ase.build.molecule` (the G2 set)."""
    file: str | None = None
    """A file that ase reads, under $SAPIS_DATA; its first frame, with cell and periodic boundaries."""
    repeat: tuple[Count, Count, Count] = (1, 1, 1)
    """Copies of the file's cell along its three vectors."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.molecule is None) == (self.file is None):
            raise ValueError(
                f"wanted exactly one of molecule and file, got molecule={self.molecule!r} and "
                f"file={self.file!r}"
            )
        return self


class DynamicsDataConfig(TrajectoryDataConfig):
    """Labelled trajectories of one system."""

    version: ClassVar[int] = 2  # 1 stored no dipoles
    location_fields: ClassVar[frozenset[str]] = frozenset({"root"})

    kind: Literal["dynamics"] = "dynamics"
    root: Path | None = None
    """Folder of the system's file; $SAPIS_DATA when not given."""
    system: SystemConfig = SystemConfig(molecule="CH3CH2OH")
    """What moves."""
    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """The surface that is sampled and that labels the frames."""
    sampler: composed_kind("samplers", SamplerConfig) = LangevinConfig()  # type: ignore[valid-type]
    """How it is sampled."""

    def structure(self) -> Structure:
        if self.system.molecule is not None:
            return g2_molecule(self.system.molecule)
        from ase.io import read

        assert self.system.file is not None
        path = need_file(data_root(self.root), self.system.file)
        atoms: Any = read(path, index=0)
        atoms = atoms.repeat(self.system.repeat)
        pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
        self.oracle.refuse_periodic(np.array(pbc))
        cell = np.array(atoms.cell.array) if any(pbc) else None
        return Structure(
            self.system.file,
            np.array(atoms.numbers),
            np.array(atoms.positions),
            np.array(atoms.get_masses()),
            cell,
            pbc,
        )

    def surface(self) -> OracleConfig:
        return self.oracle

    def dynamics(self) -> SamplerConfig:
        return self.sampler

    def more_metadata(self) -> dict[str, Any]:
        if self.system.file is None:
            return {}
        root = data_root(self.root)
        return {"sources": source_record(root, [root / self.system.file])}

    def source_root(self) -> Path | None:
        return known_root(self.root) if self.system.file is not None else None

    @property
    def label_columns(self) -> tuple[str, ...]:
        return tuple(name for name in STORED if name in type(self.oracle).gives)
