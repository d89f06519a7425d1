"""The whole road of one study: data, points, table, laws, figures, report. What `sapis study run NAME`
does."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError, dump_yaml, load, plainly, read_yaml
from sapis_lab.files import read_json, write_text
from sapis_lab.jobs.folder import LOG, failure_reason, state
from sapis_lab.jobs.signals import Stop, interrupting
from sapis_lab.records import RECORD, Planned, runs_table, write_table
from sapis_lab.sweep.board import Board
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.sweep.files import checked_name, raw_study
from sapis_lab.sweep.folder import point_folder, results_folder
from sapis_lab.sweep.keep import KEPT, keep, restore
from sapis_lab.sweep.lock import Locked, locked, refuse_if_running
from sapis_lab.sweep.manifest import (
    Manifest,
    inputs_hash,
    read_manifest,
    refuse_other_study_file,
    write_manifest,
)
from sapis_lab.sweep.prepare import data_identity, prepare_data
from sapis_lab.sweep.provenance import FILE as PROVENANCE
from sapis_lab.sweep.provenance import note_finished, write_provenance
from sapis_lab.sweep.resources import Resources, executor_of, resources
from sapis_lab.sweep.whole import finished, note_answers, records_digest, refuse_damaged
from sapis_lab.sweep.words import duration, shown
from sapis_lab.text import without_password

if TYPE_CHECKING:
    from sapis_lab.data import FrameStore
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.jobs.events import Event
    from sapis_lab.sweep.plan import Plan
    from sapis_lab.sweep.points import Point
    from sapis_lab.sweep.study import Study

COMPLETE, SOME_FAILED, BAD_SETTINGS, STOPPED = 0, 1, 2, 75
"""Exit statuses."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    name: str
    settings: tuple[str, ...] = ()
    """Overrides, `key=value`."""
    called: str | None = None
    """Another name for the results."""
    only: tuple[str, ...] = ()
    """Selection of points; all when empty."""
    retry_failed: bool = False
    workers: int | None = None
    executor: Literal["local", "slurm"] | None = None
    """Instead of the study's `run.executor`."""
    wait: bool = False
    """With Slurm: follow the jobs to their end and gather what they found."""

    @property
    def folder(self) -> Path:
        return results_folder(checked_name(self.called or self.name))

    @property
    def inputs(self) -> str:
        return inputs_hash(self.name, [*self.settings, self.called or self.name])

    @property
    def command(self) -> list[str]:
        """The command that repeats it, in words of a shell and without a password."""
        words = ["sapis", "study", "run", self.name]
        for flag, values in (
            ("--set", self.settings),
            ("--as", [self.called] if self.called else []),
            ("--only", self.only),
        ):
            words += [w for value in values for w in (flag, shlex.quote(without_password(value)))]
        words += ["--executor", self.executor] if self.executor else []
        return words + ["--wait"] * self.wait + ["--retry-failed"] * self.retry_failed

    @property
    def again(self) -> str:
        """The command that continues it, in the words the user started it with."""
        extra = self.command[4:]
        if "MAKELEVEL" not in os.environ:
            return " ".join(self.command)
        return f"make study NAME={self.name}" + (f" ARGS={_for_make(' '.join(extra))}" if extra else "")


def _for_make(words: str) -> str:
    """Words of a shell as the value of ARGS: make reads `$$` as a dollar, and a shell reads the whole before
    make does."""
    text = words.replace("$", "$$")
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def run_study(request: Request, console: Console | None = None) -> int:
    """Run, or continue, a study to its report; the exit status: 0 complete, 1 some points failed, 75 stopped
    and resumable.

    With a selection (`only`) the exit status is about the selected points alone. With Slurm and without
    `wait`, 0: all is submitted.

    Raises:
        ConfigError: the study cannot be run as it is (exit status 2).
    """
    console = console or PlainConsole()
    raw_study(request.name, request.settings, called=request.called)
    if _says_finished(request, console):
        return COMPLETE
    refuse_if_running(request.folder)
    with interrupting() as stop:
        try:
            job = prepare_job(request)
            with locked(request.folder) as taken_over:
                if taken_over:
                    console.print(Text(taken_over, style="yellow"), soft_wrap=True)
                return _run(job, request, console, stop)
        except KeyboardInterrupt:
            return _say_stopped(request, console)


