"""`sapis export` and `sapis model`, on the points of a finished study."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import ase.io
import numpy as np
import pytest
import yaml

import sapis_lab
from sapis_lab import cli
from sapis_lab.config import kind_class
from sapis_lab.potential import Potential, load_potential, save_potential

ERRORS = {"a": 0.3, "b": 0.1, "c": 0.2}


@pytest.fixture
def run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs `sapis` in this process, inside a project with a study of three points."""
    monkeypatch.chdir(project)

    def command(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sapis", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        out = capsys.readouterr()
        return CompletedProcess(arguments, code, out.out, out.err)

    return command


@pytest.fixture
def points(project: Path) -> Path:
    """The points of a study, as their trainings leave them, of molecules in a file."""
    from sapis_lab.selftest.ranks import write_molecules

    write_molecules(project / "molecules.xyz")
    units = {"energy_unit": "eV", "length_unit": "Angstrom"}
    data = {"kind": "extxyz", "train": "molecules.xyz", "n_validation": 8, "n_test": 8, **units}
    data["root"] = str(project)
    species = sorted({int(z) for a in ase.io.read(project / "molecules.xyz", ":") for z in a.numbers})
    config = kind_class("models", "geat")(cutoff=3.0).at_size(3e3, n_species=len(species))
    energy = np.mean([a.get_potential_energy() / len(a) for a in ase.io.read(project / "molecules.xyz", ":")])
    (project / "results" / "mine").mkdir(parents=True)
    (project / "results" / "mine" / "study.yaml").write_text("law: {quantity: val_force_mae}\n")
    for seed, (id, error) in enumerate(ERRORS.items()):
        place = project / "results" / "mine" / "points" / id
        model = config.build(species=tuple(species), mean_neighbors=6.0, seed=seed)
        origin = {"id": id, "fingerprint": "f" * 64, "n_frames": 12}
        references = dict.fromkeys(species, float(energy))
        sha = save_potential(place, Potential(model, config, references, 6.0, origin))
        (place / "config.yaml").write_text(yaml.safe_dump({"id": id, "data": data}))
        (place / "record.json").write_text(json.dumps(_record(id, error, sha)))
    return project / "results" / "mine" / "points"


def _record(id: str, error: float, weights: str) -> dict:
    whole = {"n_params": 10, "n_params_equivariant": 4, "n_params_scalar": 6, "n_frames": 12, "steps": 1}
    zero = {f"flops_{k}": 0 for k in ("per_step", "elementwise_per_step", "train", "inference_per_frame")}
    zero |= {f"{k}seconds_train": 0 for k in ("", "cpu_")} | {"seconds_total": 0, "seed": 0}
    words = {"id": id, "fingerprint": "f" * 64, "model": "geat-l2", "family": "geat", "symmetry": "O(3)"}
    rest = {"n_params_target": 10.0, "batch_size": 1, "learning_rate": 0.1, "epochs": 1.0, "samples": 1}
    metrics = {"val_force_mae": error, "val_force_rmse": 1 - error, "test_force_mae": 2 * error}
    return (
        whole | zero | words | rest | {"science": {}, "device": "cpu", "metrics": metrics, "weights": weights}
    )


def refused(done: CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


def test_the_best_point_is_that_of_the_least_error_of_the_law(run, points: Path, project: Path) -> None:
    done = run("export", "mine/best", "--to", "ase", "--out", "out")
    assert done.returncode == 0 and "out: b for ase" in done.stdout, done.stderr
    card = yaml.safe_load((project / "out" / "card.yaml").read_text())
    assert card["name"] == "b" and card["errors"]["val_force_mae"]["value"] == 0.1
    assert card["errors"]["test_force_mae"] == {"value": 0.2, "unit": "eV/Å", "what": "test force MAE"}
    assert card["weights_sha256"] == load_sha(points / "b")


def load_sha(place: Path) -> str:
    return yaml.safe_load((place / "model.yaml").read_text())["weights_sha256"]


@pytest.mark.parametrize("words", ["mine/c", "results/mine/points/c", "results/mine/points/c/"])
def test_a_point_is_named_by_its_study_or_its_folder(run, points: Path, project: Path, words: str) -> None:
    assert run("export", words).returncode == 0
    atoms = ase.io.read(project / "molecules.xyz")
    given, found = (sapis_lab.load_model(p) for p in (points / "c", project / "c-ase"))
    assert given.get_potential_energy(atoms) == found.get_potential_energy(atoms)


def test_what_is_no_point_is_refused_with_the_nearest(run, points: Path, project: Path) -> None:
    refused(
        run("export", "mine/aa"), "mine has no finished point 'aa'", "did you mean 'a'?", "known: a, b, c"
    )
    refused(run("export", "other/a"), "results/other holds no trained potential")
    refused(run("export", "mine"), "mine: wanted NAME/POINT of results/, NAME/best, or a folder")
    refused(run("export", "../a"), "cannot name a study")
    (points / "a" / "model.yaml").unlink()
    refused(run("export", "results/mine/points/a"), "its trained potential (model.yaml) is not there")
    refused(run("export", "mine/a"), "known: b, c")
    refused(run("export", "mine/b", "--to", "ases"), "no exports kind 'ases'; did you mean 'ase'?")
    refused(run("export", "mine/b", "--to", "ipi", "step=3"), "unknown key 'step'; did you mean 'steps'?")
    refused(run("export", "mine/b", "--to", "ipi", "steps"), "wanted key=value")
    refused(run("export", "mine/b", "--out", str(points / "b" / "new")), "wanted a folder outside of")
    assert not list(project.glob("*-ase")) and not (points / "b" / "new").exists()


def test_a_patched_point_is_exported_with_its_record_and_its_changes(
    run, points: Path, project: Path
) -> None:
    done = run("model", "patch", "mine/b", "--out", "new", "reference_energies.H=-1.5", "licence=MIT")
    assert done.returncode == 0 and "eV became -1.5 eV" in done.stdout, done.stderr
    assert load_potential(points / "b").references[1] != -1.5  # what was trained stays
    assert run("export", "new", "--out", "out").returncode == 0
    card = yaml.safe_load((project / "out" / "card.yaml").read_text())
    assert card["reference_energies_ev"]["H"] == -1.5 and card["licence"] == "MIT"
    assert card["errors"]["val_force_mae"]["value"] == 0.1 and len(card["patches"]) == 2
    refused(run("model", "patch", "mine/b", "--out", "new", "licence=MIT"), "there is something of that name")
    refused(run("model", "patch", "mine/b", "--out", "n", "licens=MIT"), "did you mean 'licence'?")


def test_a_point_with_uncertainty_keeps_it_in_patches_and_exports(run, points: Path, project: Path) -> None:
    done = run("model", "uncertainty", "mine/b", "--out", "known")
    assert done.returncode == 0 and "scaled on validation frames" in done.stdout, done.stderr
    assert run("model", "patch", "known", "--out", "new", "notes=mine").returncode == 0
    assert run("export", "new", "--out", "out").returncode == 0
    atoms = ase.io.read(project / "molecules.xyz")
    atoms.calc = sapis_lab.load_model(project / "out", stop_above=1e9)
    atoms.get_forces()
    assert atoms.calc.results["forces_std"].shape == (len(atoms), 3) and atoms.calc.results["energy_std"] > 0
    shutil.copy(project / "out" / "model.yaml", project / "known" / "x.yaml")
    (project / "new" / "config.yaml").unlink()
    refused(run("model", "uncertainty", "new", "--out", "n"), "its training data are not stated")
