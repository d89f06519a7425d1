"""Evaluating a finished point: what is measured once is kept, what failed costs nothing else, and scores join
the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_study import scores

from sapis_lab import evaluation as package
from sapis_lab.config import ConfigError, kind_class
from sapis_lab.evaluation import EvaluationsFailed, evaluate_point, is_evaluated, write_request
from sapis_lab.evaluation._arrays import Arrays, damaged_parts
from sapis_lab.files import with_checksum
from sapis_lab.records import read_evaluated, read_record, read_table, runs_table, same_numbers
from sapis_lab.selftest._project import Project
from sapis_lab.sweep.manifest import read_manifest

ERRORS = kind_class("evaluation", "errors")()
SMOOTHNESS = kind_class("evaluation", "smoothness")(n_frames=1, n_pairs=2, n_directions=2)


@pytest.fixture
def id(study: Project) -> str:
    return read_manifest(study.folder).points[0].id


def ask(study: Project, id: str, *evaluations: package.Evaluation) -> Path:
    """The folder in which these evaluations of a point have been done."""
    job = study.folder / "evaluations" / id
    write_request(job, evaluations)
    evaluate_point(job, cache=study.home.parent / "cache")
    return job


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of `smoothness` that are measured from now on."""
    found: list[str] = []
    measure = type(SMOOTHNESS).measure

    def noted(self, subject, part):
        found.append(part)
        return measure(self, subject, part)

    monkeypatch.setattr(type(SMOOTHNESS), "measure", noted)
    return found


@pytest.fixture(autouse=True)
def _same_store(frames: Path, study: Project) -> None:
    (study.home.parent / "cache").symlink_to(frames / "cache")


def table(study: Project):
    return runs_table(study.folder / "points", read_manifest(study.folder).points)


def test_a_table_without_evaluations_is_what_it_was(study: Project) -> None:
    assert table(study).equals(read_table(study.folder))
    assert not [c for c in table(study) if c.startswith("errors")]


def test_scores_join_the_table_and_agree_with_those_of_training(study: Project, id: str) -> None:
    ask(study, id, ERRORS, SMOOTHNESS.model_copy(update={"name": "quick"}))
    runs = table(study).set_index("id")
    found = scores(study, id, "errors")
    assert {f"errors_{k}": v for k, v in found.items()} == {
        c: runs.loc[id, c] for c in runs if c.startswith("errors_")
    }
    assert runs.loc[id, "smoothness-quick_force_jump"] < 1e-2
    others = runs.drop(index=id)
    assert others[[c for c in runs if c.startswith("errors_")]].isna().all(axis=None)
    # force MAE over all components, from those of the elements
    species = np.load(study.folder / "evaluations" / id / "errors" / "test.npz")["species"]
    share = {z: (species == z).mean() for z in np.unique(species)}
    symbols = {1: "H", 6: "C", 8: "O"}
    total = sum(share[z] * found[f"test_force_mae_{symbols[z]}"] for z in share)
    assert total == pytest.approx(runs.loc[id, "test_force_mae"], rel=1e-4)


def test_what_was_measured_is_kept_and_scored_again_alone(study: Project, id: str, monkeypatch) -> None:
    done = counted(monkeypatch)
    job = ask(study, id, SMOOTHNESS)
    first = scores(study, id, "smoothness")
    assert done == ["cutoff", "slope"] and (job / "evaluated.json").exists()
    (study.folder / "points" / id / "evaluation" / "smoothness.json").unlink()
    ask(study, id, SMOOTHNESS)
    assert done == ["cutoff", "slope"] and scores(study, id, "smoothness") == first
    ask(study, id, SMOOTHNESS)  # nor scored, where scores are there
    other = SMOOTHNESS.model_copy(update={"seed": 5})
    record = read_record(study.folder / "points" / id)
    assert is_evaluated(study.folder / "points" / id, SMOOTHNESS, record)
    assert not is_evaluated(study.folder / "points" / id, other, record)
    ask(study, id, other)
    assert done == ["cutoff", "slope"] * 2 and scores(study, id, "smoothness") != first


def test_costs_do_not_make_tables_differ(study: Project, id: str) -> None:
    tables = []
    for name in ("a", "b"):
        cost = kind_class("evaluation", "cost")(batches=(1, 4), repeats=2)
        job = ask(study, id, cost)
        tables.append(table(study))
        (study.folder / "points" / id / "evaluation" / "cost.json").unlink()
        (job / "cost" / "measured.json").rename(job / name)
    assert any(c.startswith("cost_seconds_per_atom") for c in tables[0])
    assert same_numbers(*tables) and not tables[0].equals(tables[1])


