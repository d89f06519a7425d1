"""What README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sapis_lab.config import expand_use, load, read_yaml
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.files import read_json
from sapis_lab.quantities import quantity
from sapis_lab.records import read_table
from sapis_lab.report.baselines import baseline_rows
from sapis_lab.sweep.study import load_study
from sapis_lab.training import TrainConfig

REPOSITORY = Path(__file__).resolve().parent.parent


def code(heading: str) -> str:
    """The first Python block under a heading of README."""
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture
def with_the_model(project: Path) -> dict[str, str]:
    """The environment of a project with README's model as one more kind, in a file outside of the package."""
    place = project / "mine" / "models"
    place.mkdir(parents=True)
    (place / "mymodel.py").write_text(code("Add a model in one file"), encoding="utf-8")
    (project / "configs" / "models" / "mymodel.yaml").write_text("kind: mymodel\n")
    return {**os.environ, "SAPIS_KINDS": str(project / "mine")}


def test_the_model_of_the_readme_passes_the_contract_tests(
    with_the_model: dict[str, str], project: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "mymodel",
        "tests/contracts",
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=with_the_model, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:]
    n = re.search(r"(\d+) passed", done.stdout)
    assert n is not None and int(n[1]) > 40, done.stdout[-500:]


def test_the_model_of_the_readme_can_be_studied(with_the_model: dict[str, str], project: Path) -> None:
    study = (project / "studies" / "smoke.yaml").read_text()
    (project / "studies" / "mine.yaml").write_text(
        re.sub(r"models: .*", "models: [mymodel, {use: mymodel, name: other}]", study)
    )
    command = [sys.executable, "-m", "sapis_lab.cli", "study", "plan", "mine"]
    done = subprocess.run(
        command, cwd=project, env=with_the_model, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mymodel-n" in done.stdout and "other-n" in done.stdout


def section(heading: str) -> str:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_errors_of_further_targets_are_those_of_the_committed_tables() -> None:
    text = section("Learn more than energies and forces")
    row = r"^\| \[`([\w-]+)`\]\((\S+)\) \| (\w+) RMSE, (.+?) \| (.+) \| (.+) \| (.+) \((\w+)\) \|$"
    rows = re.findall(row, text, re.MULTILINE)
    assert len(rows) == 5
    for study, path, what, unit, frames, *errors, other in rows:
        runs = read_table((REPOSITORY / path).parent)
        named = {"polarisability": "alpha"}.get(what, what)
        measured = quantity(f"test_{named}_rmse")
        assert unit == (measured.display_unit or measured.unit) and study in path
        for family, text_of in zip(("geat", other), errors, strict=True):
            of_family = runs[runs["family"] == family].set_index("n_frames")[measured.key]
            for d, value in zip(frames.split(" · "), text_of.split(" · "), strict=True):
                assert value == f"{measured.display_factor * of_family[int(d)]:#.3g}", (study, family, d)


def test_the_settings_of_further_targets_in_the_readme_load() -> None:
    train, data = re.findall(r"```yaml\n(.*?)```", section("Learn more than energies and forces"), re.DOTALL)
    settings = yaml.safe_load(train)
    made = load(TrainConfig, expand_use(settings["train"], "train"), source="README")
    assert {key: head.kind for key, head in made.heads.items()} == {
        "dipole": "charges",
        "charges": "scalar",
        "gap": "scalar",
    }
    measured = {m.key for target in made.task.targets(made) for m in target.measures()}
    assert quantity(settings["law"]["quantity"]).measure in measured
    own = {"train": "a.xyz", "n_validation": 1, "n_test": 1, "energy_unit": "eV", "length_unit": "Angstrom"}
    labels = load(ExtxyzConfig, {"kind": "extxyz", **own, **yaml.safe_load(data)}, source="README")
    assert labels.further_labels()["gap"].unit == "eV" and labels.missing == "mask"


def test_the_programs_that_the_readme_names_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^    make ([a-z]+)", text, re.MULTILINE))
    makefile = (REPOSITORY / "Makefile").read_text()
    assert verbs and all(re.search(rf"^{verb}:", makefile, re.MULTILINE) for verb in verbs)


def test_models_stand_beside_baselines_as_in_the_committed_tables() -> None:
    text = section("Learn more than energies and forces")
    row = r"^\| \[`([\w-]+)`\]\((\S+)\) \| (\d+)" + 5 * r" \| ([\d.–]+)" + r" \|$"
    rows = re.findall(row, text, re.MULTILINE)
    assert len(rows) == 6
    for study, path, n_frames, *shown in rows:
        folder = (REPOSITORY / path).parent
        runs = read_table(folder)
        found = baseline_rows(runs, quantity(read_json(folder / "fit.json")["quantity"]))
        assert found is not None and folder.name == study
        said = {r["name"]: r["text"] for r in found["rows"] if r["n_frames"] == int(n_frames)}
        names = ("mean", "composition", "descriptors", "geat-l2", "transformer")
        assert shown == [said.get(name, "–") for name in names], (study, n_frames)


def test_the_mean_taus_of_the_readme_are_those_of_ten_targets() -> None:
    targets = load_study("affinity").data.targets
    tables = [read_table(REPOSITORY / "results" / f"affinity-{target}") for target in targets]
    assert len(tables) == 10 and all(
        read_yaml(REPOSITORY / "results" / f"affinity-{t}" / "study.yaml")["data"]["held_out"] == [t]
        for t in targets
    )
    every = pd.concat(tables).groupby("model").mean(numeric_only=True)
    of = {
        "GEAT": every["ranking_test_tau"]["geat-l2"],
        "the transformer": every["ranking_test_tau"]["transformer"],
        "the molecular weight": every["ranking_test_tau_of_molecular_weight"]["geat-l2"],
        "the number of heavy atoms": every["ranking_test_tau_of_heavy_atoms"]["geat-l2"],
    }
    text = " ".join(section("Learn more than energies and forces").split())
    for name, tau in of.items():
        assert f"{tau:.2f}".replace("-", "−") + f" for {name}" in text, (name, tau)


def test_what_the_readme_says_of_relaxations_is_in_the_committed_table() -> None:
    runs = read_table(REPOSITORY / "results" / "oc20-relaxation")
    ended, began = (runs[f"relaxation_test_known_displacement{e}"] for e in ("", "_unrelaxed"))
    assert (ended > began).all()
    unseen = runs["relaxation_test_displacement"].dropna()
    assert (unseen > runs["relaxation_test_displacement_unrelaxed"].dropna()).all()
    assert (runs["test_force_rmse"] > runs["baselines_test_force_rmse_of_mean"]).all()
    text = " ".join(section("Learn more than energies and forces").split())
    span = "{:.2f} to {:.2f} Å".format
    said = f"{span(ended.min(), ended.max())} instead of {span(began.min(), began.max())} on these nine"
    assert said in text
