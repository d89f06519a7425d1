"""Trainings that start from a trained potential: what of it moves, with which reference energies, and what a
kill leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ranked_points import Launcher, make_point, n_rows, pid_of, wait_until, weights
from safetensors.torch import load_file
from torch import Tensor

from sapis_lab.config import ConfigError, dump, kind_class, kinds, load, read_yaml
from sapis_lab.data import prepare
from sapis_lab.data.joined import JoinedConfig
from sapis_lab.files import digest
from sapis_lab.fine_tuning import LowRank, trained_parameters
from sapis_lab.potential import load_potential
from sapis_lab.records import read_record
from sapis_lab.sweep.points import points
from sapis_lab.sweep.study import Study
from sapis_lab.training import PointConfig, TrainConfig
from sapis_lab.training.run import run_point


@pytest.fixture(scope="module")
def born(tmp_path_factory: pytest.TempPathFactory, clusters: Path, cache: Path) -> Path:
    """A trained point."""
    folder = tmp_path_factory.mktemp("born") / "point"
    make_point(folder, clusters, kind="geat", steps=60)
    run_point(folder, cache=cache)
    return folder


# ------------------------------------------------------------------------------------------------ parameters


def loss_of(w: Tensor, v: Tensor) -> Tensor:
    x = torch.linspace(-1, 1, 7, dtype=w.dtype)
    return ((torch.tanh(w @ x[: w.shape[-1]]) + v) ** 2).sum() + (w**3).sum()


def problem() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    w = torch.randn(2, 6, 5, dtype=torch.float64)
    return torch.nn.Parameter(w), torch.nn.Parameter(torch.randn(2, 6, dtype=torch.float64))


def low_rank(
    w: Tensor, v: Tensor, kind: type[torch.optim.Optimizer] = torch.optim.SGD, **more: Any
) -> LowRank:
    return LowRank([w, v], build=lambda chosen: kind(chosen, lr=0.1, **more), rank=1, lr=0.1, seed=3)


def test_steps_of_low_rank_are_those_of_the_factors_themselves() -> None:
    w, v = problem()
    optimizer = low_rank(w, v, momentum=0.9)
    (a, b) = (f.detach().clone().requires_grad_() for f in optimizer.state_dict()["factors"][0])
    base, v2 = w.detach().clone(), v.detach().clone().requires_grad_()
    direct = torch.optim.SGD([a, b, v2], lr=0.1, momentum=0.9)
    assert a.shape == (2, 6, 1) and b.shape == (2, 1, 5) and optimizer.n_trained == 2 * 11 + 12
    for k in range(6):
        optimizer.param_groups[0]["lr"] = direct.param_groups[0]["lr"] = 0.01 / (1 + k)  # as a schedule does
        for one in (optimizer, direct):
            one.zero_grad()
        loss_of(w, v).backward()
        loss_of(base + a @ b, v2).backward()
        optimizer.step()
        direct.step()
        torch.testing.assert_close(w, base + a @ b, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(v, v2, rtol=1e-12, atol=1e-14)
    assert torch.linalg.matrix_rank(w.detach() - base).tolist() == [1, 1]


def test_low_rank_goes_on_from_its_state_bit_for_bit(tmp_path: Path) -> None:
    def steps(optimizer: LowRank, w: Tensor, v: Tensor, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            loss_of(w, v).backward()
            optimizer.step()

    w, v = problem()
    optimizer = low_rank(w, v, torch.optim.Adam)
    steps(optimizer, w, v, 3)
    torch.save({"state": optimizer.state_dict(), "w": w.detach(), "v": v.detach()}, tmp_path / "saved")
    saved = torch.load(tmp_path / "saved", weights_only=True)
    steps(optimizer, w, v, 3)
    w2, v2 = (torch.nn.Parameter(saved[name]) for name in "wv")
    other = low_rank(w2, v2, torch.optim.Adam)
    other.load_state_dict(saved["state"])
    steps(other, w2, v2, 3)
    assert torch.equal(w, w2) and torch.equal(v, v2)


@pytest.mark.parametrize("kind", kinds("models"))
def test_readout_and_last_layer_are_part_of_every_family(kind: str) -> None:
    config = kind_class("models", kind)(cutoff=4.0, layers=2).at_size(3e3, n_species=2)
    model = config.build(species=(1, 8), mean_neighbors=4.0, seed=0)
    names = {id(p): name for name, p in model.named_parameters()}
    chosen = {t: {names[id(p)] for p in trained_parameters(model, t)} for t in ("all", "readout", "last")}
    assert chosen["all"] == set(names.values())
    assert set() < chosen["readout"] < chosen["last"] < chosen["all"]
    assert all(name.startswith("readout") for name in chosen["readout"])
    assert not any(".0." in name for name in chosen["last"])


# ----------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("trains", ["readout", "last", "low_rank", "all"])
def test_what_is_not_trained_stays_to_the_bit(
    trains: str, born: Path, tmp_path: Path, clusters: Path, cache: Path
) -> None:
    start = {"point": str(born), "trains": trains, "rank": 1}
    make_point(tmp_path / "p", clusters, kind="geat", steps=20, start=start)
    run_point(tmp_path / "p", cache=cache)
    old, new = (load_file(p / "model.safetensors") for p in (born, tmp_path / "p"))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    model = load_potential(born).model
    names = {id(p): name for name, p in model.named_parameters()}
    assert moved == {names[id(p)] for p in trained_parameters(model, trains)}
    if trains == "low_rank":
        change = (new["represent"] - old["represent"]).double()
        assert int(torch.linalg.matrix_rank(change, rtol=1e-4).max()) == 1


def test_reference_energies_of_another_level_are_no_part_of_what_is_learnt(
    born: Path, tmp_path: Path, clusters: Path, cache: Path
) -> None:
    frames = read(clusters / "clusters.xyz", ":")
    for atoms in frames:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        counts = np.array([(atoms.numbers == 29).sum(), (atoms.numbers == 79).sum()])
        atoms.calc.results = {"energy": energy + counts @ [-45_000.0, 371.5], "forces": forces}
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "clusters.xyz", frames, format="extxyz")
    found = {}
    for name, data, references in (
        ("same", clusters, "refit"),
        ("other", tmp_path / "data", "refit"),
        ("kept", tmp_path / "data", "keep"),
    ):
        start = {"point": str(born), "references": references}
        settings = {"steps": 1, "learning_rate": 1e-9, "refit_references": False}
        make_point(tmp_path / name, data, kind="geat", start=start, **settings)
        run_point(tmp_path / name, cache=cache if data == clusters else tmp_path / "cache")
        found[name] = load_potential(tmp_path / name).references
    assert found["other"][29] - found["same"][29] == pytest.approx(-45_000, abs=0.05)
    assert found["other"][79] - found["same"][79] == pytest.approx(371.5, abs=0.05)
    assert found["kept"] == load_potential(born).references


def test_a_killed_point_of_low_rank_ends_in_the_same_bits(
    born: Path, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    start = {"point": str(born), "trains": "low_rank", "rank": 2}
    for name in ("whole", "killed"):
        make_point(tmp_path / name, clusters, kind="geat", steps=60, start=start)
    assert launcher.run(tmp_path / "whole", cache=cache) == 0, (tmp_path / "whole/log.txt").read_text()
    killed = tmp_path / "killed"
    launcher.start(killed, cache=cache, checkpoint_seconds=0)
    wait_until(lambda: n_rows(killed) >= 10)
    os.kill(pid_of(killed), signal.SIGKILL)
    assert launcher.ended(killed)["status"] == -9 and (killed / "last.ckpt").exists()
    assert launcher.run(killed, cache=cache) == 0
    assert torch.equal(weights(killed), weights(tmp_path / "whole"))


def test_a_start_that_does_not_fit_is_refused(
    born: Path, tmp_path: Path, clusters: Path, cache: Path
) -> None:
    make_point(tmp_path / "wide", clusters, kind="geat", n_params=5e3, start={"point": str(born)})
    with pytest.raises(ValueError, match="is another model than wide was planned with"):
        run_point(tmp_path / "wide", cache=cache)
    start = {"point": str(born), "weights": "0" * 64}
    make_point(tmp_path / "changed", clusters, kind="geat", start=start)
    with pytest.raises(ValueError, match="have changed since it was planned"):
        run_point(tmp_path / "changed", cache=cache)
    raw = {"steps": 5, "start": {"point": "a"}, "task": {"kind": "properties"}}
    raw["targets"] = [{"kind": "property", "name": "gap", "unit": "eV"}]
    with pytest.raises(ConfigError, match="wanted a training of energies and forces without heads"):
        load(TrainConfig, raw, source="t")


# ----------------------------------------------------------------------------------------------------- replay


def test_joined_frames_are_those_of_both_in_turn(clusters: Path, cache: Path, tmp_path: Path) -> None:
    frames = read(clusters / "clusters.xyz", ":")
    for k, atoms in enumerate(frames):
        atoms.rattle(0.02, seed=k)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 7.0 * len(atoms), forces=forces)
    write(tmp_path / "moved.xyz", frames, format="extxyz")
    parts = {
        name: {
            "kind": "files",
            "train": file.name,
            "n_validation": 4,
            "n_test": 3,
            "energy_unit": "eV",
            "length_unit": "Angstrom",
            "root": str(file.parent),
        }
        for name, file in (("main", clusters / "clusters.xyz"), ("replay", tmp_path / "moved.xyz"))
    }
    config: Any = load(JoinedConfig, {**parts, "every": 3, "align": True}, source="t")
    store, main, replay = (prepare(c, cache=cache) for c in (config, config.main, config.replay))
    info = config.info(cutoff=4.0)
    train = store.splits["train"]
    assert info.n_train == len(train) == 13 + 4 and info.n_test == {"test": 3, "test_replay": 3}
    some = store.frames(train[:8])
    mine, theirs = (s.frames(s.splits["train"]) for s in (main, replay))
    assert some.n_atoms.tolist() == [
        *mine.n_atoms[:3],
        theirs.n_atoms[0],
        *mine.n_atoms[3:6],
        theirs.n_atoms[1],
    ]
    # the shift of 7 eV an atom is taken away
    where = [3, 7]
    np.testing.assert_allclose(
        some.energy[where], theirs.energy[:2] - 7.0 * theirs.n_atoms[:2], atol=0.15 * theirs.n_atoms[:2].max()
    )
    assert store.energy[store.splits["test"]].tolist() == main.energy[main.splits["test"]].tolist()
    twice: Any = load(JoinedConfig, {"main": parts["main"], "replay": parts["main"]}, source="t")
    with pytest.raises(ValueError, match="frames of replay are frames of main with the same forces"):
        prepare(twice, cache=cache)
    none: Any = load(JoinedConfig, {**parts, "every": None}, source="t")
    assert len(prepare(none, cache=cache).splits["train"]) == 13


# ------------------------------------------------------------------------------------------------------ plans


def study_from(born: Path, clusters: Path, **changes: Any) -> Study:
    config = load(PointConfig, read_yaml(born / "config.yaml"), source="test")
    train = {"steps": 5, "start": {"point": str(born)}}
    raw: dict[str, Any] = {"name": "x", "question": "?", "data": dump(config.data), "models": ["geat"]}
    raw["lattice"] = {"n_params": [read_record(born).n_params], "n_frames": [12], "seeds": [0, 1]}
    return load(Study, {**raw, "train": train, **changes}, source="test")


def test_points_are_planned_with_model_and_weights_of_their_start(
    born: Path, clusters: Path, tmp_path: Path
) -> None:
    study = study_from(born, clusters)
    first, second = points(study, study.data.info(cutoff=4.0))
    assert first.config.model == load_potential(born).config
    assert first.planned.n_params == read_record(born).n_params
    start = first.config.train.start
    assert start is not None and start.weights == digest(born / "model.safetensors")
    assert first.planned.fingerprint != second.planned.fingerprint
    # from the record that travels with a repository, without weights
    kept = tmp_path / "a" / "records" / "point"
    kept.mkdir(parents=True)
    for name in ("config.yaml", "record.json"):
        (kept / name).write_bytes((born / name).read_bytes())
    start_there = {"point": str(tmp_path / "a" / "points" / "point")}
    moved = study_from(born, clusters, train={"steps": 5, "start": start_there})
    (again, _) = points(moved, study.data.info(cutoff=4.0))
    assert again.config.train.start is not None and again.config.train.start.weights == start.weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["transformer"]}, "a geat of N = .* wanted models: .geat., got transformer"),
        ({"lattice": {"n_params": [3e4], "n_frames": [12]}}, "which is the size of all points; wanted"),
        (
            {"train": {"steps": 5, "start": {"point": "results/none/points/a"}}},
            "a is no finished point",
        ),
    ],
)
def test_a_plan_from_a_start_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, born: Path, clusters: Path
) -> None:
    study = study_from(born, clusters, **changes)
    with pytest.raises(ConfigError, match=message):
        points(study, study.data.info(cutoff=4.0))
