"""Evaluates a study that has been trained: what `sapis evaluate NAME` does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from sapis_lab.config import Config, ConfigError, composed_kind, home, kinds, load, plainly, read_yaml
from sapis_lab.evaluation import Evaluation
from sapis_lab.executors.local import LauncherDied
from sapis_lab.jobs.run import Stopped
from sapis_lab.jobs.signals import interrupting
from sapis_lab.records import RECORD
from sapis_lab.sweep.answers import analyse, noting_answers, print_answers, rebuild_table
from sapis_lab.sweep.evaluations import (
    Evaluated,
    evaluate_points,
    not_evaluated,
    print_failed,
    wanted_evaluations,
)
from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.folder import point_folder, results_folder
from sapis_lab.sweep.keep import restore
from sapis_lab.sweep.lock import locked
from sapis_lab.sweep.manifest import SETTINGS, read_manifest, refuse_other_study_file
from sapis_lab.sweep.points import select
from sapis_lab.sweep.prepare import prepare_data
from sapis_lab.sweep.request import COMPLETE, SOME_FAILED, STOPPED, for_make
from sapis_lab.sweep.resources import resources
from sapis_lab.sweep.study import Study
from sapis_lab.sweep.whole import refuse_damaged


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user asked for."""

    name: str
    """Of a results folder."""
    kinds: tuple[str, ...] = ()
    """Names of configs/evaluation/ or of kinds; the study's `evaluate:` when empty."""
    only: tuple[str, ...] = ()
    """Selection of points; all when empty."""
    executor: Literal["local", "slurm"] | None = None
    """Instead of the study's `run.executor`."""
    workers: int | None = None
    retry_failed: bool = False
    wait: bool = False
    """With Slurm: follow the jobs to their end and gather what they found."""

    @property
    def folder(self) -> Path:
        return results_folder(checked_name(self.name))

    def again(self, *, retry: bool = False) -> str:
        """The command that continues it; with `retry`, also what failed."""
        words: list[str] = []
        for flag, values in (("--kind", self.kinds), ("--only", self.only)):
            words += [w for value in values for w in (flag, shlex.quote(value))]
        words += ["--executor", self.executor] if self.executor else []
        extra = " ".join([*words, *["--retry-failed"] * (retry or self.retry_failed)])
        if "MAKELEVEL" in os.environ:
            return f"make evaluate NAME={self.name}" + (f" ARGS={for_make(extra)}" if extra else "")
        return f"sapis evaluate {self.name} {extra}".rstrip()


def evaluate_study(request: EvaluateRequest, console: Console) -> int:
    """Evaluate the finished points of a study, and make its table, laws, figures and report again; the exit
    status: 0 all are evaluated (or submitted), 1 some could not be, 75 stopped and resumable.

    Raises:
        ConfigError: the study was not started, or the evaluations are not known (exit status 2).
    """
    folder = request.folder
    read_manifest(folder)  # there is one
    with interrupting() as stop:
        try:
            with locked(folder) as taken_over:
                if taken_over:
                    console.print(Text(taken_over, style="yellow"), soft_wrap=True)
                status = _evaluate(request, console)
                stop.check()
                return status
        except (KeyboardInterrupt, Stopped):
            return _say_stopped(request, console)
        except LauncherDied as error:
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
            return _say_stopped(request, console)


def _say_stopped(request: EvaluateRequest, console: Console) -> int:
    text = f"\nstopped; nothing is lost. Continue with: {request.again()}"
    console.print(Text(text, style="yellow"), soft_wrap=True)
    return STOPPED


def _evaluate(request: EvaluateRequest, console: Console) -> int:
    folder = request.folder
    manifest = read_manifest(folder)
    refuse_other_study_file(folder, manifest)
    study = load(Study, read_yaml(folder / SETTINGS), source=str(folder / SETTINGS), recorded=True)
    evaluations = named_evaluations(request.kinds) or wanted_evaluations(folder)
    if not evaluations:
        known = ", ".join(sorted({*kinds("evaluation"), *_configs()}))
        raise ConfigError(
            f"{request.name}: its study has no evaluate:, so say what to measure with --kind; known: {known}"
        )
    chosen = select(manifest.points, request.only)
    restore(folder, manifest.points)
    refuse_damaged(folder, manifest.points)
    done = [p for p in chosen if (point_folder(folder, p.id) / RECORD).exists()]
    if not done:
        raise ConfigError(f"{request.name}: none of {len(chosen)} points is done; train some first")
    use = resources(study.run, workers=request.workers, where=request.executor, n_points=len(done))
    use.executor.check()
    if not_evaluated(folder, done, evaluations):
        prepare_data(study, cores=use.cores, console=console)
    found = evaluate_points(
        folder,
        done,
        evaluations,
        cache=study.run.cache_folder,
        use=use,
        console=console,
        retry_failed=request.retry_failed,
        wait=request.wait,
    )
    labels = ", ".join(e.label for e in evaluations)
    return _conclude(request, labels, len(chosen), len(done), found, console)


def _conclude(
    request: EvaluateRequest, labels: str, n_chosen: int, n_done: int, found: Evaluated, console: Console
) -> int:
    """Table, laws, figures, report, and the last words; the exit status."""
    folder = request.folder
    with noting_answers(folder):
        rebuild_table(folder)
        console.print(Text("laws, figures and report ..."))
        plainly(lambda: analyse(folder), about="the evaluations are kept, but the analysis failed")
    n_good = n_done - len(found.failed) - len(found.open)
    rest = f", {len(found.open)} submitted" if found.open else ""
    rest += f", {n_chosen - n_done} not trained yet" if n_done < n_chosen else ""
    text = f"\n{n_good} of {n_chosen} points evaluated ({labels}), {len(found.failed)} failed{rest}"
    console.print(Text(text, style="bold"), soft_wrap=True)
    print_failed(found, folder, console)
    if found.failed:
        console.print(Text(f"  evaluate them again: {request.again(retry=True)}"), soft_wrap=True)
    if found.open:
        console.print(Text(f"gather them with: {request.again()}"), soft_wrap=True)
    print_answers(folder, console)
    return SOME_FAILED if found.failed else COMPLETE


class _Named(Config):
    evaluate: tuple[composed_kind("evaluation", Evaluation), ...]  # type: ignore[valid-type]


def named_evaluations(names: Sequence[str]) -> tuple[Evaluation, ...]:
    """The evaluations called so: files of configs/evaluation/, or kinds with their defaults.

    Raises:
        ConfigError: there is none of a name, or two have one label.
    """
    configs, known = _configs(), kinds("evaluation")
    raw = [name if name in configs or name not in known else {"kind": name} for name in dict.fromkeys(names)]
    found: tuple[Evaluation, ...] = load(_Named, {"evaluate": raw}, source="--kind").evaluate
    labels = [e.label for e in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"--kind: {', '.join(names)} have one name in tables; give one of them a `name:`")
    return found


def _configs() -> list[str]:
    return sorted(p.stem for p in (home() / "configs" / "evaluation").glob("*.yaml"))
