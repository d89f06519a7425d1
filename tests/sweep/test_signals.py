"""A stop signal is obeyed whenever it arrives: the command ends with 75 where something is left, with 0 where
nothing is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from stub_points import StubPoint, record

from sapis_lab import cli
from sapis_lab.files import write_text
from sapis_lab.jobs.events import OnEvent
from sapis_lab.jobs.executor import Ended, Task
from sapis_lab.jobs.signals import STOP_SIGNALS, interrupting, stop_signals
from sapis_lab.records import Planned, write_record
from sapis_lab.scaling import session as scaling
from sapis_lab.scaling.ledger import Ledger
from sapis_lab.scaling.session import Session
from sapis_lab.scaling.workers import Workers
from sapis_lab.sweep import answers, engine, run_study
from sapis_lab.sweep.manifest import Manifest, write_manifest
from sapis_lab.sweep.request import Request

NAMES = [number.name for number in STOP_SIGNALS]


def send(number: int = signal.SIGTERM) -> None:
    """To this process, which notices it at once."""
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _handlers_of_before():
    """A signal that nobody handles ends the tests, and what a test leaves behind is seen."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


@pytest.mark.parametrize("name", NAMES)
def test_signals_are_noted_where_they_are_noted_and_interrupt_elsewhere(name):
    number = getattr(signal, name)
    with interrupting() as outer:
        with stop_signals() as stop:
            send(number)
        assert stop.asked == 1 and stop.numbers == [number] and not outer.asked
        with pytest.raises(KeyboardInterrupt):
            send(number)
    with pytest.raises(KeyboardInterrupt):
        outer.check()


# ----------------------------------------------------------------------------------------------------- engine


class SignalledExecutor:
    """Points are done as they start; a signal arrives while it closes."""

    def __init__(self, number: int) -> None:
        self.number, self.task = number, Task("m:f")
        self.n_free, self.running = 10, ()
        self.ended: list[Ended] = []

    def open(self, on_event: OnEvent, give_up: Callable[[], bool]) -> None: ...

    def start(self, *folders: Path) -> None:
        for folder in folders:
            write_record(folder, record(StubPoint(id=folder.name)))
            self.ended.append(Ended(folder.name, 0))

    def stop(self, *ids: str) -> None: ...

    def poll(self, timeout: float) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        send(self.number)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_while_the_workers_close_stops_the_run(tmp_path, name):
    with pytest.raises(engine.Stopped):
        engine.run(
            [StubPoint(id="p")],
            folder=tmp_path,
            cache=tmp_path,
            executor=SignalledExecutor(getattr(signal, name)),
        )
    assert (tmp_path / "points/p/record.json").exists()


# ------------------------------------------------------------------------------------------------------ study


@pytest.fixture
def trained(project, monkeypatch):
    """A study whose only point is done; laws, figures and report take no time."""
    request, point = Request("smoke"), StubPoint(id="p")
    planned = Planned.model_validate({k: getattr(record(point), k) for k in Planned.model_fields})
    write_record(request.folder / "points/p", record(point))

    def run(job, request, console, stop):
        write_manifest(request.folder, Manifest(inputs=request.inputs, points=(planned,)))
        write_text(request.folder / "study.yaml", "law: {quantity: val_force_rmse}\n")
        stop.check()
        return answers.conclude(request.folder, request.continued_by, console, chosen=["p"], seconds=0.0)

    def analyse(folder):
        write_text(folder / "fit.json", '{"quantity": "val_force_rmse"}')
        write_text(folder / "report.html", "")

    monkeypatch.setattr(run_study, "plan_study", lambda request: None)
    monkeypatch.setattr(run_study, "_run", run)
    monkeypatch.setattr(answers, "analyse", analyse)
    monkeypatch.setattr(answers, "print_answers", lambda *_: None)
    return request


def then_send(function):
    def call(*arguments, **named):
        value = function(*arguments, **named)
        send()
        return value

    return call


@pytest.mark.parametrize(
    ("holder", "step", "status"),
    [
        (run_study, "plan_study", 75),
        (run_study, "_run", 0),
        (answers, "rebuild_table", 75),
        (answers, "analyse", 75),
        (answers, "print_answers", 0),
        (None, None, 0),
    ],
)
def test_a_study_that_is_signalled_after_a_step_ends_by_what_is_left(
    trained, monkeypatch, holder, step, status, capsys
):
    if step is not None:
        monkeypatch.setattr(holder, step, then_send(getattr(holder, step)))
    assert run_study.run_study(trained, Console(width=200)) == status
    assert ("stopped; nothing is lost. Continue with: sapis study run smoke" in capsys.readouterr().out) == (
        status == 75
    )


def test_a_signal_that_a_library_swallows_stops_a_study_before_its_answers(trained, monkeypatch):
    def swallowed(request):
        try:
            send()
        except KeyboardInterrupt:
            return

    monkeypatch.setattr(run_study, "plan_study", swallowed)
    monkeypatch.setattr(answers, "analyse", lambda folder: pytest.fail("it went on"))
    assert run_study.run_study(trained, Console(quiet=True)) == 75


# ------------------------------------------------------------------------------------------------------ scale


@pytest.mark.parametrize(
    ("holder", "step", "status"),
    [
        (scaling, "resolve", 75),
        (Workers, "train", 75),
        (Session, "_go_on", 75),
        (Workers, "end", 75),
        (Session, "_conclude", 75),
        (None, None, 0),
    ],
)
def test_a_campaign_that_is_signalled_after_a_step_ends_by_what_is_left(
    project, monkeypatch, holder, step, status
):
    for owner, name, value in (
        (Workers, "train", True),
        (Ledger, "add", None),
        (Session, "_go_on", 0),
        (Session, "_conclude", None),
    ):
        monkeypatch.setattr(owner, name, lambda *_, value=value, **named: value)
    monkeypatch.setattr(scaling, "prepare_data", lambda *_, **__: None)
    if step is not None:
        monkeypatch.setattr(holder, step, then_send(getattr(holder, step)))
    assert scaling.run_scale("quickstart-scale", Console(quiet=True)) == status


def test_a_campaign_that_is_signalled_when_nothing_is_left_is_complete(project, monkeypatch):
    monkeypatch.setattr(Session, "_run", lambda self: setattr(self, "status", 0) or 0)
    monkeypatch.setattr(Workers, "end", then_send(Workers.end))
    assert scaling.run_scale("quickstart-scale", Console(quiet=True)) == 0


# ---------------------------------------------------------------------------------------------------- command


@pytest.mark.parametrize("name", NAMES)
def test_every_command_answers_a_signal_with_75(project, monkeypatch, capsys, name):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["sapis", "study", "list"])
    monkeypatch.setattr("sapis_lab.sweep.status.known_studies", lambda names: send(getattr(signal, name)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 75 and capsys.readouterr().err == "stopped\n"