def _run(job: Job, request: Request, console: Console, stop: Stop | None = None) -> int:
    from sapis_lab.sweep import engine

    begin = time.monotonic()
    folder, study = request.folder, job.study
    engine.refuse_other_settings([p.config for p in job.points], folder)
    refuse_damaged(folder, [p.planned for p in job.points])
    job.use.executor.check()
    if not job.use.slurm:
        refuse_if_queued([p.id for p in job.chosen], folder, console)
    restore(folder, [p.planned for p in job.points])
    states = {p.id: state(point_folder(folder, p.id)) for p in job.chosen}
    to_run = [
        p
        for p in _longest_first(job)
        if states[p.id] != "done" and (states[p.id] != "failed" or request.retry_failed)
    ]
    _announce(job, states, [p.id for p in to_run], console)
    _write_settings(job, request)
    if to_run:
        # Only a session that trains is part of where the numbers come from.
        write_provenance(
            folder,
            command=request.command,
            device=job.use.device,
            workers=job.use.workers,
            data=data_identity(study),
        )
        store = prepare_data(study, cores=job.use.cores, console=console)
        if _planned_for_others(job, store):
            job = prepare_job(request)
            engine.refuse_other_settings([p.config for p in job.points], folder)
            _write_settings(job, request)
        try:
            if job.use.slurm:
                n_left = _train_on_slurm(job, request, console)
                if not request.wait and n_left:
                    return COMPLETE
            else:
                _train(job, request, console)
        except engine.Stopped:
            return _say_stopped(request, console)
        except engine.LauncherDied as error:
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
            return _say_stopped(request, console)
        note_finished(folder)
    if stop is not None:
        stop.check()
    return _conclude(
        folder, _again(request), console, chosen=[p.id for p in job.chosen], seconds=time.monotonic() - begin
    )


def _train(job: Job, request: Request, console: Console) -> None:
    from sapis_lab.sweep import engine

    configs, run = _longest_first(job), job.study.run
    expected, key = job.plan.expected_seconds, job.study.law.quantity
    ids = [p.id for p in configs]
    with Board(
        ids, folder=request.folder, expected=expected, workers=job.use.workers, loss_key=key, console=console
    ) as board:
        engine.run(
            configs,
            folder=request.folder,
            cache=run.cache_folder,
            executor=executor_of(job.study, job.use, request.folder, points=configs, expected=expected),
            on_event=board,
            retry_failed=request.retry_failed,
        )


# ------------------------------------------------------------------------------------------------------ Slurm


def refuse_if_queued(ids: Sequence[str], folder: Path, console: Console) -> None:
    """Raise Locked if Slurm has jobs for these points: they must not be trained twice at once."""
    from sapis_lab.executors import slurm

    try:
        jobs = slurm.jobs_of(folder)
    except slurm.SlurmSilent as error:
        text = (
            f"points of this study were submitted to Slurm before, and whether they still run cannot be "
            f"told: {error}"
        )
        console.print(Text(text, style="yellow"), soft_wrap=True)
        return
    alive = sorted({jobs[id].number for id in ids if id in jobs and jobs[id].alive})
    if alive:
        names = f"{', '.join(alive[:5])}{' ...' if len(alive) > 5 else ''}"
        raise Locked(
            f"{folder.name} is being run already, by the Slurm jobs {names}; wait for them (sapis study "
            f"collect {folder.name}), "
            f"or cancel them (scancel {' '.join(sorted({number.partition('_')[0] for number in alive}))})"
        )


