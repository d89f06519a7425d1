"""What counts as finished is whole: records that can be believed, weights that are theirs, answers made from
them."""

from __future__ import annotations

import json
import os
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from stub_points import StubPoint, record

from sapis_lab.config import ConfigError
from sapis_lab.files import digest, with_checksum, write_text
from sapis_lab.records import Planned, read_record, runs_table, write_record, write_table
from sapis_lab.sweep.answers import noting_answers
from sapis_lab.sweep.manifest import Manifest, inputs_hash, write_manifest
from sapis_lab.sweep.whole import finished, note_answers, records_digest, refuse_damaged, verify

INPUTS = "x"


def planned(name: str) -> Planned:
    return Planned.model_validate({k: getattr(record(StubPoint(id=name)), k) for k in Planned.model_fields})


@pytest.fixture
def study(tmp_path):
    """A finished study of two points with weights, table and answers."""
    folder = tmp_path / "results" / "whole"
    manifest = Manifest(inputs=INPUTS, points=(planned("a"), planned("b")))
    write_manifest(folder, manifest)
    for point in manifest.points:
        place = folder / "points" / point.id
        place.mkdir(parents=True)
        save_file({"w": torch.arange(100.0)}, place / "model.safetensors")
        made = record(StubPoint(id=point.id)).model_copy(
            update={"weights": digest(place / "model.safetensors")}
        )
        write_record(place, made)
    write_text(folder / "study.yaml", "law: {quantity: val_force_rmse}\n")
    write_table(runs_table(folder / "points", manifest.points), folder)
    write_text(folder / "fit.json", json.dumps({"quantity": "val_force_rmse"}))
    write_text(folder / "report.html", "<html></html>")
    for name in ("figures/loss_vs_data.pdf", "figures/loss_vs_data.csv", "tables/runs.tex"):
        write_text(folder / name, f"{name}\n")
    note_answers(folder, records_digest(folder, manifest))
    assert finished(folder, INPUTS) == manifest and verify(folder).problems == []
    return folder


ANSWERS = (
    "runs.parquet",
    "runs.csv",
    "fit.json",
    "report.html",
    "figures/loss_vs_data.pdf",
    "figures/loss_vs_data.csv",
    "tables/runs.tex",
)


@pytest.mark.parametrize("name", [*ANSWERS, "answers.json"])
@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "gone", "folder"])
def test_a_study_with_a_damaged_answer_is_not_finished(study, name, how):
    path = study / name
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"empty": b"", "cut": data[:-3], "flipped": bytes([data[0] ^ 1]) + data[1:]}[how])
    later = time.time() + 1e6
    if path.exists():
        os.utime(path, (later, later))  # a time says nothing
    assert finished(study, INPUTS) is None
    assert any(name in problem for problem in verify(study).problems)


def test_records_decide_by_contents_and_not_by_their_times(study):
    path = study / "points/a/record.json"
    os.utime(path, (time.time() + 1e7,) * 2)
    assert finished(study, INPUTS) is not None  # a clock that is ahead does not reopen a study for ever
    write_record(
        study / "points/a",
        read_record(study / "points/a").model_copy(update={"metrics": {"val_force_rmse": 0.2}}),
    )
    os.utime(path, (0, 0))  # nor does one that is behind keep old answers
    assert finished(study, INPUTS) is None
    assert any("made from other records" in problem for problem in verify(study).problems)


def edited(folder, *, checksum: bool, **changes):
    """The record in `folder` with `changes`; with `checksum`, as somebody would who knows the format."""
    path = folder / "record.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(with_checksum(raw) if checksum else raw))
    return folder.parent


EDITS = [
    ({"id": "c"}, "id is 'c', the lattice has 'a'"),
    ({"n_params": 202, "n_params_scalar": 201}, "n_params is 202, the lattice has 101"),
    ({"n_frames": 20}, "n_frames is 20, the lattice has 10"),
    ({"seed": 3}, "seed is 3, the lattice has 0"),
    ({"model": "other"}, "model is 'other', the lattice has 'stub'"),
    ({"science": {"work": "ok", "value": 2.0}}, "its fingerprint is not that of the settings in it"),
    ({"metrics": {"val_force_rmse": -1.0}}, "an error is never negative"),
    ({"metrics": {"test_600K_energy_mae_per_atom": -1e-9}}, "an error is never negative"),
    ({"steps": 0}, "steps"),
]


@pytest.mark.parametrize(("changes", "message"), EDITS)
def test_an_edited_record_reaches_neither_table_nor_answers(study, changes, message):
    points = edited(study / "points/a", checksum=False, **changes)
    with pytest.raises(ConfigError, match="its contents were changed after they were written"):
        runs_table(points, [planned("a"), planned("b")])
    edited(study / "points/a", checksum=True, **changes)
    with pytest.raises(ConfigError, match=message):
        runs_table(points, [planned("a"), planned("b")])
    with pytest.raises(ConfigError, match="record.json"):
        refuse_damaged(study, [planned("a"), planned("b")])
    assert finished(study, INPUTS) is None