def test_an_interrupted_measurement_goes_on_with_the_next_part(study: Project, id: str, monkeypatch) -> None:
    measure, done = type(SMOOTHNESS).measure, []

    def interrupted(self, subject, part):
        if part == "slope" and "stopped" not in done:
            done.append("stopped")
            raise SystemExit(75)
        done.append(part)
        return measure(self, subject, part)

    monkeypatch.setattr(type(SMOOTHNESS), "measure", interrupted)
    with pytest.raises(SystemExit):
        ask(study, id, SMOOTHNESS)
    job = study.folder / "evaluations" / id
    assert not (job / "evaluated.json").exists()
    evaluate_point(job, cache=study.home.parent / "cache")
    assert done == ["cutoff", "stopped", "slope"] and (job / "evaluated.json").exists()


def test_damaged_arrays_are_measured_again(study: Project, id: str, monkeypatch) -> None:
    done = counted(monkeypatch)
    job = ask(study, id, SMOOTHNESS)
    first, place = scores(study, id, "smoothness"), job / "smoothness"
    for damage in ("cut", "edited manifest", "no manifest"):
        done.clear()
        if damage == "cut":
            (place / "slope.npz").write_bytes((place / "slope.npz").read_bytes()[:-7])
            (problem,) = damaged_parts(place)
            assert problem.startswith(f"{place / 'slope.npz'}: not what was written; remove {place}")
        elif damage == "edited manifest":
            text = (place / "measured.json").read_text()
            (place / "measured.json").write_text(text.replace('"cutoff"', '"other"'))
            assert "contents were changed" in damaged_parts(place)[0]
        else:
            (place / "measured.json").unlink()
        (study.folder / "points" / id / "evaluation" / "smoothness.json").unlink()
        ask(study, id, SMOOTHNESS)
        assert done == (["slope"] if damage == "cut" else ["cutoff", "slope"])
        assert scores(study, id, "smoothness") == first and damaged_parts(place) == []


def test_a_failed_evaluation_costs_no_other(study: Project, id: str, monkeypatch) -> None:
    def broken(self, subject, part):
        raise RuntimeError("no electricity\nmore about it")

    monkeypatch.setattr(type(SMOOTHNESS), "measure", broken)
    with pytest.raises(EvaluationsFailed, match=r"^smoothness: RuntimeError: no electricity$"):
        ask(study, id, SMOOTHNESS, ERRORS)
    assert scores(study, id, "errors")
    assert not (study.folder / "evaluations" / id / "evaluated.json").exists()


def test_damaged_and_foreign_scores_are_refused_by_name(study: Project, id: str) -> None:
    ask(study, id, ERRORS)
    path = study.folder / "points" / id / "evaluation" / "errors.json"
    whole = path.read_text()
    raw = json.loads(whole)
    del raw["checksum"]
    edits = {
        "its contents were changed after they were written": whole.replace('"kind"', '"kinds"'),
        "not valid JSON": whole[:-20],
        "lacks checksum": json.dumps(raw),
        "has schema version 99": json.dumps(with_checksum({**raw, "schema_version": 99})),
        "its contents are of the evaluation 'errors-x'": json.dumps(with_checksum({**raw, "name": "x"})),
        "scores.test_force_mae_H: input should be a finite number": json.dumps(
            with_checksum({**raw, "scores": {"test_force_mae_H": "nan"}})
        ),
        "was measured on other weights than those of record.json": json.dumps(
            with_checksum({**raw, "weights": "0" * 64})
        ),
    }
    for why, text in edits.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"evaluation/errors\.json.*{why}"):
            table(study)
        path.unlink()
    path.write_text(whole)
    assert read_evaluated(path).label == "errors" and "errors_test_force_error_max" in table(study)


def test_a_point_without_weights_is_told(study: Project, id: str) -> None:
    (study.folder / "points" / id / "model.yaml").unlink()
    with pytest.raises(EvaluationsFailed, match=r"errors: ConfigError: .*holds no trained potential"):
        ask(study, id, ERRORS)


def test_arrays_of_objects_and_names_with_paths_are_refused(tmp_path: Path) -> None:
    arrays = Arrays(tmp_path, "f")
    with pytest.raises(ValueError, match="x holds Python objects"):
        arrays.keep("all", {"x": np.array([{}])})
    with pytest.raises(ValueError, match=r"'\.\./out' cannot name a part"):
        arrays.keep("../out", {"x": np.zeros(2)})
    arrays.keep("all", {"x": np.arange(3), "words": np.array(["a", "bc"])})
    again = Arrays(tmp_path, "f")
    assert again.has("all") and again.read("all")["words"].tolist() == ["a", "bc"]
    assert not Arrays(tmp_path, "other").has("all")
