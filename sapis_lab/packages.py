"""The packages on whose versions numbers depend, for records and provenance."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

OF_A_POINT = ("sapis-lab", "torch", "lightning", "torch-geometric", "e3nn", "numpy")
"""What a training rests on."""
OF_A_STUDY = (*OF_A_POINT, "scipy", "pandas", "pydantic", "ase", "vesin", "tblite", "rdkit", "matplotlib")
"""And its data, tables, laws and figures."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed, by name."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