@pytest.mark.parametrize("data", [b"", b"[1]", b"null", b"{}", b"\xff\xfe", b'{"schema_version": "new"}'])
def test_a_damaged_record_names_its_file(study, data):
    (study / "points/b/record.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"points/b/record\.json"):
        refuse_damaged(study, [planned("a"), planned("b")])
    assert finished(study, INPUTS) is None


@pytest.mark.parametrize("how", ["empty", "cut", "longer", "header"])
def test_weights_that_are_cut_off_do_not_count_as_finished(study, how):
    path = study / "points/a/model.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": data[:-4], "longer": data + b"0", "header": b"\xff" * 8 + data[8:]}[how]
    )
    assert finished(study, INPUTS) is None
    with pytest.raises(ConfigError, match=r"a/model\.safetensors: has .* remove record\.json beside it"):
        refuse_damaged(study, [planned("a"), planned("b")])


def test_a_bit_turned_over_in_small_weights_does_not_count_as_finished(study):
    path = study / "points/a/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(bytes(data))
    assert finished(study, INPUTS) is None
    with pytest.raises(
        ConfigError, match=r"a/model\.safetensors: is not the file .* remove record\.json beside it"
    ):
        refuse_damaged(study, [planned("a"), planned("b")])


@pytest.mark.parametrize(
    "name", ["points/a/model.safetensors", "report.html", "figures/loss_vs_data.pdf", "answers.json"]
)
def test_a_pipe_in_place_of_a_file_hangs_nobody(study, name):
    (study / name).unlink()
    os.mkfifo(study / name)
    assert finished(study, INPUTS) is None
    assert [p for p in verify(study).problems if name in p]


def test_a_bit_turned_over_in_large_weights_is_found_by_verify(study, monkeypatch):
    monkeypatch.setattr("sapis_lab.sweep.whole.COMPARED_BYTES", 10)
    path = study / "points/a/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(bytes(data))
    assert [
        p
        for p in verify(study).problems
        if "model.safetensors: is not the file that record.json was written with" in p
    ]


@pytest.mark.parametrize("how", ["cut", "edited", "gone"])
def test_settings_that_are_not_those_of_the_points_are_told(study, how):
    manifest = Manifest(inputs=INPUTS, points=(planned("a"), planned("b")))
    write_manifest(study, manifest)
    assert finished(study, INPUTS) is not None
    path = study / "study.yaml"
    text = path.read_text()
    path.unlink()
    if how != "gone":
        path.write_text({"cut": text[: len(text) // 2], "edited": text.replace("val", "test")}[how])
    assert finished(study, INPUTS) is None
    assert any("study.yaml" in problem for problem in verify(study).problems)
    with pytest.raises(ConfigError, match=r"study\.yaml"), noting_answers(study):
        pass


def test_weights_that_were_cleaned_away_are_no_damage(study):
    (study / "points/a/model.safetensors").unlink()
    refuse_damaged(study, [planned("a"), planned("b")])
    assert finished(study, INPUTS) is not None


def test_the_table_holds_the_forms_of_the_step(tmp_path):
    made = record(StubPoint(id="a")).model_copy(update={"kernel": "C++, PyTorch"})
    write_record(tmp_path / "a", made)
    write_table(runs_table(tmp_path, [planned("a")]), tmp_path)
    assert list(pd.read_csv(tmp_path / "runs.csv")["kernel"]) == ["C++, PyTorch"]


def test_the_kernels_reopen_a_study_and_benchmarks_do_not(tmp_path, monkeypatch):
    package = tmp_path / "sapis_lab"
    for name in (
        "sweep/folder.py",
        "kernels/geat.cpp",
        "bench/step.py",
        "selftest/kill.py",
        "models/geat.py",
        "report/page.html.j2",
    ):
        write_text(package / name, "first")
    monkeypatch.setattr("sapis_lab.sweep.manifest.__file__", str(package / "sweep/folder.py"))
    monkeypatch.setenv("SAPIS_HOME", str(tmp_path))
    before, changes = inputs_hash("x", []), {}
    for name in (
        "kernels/geat.cpp",
        "bench/step.py",
        "selftest/kill.py",
        "models/geat.py",
        "report/page.html.j2",
    ):
        write_text(package / name, "second")
        changes[name] = inputs_hash("x", []) != before
        write_text(package / name, "first")
    assert changes == {
        "kernels/geat.cpp": True,
        "bench/step.py": False,
        "selftest/kill.py": False,
        "models/geat.py": True,
        "report/page.html.j2": True,
    }
