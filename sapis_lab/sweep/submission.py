"""A study in the queue of Slurm: submitting its points, following them, and gathering what they found (`sapis
study collect NAME`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sapis_lab.config import load, read_yaml
from sapis_lab.files import read_json
from sapis_lab.jobs.folder import state
from sapis_lab.sweep.answers import conclude
from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.folder import point_folder, results_folder
from sapis_lab.sweep.lock import Locked, locked
from sapis_lab.sweep.manifest import read_manifest
from sapis_lab.sweep.planned_study import PlannedStudy
from sapis_lab.sweep.provenance import FILE as PROVENANCE
from sapis_lab.sweep.provenance import note_finished
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.resources import executor_of, resources
from sapis_lab.sweep.words import shown

if TYPE_CHECKING:
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.jobs.events import Event


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


def submit(planned: PlannedStudy, request: Request, console: Console) -> int:
    """Submit what is not complete and, if that is asked for, follow it; how many points have neither record
    nor failure then."""
    from sapis_lab.executors.slurm import SlurmQueue
    from sapis_lab.sweep import engine

    folder, configs, name = request.folder, planned.longest_first(), request.folder.name
    expected = planned.plan.expected_seconds
    queue = executor_of(planned.study, planned.use, folder, points=configs, expected=expected)
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
            cache=planned.study.run.cache_folder,
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
                Text(
                    f"  lost    {id}: Slurm job {job.message}; {again}   log {shown(job.log)}", style="yellow"
                ),
                soft_wrap=True,
            )
        if not any(job.alive for job in jobs.values()) and not gone and (folder / PROVENANCE).exists():
            note_finished(folder)
        chosen = [p.id for p in manifest.points]
        return conclude(folder, _command_of(folder), console, chosen=chosen, seconds=time.monotonic() - begin)


def _command_of(folder: Path) -> Callable[..., str]:
    """The command that made the results, as they recorded it."""
    words = str(
        read_json(folder / PROVENANCE, then="run the study again to write it anew", keys=["command"])[
            "command"
        ]
    )
    return lambda retry: words if not retry or "--retry-failed" in words else f"{words} --retry-failed"
