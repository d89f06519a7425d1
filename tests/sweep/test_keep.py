"""Records travel with a repository: a clone trains only what is missing, and never believes a kept record of
something else."""

from __future__ import annotations

import json
import shutil

import pytest
from stub_points import StubPoint, record

from sapis_lab.config import ConfigError, load
from sapis_lab.files import digest, with_checksum, write_text
from sapis_lab.records import Evaluated, Planned, read_record, write_evaluated, write_record
from sapis_lab.sweep import engine
from sapis_lab.sweep.answers import rebuild_table
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.keep import keep, restore
from sapis_lab.sweep.manifest import Manifest, write_manifest

POINTS = [StubPoint(id=name) for name in ("a", "b", "c")]


def planned(point: StubPoint) -> Planned:
    return Planned.model_validate({k: getattr(record(point), k) for k in Planned.model_fields})


PLANNED = [planned(p) for p in POINTS]
SPEED = Evaluated(
    kind="speed",
    settings={},
    version=1,
    fingerprint="f",
    point="p",
    weights="w",
    scores={"metres": 3.0},
    seconds=1.0,
    device="cpu",
)


@pytest.fixture
def clone(tmp_path):
    """What git has of a study of three points, two of which had finished: no points/, two kept records."""
    folder = tmp_path / "results" / "long"
    write_manifest(folder, Manifest(inputs="x", points=tuple(PLANNED)))
    for point in POINTS[:2]:
        write_record(point_folder(folder, point.id), record(point))
        write_text(point_folder(folder, point.id) / "config.yaml", f"id: {point.id}\n")
        write_evaluated(point_folder(folder, point.id), SPEED.model_copy(update={"point": point.fingerprint}))
        keep(folder, point.id)
    shutil.rmtree(folder / "points")
    return folder


def test_a_clone_trains_only_what_is_missing(clone):
    assert restore(clone, PLANNED) == ["a", "b"]
    assert (clone / "points/a/evaluation/speed.json").exists()
    events = []
    found = engine.run(
        POINTS,
        folder=clone,
        cache=clone,
        target="stub_points:run_point",
        preload=["stub_points"],
        on_event=events.append,
    )
    assert [r.id for r in found] == ["a", "b", "c"]
    assert {e.id: e.kind for e in events if e.kind in ("kept", "done")} == {
        "a": "kept",
        "b": "kept",
        "c": "done",
    }
    assert digest(clone / "records/c/record.json") == digest(clone / "points/c/record.json")
    assert restore(clone, PLANNED) == []


def test_the_table_of_a_partial_study_is_made_from_kept_records(clone):
    import pandas as pd

    rebuild_table(clone)
    runs = pd.read_csv(clone / "runs.csv")
    assert list(runs["id"]) == ["a", "b"] and list(runs["speed_metres"]) == [3.0, 3.0]


def test_kept_evaluations_come_back_beside_the_same_record_alone(clone):
    restore(clone, PLANNED)
    of_a, of_b = (clone / f"points/{id}/evaluation/speed.json" for id in "ab")
    of_a.unlink()
    of_b.unlink()
    other = read_record(clone / "points/b").model_copy(update={"host": "elsewhere"})
    write_record(clone / "points/b", other)
    assert restore(clone, PLANNED) == [] and of_a.exists() and not of_b.exists()


def test_a_kept_record_that_was_edited_is_refused(clone):
    path = clone / "records/a/record.json"
    raw = json.loads(path.read_text())
    raw["metrics"]["val_force_rmse"] = 0.01
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"records/a/record\.json: its contents were changed"):
        restore(clone, PLANNED)
    path.write_text(json.dumps(with_checksum(raw | {"n_frames": 11})))
    with pytest.raises(ConfigError, match=r"records/a/record\.json: n_frames is 11, the lattice has 10"):
        restore(clone, PLANNED)


def test_a_kept_record_of_other_settings_is_told_and_not_taken(clone):
    others = [load(StubPoint, {"id": "a", "value": 2.0}, source="x"), *POINTS[1:]]
    assert restore(clone, [planned(p) for p in others]) == ["b"]
    with pytest.raises(engine.Refused, match=r"a: value 1\.0 -> 2\.0"):
        engine.refuse_other_settings(others, clone)


def test_a_point_whose_weights_are_not_those_of_its_record_is_trained_again(clone):
    write_text(point_folder(clone, "a") / "model.safetensors", "damaged")
    assert restore(clone, PLANNED) == ["b"]
    kept = read_record(clone / "records/b")
    assert kept.weights is None  # and without a word in the record, weights beside it cannot be its own
