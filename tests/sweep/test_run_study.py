"""A study before and after training: what is told before anything is spent, and what the files and the exit
status say at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console
from stub_points import StubPoint, record

from sapis_lab.config import ConfigError
from sapis_lab.data import DatasetInfo
from sapis_lab.files import write_text
from sapis_lab.records import Planned, write_record
from sapis_lab.sweep import answers, run_study
from sapis_lab.sweep.manifest import Manifest, read_manifest, write_manifest
from sapis_lab.sweep.planned_study import plan_study
from sapis_lab.sweep.prepare import prepare_data
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.study import load_study
from sapis_lab.sweep.whole import finished, note_answers, records_digest

INFO = DatasetInfo(
    species=(1, 6, 8),
    n_train=400,
    n_validation=100,
    n_test={"test": 100},
    mean_atoms=9,
    mean_pairs=72,
    periodic=False,
    bytes_estimate=0,
)
SPLITS = {"train": range(400), "validation": range(100), "test": range(100)}


def test_isolated_atoms_that_the_data_lack_are_missed_before_any_point_starts(project, monkeypatch):
    study = load_study("quickstart", ["train.references=isolated"])
    monkeypatch.setattr("sapis_lab.data.prepare", lambda *_, **__: SimpleNamespace(isolated_atoms=None))
    with pytest.raises(
        ConfigError,
        match=r"train\.references: 'isolated' is wanted, but data 'xtb' have no energies of isolated atoms",
    ):
        prepare_data(study, cores=1, console=Console(quiet=True))


@pytest.mark.parametrize(
    "error", [OSError("disk full"), ImportError("No module named 'tblite'"), RuntimeError("SCF failed")]
)
def test_what_goes_wrong_with_the_data_is_one_message(project, monkeypatch, error):
    def prepare(*_, **__):
        raise error

    monkeypatch.setattr("sapis_lab.data.prepare", prepare)
    with pytest.raises(ConfigError, match=f"data 'xtb': .*{error}"):
        prepare_data(load_study("quickstart"), cores=1, console=Console(quiet=True))


def test_the_lattice_is_planned_again_when_the_finished_data_hold_other_elements(project, monkeypatch):
    known = [INFO]
    monkeypatch.setattr("sapis_lab.sweep.plan.dataset_info", lambda *_, **__: known[-1])
    request = Request("quickstart", ("lattice.n_params=[3e3]", "models=[transformer]"))
    planned = plan_study(request)

    def prepared(*_, **__):
        known.append(replace(INFO, species=(1, 6, 7, 8)))
        return SimpleNamespace(elements=(1, 6, 7, 8), splits=SPLITS)

    trained = []
    monkeypatch.setattr(run_study, "prepare_data", prepared)
    monkeypatch.setattr(
        run_study, "_train", lambda planned, *_: trained.extend(p.config for p in planned.points)
    )
    monkeypatch.setattr(run_study, "conclude", lambda *_, **__: 0)
    assert run_study._run(planned, request, Console(quiet=True)) == 0
    counts = [p.n_params for p in read_manifest(request.folder).points]
    assert counts == [p.n_params for p in trained] == [p.model.n_params(n_species=4) for p in trained]
    assert counts != [p.planned.n_params for p in planned.points]


def test_what_the_run_says_to_every_point_reaches_the_engine(project, monkeypatch):
    request = Request("quickstart", ("run.step=compiled", "run.device=cpu", "lattice.n_params=[3e3]"))
    told = []
    monkeypatch.setattr("sapis_lab.sweep.engine.run", lambda *_, executor, **__: told.append(executor))
    run_study._train(plan_study(request), request, Console(quiet=True))
    cache = str(project / ".sapis" / "data")
    assert told[0].task.arguments == {"cache": cache, "step": "compiled"}


@pytest.fixture
def half_failed(project, monkeypatch):
    """The results of a study with one point done and one failed; nothing is analysed."""
    request = Request("quickstart", called="half")
    good, bad = (StubPoint(id=name) for name in ("good", "bad"))
    planned = [
        Planned.model_validate({k: getattr(record(p), k) for k in Planned.model_fields}) for p in (good, bad)
    ]
    write_manifest(request.folder, Manifest(inputs="x", points=tuple(planned)))
    write_record(request.folder / "points/good", record(good))
    write_text(request.folder / "points/bad/failure.txt", "diverged\n")
    monkeypatch.setattr(answers, "analyse", lambda folder: None)
    monkeypatch.setattr(answers, "print_answers", lambda *_: None)
    return request


@pytest.mark.parametrize(("chosen", "status"), [(["good"], 0), (["bad"], 1), (["good", "bad"], 1)])
def test_the_exit_status_is_about_the_chosen_points(half_failed, chosen, status):
    assert (
        answers.conclude(
            half_failed.folder, half_failed.continued_by, Console(quiet=True), chosen=chosen, seconds=0.0
        )
        == status
    )


def test_an_analysis_that_cannot_be_made_is_one_message(half_failed, monkeypatch):
    def analyse(folder):
        raise ValueError("the runs table lacks the columns test_600K_force_mae")

    monkeypatch.setattr(answers, "analyse", analyse)
    with pytest.raises(
        ConfigError, match="the points are kept, but their analysis failed: the runs table lacks"
    ):
        answers.conclude(
            half_failed.folder, half_failed.continued_by, Console(quiet=True), chosen=["good"], seconds=0.0
        )


def test_answers_about_another_quantity_do_not_finish_a_study(project):
    folder, point = project / "results/one", StubPoint(id="p")
    planned = Planned.model_validate({k: getattr(record(point), k) for k in Planned.model_fields})
    write_manifest(folder, Manifest(inputs="x", points=(planned,)))
    write_record(folder / "points/p", record(point))
    write_text(folder / "study.yaml", "law: {quantity: val_force_rmse}\n")
    for name in ("runs.parquet", "runs.csv", "report.html"):
        write_text(folder / name, "")
    for quantity, is_answer in (("val_force_rmse", True), ("test_force_mae", False)):
        write_text(folder / "fit.json", json.dumps({"quantity": quantity}))
        note_answers(folder, records_digest(folder, read_manifest(folder)))
        assert (finished(folder, "x") is not None) == is_answer


def test_a_damaged_list_of_points_is_told(project):
    write_text(project / "results/one/points.json", "{")
    with pytest.raises(
        ConfigError, match=r"points\.json: not valid JSON.* run the study again to write it anew"
    ):
        read_manifest(project / "results/one")
