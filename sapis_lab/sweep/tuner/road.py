"""The whole way of `sapis tune NAME`: space, data, trials, table, figures, and the regime rule where a rate
or a batch was tuned."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError, dump_yaml, plainly, read_yaml
from sapis_lab.files import write_text
from sapis_lab.jobs.signals import interrupting, stop_signals
from sapis_lab.sweep.engine import PRELOAD, TARGET, training_task
from sapis_lab.sweep.files import checked_name, checked_url, raw_study
from sapis_lab.sweep.folder import results_folder
from sapis_lab.sweep.lock import locked
from sapis_lab.sweep.prepare import data_identity, prepare_data
from sapis_lab.sweep.resources import Resources, point_arguments, resources
from sapis_lab.sweep.words import duration, shown
from sapis_lab.text import without_password

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

    from sapis_lab.sweep.study import Study
    from sapis_lab.sweep.tuner.options import TuneOptions
    from sapis_lab.sweep.tuner.space import Cell

COMPLETE, SOME_FAILED, STOPPED = 0, 1, 75
"""Exit statuses; bad settings end with 2."""
DATABASE = "optuna.db"


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for."""

    name: str
    settings: tuple[str, ...] = ()
    """Overrides, `key=value`."""
    called: str | None = None
    """Another name for the results."""
    workers: int | None = None
    retry_failed: bool = False
    target: str = TARGET
    """The function that trains a point."""
    preload: tuple[str, ...] | None = None
    """Modules that are imported before the first point; all that points need when not given."""

    @property
    def folder(self) -> Path:
        """`results/NAME/tune`."""
        return results_folder(checked_name(self.called or self.name)) / "tune"

    @property
    def flags(self) -> list[str]:
        """The options that name the study, as they were given."""
        return [word for s in self.settings for word in ("--set", s)] + (
            ["--as", self.called] if self.called else []
        )

    @property
    def command(self) -> list[str]:
        """The command that continues it, without a password."""
        return ["sapis", "tune", self.name, *(shlex.quote(without_password(word)) for word in self.flags)]


@dataclass(frozen=True)
class Tuning:
    """A study's tuning, resolved."""

    study: Study
    tune: TuneOptions
    cells: list[Cell]
    keys: tuple[str, ...]
    """The objectives."""

    @property
    def names(self) -> list[str]:
        """The tuned settings."""
        return list(self.tune.space)


def resolve(request: TuneRequest) -> Tuning:
    """The study with its search space, checked. ConfigError names what cannot be."""
    from sapis_lab.sweep.plan import infos
    from sapis_lab.sweep.study import load_study
    from sapis_lab.sweep.tuner.space import cells

    study = load_study(request.name, request.settings, called=request.called)
    if study.tune is None:
        raise ConfigError(f"studies/{request.name}.yaml has no tune: section; see `sapis tune --help`")
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    keys = study.tune.objectives_of(study.law.quantity)
    return Tuning(study, study.tune, cells(study, study.tune, next(iter(known.values()))), keys)


def run_tune(request: TuneRequest, console: Console) -> int:
    """Tune, or go on; the exit status."""
    tuning = resolve(request)
    _refuse_slurm(request, tuning)
    if tuning.study.run.storage is not None:
        return _start_workers(request, tuning, console)
    return _unless_stopped(request, console, lambda: _tune_here(request, tuning, console))


def _unless_stopped(request: TuneRequest, console: Console, work: Callable[[], int]) -> int:
    """The exit status of `work`, or what a stop leaves to do."""
    with interrupting():
        try:
            return work()
        except KeyboardInterrupt:
            return _say_stopped(request, console)


def _tune_here(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    from sapis_lab.sweep.tuner.tickets import disk_told

    folder, began = request.folder, time.monotonic()
    with locked(folder.parent), disk_told(folder / DATABASE):
        tuning = _ready(request, tuning, console)
        with _closed(_sqlite(folder)) as storage:
            with stop_signals() as stop:
                studies = _studies(tuning, storage)
                ended = _on_one_host(request, tuning, studies, console, lambda: stop.asked)
            table = report(tuning, folder, studies)
        if stop.asked or not ended:
            return _say_stopped(request, console)
        return _conclude(request, tuning, table, console, seconds=time.monotonic() - began)


def _ready(request: TuneRequest, tuning: Tuning, console: Console) -> Tuning:
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
    prepare_data(study, cores=_use(request, study).cores, console=console)
    return resolve(request)


@contextmanager
def _provenance(request: TuneRequest, study: Study, use: Resources) -> Iterator[None]:
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


def _use(request: TuneRequest, study: Study, *, workers: int | None = None) -> Resources:
    """What trials run on; a worker on many hosts may itself be a job of Slurm, and runs them where it is."""
    return resources(study.run, workers=workers or request.workers, where="local")


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


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(Text(text), soft_wrap=True)


# --------------------------------------------------------------------------------------------------- one host


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
        tuning.cells, studies, tuning.tune, tuning.keys, request.folder / "trials", _say(console), n_stops
    )
    if not runner.queue(retry_failed=request.retry_failed):
        return True
    use = _use(request, tuning.study)
    with _provenance(request, tuning.study, use), _pool(request, tuning, n_stops, use) as pool:
        return pool is not None and runner.run(pool)


