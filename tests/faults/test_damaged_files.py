"""Every file of ours that is damaged, hostile, or no file at all is one kind of error, which names it and
says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sapis_lab.analysis.regime import read_regime
from sapis_lab.analysis.table import read_frame
from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.data._arrays import GrowingArrays
from sapis_lab.data._store import FrameStore, is_sealed
from sapis_lab.executors import slurm
from sapis_lab.jobs.event_log import read_events
from sapis_lab.jobs.folder import failure_reason, read_progress
from sapis_lab.records import FAILURE, read_raw, read_table
from sapis_lab.report.page import figures, not_drawn
from sapis_lab.report.verdict import read_fit
from sapis_lab.scaling.history import read_decisions, read_history
from sapis_lab.sweep import provenance, submission
from sapis_lab.sweep.engine import _recorded_science
from sapis_lab.sweep.manifest import inputs_hash, read_manifest
from sapis_lab.sweep.tuner.table import read_trials
from sapis_lab.sweep.tuner.trial import _rows
from sapis_lab.training._callbacks import CURVE, cut_rows


class Unfinished:
    """A point without a record."""

    id = "p"


DAMAGE: dict[str, bytes] = {
    "a list": b"[1]",
    "null": b"null",
    "nothing": b"",
    "half": b'{"a": {"b"',
    "a number": b"3",
    "text": b'"x"',
    "no text": b"\x80\xff\x00{}",
    "deep": b'{"a":' + b"[" * 60 + b"]" * 60 + b"}",
    "very deep": b"[" * 200_000,
    "a large integer": b'{"a": 1' + b"0" * 40 + b"}",
    "a huge integer": b'{"a": 1' + b"0" * 9000 + b"}",
    "an object": b"{}",
    "strange values": b'{"arrays": 3, "format": "x", "models": [1]}',
}

# reader, name of its file, and what the message says to do
READERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "record": (
        lambda f: read_raw(f / "record.json"),
        "record.json",
        "remove that file and run the study again",
    ),
    "manifest": (read_manifest, "points.json", ""),
    "laws": (read_fit, "fit.json", "write it anew with: sapis fit "),
    "regime": (read_regime, "regime.json", "write it anew with: sapis tune "),
    "store": (GrowingArrays.open, "manifest.json", "delete its folder to make it again"),
    "frames": (FrameStore.open, "manifest.json", "delete its folder to make it again"),
    "sealed": (is_sealed, "manifest.json", "delete its folder to make it again"),
    "history": (read_history, "history.csv", ""),
    "table": (read_table, "runs.parquet", "run the study again to write it anew"),
    "command": (submission._command_of, "provenance.json", "run the study again to write it anew"),
    "settings": (lambda f: read_yaml(f / "study.yaml"), "study.yaml", ""),
    "trials": (read_trials, "trials.csv", ""),
}
EMPTY_IS_FINE = {
    "provenance": (provenance._read, "provenance.json", "remove it to have it written anew"),
    "science": (
        lambda f: _recorded_science(f, Unfinished()),
        "science.json",
        "remove its folder to train the point anew",
    ),  # type: ignore
    "not drawn": (lambda f: not_drawn(f), "not_drawn.json", "draw again: sapis study figures "),
    "submissions": (slurm.read_submissions, "slurm/submissions.json", "submit again"),
    "decisions": (read_decisions, "decisions.jsonl", ""),
}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_refused_by_name_with_what_to_do(tmp_path, reader, damage):
    read, name, advice = READERS[reader]
    put(tmp_path / name, DAMAGE[damage])
    if (reader, damage) in {("settings", "an object"), ("settings", "strange values"), ("trials", "a list")}:
        return  # settings as good as any other, for this reader
    with pytest.raises(ConfigError) as error:
        read(tmp_path)
    told = str(error.value)
    assert name in told and advice in told and len(told) < 1000, told


@pytest.mark.parametrize("damage", [d for d in DAMAGE if d not in ("an object", "strange values")])
@pytest.mark.parametrize("reader", EMPTY_IS_FINE)
def test_a_damaged_file_that_may_be_missing_is_refused_as_well(tmp_path, reader, damage):
    read, name, advice = EMPTY_IS_FINE[reader]
    read(tmp_path)
    put(tmp_path / name, DAMAGE[damage])
    if (reader, damage) == ("decisions", "nothing"):
        return
    with pytest.raises(ConfigError) as error:
        read(tmp_path)
    assert Path(name).name in str(error.value) and advice in str(error.value), error.value


@pytest.mark.parametrize("sort", ["a folder", "a pipe"])
@pytest.mark.parametrize("reader", [*READERS, *EMPTY_IS_FINE])
def test_what_is_no_file_is_refused_at_once(tmp_path, reader, sort):
    read, name, _ = (READERS | EMPTY_IS_FINE)[reader]  # type: ignore[operator]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.mkdir if sort == "a folder" else lambda: os.mkfifo(path))()
    with pytest.raises(ConfigError, match=rf"{path.name}: wanted a file, got {sort}"):
        read(tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_progress_that_is_damaged_is_no_progress(tmp_path, damage):
    put(tmp_path / "progress.json", DAMAGE[damage])
    said = read_progress(tmp_path)
    assert said is None or said.step == 0


@pytest.mark.parametrize(
    "content", [b'{"step": "x"}', b'{"val": [1]}', b'{"step": null}', b'{"loss": "x"}', b'{"step": 1e400}']
)
def test_progress_of_another_form_is_no_progress(tmp_path, content):
    put(tmp_path / "progress.json", content)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_of_the_event_log_is_left_out(tmp_path, damage):
    put(
        tmp_path / "events.jsonl",
        b'{"event": "a"}\n' + DAMAGE[damage].replace(b"\n", b" ") + b'\n{"event": "b"}\n',
    )
    assert [e["event"] for e in read_events(tmp_path) if "event" in e] == ["a", "b"]


def test_text_for_people_is_shown_whatever_its_bytes(tmp_path):
    put(tmp_path / FAILURE, b"no \xff memory\nTraceback")
    assert failure_reason(tmp_path) == "no � memory"
    put(tmp_path / "loss.png", b"\x89PNG")
    put(tmp_path / "loss.txt", b"A caption of \xb5m")
    assert figures(tmp_path)[0]["caption"] == "A caption of �m"


def test_a_damaged_curve_loses_its_damaged_rows_alone(tmp_path):
    rows = b"1,0.5,0.1,\n\xff\xfe,1,1,1\n2,0.4,0.1,0.3\n3,x,\x00,nonsense\n" + b"x" * 200_000 + b"\n"
    put(tmp_path / CURVE, b"step,loss,learning_rate,val_force_rmse\n" + rows)
    assert list(_rows(tmp_path / CURVE, "val_force_rmse")) == [(2, 0.3)]
    cut_rows(tmp_path / CURVE, last_step=2)
    assert [line.partition(",")[0] for line in (tmp_path / CURVE).read_text().splitlines()] == [
        "step",
        "1",
        "2",
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("damage", [d for d in DAMAGE if d not in ("an object", "strange values")])
def test_a_damaged_table_of_the_users_is_refused(tmp_path, ending, damage):
    path = put(tmp_path / f"runs.{ending}", DAMAGE[damage])
    try:
        table = read_frame(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert ending == "csv" or damage in ("nothing", "deep", "a large integer"), table


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_pipe_in_the_place_of_the_users_table_is_refused(tmp_path, ending):
    os.mkfifo(tmp_path / f"runs.{ending}")
    with pytest.raises(ValueError, match="wanted a file, got a pipe"):
        read_frame(tmp_path / f"runs.{ending}")


def test_a_pipe_among_the_configs_does_not_hang_a_study(project: Path) -> None:
    os.mkfifo(project / "configs" / "data" / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe.yaml: wanted a file, got a pipe"):
        inputs_hash("smoke", [])


@pytest.mark.parametrize("damage", [*DAMAGE, "array"])
def test_a_damaged_block_of_labels_is_refused_with_what_to_do(tmp_path, damage):
    import numpy as np

    from sapis_lab.data._generation import Block, read_block, write_block

    path = tmp_path / "block.npz"
    write_block(path, Block(*[np.zeros(3)] * (len(Block._fields) - 2), failed=(), more={}))
    assert len(read_block(path).energy) == 3
    for content in (
        DAMAGE.get(damage) or b"\x93NUMPY" + b"\x01" * 50,
        path.read_bytes()[:-100],
        path.read_bytes()[:200],
    ):
        path.write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"block.npz: cannot be read .* remove it, and the blocks after it"
        ):
            read_block(path)


def described(**changes: Any) -> dict[str, Any]:
    return {"arrays": {"energy": {"dtype": "<f8", "row": [], "n": 0} | changes}}


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "O"}, {"dtype": "?!"}, {"n": -1}, {"n": "x"}, {"row": 3}, {"row": [-1]}, {"row": [2**40]}],
)
def test_a_store_whose_manifest_holds_nonsense_is_refused(tmp_path, changes):
    import json

    put(tmp_path / "manifest.json", json.dumps(described(**changes)).encode())
    with pytest.raises(ConfigError, match=r"manifest.json: arrays: wanted dtype, row and n"):
        GrowingArrays.open(tmp_path)
