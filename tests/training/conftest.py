"""Data and a launcher for the tests that run whole points in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ranked_points import Launcher, write_clusters, write_labelled


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of 2 to 12 atoms."""
    return write_clusters(tmp_path_factory.mktemp("clusters"))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames with further labels, some of which are missing."""
    return write_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frame stores of all these points."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Forks points from a process that has imported everything."""
    made = Launcher(tmp_path_factory.mktemp("launcher"))
    yield made
    made.close()
