"""The `sapis` command: studies, data, answers, and what can be put into a config. Every subcommand has --help with an example."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from sapis_lab.cli import answers, bench, catalog, data, search, selftest, study
from sapis_lab.cli.common import HELP, to_stderr
from sapis_lab.config import ConfigError
from sapis_lab.text import never_fails, without_password


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
        except Exception as error:  # those of click, which typer brings along under a name of its own, have a message
            if isinstance(message := getattr(error, "message", None), str):
                error.message = without_password(message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Commands,
    help="How machine-learned interatomic potentials scale, and whether symmetry pays.\n\nExample: `sapis study run quickstart`",
    add_completion=False, pretty_exceptions_enable=False, **HELP,
)  # fmt: skip
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(selftest.app, name="selftest")
for module in (search, answers, catalog):  # their commands stand beside the groups
    app.add_typer(module.app)


def main() -> None:
    """Entry point: bad settings end with one clear message and exit status 2, never with a traceback."""
    # Workers use one thread each; what this process computes itself (fits, a timing of the machine) gains nothing from more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    never_fails(sys.stdout, sys.stderr)
    try:
        app(prog_name="sapis")
    except ConfigError as error:
        to_stderr(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        to_stderr("stopped")
        sys.exit(75)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
