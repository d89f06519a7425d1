"""What every process that tunes does: data and settings first, then a pool of workers, and where its numbers
come from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import dump_yaml
from sapis_lab.files import write_text
from sapis_lab.jobs.signals import interrupting
from sapis_lab.sweep.engine import PRELOAD, training_task
from sapis_lab.sweep.prepare import data_identity, prepare_data
from sapis_lab.sweep.request import STOPPED
from sapis_lab.sweep.resources import Resources, point_arguments, resources
from sapis_lab.sweep.tuner.request import TuneRequest, Tuning, resolve

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

    from sapis_lab.sweep.study import Study

DATABASE = "optuna.db"


def unless_stopped(request: TuneRequest, console: Console, work: Callable[[], int]) -> int:
    """The exit status of `work`, or what a stop leaves to do."""
    with interrupting():
        try:
            return work()
        except KeyboardInterrupt:
            return say_stopped(request, console)


def ready(request: TuneRequest, tuning: Tuning, console: Console) -> Tuning:
    """Data and settings; the tuning again, now that the data are there."""
    study = tuning.study
    n = sum(tuning.tune.trials for _ in tuning.cells)
    console.print(Text(f"{study.name}: {study.question}", style="bold"), soft_wrap=True)
    text = (
        f"{n} trials of {len(tuning.cells)} (model, N, D) by {tuning.tune.sampler} over "
        f"{', '.join(tuning.names)}"
    )
    console.print(Text(text), soft_wrap=True)
    write_text(request.folder / "study.yaml", dump_yaml(study))
    prepare_data(study, cores=use_of(request, study).cores, console=console)
    return resolve(request)


@contextmanager
def provenance(request: TuneRequest, study: Study, use: Resources) -> Iterator[None]:
    """Write where the numbers come from: around a session that trains, which alone is part of it."""
    from sapis_lab.sweep.provenance import note_finished, write_provenance

    write_provenance(
        request.folder,
        command=request.command,
        device=use.device,
        workers=use.workers,
        data=data_identity(study),
    )
    yield
    note_finished(request.folder)


def use_of(request: TuneRequest, study: Study, *, workers: int | None = None) -> Resources:
    """What trials run on; a worker on many hosts may itself be a job of Slurm, and runs them where it is."""
    return resources(study.run, workers=workers or request.workers, where="local")


def say_on(console: Console) -> Callable[[str], None]:
    """A function that prints a line on `console`."""
    return lambda text: console.print(Text(text), soft_wrap=True)


def sqlite_of(folder: Path) -> Any:
    """The storage of one host, a file in `folder`."""
    from sapis_lab.sweep.tuner import tickets

    return tickets.sqlite_storage(folder / DATABASE)


@contextmanager
def closed(storage: Any) -> Iterator[Any]:
    """The storage, its connections closed at the end."""
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def studies_of(tuning: Tuning, storage: Any) -> list[OptunaStudy]:
    """The Optuna study of every cell, in their order."""
    from sapis_lab.sweep.tuner import tickets

    return [
        tickets.open_study(tuning.study.name, cell, tuning.tune, keys=tuning.keys, storage=storage)
        for cell in tuning.cells
    ]


@contextmanager
def pool_of(
    request: TuneRequest, tuning: Tuning, n_stops: Callable[[], int], use: Resources
) -> Iterator[Any]:
    """The pool that runs points; None when it was told to stop while it started."""
    from sapis_lab.executors.local import LocalPool

    run, log = tuning.study.run, request.folder / f"log-{os.getpid()}.txt"
    kinds = {type(kind).__module__ for cell in tuning.cells for kind in (cell.base.config.data, cell.family)}
    task = training_task(
        (),
        cache=run.cache_folder,
        arguments=point_arguments(run, use.device),
        target=request.target,
        preload=request.preload if request.preload is not None else (*PRELOAD, *sorted(kinds)),
    )
    with LocalPool(log, task, workers=use.workers, device=use.device, devices=use.devices) as pool:
        try:
            pool.open(give_up=lambda: n_stops() > 0)
        except KeyboardInterrupt:
            yield None
            return
        yield pool
    if log.exists() and log.stat().st_size == 0:
        log.unlink()


def say_stopped(request: TuneRequest, console: Console) -> int:
    """What a stop leaves to do; the exit status."""
    console.print(
        Text(f"\nstopped; nothing is lost. Continue with: {' '.join(request.command)}", style="yellow"),
        soft_wrap=True,
    )
    return STOPPED
