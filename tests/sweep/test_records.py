"""Records are complete and finite; the runs table has one order, one set of types, and all digits."""

from __future__ import annotations

import csv
import json

import pandas as pd
import pytest
from stub_points import StubPoint, record

from sapis_lab.config import ConfigError, dump, load
from sapis_lab.files import write_text
from sapis_lab.records import (
    Planned,
    Record,
    differing_columns,
    read_record,
    read_table,
    runs_table,
    same_numbers,
    write_record,
    write_table,
)
from sapis_lab.text import from_spreadsheets


def planned(point: StubPoint) -> Planned:
    return Planned.model_validate({k: v for k, v in dump(record(point)).items() if k in Planned.model_fields})


@pytest.fixture
def points(tmp_path):
    """Two done points and a failed one, of four that were planned."""
    points = [StubPoint(id=name, value=1 / 3 + k) for k, name in enumerate(("b", "a", "broken", "open"))]
    for point in points[:2]:
        write_record(tmp_path / point.id, record(point))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/failure.txt").write_text("diverged at step 7\n\nTraceback ...\n")
    return points


def table(tmp_path, points):
    return runs_table(tmp_path, [planned(p) for p in points])


def test_a_record_reads_back_equal(tmp_path):
    written = record(StubPoint(id="p"))
    write_record(tmp_path, written)
    assert read_record(tmp_path) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_no_record(value):
    raw = dump(record(StubPoint(id="p"))) | {"metrics": {"val_force_rmse": value}}
    with pytest.raises(ConfigError, match="metrics.val_force_rmse: input should be a finite number"):
        load(Record, raw, source="x")


def test_parameter_groups_add_up():
    raw = dump(record(StubPoint(id="p"))) | {"n_params_scalar": 99}
    with pytest.raises(ConfigError, match=r"1 \+ n_params_scalar 99 must be n_params 101"):
        load(Record, raw, source="x")


def test_a_record_from_before_commits_were_noted_reads(tmp_path):
    raw = dump(record(StubPoint(id="p")))
    del raw["commit"], raw["dirty"]
    write_text(tmp_path / "record.json", json.dumps(raw))
    assert read_record(tmp_path).commit is None and read_record(tmp_path).dirty is None


def test_a_newer_record_is_refused_by_name(tmp_path):
    path = write_record(tmp_path, record(StubPoint(id="p")))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(ConfigError, match="schema version 99.*update sapis_lab"):
        read_record(tmp_path)


def test_a_missing_record_is_told(tmp_path):
    with pytest.raises(ConfigError, match="the point has not finished"):
        read_record(tmp_path)


def test_rows_follow_the_lattice_and_open_points_have_none(tmp_path, points):
    runs = table(tmp_path, points)
    assert runs["id"].tolist() == ["b", "a", "broken"]
    assert runs["status"].tolist() == ["done", "done", "failed"]
    assert runs["failure"].tolist()[2] == "diverged at step 7" and runs["failure"].isna().tolist() == [
        True,
        True,
        False,
    ]
    assert runs["n_frames"].tolist() == [10, 10, 10] and pd.isna(runs["val_force_rmse"][2])


def test_types_do_not_depend_on_what_failed(tmp_path, points):
    some, none = table(tmp_path, points), table(tmp_path, points[2:])
    assert (some.dtypes.drop("val_force_rmse") == none.dtypes).all()


def test_files_hold_the_table_with_all_digits(tmp_path, points):
    runs = table(tmp_path, points)
    write_table(runs, tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path), runs)
    with (tmp_path / "runs.csv").open() as f:
        assert [float(row["val_force_rmse"] or "nan") for row in csv.DictReader(f)][:2] == runs[
            "val_force_rmse"
        ][:2].tolist()
    assert not list(tmp_path.glob(".*tmp"))


def test_a_reason_of_failure_is_no_formula_in_the_csv_file_and_itself_in_parquet(tmp_path, points):
    runs = table(tmp_path, points)
    runs.loc[2, "failure"] = '=HYPERLINK("http://x")'
    write_table(runs, tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path), runs)
    with (tmp_path / "runs.csv").open() as f:
        assert list(csv.DictReader(f))[2]["failure"] == '\'=HYPERLINK("http://x")'
    assert (
        from_spreadsheets(pd.read_csv(tmp_path / "runs.csv"))["failure"].tolist()[2]
        == runs["failure"].tolist()[2]
    )


def test_tables_differ_in_numbers_but_not_in_times_or_hosts(tmp_path, points):
    runs = table(tmp_path, points)
    times = {"seconds_train": 1.0, "cpu_seconds_train": 2.0, "seconds_total": 3.0}
    other = runs.assign(**times, host="elsewhere", device="cuda", commit="0123abc", dirty=True)
    assert same_numbers(runs, other)
    other["val_force_rmse"] = other["val_force_rmse"] * (1 + 2e-16)
    assert differing_columns(runs, other) == ["val_force_rmse"] and not same_numbers(runs, other)
    assert differing_columns(runs, runs.drop(columns="n_params")) == ["n_params"]


def test_points_from_before_training_errors_were_recorded_differ_in_nothing(tmp_path, points):
    runs = table(tmp_path, points)
    later = runs.assign(train_force_rmse=[0.1, 0.2, float("nan")])
    assert same_numbers(runs, later) and same_numbers(later, runs)
    some = later.assign(train_force_rmse=[float("nan"), 0.2, float("nan")])  # the first one was there already
    assert same_numbers(some, later) and same_numbers(runs, some)
    moved = later.assign(train_force_rmse=[0.1, 0.2 * (1 + 2e-16), float("nan")])
    assert differing_columns(some, moved) == differing_columns(later, moved) == ["train_force_rmse"]
    assert differing_columns(later, later[:2]) != []
    assert differing_columns(runs, runs.assign(test_force_rmse=0.1)) == ["test_force_rmse"]


def test_a_table_holds_points_with_and_without_training_errors(tmp_path, points):
    known = record(points[1])
    metrics = {"train_force_mae": 0.25, "test_force_mae": 0.5, **known.metrics}
    write_record(tmp_path / "a", known.model_copy(update={"metrics": metrics}))
    runs = table(tmp_path, points)
    errors = [c for c in runs if c.startswith(("val_", "test_", "train_"))]
    assert errors == ["val_force_rmse", "test_force_mae", "train_force_mae"]
    assert runs["train_force_mae"].isna().tolist() == [True, False, True]
    write_table(runs, tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path), runs)


def test_a_record_of_other_settings_is_not_put_into_the_table(tmp_path, points):
    with pytest.raises(ConfigError, match="made from other settings"):
        table(tmp_path, [points[0].model_copy(update={"value": 9.0})])
