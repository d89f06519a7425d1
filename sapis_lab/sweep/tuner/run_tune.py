"""`sapis tune NAME`: trials by this process on one host, or by workers on a database."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

from sapis_lab.config import ConfigError
from sapis_lab.jobs.signals import stop_signals
from sapis_lab.sweep.lock import locked
from sapis_lab.sweep.tuner.answers import conclude, report
from sapis_lab.sweep.tuner.request import TuneRequest, Tuning, resolve
from sapis_lab.sweep.tuner.run_worker import start_workers
from sapis_lab.sweep.tuner.session import (
    DATABASE,
    closed,
    pool_of,
    provenance,
    ready,
    say_on,
    say_stopped,
    sqlite_of,
    studies_of,
    unless_stopped,
    use_of,
)

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy


def run_tune(request: TuneRequest, console: Console) -> int:
    """Tune, or go on; the exit status."""
    tuning = resolve(request)
    _refuse_slurm(request, tuning)
    if tuning.study.run.storage is not None:
        return start_workers(request, tuning, console)
    return unless_stopped(request, console, lambda: _tune_here(request, tuning, console))


def _tune_here(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    from sapis_lab.sweep.tuner.tickets import disk_told

    folder, began = request.folder, time.monotonic()
    with locked(folder.parent), disk_told(folder / DATABASE):
        tuning = ready(request, tuning, console)
        with closed(sqlite_of(folder)) as storage:
            with stop_signals() as stop:
                studies = studies_of(tuning, storage)
                ended = _on_one_host(request, tuning, studies, console, lambda: stop.asked)
            table = report(tuning, folder, studies)
        if stop.asked or not ended:
            return say_stopped(request, console)
        return conclude(request, tuning, table, console, seconds=time.monotonic() - began)


def _refuse_slurm(request: TuneRequest, tuning: Tuning) -> None:
    """ConfigError where trials were to be jobs of Slurm: each is chosen when the one before has ended, and
    may be ended early by what the others show, so that they would wait in the queue one after the other."""
    if tuning.study.run.executor.kind == "slurm":
        worker = shlex.quote(" ".join([*request.command, "--worker"]))
        database = (
            "" if tuning.study.run.storage else "give run.storage, the URL of a PostgreSQL database, and "
        )
        raise ConfigError(
            "run.executor: 'slurm' cannot run trials, each of which is chosen from those before it; "
            f"{database}submit workers, as in sbatch --wrap {worker}, or tune on this machine with --set "
            f"run.executor=local"
        )


def _on_one_host(
    request: TuneRequest,
    tuning: Tuning,
    studies: list[OptunaStudy],
    console: Console,
    n_stops: Callable[[], int],
) -> bool:
    """Run the trials; False when it was stopped before the last one."""
    from sapis_lab.sweep.tuner.one_host import OneHost

    runner = OneHost(
        tuning.cells, studies, tuning.tune, tuning.keys, request.folder / "trials", say_on(console), n_stops
    )
    if not runner.queue(retry_failed=request.retry_failed):
        return True
    use = use_of(request, tuning.study)
    with provenance(request, tuning.study, use), pool_of(request, tuning, n_stops, use) as pool:
        return pool is not None and runner.run(pool)
