"""`sapis study run NAME`: data, points, table, laws, figures, report.

The request is planned (`planned_study`), the lock taken, and what the results folder holds compared with the
plan; then data are made, points trained here or submitted to Slurm (`submission`), and what they found is
written and printed (`answers`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sapis_lab.config import dump_yaml
from sapis_lab.files import write_text
from sapis_lab.jobs.folder import state
from sapis_lab.jobs.signals import Stop, interrupting
from sapis_lab.sweep.answers import conclude
from sapis_lab.sweep.board import Board
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.sweep.evaluations import Evaluated, evaluate_points, not_evaluated, print_failed
from sapis_lab.sweep.files import raw_study
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.keep import restore
from sapis_lab.sweep.lock import locked, refuse_if_running
from sapis_lab.sweep.manifest import Manifest, write_manifest
from sapis_lab.sweep.planned_study import PlannedStudy, plan_study
from sapis_lab.sweep.prepare import data_identity, prepare_data
from sapis_lab.sweep.provenance import note_finished, write_provenance
from sapis_lab.sweep.request import COMPLETE, SOME_FAILED, STOPPED, Request
from sapis_lab.sweep.resources import executor_of
from sapis_lab.sweep.submission import refuse_if_queued, submit
from sapis_lab.sweep.whole import finished, refuse_damaged
from sapis_lab.sweep.words import duration, shown

if TYPE_CHECKING:
    from sapis_lab.data import FrameStore


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
            planned = plan_study(request)
            with locked(request.folder) as taken_over:
                if taken_over:
                    console.print(Text(taken_over, style="yellow"), soft_wrap=True)
                return _run(planned, request, console, stop)
        except KeyboardInterrupt:
            return _say_stopped(request, console)


def _run(planned: PlannedStudy, request: Request, console: Console, stop: Stop | None = None) -> int:
    from sapis_lab.sweep import engine

    begin = time.monotonic()
    folder, study = request.folder, planned.study
    engine.refuse_other_settings([p.config for p in planned.points], folder)
    refuse_damaged(folder, [p.planned for p in planned.points])
    planned.use.executor.check()
    if not planned.use.slurm:
        refuse_if_queued([p.id for p in planned.chosen], folder, console)
    restore(folder, [p.planned for p in planned.points])
    states = {p.id: state(point_folder(folder, p.id)) for p in planned.chosen}
    to_run = [
        p
        for p in planned.longest_first()
        if states[p.id] != "done" and (states[p.id] != "failed" or request.retry_failed)
    ]
    _announce(planned, states, [p.id for p in to_run], console)
    _write_settings(planned, request)
    if to_run:
        # Only a session that trains is part of where the numbers come from.
        write_provenance(
            folder,
            command=request.command,
            device=planned.use.device,
            workers=planned.use.workers,
            data=data_identity(study),
        )
        store = prepare_data(study, cores=planned.use.cores, console=console)
        if _planned_for_others(planned, store):
            planned = plan_study(request)
            engine.refuse_other_settings([p.config for p in planned.points], folder)
            _write_settings(planned, request)
        try:
            if planned.use.slurm:
                n_left = submit(planned, request, console)
                if not request.wait and n_left:
                    return COMPLETE
            else:
                _train(planned, request, console)
        except engine.Stopped:
            return _say_stopped(request, console)
        except engine.LauncherDied as error:
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
            return _say_stopped(request, console)
        note_finished(folder)
    try:
        evaluated = _evaluate(planned, request, console, has_data=bool(to_run))
    except (engine.Stopped, engine.LauncherDied) as error:
        if isinstance(error, engine.LauncherDied):
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        return _say_stopped(request, console)
    if stop is not None:
        stop.check()
    status = conclude(
        folder,
        request.continued_by,
        console,
        chosen=[p.id for p in planned.chosen],
        seconds=time.monotonic() - begin,
    )
    print_failed(evaluated, folder, console)
    return SOME_FAILED if status == COMPLETE and evaluated.failed else status


def _evaluate(planned: PlannedStudy, request: Request, console: Console, *, has_data: bool) -> Evaluated:
    """What `evaluate:` of the study wants of the points that are done; nothing where it is left out."""
    study, folder = planned.study, request.folder
    if not not_evaluated(folder, planned.chosen, study.evaluate):
        return Evaluated()
    if not has_data:
        prepare_data(study, cores=planned.use.cores, console=console)
    return evaluate_points(
        folder,
        planned.chosen,
        study.evaluate,
        cache=study.run.cache_folder,
        use=planned.use,
        console=console,
        retry_failed=request.retry_failed,
        wait=request.wait,
    )


def _train(planned: PlannedStudy, request: Request, console: Console) -> None:
    from sapis_lab.sweep import engine

    configs, study, use = planned.longest_first(), planned.study, planned.use
    expected, key = planned.plan.expected_seconds, study.law.quantity
    with Board(
        [p.id for p in configs],
        folder=request.folder,
        expected=expected,
        workers=use.workers,
        loss_key=key,
        console=console,
    ) as board:
        engine.run(
            configs,
            folder=request.folder,
            cache=study.run.cache_folder,
            executor=executor_of(study, use, request.folder, points=configs, expected=expected),
            on_event=board,
            retry_failed=request.retry_failed,
        )


def _announce(
    planned: PlannedStudy, states: Mapping[str, str], to_run: Sequence[str], console: Console
) -> None:
    from sapis_lab.sweep.plan import makespan

    console.print(Text(f"{planned.study.name}: {planned.study.question}", style="bold"), soft_wrap=True)
    n_done = list(states.values()).count("done")
    where = f"{planned.use.device} of Slurm" if planned.use.slurm else planned.use.device
    at_a_time = f"{'up to ' if planned.use.slurm else ''}{planned.use.workers} at a time"
    text = f"{len(planned.chosen)} points on {where}, {at_a_time}"
    text += f"; {n_done} of them are done" if n_done else ""
    if to_run:
        left = makespan(
            (c.seconds for c in planned.plan.costs if c.planned.id in set(to_run)), planned.use.workers
        )
        guessed = "" if {p.family for p in planned.chosen} <= planned.plan.measured else " (a rough estimate)"
        text += f"; about {duration(left)} of training to go{guessed}"
    console.print(Text(text), soft_wrap=True)


def _write_settings(planned: PlannedStudy, request: Request) -> None:
    """study.yaml and points.json of the results folder."""
    write_text(request.folder / "study.yaml", dump_yaml(planned.study))
    manifest = Manifest(
        inputs=request.inputs,
        points=tuple(p.planned for p in planned.points),
        expected_seconds=planned.plan.expected_seconds,
    )
    write_manifest(request.folder, manifest)


def _planned_for_others(planned: PlannedStudy, store: FrameStore) -> bool:
    """The finished store differs from what was known before it was made in what the lattice depends on."""
    info = planned.plan.info
    sizes = {"train": info.n_train, "validation": info.n_validation, **info.n_test}
    return (
        store.elements != tuple(info.species)
        or {name: len(ids) for name, ids in store.splits.items()} != sizes
    )


def _says_finished(request: Request, console: Console) -> bool:
    """Whether nothing of the study is left, which is said then."""
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
