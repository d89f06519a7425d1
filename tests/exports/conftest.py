"""A small untrained potential of two elements, and structures of 1, 32 and 1,024 atoms with and without a
cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_cases import small_potential

from sapis_lab.potential import Potential, save_potential


@pytest.fixture(scope="session")
def potential() -> Potential:
    return small_potential()


@pytest.fixture(scope="session")
def saved(potential: Potential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that potential."""
    place = tmp_path_factory.mktemp("potential")
    save_potential(place, potential)
    return place
