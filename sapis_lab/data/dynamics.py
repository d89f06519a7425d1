"""Frames generated on the spot: any system, moved by any sampler on the surface of any oracle, which labels
them.

    kind: dynamics
    system: {molecule: CH3CH2OH}      # or {smiles: CCO, conformers: 10}, {file: mine/start.xyz}, {water: 64},
                                      # {crystal: Si, lattice: diamond, a: 5.431, repeat: [2, 2, 2]}
    oracle: {kind: xtb, method: GFN2-xTB}
    sampler: {kind: langevin, temperature: 500}

Training, validation and test frames come from separate trajectories, each from its own random momenta; with
several conformers they begin with them in turn. What the oracle gives besides energy and forces (charges,
stress) is stored with the frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sapis_lab.config import composed_kind
from sapis_lab.data._sources import data_root, known_root, source_record
from sapis_lab.data._systems import SystemConfig, starts
from sapis_lab.data._trajectories import STORED, Structure, TrajectoryDataConfig
from sapis_lab.oracles import OracleConfig
from sapis_lab.samplers import SamplerConfig
from sapis_lab.samplers.langevin import LangevinConfig


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
        return self.starts()[0]

    def starts(self) -> tuple[Structure, ...]:
        found = starts(self.system, root=self.root, seed=self.seed)
        self.oracle.refuse_periodic(np.array(found[0].pbc))
        return found

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
        names = tuple(name for name in STORED if name in type(self.oracle).gives)
        if "stress" in names and not all(self.structure().pbc):
            return tuple(name for name in names if name != "stress")  # none without a volume
        return names
