"""A potential with its frames to evaluate, and a finished tiny study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_study import NAME, Forked

from sapis_lab.config import kind_class, load
from sapis_lab.data import DatasetConfig, FrameStore, prepare
from sapis_lab.evaluation import Subject
from sapis_lab.potential import Potential
from sapis_lab.selftest._project import Project, small_study
from sapis_lab.selftest.ranks import write_molecules
from sapis_lab.structures import Structure


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `molecules.xyz`."""
    place = tmp_path_factory.mktemp("frames")
    write_molecules(place / "molecules.xyz")
    return place


@pytest.fixture(scope="session")
def store(frames: Path) -> FrameStore:
    """The frames of `molecules.xyz`, split."""
    raw = small_study(frames, cache=frames, question="")["data"]
    data: DatasetConfig = load(kind_class("data", "extxyz"), raw, source="test")
    return prepare(data, cache=frames / "cache")


@pytest.fixture(scope="session")
def subject(store: FrameStore) -> Subject:
    """An untrained potential of the study's frames."""
    config = kind_class("models", "geat")(cutoff=3.0).at_size(3e3, n_species=len(store.elements))
    model = config.build(species=store.elements, mean_neighbors=8.0, seed=0).requires_grad_(False)
    references = dict.fromkeys(store.elements, float(np.mean(store.energy)) / 4)
    return Subject(Potential(model, config, references, 8.0, {"id": "test", "n_frames": 12}), store, "cpu")


@pytest.fixture(scope="session")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained potential, and rattled cells of two elements that it labelled itself, stress included."""
    place = tmp_path_factory.mktemp("crystals")
    config = kind_class("models", "geat")(cutoff=3.0).at_size(3e3, n_species=2)
    model = config.build(species=(8, 12), mean_neighbors=8.0, seed=0).requires_grad_(False)
    potential = Potential(model, config, {8: -2.0, 12: -1.0}, 8.0, {"id": "test", "n_frames": 12})
    generator = np.random.default_rng(0)
    z = np.array([8, 12] * 4)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    cell = 4.2 * np.eye(3) + 0.1 * generator.normal(size=(24, 3, 3))
    x = 2.1 * corners + 0.1 * generator.normal(size=(24, 8, 3))
    pbc = np.ones(3, dtype=bool)
    given = [Structure(z, x[k], cell[k], pbc) for k in range(24)]
    found = potential.predict(given, stress=True)
    assert found.stress is not None
    np.savez(
        place / "crystals.npz",
        R=x,
        z=z,
        E=found.energy,
        F=found.forces.reshape(x.shape),
        cell=cell,
        stress=found.stress,
    )
    raw = {"train": "crystals.npz", "n_validation": 4, "n_test": 8, "stress_key": "stress", "root": place}
    units = {"energy_unit": "eV", "length_unit": "Angstrom"}
    data: DatasetConfig = load(kind_class("data", "files"), raw | units, source="test")
    return Subject(potential, prepare(data, cache=place / "cache"), "cpu")


@pytest.fixture(scope="session")
def ethanols(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained potential, and rattled frames of ethanol that it labelled itself."""
    from ase.build import molecule

    place = tmp_path_factory.mktemp("ethanols")
    config = kind_class("models", "geat")(cutoff=3.0).at_size(3e3, n_species=3)
    model = config.build(species=(1, 6, 8), mean_neighbors=6.0, seed=0).requires_grad_(False)
    potential = Potential(model, config, {1: -1.0, 6: -3.0, 8: -2.0}, 6.0, {"id": "test", "n_frames": 12})
    atoms = molecule("CH3CH2OH")
    x = atoms.positions + 0.05 * np.random.default_rng(0).normal(size=(24, 9, 3))
    found = potential.predict([Structure(atoms.numbers, one) for one in x])
    forces = found.forces.reshape(x.shape)
    np.savez(place / "ethanols.npz", R=x, z=atoms.numbers, E=found.energy, F=forces)
    raw = {"train": "ethanols.npz", "n_validation": 4, "n_test": 8, "root": place}
    units = {"energy_unit": "eV", "length_unit": "Angstrom"}
    data: DatasetConfig = load(kind_class("data", "files"), raw | units, source="test")
    return Subject(potential, prepare(data, cache=place / "cache"), "cpu")


@pytest.fixture(scope="session")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained potential, and hydrogen peroxides with random torsions that it labelled itself."""
    place = tmp_path_factory.mktemp("chains")
    config = kind_class("models", "geat")(cutoff=3.0).at_size(3e3, n_species=2)
    model = config.build(species=(1, 8), mean_neighbors=3.0, seed=0).requires_grad_(False)
    potential = Potential(model, config, {1: -1.0, 8: -2.0}, 3.0, {"id": "test", "n_frames": 12})
    generator = np.random.default_rng(0)
    z, torsions = np.array([1, 8, 8, 1]), 2 * np.pi * np.arange(24) / 24
    x = np.zeros((24, 4, 3))
    x[:, 0], x[:, 1], x[:, 2] = (-0.2, 0.95, 0.0), (0.0, 0.0, 0.0), (1.45, 0.0, 0.0)
    x[:, 3] = np.stack([np.full(24, 1.65), 0.95 * np.cos(torsions), 0.95 * np.sin(torsions)], 1)
    x += 0.02 * generator.normal(size=x.shape)
    found = potential.predict([Structure(z, x[k], None, None) for k in range(24)])
    np.savez(place / "chains.npz", R=x, z=z, E=found.energy, F=found.forces.reshape(x.shape))
    raw = {"train": "chains.npz", "n_validation": 4, "n_test": 8, "root": place}
    units = {"energy_unit": "eV", "length_unit": "Angstrom"}
    data: DatasetConfig = load(kind_class("data", "files"), raw | units, source="test")
    return Subject(potential, prepare(data, cache=place / "cache"), "cpu")


@pytest.fixture(scope="session")
def finished(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished study of one model at two amounts of data."""
    place = tmp_path_factory.mktemp("project")
    project = Project(place / "home", NAME, place / "log.txt")
    size = {"n_params": (3e3,), "n_frames": (12, 32), "steps": 6}
    study = small_study(frames, cache=frames / "cache", question="What else is there to measure?", **size)
    project.write({**study, "models": [{"kind": "geat", "cutoff": 3.0}]})
    status = project.end(project.start("study", "run", NAME))
    assert status == 0, project.log()
    return project


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    """Runs `sapis` commands in projects."""
    made = Forked()
    yield made
    made.close()


@pytest.fixture
def study(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished study, to be changed."""
    import shutil

    shutil.copytree(finished.home, tmp_path / "home")
    return Project(tmp_path / "home", NAME, tmp_path / "log.txt")
