"""How far a tuning is: on the screen, and in the browser with optuna-dashboard."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError
from sapis_lab.sweep.files import checked_url, raw_study
from sapis_lab.sweep.tuner.request import TuneRequest, recorded
from sapis_lab.sweep.tuner.session import (
    DATABASE,
    closed,
    studies_of,
)
from sapis_lab.sweep.words import shown


def print_status(request: TuneRequest, console: Console) -> None:
    """How far a tuning is and the best of it, from its storage where that can be reached, else from
    trials.csv."""
    from sapis_lab.sweep.tuner.table import print_table, read_trials, trials_table

    folder, name = request.folder, request.folder.parent.name
    if not (folder / "study.yaml").exists():
        raw_study(request.name)  # an unknown name is told apart from a study that was not tuned
        console.print(f"{name} has not been tuned; start it with: sapis tune {name}", soft_wrap=True)
        return
    tuning = recorded(folder)
    storage = _readable_storage(request, tuning.study.run.heartbeat)
    if storage is None:
        table = read_trials(folder)
    else:
        from sapis_lab.sweep.tuner.patient import DatabaseGone

        try:
            with closed(storage):
                studies = studies_of(tuning, storage)  # its files are those of the process that tunes
                table = trials_table(
                    tuning.cells, studies, folder=folder / "trials", keys=tuning.keys, names=tuning.names
                )
        except DatabaseGone as gone:
            raise ConfigError(f"run.storage: {gone}") from None
    print_table(table, console, title=f"{name}: {len(table)} trials", keys=tuning.keys, names=tuning.names)


def _url(request: TuneRequest) -> str | None:
    """`run.storage` as the study file has it: what is recorded lacks the password."""
    url = (raw_study(request.name, request.settings).get("run") or {}).get("storage")
    return None if url is None else checked_url(str(url))


def _readable_storage(request: TuneRequest, heartbeat: int) -> Any:
    """A storage to look at: a copy of the SQLite file, which its writer does not notice, or the database;
    None where neither is there."""
    from sapis_lab.sweep.tuner import tickets
    from sapis_lab.sweep.tuner.many_hosts import open_storage

    if (url := _url(request)) is not None:
        return open_storage(url, heartbeat=heartbeat)
    return tickets.sqlite_storage(copied(request.folder)) if (request.folder / DATABASE).exists() else None


def copied(folder: Path) -> Path:
    """A consistent copy of the SQLite file, made while it may be written to."""
    import sqlite3
    import tempfile

    target = Path(tempfile.mkdtemp(prefix="sapis-tune-")) / DATABASE
    with (
        closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target


def run_dashboard(request: TuneRequest, *, port: int, console: Console) -> int:
    """Open optuna-dashboard on a copy of a tuning's SQLite file, or on its database; the exit status of the
    dashboard."""
    import importlib.util

    folder = request.folder
    if not (folder / "study.yaml").exists():
        raise ConfigError(
            f"{shown(folder)}: nothing was tuned yet; start it with: {' '.join(request.command)}"
        )
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise ConfigError(
            "the package optuna-dashboard is missing; install it with: pip install 'sapis-lab[dash]'"
        )
    url = _url(request)
    if url is None and not (folder / DATABASE).exists():
        raise ConfigError(f"{shown(folder / DATABASE)}: no such file; published results come without it")
    storage = url or f"sqlite:///{copied(folder)}"
    console.print(
        Text(
            f"http://127.0.0.1:{port}/   (a copy as of now; Ctrl-C ends it)"
            if url is None
            else f"http://127.0.0.1:{port}/"
        )
    )
    # The URL travels in the environment of the child, not in its command line, where others could read it.
    serve = f"run_server(os.environ.pop('SAPIS_STORAGE'), host='127.0.0.1', port={port:d})"
    code = f"import os; from optuna_dashboard import run_server; {serve}"
    environment = {**os.environ, "SAPIS_STORAGE": storage}
    try:
        return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
