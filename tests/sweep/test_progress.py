"""What a person sees: plain lines where there is no terminal, a live table where there is one."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from stub_points import StubPoint, record

from sapis_lab.jobs.events import Event
from sapis_lab.records import Planned
from sapis_lab.sweep.board import Board, DataBoard
from sapis_lab.sweep.manifest import Manifest
from sapis_lab.sweep.status import print_status


def board(tmp_path, *, terminal: bool = False) -> tuple[Board, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=terminal, color_system=None)
    expected = {"a": 100.0, "b": 100.0, "c": 50.0}
    return Board(
        list(expected),
        folder=tmp_path,
        expected=expected,
        workers=2,
        loss_key="val_force_rmse",
        console=console,
    ), out


def progress(tmp_path, id: str, step: int, seconds: float) -> None:
    folder = tmp_path / "points" / id
    folder.mkdir(parents=True, exist_ok=True)
    value = {"step": step, "steps": 100, "loss": 0.25, "val": {"val_force_rmse": 0.0437}, "seconds": seconds}
    (folder / "progress.json").write_text(json.dumps(value))


def test_every_change_is_one_line(tmp_path):
    view, out = board(tmp_path)
    with view:
        view(Event("launching"))
        view(Event("started", "a", str(tmp_path / "points/a/log.txt")))
        progress(tmp_path, "a", 100, 30.0)
        view(Event("done", "a", seconds=30.0))
        view(Event("started", "b", "log.txt"))
        view(Event("failed", "b", "diverged at step 7", 3.0))
        view(Event("tick"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert "3 points on 2 workers" in lines[0] and "results go to" in lines[0]
    assert lines[2].startswith(
        "done     a   30 s   loss 0.25   val_force_rmse 43.7 meV/Å   1 done, 0 running, 2 left, 0 failed"
    )
    assert "FAILED   b: diverged at step 7" in lines[4] and "log.txt" in lines[4]


def test_a_heartbeat_shows_the_running_points(tmp_path):
    view, out = board(tmp_path)
    with view:
        view(Event("started", "a", "log.txt"))
        progress(tmp_path, "a", 50, 10.0)
        view.last_line -= 60
        view(Event("tick"))
    assert "a   step 50/100   loss 0.25" in out.getvalue()


def test_a_terminal_gets_a_table(tmp_path):
    view, out = board(tmp_path, terminal=True)
    with view:
        view(Event("started", "a", "log.txt"))
        progress(tmp_path, "a", 50, 10.0)
        view(Event("tick"))
    text = out.getvalue()
    for part in (
        "validation force RMSE",
        "50/100",
        "43.7 meV/Å",
        "0 done, 1 running, 2 left",
        "to go",
        "logs",
    ):
        assert part in text


def test_time_left_follows_the_measured_speed(tmp_path):
    view, _ = board(tmp_path)
    view(Event("started", "a", "log.txt"))
    view(Event("done", "a", seconds=50.0))  # twice as fast as expected
    assert view.seconds_left() == pytest.approx(50.0)  # b alone on one worker, c on the other


def test_data_show_how_far_they_are(tmp_path):
    out = io.StringIO()
    with DataBoard(Console(file=out, width=140)) as view:
        for done in range(0, 601, 10):
            view("GFN2-xTB frames", done, 600)
    assert out.getvalue().splitlines() == ["data: GFN2-xTB frames 0/600", "data: GFN2-xTB frames 600/600"]


@pytest.mark.parametrize(
    ("law", "shown"),
    [
        ("val_energy_mae", "val_energy_mae 12 meV"),
        ("test_energy_mae", "val_energy_mae 12 meV"),
        ("test_600K_force_mae", "val_force_mae 31 meV/Å"),
        ("val_force_rmse", "val_force_rmse 43.7 meV/Å"),
        (None, "val_force_rmse 43.7 meV/Å"),
    ],
)
def test_what_is_shown_of_a_running_point_is_what_the_law_describes(tmp_path, law, shown):
    place = tmp_path / "points" / "p"
    place.mkdir(parents=True)
    value = {
        "step": 3,
        "steps": 9,
        "loss": 0.25,
        "val": {"force_rmse": 0.0437, "force_mae": 0.031, "energy_mae": 0.012},
        "seconds": 1.0,
    }
    (place / "progress.json").write_text(json.dumps(value))
    if law:
        (tmp_path / "study.yaml").write_text(f"law: {{quantity: {law}}}\n")
    point = Planned.model_validate(
        {k: v for k, v in record(StubPoint(id="p")).model_dump().items() if k in Planned.model_fields}
    )
    out = io.StringIO()
    print_status(Manifest(inputs="x", points=(point,)), tmp_path, Console(file=out, width=160))
    line = next(line for line in out.getvalue().splitlines() if line.startswith("stopped"))
    assert line == f"stopped  p   step 3/9   loss 0.25   {shown}"
    out = io.StringIO()
    view = Board(
        ["p"],
        folder=tmp_path,
        expected={},
        workers=1,
        loss_key=law or "val_force_rmse",
        console=Console(file=out, width=160),
    )
    view(Event("done", "p", seconds=1.0))
    assert shown in out.getvalue()
