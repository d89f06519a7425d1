"""How many points run at a time, on what and through what: one decision for study, tune and scale."""

from __future__ import annotations

import ast
import inspect
import os
from pathlib import Path

import pytest
from rich.console import Console

import sapis_lab
from sapis_lab.config import ConfigError, dump
from sapis_lab.executors.local import LocalConfig
from sapis_lab.executors.slurm import SlurmConfig
from sapis_lab.scaling.campaign import resolve
from sapis_lab.scaling.session import Session, run_scale
from sapis_lab.sweep.planned_study import plan_study
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.resources import Resources, resources
from sapis_lab.sweep.run_study import run_study
from sapis_lab.sweep.study import RunOptions, load_study
from sapis_lab.sweep.tuner.request import TuneRequest
from sapis_lab.sweep.tuner.run_tune import run_tune
from sapis_lab.sweep.tuner.session import use_of


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    for user in ("sapis_lab.sweep.resources", "sapis_lab.executors.local"):
        monkeypatch.setattr(f"{user}.n_cores", lambda: 8)


@pytest.mark.parametrize(
    ("run", "asked", "workers"),
    [
        ({}, {}, 8),
        ({"devices": 2}, {}, 4),
        ({"devices": 3}, {}, 2),
        ({"devices": 16}, {}, 1),
        ({"workers": 3}, {}, 3),
        ({"workers": 3}, {"workers": 5}, 5),
        ({"devices": 2}, {"n_points": 3}, 3),
        ({"executor": "slurm", "slurm": {"at_once": 7}}, {}, 7),
        ({"executor": "slurm", "slurm": {"at_once": 7}}, {"where": "local"}, 8),
    ],
)
def test_cores_are_shared_by_the_devices_of_every_point(run, asked, workers):
    options = RunOptions.model_validate({"device": "cpu", **run})
    found = resources(options, **asked)
    kind = asked.get("where", options.executor.kind)
    chosen = SlurmConfig(options=options.slurm) if kind == "slurm" else LocalConfig()
    assert found == Resources(chosen, workers, "cpu", options.devices, 8)


@pytest.mark.parametrize(
    ("gpus", "device", "wanted"),
    [(None, "auto", "cpu"), (1, "auto", "cuda"), (1, "cpu", "cpu"), (None, "cuda", "cuda")],
)
def test_the_device_of_slurm_is_what_is_asked_of_it(gpus, device, wanted):
    options = RunOptions.model_validate({"executor": "slurm", "device": device, "slurm": {"gpus": gpus}})
    assert resources(options).device == wanted


def test_settings_of_slurm_may_stand_with_its_kind_and_are_written_as_given():
    run = RunOptions.model_validate({"executor": {"kind": "slurm", "options": {"at_once": 3}}})
    assert resources(run).workers == 3 and dump(run)["executor"]["options"]["at_once"] == 3
    for name in ("local", "slurm"):
        assert dump(RunOptions.model_validate({"executor": name}))["executor"] == name


def test_an_unknown_executor_is_told_with_the_nearest():
    told = r"run\.executor: no executors kind 'slrum'; did you mean 'slurm'\? known: local, slurm"
    with pytest.raises(ConfigError, match=told):
        load_study("quickstart", ["run.executor=slrum"])


def test_study_tune_and_scale_give_equal_resources_to_equal_settings(project, monkeypatch):
    settings = ("run.devices=2", "run.device=cpu", "scale.budget=1e16")
    study = plan_study(Request("quickstart-scale", settings)).use
    assert (study.workers, study.devices) == (4, 2)
    assert use_of(TuneRequest("rate-rule"), resolve("quickstart-scale", settings).study) == study
    found = []
    monkeypatch.setattr(Session, "run", lambda self: found.append(self.use) or 0)
    assert run_scale("quickstart-scale", Console(quiet=True), settings=settings) == 0
    assert found == [study]


def test_nobody_else_decides_about_workers():
    """`run.workers`, `run.device` and `run.executor` are read in resources.py alone."""
    package = Path(inspect.getfile(sapis_lab)).parent
    readers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            decides = isinstance(node, ast.Attribute) and node.attr in ("workers", "device", "executor")
            if decides and ast.unparse(node.value).endswith("run"):
                readers.add(path.relative_to(package).as_posix())
    assert readers - {"sweep/resources.py"} <= {
        "sweep/tuner/run_tune.py",
        "training/run.py",
        "training/_record.py",
    }  # to refuse Slurm; the run of one point


@pytest.mark.skipif("SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no rMD17 files to tune on")
@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (
            "null",
            "give run.storage, the URL of a PostgreSQL database, and submit workers, as in sbatch --wrap "
            "'sapis tune rate-rule ",
        ),
        (
            "postgresql+psycopg://u@h/d",
            "from those before it; submit workers, as in sbatch --wrap 'sapis tune rate-rule ",
        ),
    ],
)
def test_tune_on_slurm_is_refused_with_what_to_use_instead(project, storage, words):
    request = TuneRequest("rate-rule", ("run.executor=slurm", f"run.storage={storage}"))
    with pytest.raises(
        ConfigError, match="'slurm' cannot run trials.* or tune on this machine with --set run.executor=local"
    ) as told:
        run_tune(request, Console(quiet=True))
    assert words in str(told.value) and "--worker'" in str(told.value)
    assert not request.folder.exists() and not (project / ".sapis").exists()


def scale(request: Request, console: Console) -> int:
    return run_scale(request.name, console, settings=request.settings)


@pytest.mark.parametrize("command", [run_study, scale])
def test_a_machine_without_slurm_is_told_before_anything_is_spent(project, monkeypatch, command):
    monkeypatch.setenv("PATH", str(project))
    request = Request("quickstart-scale", ("run.executor=slurm", "scale.budget=1e16"))
    with pytest.raises(ConfigError, match="run.executor: 'slurm' wants sbatch, .* use local"):
        command(request, Console(quiet=True))
    assert not (project / ".sapis/data").exists()
