"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere, and the plan and
status screens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sapis_lab.config import home, read_yaml
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.folder import LOG, PROGRESS, Progress, State, failure_reason, read_progress, state
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, read_raw
from sapis_lab.screen import new_table
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.lock import holder
from sapis_lab.sweep.manifest import Manifest
from sapis_lab.targets import LOSS

if TYPE_CHECKING:
    from sapis_lab.executors.slurm import Queue
    from sapis_lab.sweep.plan import Plan, PointCost

_HEARTBEAT = 20.0


class Board:
    """Follows a run: call it with the engine's events, inside `with`. `ids` are the points asked for, in any
    order."""

    def __init__(
        self,
        ids: Sequence[str],
        *,
        folder: Path,
        expected: Mapping[str, float],
        workers: int,
        loss_key: str,
        console: Console | None = None,
    ) -> None:
        self.ids, self.folder, self.workers, self.loss_key = (
            tuple(ids),
            folder,
            workers,
            while_training(loss_key),
        )
        self.expected = {id: expected.get(id, 60.0) for id in ids}
        self.console = console or PlainConsole()
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.stopped: dict[str, str] = {}
        self.running: dict[str, float] = {}
        self.spent: dict[str, float] = {}
        self.note = ""
        self.begin = time.monotonic()
        self.last_line = time.monotonic()
        self.live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        getattr(self, f"_{event.kind}")(event)
        if self.live:
            self.live.update(self._screen(), refresh=True)

    # ------------------------------------------------------------------------------------------------- events

    def _kept(self, event: Event) -> None:
        self.done.add(event.id)

    def _failed_before(self, event: Event) -> None:
        self.failed[event.id] = event.text
        self._line(f"failed earlier  {event.id}: {event.text} (again with --retry-failed)")

    def _launching(self, event: Event) -> None:
        kept = f", {len(self.done)} done before" if self.done else ""
        self._line(
            f"{len(self.ids)} points on {self.workers} workers{kept}; results go to {shown(self.folder)}/"
        )
        self.note = "starting the workers ..."

    def _launched(self, event: Event) -> None:
        self._line(f"workers ready after {duration(event.seconds)}, once")

    def _started(self, event: Event) -> None:
        self.running[event.id] = time.monotonic()
        self.note = ""
        if not self.live:
            self._line(f"started  {event.id}   log {shown(Path(event.text))}")

    def _done(self, event: Event) -> None:
        self.running.pop(event.id, None)
        self.done.add(event.id)
        self.spent[event.id] = event.seconds
        if not self.live:
            now = read_progress(point_folder(self.folder, event.id))
            self._line(
                f"done     {event.id}   {duration(event.seconds)}{self._losses(now)}   {self._counts()}"
            )

    def _failed(self, event: Event) -> None:
        self.running.pop(event.id, None)
        self.failed[event.id] = event.text
        self._line(
            f"FAILED   {event.id}: {event.text}   log {shown(point_folder(self.folder, event.id) / LOG)}"
        )

    def _killed(self, event: Event) -> None:
        self.running.pop(event.id, None)
        self._line(f"killed   {event.id}: {event.text}")

    def _stopped(self, event: Event) -> None:
        self.running.pop(event.id, None)
        self.stopped[event.id] = event.text
        self._line(f"stopped  {event.id}: {event.text}; the next run goes on with it")

    def _notice(self, event: Event) -> None:
        self._line(f"warning  {event.id}: {event.text}")

    def _stopping(self, event: Event) -> None:
        self.note = f"stopping {event.text} running points (again: at once) ..."
        self._line(self.note)

    def _tick(self, event: Event) -> None:
        if not self.live and time.monotonic() - self.last_line > _HEARTBEAT:
            self._line(f"running  {self._counts()}")
            for id in self.running:
                now = read_progress(point_folder(self.folder, id))
                if now:
                    self._line(f"         {id}   step {now.step}/{now.steps}{self._losses(now)}")

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(Text(text), soft_wrap=True)

    # ------------------------------------------------------------------------------------------------- screen

    def _counts(self) -> str:
        left = len(self.ids) - len(self.done) - len(self.failed) - len(self.running) - len(self.stopped)
        counts = f"{len(self.done)} done, {len(self.running)} running, {left} left, {len(self.failed)} failed"
        counts += f", {len(self.stopped)} stopped" if self.stopped else ""
        return f"{counts}, {duration(self.seconds_left())} to go"

    def _losses(self, now: Progress | None) -> str:
        if now is None:
            return ""
        loss = "" if now.loss is None else f"   loss {now.loss:.3g}"
        return loss + (f"   {_error(self.loss_key, now.val)}" if self.loss_key in now.val else "")

    def _screen(self) -> Group:
        label = quantity(self.loss_key).label
        table = new_table("running", "step", "", "loss", label, "time", left=("running", ""))
        for id, since in self.running.items():
            now = read_progress(point_folder(self.folder, id))
            step, bar = (f"{now.step}/{now.steps}", _bar(now.share)) if now else ("starting", "")
            loss = "" if now is None or now.loss is None else f"{now.loss:.3g}"
            table.add_row(
                id,
                step,
                bar,
                loss,
                _error(self.loss_key, now.val, bare=False) if now else "",
                duration(time.monotonic() - since),
            )
        share = (len(self.done) + len(self.failed)) / max(1, len(self.ids))
        lines = [
            Text(f"{_bar(share, 40)}  {self._counts()}"),
            Text(f"results {shown(self.folder)}/   logs {shown(self.folder)}/points/ID/{LOG}", style="dim"),
        ]
        lines += [Text(self.note, style="yellow")] if self.note else []
        return Group(table, *lines)

    # --------------------------------------------------------------------------------------------------- time

    def seconds_left(self) -> float:
        """Wall time to the end: what was expected, corrected by how fast the points have been so far."""
        expected = spent = 0.0
        left: dict[str, float] = {}
        for id, since in self.running.items():
            path = point_folder(self.folder, id)
            now, seconds = read_progress(path), time.monotonic() - since
            # What an earlier session left behind says nothing about this one until it is written again.
            fresh = (path / PROGRESS).exists() and time.time() - (path / PROGRESS).stat().st_mtime < seconds
            share = now.share if now else 0.0
            left[id] = self.expected[id] * (1 - share)
            if now and fresh and share > 0.05 and now.seconds > 0:
                expected, spent = expected + self.expected[id] * share, spent + now.seconds
        for id, seconds in self.spent.items():
            expected, spent = expected + self.expected[id], spent + seconds
        factor = spent / expected if expected > 0 else 1.0
        ended = self.done | self.failed.keys() | self.stopped.keys() | self.running.keys()
        waiting = [self.expected[i] for i in self.ids if i not in ended]
        ends = sorted(left.values()) + [0.0] * max(0, self.workers - len(left))
        for seconds in waiting:
            ends[ends.index(min(ends))] += seconds
        return factor * max(ends, default=0.0)


