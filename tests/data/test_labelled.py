"""Given and generated structures become labelled frames: by any oracle, whatever is killed, and what failed
is recorded and no number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from sapis_lab.config import ConfigError, dump_yaml, load
from sapis_lab.data import FrameStore, _labelling, prepare, store_folder
from sapis_lab.data._labelling import Frame, read_frames, read_labels, write_frames, write_labels
from sapis_lab.data._systems import starts
from sapis_lab.data.dynamics import DynamicsDataConfig
from sapis_lab.data.labelled import LabelledDataConfig
from sapis_lab.oracles import Failed, Labels
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.oracles.xtb import XtbConfig

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SILICON = {"crystal": "Si", "lattice": "diamond", "a": 5.431}
SW = {"kind": "stillinger_weber"}
SIZES = {"n_validation": 2, "n_test": 2}


def labelled(**settings) -> LabelledDataConfig:
    return load(LabelledDataConfig, {"kind": "labelled", **SIZES, **settings}, source="test")


def rattled_silicon(n: int = 10, **settings) -> LabelledDataConfig:
    return labelled(
        **{
            "system": SILICON,
            "generator": {"kind": "rattled", "displacement": 0.08, "strain": 0.02},
            "n_frames": n,
            "oracle": SW,
            **settings,
        }
    )


@pytest.fixture
def here(monkeypatch):
    """Parts are worked on in this process, without any of another's start."""

    def run(folders, executor, *, on_event, retry_failed):
        for folder in folders:
            if not executor.task.is_done(folder):
                getattr(_labelling, executor.task.target.partition(":")[2])(folder)

    monkeypatch.setattr(_labelling, "run_jobs", run)


@pytest.fixture
def water_files(tmp_path) -> Path:
    """A folder of data with water.xyz, 12 frames, and more.xyz, 3 frames."""
    root = tmp_path / "data"
    root.mkdir()
    generator = np.random.default_rng(0)

    def frames(n: int) -> list[Atoms]:
        start = molecule("H2O")
        made = []
        for _ in range(n):
            one = start.copy()
            one.positions += 0.05 * generator.standard_normal((3, 3))
            made.append(one)
        return made

    write(root / "water.xyz", frames(12))
    write(root / "more.xyz", frames(3))
    return root


# ------------------------------------------------------------------------------------------ frames


def test_every_frame_has_the_label_of_the_oracle(tmp_path):
    store = prepare(rattled_silicon(), cache=tmp_path, n_workers=2)
    assert store.n_frames == 10 and store.columns == ("stress", "oracle")
    assert {name: len(ids) for name, ids in store.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    frames = store.frames(np.arange(10))
    for k in range(10):
        x = frames.positions[8 * k : 8 * k + 8]
        found = StillingerWeberConfig().label(np.full(8, 14), x, cell=frames.cell[k], pbc=frames.pbc[k])
        assert store.energy[k] == found.energy
        np.testing.assert_array_equal(frames.stress[k], found.stress)
        np.testing.assert_allclose(frames.forces[8 * k : 8 * k + 8], found.forces, atol=1e-6)
    assert np.ptp(store.energy) > 0.05 and not np.allclose(frames.cell[0], frames.cell[1])
    assert not (store.folder / "labels").exists()


def test_the_store_says_which_oracle_with_which_version_and_settings(tmp_path, here):
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    config = labelled(
        system={"molecule": "H2O"},
        generator={"kind": "rattled"},
        n_frames=8,
        oracle={"kind": "xtb", "method": "GFN1-xTB"},
    )
    store = prepare(config, cache=tmp_path)
    (record,) = store.metadata["oracles"]
    assert record["kind"] == "xtb" and record["settings"]["method"] == "GFN1-xTB"
    assert record["packages"] == {"tblite": version("tblite")} and record["version"] == 1
    assert record["level"] == store.metadata["level_of_theory"] == XtbConfig(method="GFN1-xTB").level()
    assert (store.column("oracle") == 0).all()
    assert set(store.columns) == {"oracle", "charges", "dipole"}


def test_structures_of_files_are_labelled_by_file_and_frame(tmp_path, water_files, here):
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    config = labelled(
        structures=["water.xyz[2:]"],
        tests={"test": "more.xyz"},
        n_test=0,
        oracle={"kind": "xtb"},
        root=str(water_files),
    )
    info = config.info(cutoff=5.0)
    store = prepare(config, cache=tmp_path)
    assert {k: len(v) for k, v in store.splits.items()} == {"train": 8, "validation": 2, "test": 3}
    assert info.n_train == 8 and info.n_test == {"test": 3} and info.species == (1, 8)
    assert info.labels == ("energy", "forces", "charges", "dipole")
    assert set(store.metadata["sources"]) == {"water.xyz", "more.xyz"}
    first = store.frames(store.splits["test"][:1])
    found = XtbConfig().label(first.species, first.positions)
    assert first.energy[0] == found.energy
    with (water_files / "more.xyz").open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"more\.xyz has changed since the store"):
        prepare(config, cache=tmp_path)


