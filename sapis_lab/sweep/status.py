"""The state of studies on the screen, from their files alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.jobs.folder import State, failure_reason, read_progress, state
from sapis_lab.records import FAILURE, JOBS, RECORD, read_raw
from sapis_lab.screen import new_table
from sapis_lab.sweep.board import while_training
from sapis_lab.sweep.evaluations import not_evaluated, wanted_evaluations
from sapis_lab.sweep.folder import point_folder, results_folder
from sapis_lab.sweep.lock import holder
from sapis_lab.sweep.manifest import Manifest, read_manifest
from sapis_lab.sweep.words import duration, error_text
from sapis_lab.targets import LOSS

if TYPE_CHECKING:
    from sapis_lab.evaluation import Evaluation
    from sapis_lab.executors.slurm import Queue


def print_status(manifest: Manifest, folder: Path, console: Console, *, queue: Queue | None = None) -> bool:
    """The state of a study from its files, and from Slurm's `queue`: counts by model, running points,
    failures, time left.

    Returns whether it may still change by itself: points are left, and someone or Slurm has them.
    """
    evaluations = wanted_evaluations(folder)  # first: these kinds know what the law may be about
    remote = queue.running if queue else frozenset()
    states: dict[str, State] = {
        p.id: "running" if p.id in remote else state(point_folder(folder, p.id)) for p in manifest.points
    }
    who = holder(folder) or ("Slurm" if remote else None)
    console.print(Text(f"{folder.name}: {'running, by ' + who if who else 'not running'}"), soft_wrap=True)
    names: tuple[State, ...] = get_args(State)
    table = new_table("model", *names, left=["model"])
    for model in dict.fromkeys(p.model for p in manifest.points):
        own = [states[p.id] for p in manifest.points if p.model == model]
        table.add_row(model, *(str(own.count(name)) for name in names))
    console.print(table)
    left, key = {}, while_training(law_quantity(folder))
    for id, now_is in states.items():
        now = read_progress(point_folder(folder, id)) if now_is in ("running", "stopped") else None
        if now_is in ("running", "stopped", "waiting"):
            left[id] = manifest.expected_seconds.get(id, 60.0) * (1 - (now.share if now else 0.0))
        if now:
            loss = "" if now.loss is None else f"   loss {now.loss:.3g}"
            value = f"   {error_text(key, now.val)}" if key in now.val else ""
            console.print(Text(f"{now_is}  {id}   step {now.step}/{now.steps}{loss}{value}"), soft_wrap=True)
    for id in (i for i, s in states.items() if s == "failed"):
        console.print(Text(f"failed  {id}: {failure_reason(point_folder(folder, id))}"), soft_wrap=True)
    if text := _evaluated_text(folder, manifest, states, evaluations):
        console.print(Text(text), soft_wrap=True)
    for line in queue.lines if queue else ():
        console.print(Text(line), soft_wrap=True)
    if left:
        factor = _speed_factor(manifest, states, folder)
        about = duration(factor * sum(left.values()) / max(1, list(states.values()).count("running")))
        console.print(Text(f"about {about} to go{'' if who else ' on one worker'}"))
    return bool(left) and bool(who or (queue and queue.lines))


def _evaluated_text(
    folder: Path, manifest: Manifest, states: Mapping[str, str], wanted: Sequence[Evaluation]
) -> str:
    """How many finished points have what the study wants evaluated; nothing where it wants nothing."""
    done = [p for p in manifest.points if states[p.id] == "done"]
    if not wanted or not done:
        return ""
    left = {p.id for p in not_evaluated(folder, done, wanted)}
    failed = [p.id for p in done if p.id in left and (folder / JOBS / p.id / FAILURE).exists()]
    labels, n = ", ".join(e.label for e in wanted), len(done)
    text = f"evaluated ({labels}): {n - len(left)} of {n} done points"
    lines = [text + (f", {len(failed)} failed" if failed else "")]
    lines += [f"not evaluated  {id}: {failure_reason(folder / JOBS / id)}" for id in failed]
    return "\n".join(lines)


def watch_status(show: Callable[[Console], bool], console: Console, *, every: float) -> None:
    """Repeat `show` every `every` seconds while it returns True: in place on a terminal, elsewhere whenever
    its words have changed.

    Ctrl-C ends the watching, not the study.
    """

    def look() -> tuple[bool, Text]:
        with console.capture() as capture:
            goes_on = show(console)
        return goes_on, Text.from_ansi(capture.get().rstrip())

    goes_on, last = look()
    with suppress(KeyboardInterrupt):
        if console.is_terminal:
            with Live(last, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                while goes_on:
                    time.sleep(every)
                    goes_on, now = look()
                    live.update(now, refresh=True)
            return
        console.print(last, soft_wrap=True)
        while goes_on:
            time.sleep(every)
            goes_on, now = look()
            if now != last:
                console.print(now, soft_wrap=True)
                last = now


def _speed_factor(manifest: Manifest, states: Mapping[str, str], folder: Path) -> float:
    """Time that finished points took, over what was expected of them."""
    expected = took = 0.0
    for id in (i for i, s in states.items() if s == "done"):
        seconds = read_raw(point_folder(folder, id) / RECORD).get("seconds_total", 0.0)
        if id in manifest.expected_seconds:
            expected, took = expected + manifest.expected_seconds[id], took + seconds
    return took / expected if expected > 0 and took > 0 else 1.0


def law_quantity(folder: Path) -> str:
    """The quantity that the law of a results folder describes."""
    path = folder / "study.yaml"
    law = (read_yaml(path).get("law") or {}) if path.exists() else {}
    return str(law.get("quantity") or LOSS)


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
