"""`sapis tune NAME --worker`: one of many workers that share a database, and the starting of several here."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError
from sapis_lab.jobs.signals import stop_signals
from sapis_lab.sweep.request import STOPPED
from sapis_lab.sweep.tuner.answers import conclude, report
from sapis_lab.sweep.tuner.request import TuneRequest, Tuning, resolve
from sapis_lab.sweep.tuner.session import (
    closed,
    pool_of,
    provenance,
    ready,
    say_on,
    say_stopped,
    studies_of,
    unless_stopped,
    use_of,
)
from sapis_lab.text import without_password

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy


def run_worker(request: TuneRequest, console: Console) -> int:
    """Be one worker of a tuning on PostgreSQL, until no trial is left; the exit status."""
    tuning = resolve(request)
    if tuning.study.run.storage is None:
        raise ConfigError(
            "--worker needs run.storage, the URL of a PostgreSQL database, as in "
            "postgresql+psycopg://user@host/database"
        )
    return unless_stopped(request, console, lambda: _work(request, tuning, console))


def _work(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    from sapis_lab.sweep.tuner.many_hosts import Worker, one_writer, open_storage
    from sapis_lab.sweep.tuner.patient import DatabaseGone, Patience

    folder, name, say = request.folder, tuning.study.name, say_on(console)
    url, heartbeat, patience = str(tuning.study.run.storage), tuning.study.run.heartbeat, Patience(say)
    with closed(open_storage(url, heartbeat=heartbeat, patience=patience)) as storage:
        tuning = ready(request, tuning, console)

        def open_studies() -> list[OptunaStudy]:
            with one_writer(storage.engine, name):
                return studies_of(tuning, storage)

        def tell(stopped: bool) -> int:
            # all workers end at the same moment, and write the same files
            with one_writer(storage.engine, name):
                table = report(tuning, folder, studies)
                if stopped:
                    return say_stopped(request, console)
                return conclude(request, tuning, table, console, seconds=time.monotonic() - began)

        try:
            with stop_signals() as stop:
                patience.n_stops = lambda: stop.asked
                studies = patience(open_studies)
                worker = Worker(
                    name,
                    tuning.cells,
                    studies,
                    tuning.tune,
                    tuning.keys,
                    folder=folder / "trials",
                    storage=storage,
                    heartbeat=heartbeat,
                    say=say,
                    n_stops=lambda: stop.asked,
                )
                worker.queue(retry_failed=request.retry_failed)
                began, use = time.monotonic(), use_of(request, tuning.study, workers=1)
                with (
                    provenance(request, tuning.study, use),
                    pool_of(request, tuning, lambda: stop.asked, use) as pool,
                ):
                    ended = pool is not None and worker.run(pool)
            patience.n_stops = lambda: 0
            return patience(lambda: tell(stopped=stop.asked > 0 or not ended))
        except DatabaseGone as gone:
            if stop.asked:
                return say_stopped(request, console)
            command = " ".join([*request.command, "--worker"])
            text = (
                f"error: run.storage: {without_password(url)}: {gone}; nothing is lost. Continue with: "
                f"{command}"
            )
            console.print(Text(text, style="red"), soft_wrap=True)
            return STOPPED


def start_workers(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    """Start as many workers on this host as it has room for, and wait for them."""
    n = use_of(request, tuning.study).workers
    retry = ["--retry-failed"] if request.retry_failed else []
    where = without_password(str(tuning.study.run.storage))
    command = [sys.executable, "-m", "sapis_lab.cli", "tune", request.name, "--worker", *request.flags]
    text = (
        f"{n} workers on {where}; more may join from any host with: "
        f"{' '.join([*request.command, '--worker'])}"
    )
    console.print(Text(text), soft_wrap=True)
    with stop_signals() as stop:
        children = [
            subprocess.Popen([*command, *(retry if k == 0 else [])], start_new_session=True) for k in range(n)
        ]
        message = 0
        while any(child.poll() is None for child in children):
            time.sleep(0.2)
            if stop.asked > message:
                message = stop.asked
                for child in children:
                    if child.poll() is None:
                        child.terminate()
    statuses = [child.returncode for child in children]
    if message and any(s < 0 or s == STOPPED for s in statuses):
        return say_stopped(request, console)
    left = [s for s in statuses if s >= 0]
    # workers that were killed are made up for by one that came to the end
    return min(left) if left else STOPPED