def _train_on_slurm(job: Job, request: Request, console: Console) -> int:
    """Submit what is not complete and, if that is asked for, follow it; how many points have neither record
    nor failure then."""
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.sweep import engine

    folder, configs, name = request.folder, _longest_first(job), request.folder.name
    expected = job.plan.expected_seconds
    queue = executor_of(job.study, job.use, folder, points=configs, expected=expected)
    assert isinstance(queue, SlurmQueue)
    to_run = list(engine.prepare_points(configs, folder, request.retry_failed, lambda event: None))
    queue.start(*(point_folder(folder, c.id) for c in to_run))
    _say_submitted(queue, len(to_run), console)
    if not request.wait:
        console.print(
            Text(
                f"follow them with  sapis study status {name}\ngather them with  sapis study collect {name}"
            ),
            soft_wrap=True,
        )
        return len(to_run)
    try:
        engine.run(
            configs,
            folder=folder,
            cache=job.study.run.cache_folder,
            executor=queue,
            on_event=follower(console),
        )
    except engine.Stopped:
        console.print(
            Text(f"\nnot waiting any longer; the jobs go on. Gather them with: sapis study collect {name}"),
            soft_wrap=True,
        )
        raise
    return sum(state(point_folder(folder, c.id)) not in ("done", "failed") for c in configs)


def _say_submitted(queue: SlurmQueue, n_points: int, console: Console) -> None:
    n_new = sum(n for _, _, n in queue.submitted)
    for number, n_elements, n in queue.submitted:
        console.print(Text(f"Slurm job array {number}: {n} points in {n_elements} jobs"), soft_wrap=True)
    if n_new < n_points:
        console.print(Text(f"{n_points - n_new} points are queued or running already"), soft_wrap=True)


def follower(console: Console) -> Callable[[Event], None]:
    """One line for every change; ticks and what was done before are left out."""

    def tell(event: Event) -> None:
        if event.kind not in ("tick", "kept", "failed_before", "stopping"):
            text = f": {event.text}" if event.kind in ("failed", "killed", "stopped", "notice") else ""
            console.print(Text(f"{event.kind:8s} {event.id}{text}"), soft_wrap=True)

    return tell


def collect_study(name: str, console: Console, *, resubmit: bool = False) -> int:
    """Gather what Slurm jobs have found of `results/NAME/`: table, laws, figures, report; the exit status: 0
    complete, 1 some points failed, 75 some have not ended.

    `resubmit`: points whose jobs are gone without a result are submitted again; they go on from their
    checkpoints.

    Raises:
        ConfigError: the study was not started, another process works on it, or Slurm cannot be asked.
    """
    from sapis_lab.executors import slurm

    begin, folder = time.monotonic(), results_folder(checked_name(name))
    manifest = read_manifest(folder)
    with locked(folder) as taken_over:
        if taken_over:
            console.print(Text(taken_over, style="yellow"), soft_wrap=True)
        jobs = slurm.jobs_of(folder)
        gone = slurm.lost(jobs)
        if gone and resubmit:
            from sapis_lab.sweep.study import Study
            from sapis_lab.training import PointConfig

            study = load(
                Study, read_yaml(folder / "study.yaml"), source=str(folder / "study.yaml"), recorded=True
            )
            places = [point_folder(folder, id) for id in gone]
            points = [
                load(PointConfig, read_yaml(p / "config.yaml"), source=str(p / "config.yaml"), recorded=True)
                for p in places
            ]
            queue = executor_of(
                study,
                resources(study.run, where="slurm"),
                folder,
                points=points,
                expected=manifest.expected_seconds,
            )
            assert isinstance(queue, slurm.SlurmQueue)
            queue.start(*places)
            _say_submitted(queue, len(places), console)
        for id, job in gone.items():
            again = (
                "submitted again" if resubmit else f"submit it again: sapis study collect {name} --resubmit"
            )
            console.print(
                Text(f"  lost    {id}: Slurm job {job.told}; {again}   log {shown(job.log)}", style="yellow"),
                soft_wrap=True,
            )
        if not any(job.alive for job in jobs.values()) and not gone and (folder / PROVENANCE).exists():
            note_finished(folder)
        chosen = [p.id for p in manifest.points]
        return _conclude(
            folder, _command_of(folder), console, chosen=chosen, seconds=time.monotonic() - begin
        )


def _command_of(folder: Path) -> Callable[..., str]:
    """The command that made the results, as they recorded it."""
    words = str(
        read_json(folder / PROVENANCE, then="run the study again to write it anew", keys=["command"])[
            "command"
        ]
    )
    return lambda retry: words if not retry or "--retry-failed" in words else f"{words} --retry-failed"