def test_lengths_of_files_in_bohr_are_converted(tmp_path, water_files, here):
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    from sapis_lab.units import BOHR_TO_ANGSTROM

    config = {"structures": "water.xyz", "oracle": {"kind": "xtb"}, "root": str(water_files)}
    plain = prepare(labelled(**config), cache=tmp_path)
    text = (water_files / "water.xyz").read_text().splitlines()
    rows = []
    for line in text:
        parts = line.split()
        if len(parts) == 4 and "=" not in line:
            parts[1:] = [f"{float(x) / BOHR_TO_ANGSTROM:.12f}" for x in parts[1:]]
            line = " ".join(parts)
        rows.append(line)
    (water_files / "bohr.xyz").write_text("\n".join(rows) + "\n")
    bohr = prepare(labelled(**{**config, "structures": "bohr.xyz"}, length_unit="Bohr"), cache=tmp_path)
    np.testing.assert_allclose(bohr.energy, plain.energy, atol=1e-6)


def test_conformers_are_starts_and_every_training_subset_holds_them_alike(tmp_path, here):
    pytest.importorskip("rdkit", reason="molecules from SMILES need the extra [chem]")
    config = labelled(
        system={"smiles": "CCO", "conformers": 2},
        generator={"kind": "rattled", "displacement": 0.02},
        n_frames=12,
        oracle={"kind": "mmff", "smiles": "CCO"},
    )
    store = prepare(config, cache=tmp_path)
    begins = [start.positions for start in starts(config.system, root=None, seed=0)]
    made = store.frames(store.splits["train"]).positions.reshape(-1, 9, 3)
    which = [int(np.argmin([np.abs(x - begin).max() for begin in begins])) for x in made]
    assert np.abs(begins[0] - begins[1]).max() > 0.2
    assert sum(which) == 4 and sum(which[:4]) == 2 and sum(which[:2]) == 1
    assert store.n_frames == 12 and config.info(cutoff=5.0).n_train == 8


def test_conformers_themselves_are_labelled_without_a_generator(tmp_path, here):
    pytest.importorskip("rdkit", reason="molecules from SMILES need the extra [chem]")
    plain = prepare(
        labelled(
            system={"smiles": "CCCCO", "conformers": 6},
            n_validation=1,
            n_test=1,
            oracle={"kind": "mmff", "smiles": "CCCCO"},
        ),
        cache=tmp_path,
    )
    assert plain.n_frames == 6 and np.ptp(plain.energy) > 1e-3
    assert np.abs(plain.forces).max() < 0.01  # relaxed with the same force field


