"""Evaluations of a study: by `sapis evaluate` and by `evaluate:` in its file, with kinds of the package and
of one's own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest
import yaml
from tiny_study import Forked, scores

from sapis_lab.config import ConfigError, dump_yaml
from sapis_lab.records import read_table
from sapis_lab.selftest._project import Project
from sapis_lab.sweep.manifest import read_manifest
from sapis_lab.sweep.study import Study, load_study

Sapis = Callable[..., str]
MINE = '''
"""How far forces are from zero, on validation frames."""

import os
import time
from typing import Literal

import numpy as np

from sapis_lab.evaluation import Evaluation
from sapis_lab.measures import Quantity


class PushConfig(Evaluation):
    """The largest force."""

    kind: Literal["push"] = "push"
    power: float = 1.0
    """Of the force."""

    @classmethod
    def quantities(cls):
        return (Quantity("largest_{kind}", "largest push on {kind}", "eV/Å", better="lower"),)

    def parts(self, subject):
        return ("first", "second")

    def measure(self, subject, part):
        if part == "second" and os.environ.get("SLOW"):
            print("half of it is measured", flush=True)
            time.sleep(float(os.environ["SLOW"]))
        found = subject.potential.predict(subject.structures(subject.store.splits["validation"]))
        return {"forces": found.forces, "pid": np.array(os.getpid())}

    def score(self, measured):
        largest = np.linalg.norm(measured["first"]["forces"], axis=1).max()
        return {"largest_all": float(largest**self.power)}
'''


@pytest.fixture
def mine(study: Project) -> Project:
    """The finished study with a kind of its own to evaluate."""
    place = study.home / "mine" / "evaluation"
    place.mkdir(parents=True)
    (place / "push.py").write_text(MINE)
    return study


@pytest.fixture
def sapis(study: Project, forked: Forked) -> Sapis:
    """Runs `sapis WORDS` in the project; what it printed."""

    def run(*words: str, status: int = 0) -> str:
        found, said = forked.run(*words, home=study.home)
        assert found == status, said
        return said

    return run


def edited(study: Project, **changes: object) -> None:
    """The study file with other settings."""
    path = study.home / "studies" / f"{study.name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def ids(study: Project) -> list[str]:
    return [p.id for p in read_manifest(study.folder).points]


def test_the_command_evaluates_what_is_asked_and_the_table_has_it(study: Project, sapis: Sapis) -> None:
    before = read_table(study.folder)
    said = sapis("evaluate", study.name, "--kind", "errors", "--only", "n_frames=12")
    assert "1 of 1 points evaluated (errors), 0 failed" in said
    table = read_table(study.folder)
    columns = [c for c in table if c.startswith("errors_")]
    assert columns and table[columns].notna().all(axis=1).tolist() == [True, False]
    assert table[list(before)].equals(before)
    said = sapis("evaluate", study.name, "--kind", "errors")
    assert "evaluating 1 points: errors" in said and "2 of 2 points evaluated" in said
    assert read_table(study.folder)[columns].notna().all(axis=None)
    assert (study.folder / "records" / ids(study)[0] / "evaluation" / "errors.json").exists()
    # a law of what was evaluated, as a figure shows it
    sapis("fit", study.name, "--quantity", "errors_test_force_error_q90")
    assert json.loads((study.folder / "fit.json").read_text())["quantity"] == "errors_test_force_error_q90"
    caption = (study.folder / "figures" / "loss_vs_data.txt").read_text()
    assert "90 % quantile of the force error of an atom" in caption
    # with weights lost, nothing that is scored is lost
    for point in (study.folder / "points").iterdir():
        (point / "model.safetensors").unlink()
    assert "2 of 2 points evaluated" in sapis("evaluate", study.name, "--kind", "errors")
    said = sapis("evaluate", study.name, "--kind", "cost", status=1)
    assert "0 of 2 points evaluated (cost), 2 failed" in said and "lost its weights" in said


def test_a_study_file_says_what_is_evaluated_with_kinds_of_its_own(mine: Project, sapis: Sapis) -> None:
    law = {"bootstrap": 100, "calibrate": 0, "quantity": "push-far_largest_all"}
    push = [{"kind": "push", "name": "far"}, {"kind": "push", "name": "square", "power": 2.0}]
    edited(mine, kinds="mine", evaluate=[*push, {"kind": "smoothness", "n_frames": 1}], law=law)
    said = sapis("study", "run", mine.name)
    assert "evaluating 2 points: push-far, push-square, smoothness" in said
    table = read_table(mine.folder)
    assert (table["push-square_largest_all"] - table["push-far_largest_all"] ** 2).abs().max() < 1e-12
    fit = json.loads((mine.folder / "fit.json").read_text())
    caption = (mine.folder / "figures" / "loss_vs_data.txt").read_text()
    assert fit["quantity"] == "push-far_largest_all" and "argest push on all (far)" in caption
    page = (mine.folder / "report.html").read_text()
    assert "largest push on all" in page and "<h2>In use</h2>" in page
    assert "evaluated (push-far, push-square, smoothness): 2 of 2 done points" in sapis(
        "study", "status", mine.name
    )
    assert "every point is evaluated: push-far, push-square, smoothness" in sapis("study", "plan", mine.name)
    assert "is finished: all 2 points are done" in sapis("study", "run", mine.name)
    # a table tells what its columns are, also where the kind is not known
    (mine.home / "mine" / "evaluation" / "push.py").unlink()
    from sapis_lab.quantities import quantity

    read_table(mine.folder)
    assert quantity("push-far_largest_all").label == "largest push on all (far)"


@pytest.mark.long
def test_a_study_is_not_finished_while_an_evaluation_is_missing(study: Project, sapis: Sapis) -> None:
    edited(study, evaluate=["errors"])
    (study.home / "configs" / "evaluation").mkdir(parents=True)
    (study.home / "configs" / "evaluation" / "errors.yaml").write_text("kind: errors\nmost_frames: 3\n")
    assert "2 of 2 points done" in sapis("study", "run", study.name)
    scored = study.folder / "points" / ids(study)[1] / "evaluation" / "errors.json"
    kept = study.folder / "records" / ids(study)[1] / "evaluation" / "errors.json"
    scored.unlink()
    said = sapis("study", "run", study.name)
    assert "2 of 2 points done" in said and "evaluating" not in said and scored.exists(), "from its kept copy"
    scored.unlink()
    kept.unlink()
    assert "evaluating 1 points: errors" in sapis("study", "run", study.name)
    assert "all is whole" in sapis("study", "verify", study.name)
    said = sapis("study", "clean", study.name, "--also", "arrays", "--yes")
    assert "raw arrays of evaluations" in said and not list((study.folder / "evaluations").rglob("*.npz"))
    assert "is finished" in sapis("study", "run", study.name)


@pytest.mark.long
def test_an_evaluation_that_is_stopped_goes_on_with_what_is_not_measured(mine: Project, sapis: Sapis) -> None:
    edited(mine, kinds="mine", evaluate=[{"kind": "push"}])
    job = mine.folder / "evaluations" / ids(mine)[0]
    for number, wanted in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        process = mine.start("study", "run", mine.name, SLOW="100")
        end = time.monotonic() + 120
        while not (job / "log.txt").exists() or "half of it" not in (job / "log.txt").read_text():
            assert process.poll() is None and time.monotonic() < end, mine.log()
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == wanted, mine.log()
        assert not (job / "failure.txt").exists() and not (job / "evaluated.json").exists()
        assert (job / "push" / "first.npz").exists() and not (job / "push" / "second.npz").exists()
        digest = (job / "push" / "first.npz").read_bytes()
        (job / "log.txt").unlink()
    assert "2 of 2 points done" in sapis("study", "run", mine.name)
    assert (job / "push" / "first.npz").read_bytes() == digest, "measured once"
    assert "first is measured already" in (job / "log.txt").read_text()
    assert scores(mine, ids(mine)[0], "push")["largest_all"] > 0


@pytest.mark.long
def test_a_failed_evaluation_costs_neither_points_nor_answers(mine: Project, sapis: Sapis) -> None:
    path = mine.home / "mine" / "evaluation" / "push.py"
    path.write_text(
        MINE.replace("found = subject", 'raise RuntimeError("no push today")\n        found = subject')
    )
    edited(mine, kinds="mine", evaluate=[{"kind": "push"}, {"kind": "errors"}])
    said = sapis("study", "run", mine.name, status=1)
    assert "2 of 2 points done, 0 failed" in said and said.count("push: RuntimeError: no push today") == 2
    assert read_table(mine.folder)["errors_test_force_error_max"].notna().all()
    assert "report" in said and (mine.folder / "report.html").exists()
    path.write_text(MINE)
    said = sapis("study", "run", mine.name, status=1)
    assert "no push today" in said, "what failed is left until it is asked for"
    assert "2 of 2 points evaluated" in sapis("evaluate", mine.name, "--retry-failed")
    assert read_table(mine.folder)["push_largest_all"].gt(0).all()


@pytest.mark.long
def test_damaged_scores_are_refused_before_anything_is_spent(study: Project, sapis: Sapis) -> None:
    evaluate = ("evaluate", study.name, "--kind", "errors")
    sapis(*evaluate)
    path = study.folder / "points" / ids(study)[0] / "evaluation" / "errors.json"
    whole = path.read_text()
    path.write_text(whole.replace('"version": 1', '"version": 2'))
    for words, status in (
        (evaluate, 2),
        (("study", "run", study.name), 2),
        (("report", study.name), 2),
        (("study", "verify", study.name), 1),
    ):
        said = sapis(*words, status=status)
        assert "errors.json: its contents were changed" in said, words
        assert "remove that file and evaluate again" in said, words
    path.unlink()
    assert "2 of 2 points evaluated" in sapis(*evaluate) and path.read_text() == whole


def test_what_cannot_be_evaluated_is_said(study: Project, sapis: Sapis) -> None:
    said = sapis("evaluate", study.name, status=2)
    assert "its study has no evaluate:" in said and "known: baselines, classical, conformers" in said
    said = sapis("evaluate", study.name, "--kind", "error", status=2)
    assert "--kind: evaluate.0: configs/evaluation/ has no 'error'" in said
    assert "nothing" in sapis("evaluate", "nothing", "--kind", "errors", status=2)
    assert "names no point" in sapis(
        "evaluate", study.name, "--kind", "errors", "--only", "n_frames=13", status=2
    )


def test_a_study_without_evaluations_is_written_as_before(project) -> None:
    study = load_study("smoke")
    assert "evaluate" not in dump_yaml(study)
    assert Study.model_validate(yaml.safe_load(dump_yaml(study))) == study
    evaluated = load_study("smoke", ["evaluate=[errors, {use: errors, name: few, most_frames: 2}]"])
    assert [e.label for e in evaluated.evaluate] == ["errors", "errors-few"]
    assert Study.model_validate(yaml.safe_load(dump_yaml(evaluated))) == evaluated
    for settings, why in (
        ("evaluate=[errors, errors]", "evaluate: 'errors' appears more than once; set a different `name:`"),
        (
            "law.quantity=errors_test_force_mae_H",
            r"measured by the evaluation 'errors', which is not in evaluate:",
        ),
        ("evaluate=[{kind: errors, name: a_b}]", "evaluate.0.name: string should match"),
        ("evaluate=[erors]", r"has no 'erors'; did you mean 'errors'"),
    ):
        with pytest.raises(ConfigError, match=why):
            load_study("smoke", [settings])
    with pytest.raises(ConfigError, match="measured by an evaluation, after the training"):
        load_study(
            "smoke",
            ["evaluate=[errors]", "tune={space: {train.learning_rate: {log: [1e-3, 1e-2]}}}"]
            + ["law.quantity=errors_test_force_mae_H"],
        )


def test_the_command_that_goes_on_is_one_for_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    from sapis_lab.sweep.evaluate import EvaluateRequest

    request = EvaluateRequest("tiny", ("errors",), ("geat-*",), "slurm")
    words = "--kind errors --only 'geat-*' --executor slurm"
    assert request.again() == f"sapis evaluate tiny {words}"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert request.again(retry=True) == f'make evaluate NAME=tiny ARGS="{words} --retry-failed"'
    assert EvaluateRequest("tiny").again() == "make evaluate NAME=tiny"