class DataBoard:
    """Follows the making of data: call it as progress(what, done, total)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or PlainConsole()
        self.begin = self.last = 0.0
        self.what = ""
        self.first = 0
        self.live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.begin, self.first, self.last = what, now, done, 0.0
        gone = now - self.begin
        left = (
            f", {duration(gone / (done - self.first) * (total - done))} to go"
            if self.first < done < total and gone > 1
            else ""
        )
        text = f"data: {what} {done}/{total}{left}"
        if self.live:
            self.live.update(Text(f"{_bar(done / total if total else 1.0, 40)}  {text}"), refresh=True)
        elif not self.last or done >= total or now - self.last > _HEARTBEAT:
            self.last = now
            self.console.print(Text(text), soft_wrap=True)


# ------------------------------------------------------------------------------------------------------- plan


def print_plan(plan: Plan, console: Console, *, states: Mapping[str, str] | None = None) -> None:
    """The plan screen."""
    study, info, states = plan.study, plan.info, states or {}
    console.print(Text(f"{study.name}: {study.question}"), soft_wrap=True)
    tests = ", ".join(f"{n} {name}" for name, n in info.n_test.items())
    console.print(
        f"data   {info.n_train} training frames, {info.n_validation} validation, {tests}; "
        f"{info.mean_atoms:.3g} atoms and "
        f"{info.mean_pairs:.3g} pairs a frame; {size(info.bytes_estimate)}",
        soft_wrap=True,
        highlight=False,
    )
    columns: dict[str, Callable[[PointCost], str]] = {
        "point": lambda c: c.planned.id,
        "N": lambda c: f"{c.planned.n_params:,}",
        "D": lambda c: f"{c.planned.n_frames:,}",
        "steps": lambda c: f"{c.planned.steps:,}",
        "batch": lambda c: str(c.planned.batch_size),
        "rate": lambda c: f"{c.planned.learning_rate:.3g}",
        "FLOPs": lambda c: f"{c.flops_train:.1e}",
        "FLOPs/frame": lambda c: f"{c.flops_inference:.1e}",
        "time": lambda c: duration(c.seconds),
        "disk": lambda c: size(c.disk),
    }
    if states:
        columns["state"] = lambda c: states.get(c.planned.id, "")
    if console.width < 100:  # a narrow terminal keeps what was promised: N, D, FLOPs, time and disk
        for name in ("batch", "rate", "FLOPs/frame"):
            del columns[name]
    table = new_table(*columns, left=("point", "state"))
    for cost in plan.costs:
        table.add_row(*(text(cost) for text in columns.values()))
    console.print(table)
    _print_totals(plan, console)


def _print_totals(plan: Plan, console: Console) -> None:
    total = sum(c.seconds for c in plan.costs)
    console.print(
        f"total  {len(plan.costs)} points, {sum(c.flops_train for c in plan.costs):.2e} FLOPs, "
        f"{duration(total)} of work; "
        f"{plan.workers} workers -> {duration(plan.seconds)}; disk {size(sum(c.disk for c in plan.costs))}",
        soft_wrap=True,
        highlight=False,
    )
    families = sorted({c.planned.family for c in plan.costs})
    guessed = [f for f in families if f not in plan.measured]
    known = [f for f in families if f in plan.measured]
    parts = [f"from earlier records on this host for {', '.join(known)}"] if known else []
    parts += [f"a rough estimate (within a factor of three) for {', '.join(guessed)}"] if guessed else []
    console.print(Text(f"times are {' and '.join(parts)}", style="dim"), soft_wrap=True)
    meaning = (
        "FLOPs: matrix products of the training, six forward passes a step; FLOPs/frame: energy and forces "
        "of one frame"
    )
    console.print(Text(meaning, style="dim"), soft_wrap=True)


# ----------------------------------------------------------------------------------------------------- status


def print_status(manifest: Manifest, folder: Path, console: Console, *, queue: Queue | None = None) -> bool:
    """The state of a study from its files, and from Slurm's `queue`: counts by model, running points,
    failures, time left.

    Returns whether it may still change by itself: points are left, and someone or Slurm has them.
    """
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
            value = f"   {_error(key, now.val)}" if key in now.val else ""
            console.print(Text(f"{now_is}  {id}   step {now.step}/{now.steps}{loss}{value}"), soft_wrap=True)
    for id in (i for i, s in states.items() if s == "failed"):
        console.print(Text(f"failed  {id}: {failure_reason(point_folder(folder, id))}"), soft_wrap=True)
    for line in queue.lines if queue else ():
        console.print(Text(line), soft_wrap=True)
    if left:
        factor = _speed_factor(manifest, states, folder)
        about = duration(factor * sum(left.values()) / max(1, list(states.values()).count("running")))
        console.print(Text(f"about {about} to go{'' if who else ' on one worker'}"))
    return bool(left) and bool(who or (queue and queue.lines))


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


def while_training(key: str) -> str:
    """What is known of a running point: for an error on test frames, which is measured at the end, that on
    validation frames."""
    measured = quantity(key)
    return f"val_{measured.measure}" if measured.split.startswith("test") else key


# ------------------------------------------------------------------------------------------------ small words


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min'."""
    if not math.isfinite(seconds):
        return "?"
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min"


def size(n_bytes: float) -> str:
    """'61 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def shown(path: Path) -> str:
    """`path` as people write it: from the project folder where it lies there."""
    try:
        return Path(path).resolve().relative_to(home().resolve()).as_posix()
    except ValueError:
        return str(path)


def _bar(share: float, width: int = 16) -> str:
    full = round(max(0.0, min(1.0, share)) * width)
    return "━" * full + "╌" * (width - full)


def _error(key: str, values: Mapping[str, float], *, bare: bool = True) -> str:
    if values.get(key) is None:
        return ""
    q = quantity(key)
    text = f"{values[key] * q.display_factor:.3g} {q.display_unit or q.unit}"
    return f"{key} {text}" if bare else text
