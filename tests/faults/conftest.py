"""Frames for the points of these tests, made as those of the training tests are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))

from ranked_points import write_clusters


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of 2 to 12 atoms."""
    return write_clusters(tmp_path_factory.mktemp("clusters"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frame stores of all these points."""
    return tmp_path_factory.mktemp("cache")
