"""Any system, sampler and oracle make a data set; `xtb` is the plainest of them, and a failed label is
recorded and never a number."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from sapis_lab.config import ConfigError, kind_class, load
from sapis_lab.data import prepare
from sapis_lab.data.dynamics import DynamicsDataConfig
from sapis_lab.data.xtb import XtbDataConfig
from sapis_lab.oracles import Failed, Labels
from sapis_lab.oracles.xtb import XtbConfig
from sapis_lab.units import ACCELERATION

pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")

SIZES = {
    "n_train": 6,
    "n_validation": 2,
    "n_test": 2,
    "trajectory_frames": 3,
    "block_frames": 2,
    "interval_fs": 10,
    "equilibration_fs": 10,
}


def dynamics(**settings) -> DynamicsDataConfig:
    return load(
        DynamicsDataConfig,
        {"kind": "dynamics", "oracle": {"kind": "xtb"}, **SIZES, **settings},
        source="test",
    )


def test_the_kind_xtb_has_the_frames_of_its_settings_in_dynamics(tmp_path):
    short = prepare(XtbDataConfig(**SIZES, temperature=300.0), cache=tmp_path)
    long = prepare(dynamics(sampler={"kind": "langevin", "temperature": 300}), cache=tmp_path)
    for name in ("positions", "energy", "forces", "species"):
        assert np.array_equal(getattr(short, name), getattr(long, name)), name
    assert {k: v.tolist() for k, v in short.splits.items()} == {k: v.tolist() for k, v in long.splits.items()}
    assert short.columns == ("time", "velocities") and long.columns == (
        "dipole",
        "time",
        "velocities",
        "charges",
    )


def test_charges_of_a_neutral_molecule_add_up_to_nothing(tmp_path):
    store = prepare(dynamics(), cache=tmp_path)
    charges = store.column("charges").reshape(store.n_frames, -1)
    assert np.abs(charges.sum(1)).max() < 1e-5 and np.abs(charges).max() > 0.1


def test_constant_energy_keeps_it_and_the_centre_of_mass(tmp_path):
    store = prepare(dynamics(sampler={"kind": "nve", "temperature": 300, "timestep": 0.5}), cache=tmp_path)
    masses = np.array([{1: 1.008, 6: 12.011, 8: 15.999}[int(z)] for z in store.species])
    kinetic = 0.5 * masses[:, None] * store.column("velocities").astype(float) ** 2 / ACCELERATION
    total = store.energy + kinetic.sum(1).reshape(store.n_frames, -1).sum(1)
    for start in (0, 3):  # two trajectories of the training pool
        assert np.ptp(total[start : start + 3]) < 2e-3
        assert np.ptp(store.energy[start : start + 3]) > 2e-2
    momentum = (masses[:, None] * store.column("velocities")).reshape(store.n_frames, -1, 3).sum(1)
    assert np.abs(momentum).max() < 1e-5


def test_a_structure_from_a_file_is_refused_where_the_oracle_cannot_label_it(tmp_path):
    write(
        tmp_path / "cell.xyz",
        Atoms("H2O", [[0, 0, 0.12], [0, 0.78, -0.47], [0, -0.75, -0.5]], cell=[6, 6, 6], pbc=True),
    )
    config = dynamics(system={"file": "cell.xyz"}, root=str(tmp_path))
    with pytest.raises(ValueError, match=r"oracle 'xtb' labels molecules only, got pbc=\[True, True, True\]"):
        config.info(cutoff=5.0)
    with pytest.raises(
        ConfigError,
        match="wanted exactly one of molecule, file, smiles, crystal and water, got molecule and file",
    ):
        dynamics(system={"molecule": "H2O", "file": "cell.xyz"})
    with pytest.raises(ConfigError, match=r"interval_fs=10\.0 is not a multiple of timestep=0\.3"):
        dynamics(sampler={"kind": "langevin", "timestep": 0.3})


def test_a_structure_from_a_file_is_the_start_and_its_file_is_remembered(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    write(place / "water.xyz", Atoms("OH2", [[0, 0, 0.12], [0, 0.78, -0.47], [0, -0.75, -0.5]]))
    config = dynamics(system={"file": "water.xyz"}, root=str(place))
    store = prepare(config, cache=tmp_path)
    assert store.elements == (1, 8) and list(store.metadata["sources"]) == ["water.xyz"]
    write(place / "water.xyz", Atoms("OH2", [[0, 0, 0.13], [0, 0.78, -0.47], [0, -0.75, -0.5]]))
    with pytest.raises(ValueError, match=r"water\.xyz has changed since the store"):
        prepare(config, cache=tmp_path)


# ---------------------------------------------------------------------------------------------------- failure


def test_a_label_that_fails_is_a_value_and_its_frame_is_left_out(tmp_path, monkeypatch):
    from sapis_lab.data import _generation, _trajectories

    class Sometimes(XtbConfig):
        def label(self, species, positions, *, cell=None, pbc=None) -> Labels | Failed:
            found = super().label(species, positions)
            fails = self.accuracy < 1 and isinstance(found, Labels) and int(abs(found.energy) * 1e6) % 3 == 0
            return Failed("SCF not converged in 250 cycles") if fails else found

    def here(tasks, *, n_workers, progress, what):
        for task in tasks:
            task = task.model_copy(update={"oracle": Sometimes()})
            for block in range(task.n_blocks):
                _generation.write_block(task.block_file(block), _generation.make_block(task, block))

    monkeypatch.setattr(_trajectories, "generate", here)
    store = prepare(dynamics(n_train=12, n_validation=3, n_test=3), cache=tmp_path)
    failed = store.metadata["failed_labels"]
    assert 0 < len(failed) == 18 - store.n_frames
    assert all(
        text.startswith("frame ") and text.endswith("SCF not converged in 250 cycles") for text in failed
    )
    assert sorted(np.concatenate(list(store.splits.values()))) == list(range(store.n_frames))
    assert np.isfinite(store.energy).all()


def test_what_can_never_be_labelled_is_an_error_of_the_settings():
    water = np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.12], [0.0, 0.78, -0.47], [0.1, -0.75, -0.50]])
    with pytest.raises(ValueError, match="oracle 'xtb' .* n_unpaired 1"):
        XtbConfig(n_unpaired=1).label(*water)
    assert XtbConfig().label(np.array([1, 1]), np.zeros((2, 3))) == Failed(
        "Too close interatomic distances found"
    )


def test_oracles_and_samplers_are_kinds():
    assert kind_class("oracles", "xtb") is XtbConfig
    assert {kind_class("samplers", k).model_fields["kind"].default for k in ("langevin", "nve")} == {
        "langevin",
        "nve",
    }