def test_a_label_that_fails_is_left_out_with_its_reason(tmp_path, here, monkeypatch):
    label = StillingerWeberConfig.label

    def sometimes(self, species, positions, *, cell=None, pbc=None):
        found = label(self, species, positions, cell=cell, pbc=pbc)
        return Failed("SCF not converged") if int(abs(found.energy) * 1e6) % 3 == 0 else found

    monkeypatch.setattr(StillingerWeberConfig, "label", sometimes)
    store = prepare(rattled_silicon(30, n_validation=6, n_test=6), cache=tmp_path)
    failed = store.metadata["failed_labels"]
    assert 0 < len(failed) == 30 - store.n_frames
    assert all(
        text.startswith("Si (diamond), start 0, structure ") and text.endswith(": SCF not converged")
        for text in failed
    )
    assert sorted(np.concatenate(list(store.splits.values()))) == list(range(store.n_frames))
    assert np.isfinite(store.energy).all()


def test_where_all_labels_of_a_split_fail_the_reason_is_said(tmp_path, here, monkeypatch):
    monkeypatch.setattr(StillingerWeberConfig, "label", lambda self, *a, **k: Failed("no such luck"))
    with pytest.raises(ConfigError, match=r"all 6 labels of the split 'train' failed .* no such luck"):
        prepare(rattled_silicon(), cache=tmp_path)


def test_only_frames_that_a_split_names_are_labelled(tmp_path, here, monkeypatch):
    asked = []
    label = StillingerWeberConfig.label

    def counted(self, species, positions, **more):
        asked.append(1)
        return label(self, species, positions, **more)

    monkeypatch.setattr(StillingerWeberConfig, "label", counted)
    store = prepare(rattled_silicon(20, n_train=5), cache=tmp_path)
    assert store.n_frames == len(asked) == 9


@pytest.mark.filterwarnings("ignore::sapis_lab.errors.Notice")  # of made-up labels
def test_open_frames_among_periodic_ones_have_no_stress(tmp_path, here):
    root = tmp_path / "data"
    root.mkdir()
    frames = []
    generator = np.random.default_rng(0)
    for k in range(8):
        atoms = bulk("Si", "diamond", 5.431, cubic=True)
        if k % 2:
            atoms = Atoms(atoms.numbers, atoms.positions)
        atoms.positions += 0.05 * generator.standard_normal(atoms.positions.shape)
        frames.append(atoms)
    write(root / "both.xyz", frames)
    config = labelled(structures="both.xyz", oracle=SW, root=str(root), n_validation=1, n_test=1)
    store = prepare(config, cache=tmp_path)
    missing = np.isnan(store.label_column("stress")).all((1, 2))
    assert missing.sum() == 4 and (missing == ~store.pbc.all(1)).all() and store.incomplete == ("stress",)


# ------------------------------------------------------------------------------------------ kills

SLOW = '''
"""A slow oracle of springs that keeps count."""
import os, time
from typing import ClassVar, Literal
import numpy as np
from sapis_lab.oracles import Failed, Labels, OracleConfig

class SlowConfig(OracleConfig):
    kind: Literal["slow"] = "slow"

    def label(self, species, positions, *, cell=None, pbc=None):
        time.sleep(float(os.environ["SLOW_SECONDS"]))
        with open(os.environ["SLOW_LOG"], "a") as file:
            file.write(f"{float(positions.sum()):.12f}\\n")
        x = positions - positions.mean(0)
        return Labels(float(0.5 * (x**2).sum()), -x)

    def seconds(self, n_atoms):
        return 3.0  # parts of a few frames

    def level(self):
        return "springs"
'''