def _sqlite(folder: Path) -> Any:
    from sapis_lab.sweep.tuner import tickets

    return tickets.sqlite_storage(folder / DATABASE)


@contextmanager
def _closed(storage: Any) -> Iterator[Any]:
    """The storage, its connections closed at the end."""
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _studies(tuning: Tuning, storage: Any) -> list[OptunaStudy]:
    from sapis_lab.sweep.tuner import tickets

    return [
        tickets.open_study(tuning.study.name, cell, tuning.tune, keys=tuning.keys, storage=storage)
        for cell in tuning.cells
    ]


@contextmanager
def _pool(request: TuneRequest, tuning: Tuning, n_stops: Callable[[], int], use: Resources) -> Iterator[Any]:
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


# ------------------------------------------------------------------------------------------------- many hosts


def run_worker(request: TuneRequest, console: Console) -> int:
    """Be one worker of a tuning on PostgreSQL, until no trial is left; the exit status."""
    tuning = resolve(request)
    if tuning.study.run.storage is None:
        raise ConfigError(
            "--worker needs run.storage, the URL of a PostgreSQL database, as in "
            "postgresql+psycopg://user@host/database"
        )
    return _unless_stopped(request, console, lambda: _work(request, tuning, console))


def _work(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    from sapis_lab.sweep.tuner.many_hosts import Worker, one_writer, open_storage
    from sapis_lab.sweep.tuner.patient import DatabaseGone, Patience

    folder, name, say = request.folder, tuning.study.name, _say(console)
    url, heartbeat, patience = str(tuning.study.run.storage), tuning.study.run.heartbeat, Patience(say)
    with _closed(open_storage(url, heartbeat=heartbeat, patience=patience)) as storage:
        tuning = _ready(request, tuning, console)

        def open_studies() -> list[OptunaStudy]:
            with one_writer(storage.engine, name):
                return _studies(tuning, storage)

        def tell(stopped: bool) -> int:
            # all workers end at the same moment, and write the same files
            with one_writer(storage.engine, name):
                table = report(tuning, folder, studies)
                if stopped:
                    return _say_stopped(request, console)
                return _conclude(request, tuning, table, console, seconds=time.monotonic() - began)

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
                began, use = time.monotonic(), _use(request, tuning.study, workers=1)
                with (
                    _provenance(request, tuning.study, use),
                    _pool(request, tuning, lambda: stop.asked, use) as pool,
                ):
                    ended = pool is not None and worker.run(pool)
            patience.n_stops = lambda: 0
            return patience(lambda: tell(stopped=stop.asked > 0 or not ended))
        except DatabaseGone as gone:
            if stop.asked:
                return _say_stopped(request, console)
            command = " ".join([*request.command, "--worker"])
            text = (
                f"error: run.storage: {without_password(url)}: {gone}; nothing is lost. Continue with: "
                f"{command}"
            )
            console.print(Text(text, style="red"), soft_wrap=True)
            return STOPPED


def _start_workers(request: TuneRequest, tuning: Tuning, console: Console) -> int:
    """Start as many workers on this host as it has room for, and wait for them."""
    n = _use(request, tuning.study).workers
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
        told = 0
        while any(child.poll() is None for child in children):
            time.sleep(0.2)
            if stop.asked > told:
                told = stop.asked
                for child in children:
                    if child.poll() is None:
                        child.terminate()
    statuses = [child.returncode for child in children]
    if told and any(s < 0 or s == STOPPED for s in statuses):
        return _say_stopped(request, console)
    left = [s for s in statuses if s >= 0]
    # workers that were killed are made up for by one that came to the end
    return min(left) if left else STOPPED


# ---------------------------------------------------------------------------------------------------- answers


def report(tuning: Tuning, folder: Path, studies: list[OptunaStudy]) -> Any:
    """Write trials.csv and best.yaml; the table."""
    from sapis_lab.sweep.tuner.table import trials_table, write_best, write_trials

    table = trials_table(
        tuning.cells, studies, folder=folder / "trials", keys=tuning.keys, names=tuning.names
    )
    write_trials(table, folder)
    write_best(table, folder, study=tuning.study, cells=tuning.cells, keys=tuning.keys, names=tuning.names)
    return table


def _conclude(request: TuneRequest, tuning: Tuning, table: Any, console: Console, *, seconds: float) -> int:
    """Figures, the regime rule, and the last words."""
    from sapis_lab.sweep.tuner.table import print_table

    folder = request.folder
    n_failed = int((table["state"] == "failed").sum())
    title = (
        f"\n{tuning.study.name}: {len(table)} trials ended, {n_failed} failed; this session took "
        f"{duration(seconds)}"
    )
    print_table(table, console, title=title, keys=tuning.keys, names=tuning.names)
    draw(folder, tuning)
    fit_regime(folder, console)
    console.print(
        Text(f"table   {shown(folder / 'trials.csv')}\nbest    {shown(folder / 'best.yaml')}"), soft_wrap=True
    )
    console.print(Text(f"figures {shown(folder / 'figures')}/"), soft_wrap=True)
    if n_failed:
        console.print(
            Text(f"run the failed ones again: {' '.join(request.command)} --retry-failed"), soft_wrap=True
        )
    return SOME_FAILED if n_failed else COMPLETE


def draw(folder: Path, tuning: Tuning) -> None:
    """The figures of the trials."""
    from sapis_lab.figures import draw_tuning
    from sapis_lab.sweep.tuner.table import read_trials

    logs = [name for name, axis in tuning.tune.space.items() if axis.log is not None]
    draw_tuning(
        read_trials(folder),
        folder / "figures",
        objectives=tuning.keys,
        settings=tuning.names,
        logarithmic=logs,
    )


def fit_regime(folder: Path, console: Console) -> None:
    """results/NAME/regime.json and what it says, where a rate or a batch was tuned by one error."""
    from sapis_lab.analysis.regime import fit_folder
    from sapis_lab.figures import draw_regime

    regime = plainly(
        lambda: fit_folder(folder.parent), about="the trials are kept, but their rule could not be fitted"
    )
    if regime is not None:
        console.print(Text(regime.text()), soft_wrap=True)
        draw_regime(regime, folder / "figures")
        console.print(Text(f"rule    {shown(folder.parent / 'regime.json')}"), soft_wrap=True)


def print_status(request: TuneRequest, console: Console) -> None:
    """How far a tuning is and the best of it, from its storage where that can be reached, else from
    trials.csv."""
    from sapis_lab.sweep.tuner.table import print_table, read_trials, trials_table

    folder, name = request.folder, request.folder.parent.name
    if not (folder / "study.yaml").exists():
        raw_study(request.name)  # an unknown name is told apart from a study that was not tuned
        console.print(f"{name} has not been tuned; start it with: sapis tune {name}", soft_wrap=True)
        return
    tuning = _recorded(folder)
    storage = _readable_storage(request, tuning.study.run.heartbeat)
    if storage is None:
        table = read_trials(folder)
    else:
        from sapis_lab.sweep.tuner.patient import DatabaseGone

        try:
            with _closed(storage):
                studies = _studies(tuning, storage)  # its files are those of the process that tunes
                table = trials_table(
                    tuning.cells, studies, folder=folder / "trials", keys=tuning.keys, names=tuning.names
                )
        except DatabaseGone as gone:
            raise ConfigError(f"run.storage: {gone}") from None
    print_table(table, console, title=f"{name}: {len(table)} trials", keys=tuning.keys, names=tuning.names)


def _recorded(folder: Path) -> Tuning:
    """The tuning as it was last started."""
    from sapis_lab.config import load
    from sapis_lab.sweep.plan import infos
    from sapis_lab.sweep.study import Study
    from sapis_lab.sweep.tuner.space import cells

    study = load(Study, read_yaml(folder / "study.yaml"), source=str(folder / "study.yaml"), recorded=True)
    assert study.tune is not None
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    keys = study.tune.objectives_of(study.law.quantity)
    return Tuning(study, study.tune, cells(study, study.tune, next(iter(known.values()))), keys)


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


def _say_stopped(request: TuneRequest, console: Console) -> int:
    console.print(
        Text(f"\nstopped; nothing is lost. Continue with: {' '.join(request.command)}", style="yellow"),
        soft_wrap=True,
    )
    return STOPPED


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