# ----------------------------------------------------------------------------------------------------- before


@dataclass(frozen=True)
class Job:
    """A study with its lattice and its costs."""

    study: Study
    points: list[Point]
    """The whole lattice."""
    chosen: list[Planned]
    """The points asked for."""
    plan: Plan
    """Costs of the whole lattice."""
    use: Resources


def prepare_job(request: Request) -> Job:
    """Everything that is known before anything is spent. ConfigError when the study cannot be run."""
    from sapis_lab.sweep.plan import infos, plan
    from sapis_lab.sweep.points import points, select
    from sapis_lab.sweep.study import load_study

    study = load_study(request.name, request.settings, called=request.called)
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    lattice = points(study, next(iter(known.values())))
    chosen = select([p.planned for p in lattice], request.only)
    use = resources(study.run, workers=request.workers, where=request.executor, n_points=len(chosen))
    costs = plan(study, lattice, known, workers=use.workers, device=use.device)
    return Job(study, lattice, chosen, costs, use)


def _announce(job: Job, states: Mapping[str, str], to_run: Sequence[str], console: Console) -> None:
    from sapis_lab.sweep.plan import makespan

    console.print(Text(f"{job.study.name}: {job.study.question}", style="bold"), soft_wrap=True)
    n_done = list(states.values()).count("done")
    where = f"{job.use.device} of Slurm" if job.use.slurm else job.use.device
    text = (
        f"{len(job.chosen)} points on {where}, {'up to ' if job.use.slurm else ''}{job.use.workers} at a time"
    )
    text += f"; {n_done} of them are done" if n_done else ""
    if to_run:
        left = makespan((c.seconds for c in job.plan.costs if c.planned.id in set(to_run)), job.use.workers)
        guessed = "" if {p.family for p in job.chosen} <= job.plan.measured else " (a rough estimate)"
        text += f"; about {duration(left)} of training to go{guessed}"
    console.print(Text(text), soft_wrap=True)


def _write_settings(job: Job, request: Request) -> None:
    """study.yaml and points.json of the results folder."""
    write_text(request.folder / "study.yaml", dump_yaml(job.study))
    manifest = Manifest(
        inputs=request.inputs,
        points=tuple(p.planned for p in job.points),
        expected_seconds=job.plan.expected_seconds,
    )
    write_manifest(request.folder, manifest)


def _planned_for_others(job: Job, store: FrameStore) -> bool:
    """The finished store differs from what was known before it was made in what the lattice depends on."""
    info = job.plan.info
    sizes = {"train": info.n_train, "validation": info.n_validation, **info.n_test}
    return (
        store.elements != tuple(info.species)
        or {name: len(ids) for name, ids in store.splits.items()} != sizes
    )


def _longest_first(job: Job) -> list[Any]:
    """The chosen points, the longest first, so that the last one to end is a short one."""
    chosen = {p.id for p in job.chosen}
    cost = job.plan.expected_seconds
    return sorted((p.config for p in job.points if p.planned.id in chosen), key=lambda c: -cost[c.id])


# ------------------------------------------------------------------------------------------------------ after


def _says_finished(request: Request, console: Console) -> bool:
    """Whether nothing of the study is left, which is told then."""
    manifest = None if request.only else finished(request.folder, request.inputs)
    if manifest is not None:
        console.print(
            Text(
                f"{request.folder.name} is finished: all {len(manifest.points)} points are done, nothing to "
                f"do"
            ),
            soft_wrap=True,
        )
        console.print(Text(f"report {shown(request.folder / 'report.html')}"), soft_wrap=True)
    return manifest is not None


def _say_stopped(request: Request, console: Console) -> int:
    """What a stop leaves to do, or that it came too late for that; the exit status."""
    if _says_finished(request, console):
        return COMPLETE
    console.print(
        Text(f"\nstopped; nothing is lost. Continue with: {request.again}", style="yellow"), soft_wrap=True
    )
    return STOPPED


def _again(request: Request) -> Callable[..., str]:
    """The command that continues it; with `retry`, also what failed."""
    return lambda retry: replace(request, retry_failed=True).again if retry else request.again


