"""The `sapis` command: studies, data, answers, and what can be put into a config. Every subcommand has --help
with an example."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from sapis_lab.cli import (
    answers,
    bench,
    catalog,
    data,
    design,
    evaluate,
    export,
    model,
    rule,
    search,
    selftest,
    study,
)
from sapis_lab.cli.common import HELP, to_stderr
from sapis_lab.config import ConfigError
from sapis_lab.errors import DiskError, Notice, disk_error
from sapis_lab.jobs.signals import Stop, end_with, interrupting
from sapis_lab.text import never_fails, without_password

BAD_SETTINGS, DISK, STOPPED = 2, 74, 75
"""Exit statuses, of what can be put right or continued."""
_TYPERS_INTERRUPT = 130


class _Commands(TyperGroup):
    """Says what was typed wrongly without a password that is in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return self._told(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:
        return self._told(super().invoke, ctx)

    @staticmethod
    def _told(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            # those of click, which typer brings along under a name of its own, have a message
            if isinstance(message := getattr(error, "message", None), str):
                error.message = without_password(message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Commands,
    help=(
        "How machine-learned interatomic potentials scale, and whether symmetry pays.\n\nExample: `sapis "
        "study run quickstart`"
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
    **HELP,
)
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")
app.add_typer(model.app, name="model")
app.add_typer(bench.app, name="bench")
app.add_typer(selftest.app, name="selftest")
# their commands stand beside the groups
for module in (evaluate, export, search, answers, design, rule, catalog):
    app.add_typer(module.app)


def main() -> None:
    """Entry point: what can be put right ends with one clear message and an exit status of its own, never
    with a traceback."""
    # Workers use one thread each; what this process computes itself (fits, a timing of the machine) gains
    # nothing from more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.showwarning = _shown(warnings.showwarning)
    never_fails(sys.stdout, sys.stderr)
    with interrupting() as stop:
        status = _status(stop)
        atexit.register(end_with, status)
    # A KeyboardInterrupt that passed through an exec of text (as imports of dataclasses make them) leaves a
    # mark in the interpreter, which then ends by SIGINT whatever the exit status is; running text to its end
    # takes the mark away.
    exec("")
    sys.exit(status)


def _shown(usual: Callable[..., None]) -> Callable[..., None]:
    """Shows a notice as a line of words, and any other warning as `usual`."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, Notice):
            to_stderr(f"note: {' '.join(str(message).split())}")
        else:
            usual(message, category, *rest, **named)

    return show


def _status(stop: Stop) -> int:
    """The exit status of the command in sys.argv."""
    try:
        status = _command()
        sys.stdout.flush()  # a disk may be full behind it, too
    except DiskError as error:
        return _told(f"error: {error}", DISK)
    except ConfigError as error:
        return _told(f"error: {error}", BAD_SETTINGS)
    except KeyboardInterrupt:
        return _told("stopped", STOPPED)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        message = disk_error(error)
        if message is None:
            raise
        return _told(f"error: {message}", DISK)
    return _told("stopped", STOPPED) if status == _TYPERS_INTERRUPT and stop.asked else status


def _command() -> int:
    try:
        app(prog_name="sapis")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _told(text: str, status: int) -> int:
    to_stderr(text)
    return status
