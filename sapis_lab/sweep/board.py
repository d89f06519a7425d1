"""What a person sees while points run and while data are made: a live table on a terminal, plain lines
elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sapis_lab.jobs.events import Event
from sapis_lab.jobs.folder import LOG, PROGRESS, Progress, read_progress
from sapis_lab.quantities import quantity
from sapis_lab.screen import new_table
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.words import duration, error_text, share_bar, shown
from sapis_lab.targets import LOSS

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
        return loss + (f"   {error_text(self.loss_key, now.val)}" if self.loss_key in now.val else "")

    def _screen(self) -> Group:
        label = quantity(self.loss_key).label
        table = new_table("running", "step", "", "loss", label, "time", left=("running", ""))
        for id, since in self.running.items():
            now = read_progress(point_folder(self.folder, id))
            step, bar = (f"{now.step}/{now.steps}", share_bar(now.share)) if now else ("starting", "")
            loss = "" if now is None or now.loss is None else f"{now.loss:.3g}"
            table.add_row(
                id,
                step,
                bar,
                loss,
                error_text(self.loss_key, now.val, bare=False) if now else "",
                duration(time.monotonic() - since),
            )
        share = (len(self.done) + len(self.failed)) / max(1, len(self.ids))
        lines = [
            Text(f"{share_bar(share, 40)}  {self._counts()}"),
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
            self.live.update(Text(f"{share_bar(done / total if total else 1.0, 40)}  {text}"), refresh=True)
        elif not self.last or done >= total or now - self.last > _HEARTBEAT:
            self.last = now
            self.console.print(Text(text), soft_wrap=True)


def while_training(key: str) -> str:
    """What is known of a running point: for an error on test or training frames, which is measured at the
    end, that on validation frames, and for what an evaluation measures, the error of the training."""
    measured = quantity(key)
    if measured.evaluation:
        return LOSS
    return measured.on_validation
