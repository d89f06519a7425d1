"""Molecular dynamics: many replicas at once, on any surface. One module per kind of ensemble.

A state (`Replicas`) holds all that the next step depends on, random numbers included; an ensemble moves it by
one step; a surface says energies and forces. Everything is in eV, Å, fs and amu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sapis_lab.simulation._base import EnsembleConfig
from sapis_lab.simulation._lennard_jones_surface import LennardJonesSurface
from sapis_lab.simulation._replicas import Replicas, read_replicas, replicas_of, write_replicas
from sapis_lab.simulation._run import SimulationFolder, advance, simulate
from sapis_lab.simulation._surface import Found, OracleSurface, Surface

if TYPE_CHECKING:
    from sapis_lab.simulation._potential_surface import PotentialSurface
    from sapis_lab.simulation._uncertain_surface import WatchedSurface


def __getattr__(name: str) -> Any:
    # settings of ensembles are read where there is no torch
    if name == "PotentialSurface":
        from sapis_lab.simulation._potential_surface import PotentialSurface

        return PotentialSurface
    if name == "WatchedSurface":
        from sapis_lab.simulation._uncertain_surface import WatchedSurface

        return WatchedSurface
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "EnsembleConfig",
    "Found",
    "LennardJonesSurface",
    "OracleSurface",
    "PotentialSurface",
    "Replicas",
    "SimulationFolder",
    "Surface",
    "WatchedSurface",
    "advance",
    "read_replicas",
    "replicas_of",
    "simulate",
    "write_replicas",
]
