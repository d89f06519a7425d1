"""Evaluates the finished points of a study, each in a process of its own, here or through Slurm: for
`sapis evaluate`, and for the `evaluate:` of a study after its training.

The folder of a job is `results/NAME/evaluations/ID/` (`sapis_lab.evaluation`), its answer `evaluated.json`;
Slurm's own files lie in `results/NAME/evaluations/slurm/`. What is scored is left as it is, what is measured
is not measured again, and an evaluation that fails costs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sapis_lab import outside
from sapis_lab.config import home, kind_class, load, plainly, read_yaml
from sapis_lab.evaluation import ANSWER, Evaluation, is_evaluated, write_request
from sapis_lab.executors import Capacity
from sapis_lab.jobs.executor import Task
from sapis_lab.jobs.folder import LOG, failure_reason
from sapis_lab.records import JOBS, RECORD, Planned, read_record
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.lock import Locked
from sapis_lab.sweep.manifest import SETTINGS
from sapis_lab.sweep.words import shown

if TYPE_CHECKING:
    from sapis_lab.jobs.events import Event, OnEvent
    from sapis_lab.sweep.resources import Resources

TARGET = "sapis_lab.evaluation:evaluate_point"
PRELOAD = ("torch", "sapis_lab.potential", "sapis_lab.training", "sapis_lab.training.process")


@dataclass(frozen=True)
class Evaluated:
    """What became of the evaluation of some points."""

    failed: dict[str, str] = field(default_factory=dict)
    """Why, by the id of the point."""
    open: tuple[str, ...] = ()
    """Points that Slurm has still to evaluate."""


def wanted_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """What the study in a results folder says in `evaluate:`, without understanding the rest of it.

    Raises:
        ConfigError: a kind is not known, or its settings cannot be used.
    """
    path = folder / SETTINGS
    study = read_yaml(path) if path.exists() else {}
    if isinstance(place := study.get("kinds"), str):
        plainly(lambda: outside.add(home() / place), about=f"{path}: kinds")
    found = []
    for plain in study.get("evaluate") or ():
        cls = plainly(partial(kind_class, "evaluation", plain["kind"]), about=f"{path}: evaluate")
        evaluation = load(cls, plain, source=f"{path}: evaluate", recorded=True)
        assert isinstance(evaluation, Evaluation)
        found.append(evaluation)
    return tuple(found)


def not_evaluated(
    folder: Path, points: Iterable[Planned], evaluations: Sequence[Evaluation]
) -> list[Planned]:
    """Of the finished `points`, those that lack one of `evaluations`.

    Raises:
        ConfigError: a record, or scores that are there, cannot be believed.
    """
    found: list[Planned] = []
    for point in points if evaluations else ():
        place = point_folder(folder, point.id)
        if not (place / RECORD).exists():
            continue
        record = read_record(place)
        if not all(is_evaluated(place, evaluation, record) for evaluation in evaluations):
            found.append(point)
    return found


def evaluate_points(
    folder: Path,
    points: Sequence[Planned],
    evaluations: Sequence[Evaluation],
    *,
    cache: Path,
    use: Resources,
    console: Console,
    retry_failed: bool = False,
    wait: bool = False,
) -> Evaluated:
    """Evaluate those of `points` that are finished and lack one of `evaluations`. The frames must be there.

    Args:
        folder: results folder, which the caller has locked.   cache: folder of the frame stores.
        use: where, and how many at a time; each on one device.
        retry_failed: also those that failed to the same request earlier.   wait: for the end of Slurm's jobs.

    Raises:
        Stopped: a signal arrived; the same call goes on.   LauncherDied: so does it after this.
        Locked: Slurm has jobs that evaluate some of them, and they are to be evaluated here.
    """
    from sapis_lab.executors.slurm import SlurmQueue, jobs_of
    from sapis_lab.jobs.run import run_jobs

    wanted, place = not_evaluated(folder, points, evaluations), folder / JOBS
    if not wanted:
        return Evaluated()
    alive = {id: job for id, job in jobs_of(place).items() if job.alive}
    queued = [alive[p.id].number for p in wanted if p.id in alive]
    if queued and not use.slurm:
        raise Locked(
            f"{folder.name} is being evaluated already, by the Slurm job {queued[0]}; wait for it, or cancel "
            f"it "
            f"(scancel {queued[0]})"
        )
    names = ", ".join(e.label for e in evaluations)
    console.print(Text(f"evaluating {len(wanted)} points: {names}"), soft_wrap=True)
    for point in wanted:
        if point.id not in alive:  # a job reads its request when it starts
            write_request(place / point.id, evaluations)
    task, folders = evaluating(evaluations, cache=cache), [place / p.id for p in wanted]
    capacity = Capacity(use.device, min(use.workers, len(wanted)))
    executor = use.executor.build(place, task, capacity=capacity, devices=1, expected={})
    if isinstance(executor, SlurmQueue):
        executor.start(*(f for f in folders if retry_failed or not task.has_ended(f)))
        for number, n_elements, n in executor.submitted:
            console.print(Text(f"Slurm job array {number}: {n} points in {n_elements} jobs"), soft_wrap=True)
    if wait or not use.slurm:
        run_jobs(folders, executor, on_event=_teller(console), retry_failed=retry_failed)
    left = [p.id for p in not_evaluated(folder, wanted, evaluations)]
    ended = {id: failure_reason(place / id) for id in left if task.has_ended(place / id)}
    return Evaluated(ended, tuple(id for id in left if id not in ended))


def evaluating(evaluations: Sequence[Evaluation], *, cache: Path) -> Task:
    """The evaluation of points, as jobs."""
    kinds = dict.fromkeys(type(e).__module__ for e in evaluations)
    return Task(TARGET, arguments={"cache": str(cache.absolute())}, preload=(*PRELOAD, *kinds), answer=ANSWER)


def _teller(console: Console) -> OnEvent:
    """Prints a line for every point that has been evaluated, and for what happens besides."""
    words = {"done": "evaluated", "killed": "killed", "stopped": "stopped", "notice": "notice"}

    def tell(event: Event) -> None:
        if event.kind in words:
            text = f": {event.text}" if event.text else ""
            console.print(Text(f"  {words[event.kind]:9s} {event.id}{text}"), soft_wrap=True)

    return tell


def print_failed(found: Evaluated, folder: Path, console: Console) -> None:
    """One line for every point that could not be evaluated."""
    for id, reason in found.failed.items():
        log = shown(folder / JOBS / id / LOG)
        text = f"  not evaluated  {id}: {reason}   log {log}"
        console.print(Text(text, style="red"), soft_wrap=True)