def _conclude(
    folder: Path, again: Callable[..., str], console: Console, *, chosen: Sequence[str], seconds: float
) -> int:
    """Table, laws, figures, report, and the last words; the exit status says what became of the chosen
    points."""
    manifest = read_manifest(folder)
    states = {p.id: state(point_folder(folder, p.id)) for p in manifest.points}
    failed = [id for id, s in states.items() if s == "failed"]
    n_done = list(states.values()).count("done")
    with noting_answers(folder):
        rebuild_table(folder)
        if n_done:
            console.print(Text("laws, figures and report ..."))
            plainly(lambda: analyse(folder), about="the points are kept, but their analysis failed")
    n_open = len(states) - n_done - len(failed)
    left = f", {n_open} not run yet" if n_open else ""
    console.print(
        Text(
            f"\n{n_done} of {len(states)} points done, {len(failed)} failed{left}; this session took "
            f"{duration(seconds)}",
            style="bold",
        )
    )
    for id in failed:
        place = point_folder(folder, id)
        console.print(
            Text(f"  failed  {id}: {failure_reason(place)}   log {shown(place / LOG)}", style="red"),
            soft_wrap=True,
        )
    if failed:
        console.print(Text(f"  run them again: {again(retry=True)}"), soft_wrap=True)
    if n_done:
        print_answers(folder, console)
    if set(failed) & set(chosen):
        return SOME_FAILED
    if any(states[id] != "done" for id in chosen):
        console.print(
            Text(f"some points have not ended; continue with: {again(retry=False)}", style="yellow"),
            soft_wrap=True,
        )
        return STOPPED
    return COMPLETE


@contextmanager
def noting_answers(folder: Path) -> Iterator[None]:
    """While the block makes table and answers: afterwards `answers.json` says from which records. Published
    results without records have none to name."""
    records = None
    if _has_records(folder):
        manifest = read_manifest(folder)
        refuse_other_study_file(folder, manifest)
        restore(folder, manifest.points)
        records = records_digest(folder, manifest)
    yield
    if records is not None:
        note_answers(folder, records)


def _has_records(folder: Path) -> bool:
    return (folder / "points").is_dir() or (folder / KEPT).is_dir()


def rebuild_table(folder: Path) -> None:
    """runs.parquet and runs.csv from the records, where those are still there; older published results come
    without them."""
    if _has_records(folder):
        points = read_manifest(folder).points
        restore(folder, points)
        for point in points:
            if (point_folder(folder, point.id) / RECORD).exists():
                keep(folder, point.id)
        write_table(runs_table(folder / "points", points), folder)


def analyse(folder: Path) -> Any:
    """fit.json, figures/ and report.html from the table."""
    from sapis_lab.report import analyse_folder

    return analyse_folder(folder)


def print_answers(folder: Path, console: Console) -> None:
    """What the study found, and where it is written."""
    for sentence in verdict_sentences(folder):
        console.print(Text(sentence), soft_wrap=True)
    n_figures = len(list((folder / "figures").glob("*.pdf")))
    console.print(Text(f"report  {shown(folder / 'report.html')}"), soft_wrap=True)
    console.print(Text(f"figures {shown(folder / 'figures')}/ ({n_figures})"), soft_wrap=True)
    console.print(Text(f"table   {shown(folder / 'runs.csv')}"), soft_wrap=True)


def verdict_sentences(folder: Path) -> list[str]:
    """The report's verdict on the study."""
    from sapis_lab.quantities import quantity
    from sapis_lab.records import read_table
    from sapis_lab.report.verdict import read_fit, verdict

    fits = read_fit(folder)
    return verdict(fits, read_table(folder), quantity(fits["quantity"]))


def known_studies(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every study with a word about its state."""
    return [(name, _word(results_folder(name))) for name in names]


def _word(folder: Path) -> str:
    try:
        manifest = read_manifest(folder)
    except ConfigError:
        return "results without points" if (folder / "runs.parquet").exists() else "not started"
    n_done = sum(state(point_folder(folder, p.id)) == "done" for p in manifest.points)
    if n_done == 0 and (folder / "runs.parquet").exists():
        return "results without points"
    return f"{n_done} of {len(manifest.points)} points done"
