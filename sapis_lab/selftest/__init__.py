"""Promises measured on this machine, with tables to read: `sapis selftest --help` lists them."""

from sapis_lab.selftest.contracts import (
    SPECIES,
    Frame,
    batch_of,
    build,
    equivariance_errors,
    random_crystal,
    random_molecule,
    random_rotation,
)

__all__ = [
    "SPECIES",
    "Frame",
    "batch_of",
    "build",
    "equivariance_errors",
    "random_crystal",
    "random_molecule",
    "random_rotation",
]