def test_a_kill_loses_no_more_than_seconds_and_changes_nothing(tmp_path, water_files):
    kinds = tmp_path / "kinds" / "oracles"
    kinds.mkdir(parents=True)
    (kinds / "slow.py").write_text(SLOW)
    config = {
        "kind": "labelled",
        "structures": "water.xyz",
        "oracle": {"kind": "slow"},
        "n_validation": 2,
        "n_test": 2,
        "root": str(water_files),
    }
    program = (
        "import json, sys; from pathlib import Path; from sapis_lab.config import load; "
        "from sapis_lab.data import prepare; from sapis_lab.data.labelled import LabelledDataConfig as C; "
        "c = load(C, json.loads(sys.argv[1]), source='x'); "
        "print(prepare(c, cache=Path(sys.argv[2]), n_workers=1).folder)"
    )

    def started(cache: str, seconds: float) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(config), str(tmp_path / cache)],
            env={
                **os.environ,
                "SAPIS_KINDS": str(tmp_path / "kinds"),
                "SLOW_SECONDS": str(seconds),
                "SLOW_LOG": str(tmp_path / f"{cache}.txt"),
            },
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = started("whole", 0.0).communicate(timeout=120)[0].strip()
    process = started("killed", 0.35)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").rglob("part-00000/partial.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    (partial,) = (tmp_path / "killed").rglob("partial.npz")
    n_kept = len(read_labels(partial))
    assert 0 < n_kept < 12
    time.sleep(0.5)  # what was in hand when the launcher died has ended
    n_before = len((tmp_path / "killed.txt").read_text().splitlines())
    again = started("killed", 0.0).communicate(timeout=120)[0].strip()
    n_after = len((tmp_path / "killed.txt").read_text().splitlines())
    assert n_after - n_before == 12 - n_kept
    one, other = FrameStore.open(Path(whole)), FrameStore.open(Path(again))
    for name in ("positions", "energy", "forces", "species"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert {k: v.tolist() for k, v in one.splits.items()} == {k: v.tolist() for k, v in other.splits.items()}


def test_labels_of_another_version_or_of_other_structures_are_not_mixed(tmp_path, here, monkeypatch):
    config = rattled_silicon()
    folder = store_folder(config, tmp_path) / "labels"

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr("sapis_lab.data.labelled.FrameStore.create", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, cache=tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    for change, message in (
        (
            {"oracle": {**plan["oracle"], "packages": {"program": "1.2"}}},
            r"were made with .*program 1\.2\), now",
        ),
        ({"frames": "0" * 64}, "are of other structures than there are now"),
    ):
        (folder / "plan.json").write_text(json.dumps({**plan, **change}))
        with pytest.raises(ConfigError, match=message):
            prepare(config, cache=tmp_path)
    (folder / "plan.json").write_text(json.dumps(plan))
    assert prepare(config, cache=tmp_path).n_frames == 10


def test_a_damaged_file_of_labels_is_named(tmp_path, here, monkeypatch):
    path = tmp_path / "labels.npz"
    write_labels(path, [Labels(1.0, np.ones((2, 3)))])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"labels\.npz: cannot be read .* what it held is made again"):
        read_labels(path)


def test_an_oracle_that_cannot_label_such_structures_ends_it_with_its_message(tmp_path):
    config = labelled(
        system={"crystal": "Ge", "lattice": "diamond", "a": 5.66},
        generator={"kind": "rattled"},
        n_frames=6,
        oracle=SW,
        n_validation=1,
        n_test=1,
    )
    message = (
        r"1 of 1 parts failed, the first: oracle 'stillinger_weber' has parameters for Si, got Ge as well"
    )
    with pytest.raises(ConfigError, match=message):
        prepare(config, cache=tmp_path)


def test_frames_and_labels_come_back_as_they_were_written(tmp_path):
    generator = np.random.default_rng(0)
    frames = [
        Frame(np.full(n, n), generator.random((n, 3)), n * np.eye(3), np.array([True, n > 2, False]))
        for n in (1, 4, 2)
    ]
    write_frames(tmp_path / "f.npz", frames)
    for a, b in zip(frames, read_frames(tmp_path / "f.npz"), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    labels = [
        Labels(1.5, generator.random((2, 3)), charges=generator.random(2), dipole=generator.random(3)),
        Failed("why, ünicode: ζ"),
        Labels(2.5, generator.random((3, 3)), charges=generator.random(3), dipole=generator.random(3)),
        Failed(""),
    ]
    write_labels(tmp_path / "l.npz", labels)
    back = read_labels(tmp_path / "l.npz")
    assert back[1] == labels[1] and back[3] == labels[3]
    for k in (0, 2):
        assert back[k].energy == labels[k].energy and np.array_equal(back[k].forces, labels[k].forces)
        assert np.array_equal(back[k].charges, labels[k].charges)
        assert np.array_equal(back[k].dipole, labels[k].dipole) and back[k].stress is None
    write_labels(tmp_path / "n.npz", [Failed("all")])
    assert read_labels(tmp_path / "n.npz") == [Failed("all")]
    write_labels(tmp_path / "e.npz", [])
    assert read_labels(tmp_path / "e.npz") == []


# ------------------------------------------------------------------------------------------ settings


def test_where_labels_are_made_is_no_part_of_what_they_are(tmp_path):
    plain = rattled_silicon()
    elsewhere = rattled_silicon(executor={"kind": "slurm"})
    assert elsewhere.executor.kind == "slurm" and plain.executor.kind == "local"
    assert store_folder(plain, tmp_path) == store_folder(elsewhere, tmp_path)
    assert store_folder(plain, tmp_path) != store_folder(rattled_silicon(seed=1), tmp_path)
    for config in (plain, elsewhere):
        assert load(LabelledDataConfig, yaml.safe_load(dump_yaml(config)), source="dump") == config


@pytest.mark.parametrize("kind", ["labelled", "dynamics"])
def test_frames_of_an_oracle_whose_numbers_have_changed_are_others(tmp_path, monkeypatch, kind):
    config = rattled_silicon() if kind == "labelled" else dynamics(system=SILICON, oracle=SW)
    before, plain = store_folder(config, tmp_path), config.identity()
    assert not any("version" in key for key in plain if key != "version")
    monkeypatch.setattr(StillingerWeberConfig, "version", 2)
    assert store_folder(config, tmp_path) != before
    assert config.identity() == {**plain, "oracle version": 2}


def test_an_oracle_may_be_named_by_its_file(monkeypatch):
    monkeypatch.setenv("SAPIS_HOME", str(REPOSITORY))
    config = labelled(
        system={"molecule": "H2O"}, generator={"kind": "rattled"}, n_frames=9, oracle="pbe-def2svp"
    )
    assert config.oracle.level() == "PBE/def2-svp, PySCF, density fitting, grid level 1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oracle": SW}, r"wanted either structures \(files\) or system, got neither"),
        ({"oracle": SW, "system": SILICON, "structures": "a.xyz"}, "got both"),
        ({"oracle": SW, "system": SILICON, "n_frames": 5}, "generator and n_frames belong together"),
        (
            {"oracle": SW, "structures": "a.xyz", "generator": {"kind": "rattled"}, "n_frames": 5},
            "generator wants a system",
        ),
        ({"oracle": SW, "structures": "a.xyz", "n_test": 0}, "give either tests"),
        ({"oracle": SW, "structures": "/a.xyz"}, "is an absolute path"),
        ({"oracle": SW, "system": SILICON, "validation": "b.xyz", "n_validation": 0}, "frames are held out"),
        ({"oracle": SW, "system": {"crystal": "Si"}}, "wants lattice and a as well"),
        ({"oracle": SW, "system": {"molecule": "H2O", "a": 5.0}}, "lattice and a belong to crystal"),
        ({"oracle": SW, "system": {"molecule": "H2O", "conformers": 2}}, "conformers=2 belongs to smiles"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        labelled(**settings)


def test_too_few_frames_for_the_splits_are_refused_before_anything_is_labelled():
    with pytest.raises(ValueError, match="generated structures hold 3 frames"):
        rattled_silicon(3).info(cutoff=4.0)


def test_a_molecular_oracle_refuses_a_crystal_before_anything_is_labelled():
    with pytest.raises(ValueError, match="oracle 'xtb' labels molecules only"):
        rattled_silicon(oracle={"kind": "xtb"}).info(cutoff=4.0)


# ------------------------------------------------------------------------------------------ systems


def dynamics(**settings) -> DynamicsDataConfig:
    sizes = {
        "n_train": 4,
        "n_validation": 2,
        "n_test": 2,
        "trajectory_frames": 2,
        "block_frames": 2,
        "interval_fs": 10,
        "equilibration_fs": 0,
    }
    return load(DynamicsDataConfig, {"kind": "dynamics", **sizes, **settings}, source="test")


def test_trajectories_begin_with_the_conformers_in_turn():
    pytest.importorskip("rdkit", reason="molecules from SMILES need the extra [chem]")
    from sapis_lab.data._trajectories import trajectory_tasks

    config = dynamics(system={"smiles": "CCCO", "conformers": 3}, oracle={"kind": "mmff", "smiles": "CCCO"})
    tasks = [t for some in trajectory_tasks(config, Path("x")).values() for t in some]
    assert len(tasks) == 4 and tasks[0].positions == tasks[3].positions
    assert len({t.positions for t in tasks}) == 3
    assert config.info(cutoff=5.0).mean_atoms == 12


def test_dynamics_of_a_crystal_on_our_own_potential_keeps_stress_and_of_a_cluster_has_none(tmp_path):
    crystal = dynamics(system={**SILICON}, oracle=SW, sampler={"kind": "langevin", "temperature": 600})
    store = prepare(crystal, cache=tmp_path)
    assert "stress" in store.columns and np.isfinite(store.label_column("stress")).all()
    assert store.metadata["oracles"][0]["kind"] == "stillinger_weber"
    cluster = dynamics(system={"molecule": "Si2H6"}, oracle=SW)
    assert "stress" not in cluster.label_columns


def test_fingerprints_of_systems_from_before_stay_what_they_were():
    from sapis_lab.config import identity

    assert identity(dynamics(oracle={"kind": "xtb"}).system) == {
        "molecule": "CH3CH2OH",
        "file": None,
        "repeat": [1, 1, 1],
    }


def test_a_box_of_water_has_its_density_and_whole_molecules_and_openmm_labels_it():
    pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")
    from sapis_lab.oracles.openmm import OpenmmConfig

    config = dynamics(system={"water": 64}, oracle={"kind": "openmm", "cutoff": 6.0, "switch_start": 5.0})
    start = config.structure()
    volume = np.linalg.det(start.cell)
    assert start.masses.sum() * 1.66053906660 / volume == pytest.approx(0.997, abs=2e-3)
    x = start.positions.reshape(-1, 3, 3)
    for hydrogen in (1, 2):
        np.testing.assert_allclose(np.linalg.norm(x[:, hydrogen] - x[:, 0], axis=1), 0.9572)
    oracle = config.oracle
    assert isinstance(oracle, OpenmmConfig)
    found = oracle.label(start.species, start.positions, cell=start.cell, pbc=np.ones(3, bool))
    assert isinstance(found, Labels) and np.isfinite(found.forces).all()


def test_a_pdb_file_has_carbon_where_it_says_ca(tmp_path):
    pytest.importorskip("openmm", reason="classical force fields need the extra [ff]")
    rows = [
        "ATOM      1  N   GLY     1       0.000   0.000   0.000  1.00  0.00",
        "ATOM      2  CA  GLY     1       1.450   0.000   0.000  1.00  0.00",
        "END",
    ]
    (tmp_path / "a.pdb").write_text("\n".join(rows) + "\n")
    config = dynamics(system={"file": "a.pdb"}, oracle={"kind": "xtb"}, root=str(tmp_path))
    assert config.structure().species.tolist() == [7, 6]


def test_an_unknown_crystal_is_told():
    with pytest.raises(ValueError, match="crystal='SiC' cannot be built as diamond"):
        dynamics(system={"crystal": "SiC", "lattice": "diamond", "a": 4.3}, oracle=SW).structure()
