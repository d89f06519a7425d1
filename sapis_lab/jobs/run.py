"""Runs jobs, each in a process of its own, to their end: what the lattice engine does with the folders of
points, and what may be done with any others (see `executor`).

A crash never takes the others along: a job that fails leaves `failure.txt` and the rest goes on. A job that
the system kills is started again from its checkpoint, behind those that wait, and fails when that happens
three times without a new checkpoint in between. Whatever ends this process, no job on this machine survives
it, and starting again continues every one from its checkpoint. Nothing is retried silently.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sapis_lab.jobs.events import Event, OnEvent
from sapis_lab.jobs.executor import Executor
from sapis_lab.jobs.folder import LOG, failure_reason, write_failure
from sapis_lab.jobs.launcher import STOPPED, UNTOLD
from sapis_lab.jobs.notices import Notices
from sapis_lab.jobs.signals import Stop, stop_signals
from sapis_lab.records import CHECKPOINT, FAILURE, RECORD

_GRACE_STOP = 60.0
_GRACE_ENDED = 1.0
_LOOK = 3.0
"""Time between two looks at what the running jobs have to say, s."""
KILLS = 3
"""How often a job may be killed without a new checkpoint in between before it counts as failed."""


class Stopped(Exception):
    """The run was stopped by a signal; starting again continues it."""


def run_jobs(
    folders: Sequence[Path],
    executor: Executor,
    *,
    on_event: OnEvent = lambda event: None,
    retry_failed: bool = False,
) -> None:
    """Run the jobs in `folders` that have neither answer nor failure, in that order, and close the executor.

    Args:
        folders: their names are the jobs' ids, and differ.   executor: it knows what the jobs do, and which
            file is their answer.
        retry_failed: run jobs again that failed earlier; otherwise they are reported and left.

    Raises:
        Stopped: SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 arrived; all children have ended. What another executor
        has queued stays there.
    """
    waiting = []
    for folder in folders:
        if executor.task.is_done(folder):
            on_event(Event("kept", folder.name))
        elif (folder / FAILURE).exists() and not retry_failed:
            on_event(Event("failed_before", folder.name, failure_reason(folder)))
        else:
            (folder / FAILURE).unlink(missing_ok=True)
            waiting.append(folder)
    if not waiting:
        return
    with stop_signals() as stop:
        try:
            executor.open(on_event, lambda: stop.asked > 0)
        except KeyboardInterrupt:
            raise Stopped("stopped before the first point started") from None
        try:
            work_through(waiting, executor, stop, on_event)
        finally:
            executor.close()
    if stop.asked:  # while the workers closed
        raise Stopped("stopped after the last point had ended")


def work_through(folders: Sequence[Path], executor: Executor, stop: Stop, on_event: OnEvent) -> None:
    """Run the jobs in `folders`, in that order, as the executor has room for them.

    Raises:
        Stopped: `stop` was asked for; every job that this process had started has ended.
    """
    _Run(deque(folders), executor, stop, on_event).to_the_end()


@dataclass
class _Run:
    waiting: deque[Path]
    executor: Executor
    stop: Stop
    on_event: OnEvent
    given: dict[str, Path] = field(default_factory=dict)
    """Folders of the jobs that the executor has."""
    since: dict[str, float] = field(default_factory=dict)
    """Start of every running job."""
    doubtful: dict[str, tuple[Path, int, str, float, float]] = field(default_factory=dict)
    """Folder, exit status, reason, time of the end and running time of jobs that a signal ended, until that
    is believed."""
    kills: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """How often a job was killed with the same checkpoint, and when that was written."""
    notices: Notices = field(default_factory=Notices)
    deadline: float = 0.0
    next_tick: float = 0.0
    next_look: float = 0.0

    def to_the_end(self) -> None:
        message = 0
        while self._busy():
            self._start()
            for id, status, reason in self.executor.poll(timeout=0.1):
                self._ended(id, status, reason)
            self._believe()
            if self.stop.asked > message:
                self._stop()
                message = self.stop.asked
            if self.stop.asked and time.monotonic() > self.deadline or self.stop.asked > 1:
                break
            if time.monotonic() > self.next_tick:
                self.next_tick = time.monotonic() + 0.5
                self._look()
                self.on_event(Event("tick"))
        if self.stop.asked:
            raise Stopped("stopped")

    def _look(self) -> None:
        if time.monotonic() > self.next_look:
            self.next_look = time.monotonic() + _LOOK
            for id in self.executor.running:
                self._notice(self.given[id])

    def _notice(self, folder: Path) -> None:
        for text in self.notices.new(folder):
            self.on_event(Event("notice", folder.name, text))

    def _busy(self) -> bool:
        return bool(self.executor.running if self.stop.asked else self.given or self.doubtful or self.waiting)

    def _start(self) -> None:
        n = 0 if self.stop.asked else min(self.executor.n_free, len(self.waiting))
        folders = [self.waiting.popleft() for _ in range(n)]
        if folders:
            self.given |= {f.name: f for f in folders}
            self.executor.start(*folders)
        for id in self.executor.running:
            if id not in self.since:
                self.since[id] = time.monotonic()
                self.on_event(Event("started", id, str(self.given[id] / LOG)))

    def _ended(self, id: str, status: int, reason: str) -> None:
        """Take note of a job that ended."""
        folder, since = self.given.pop(id), self.since.pop(id, None)
        seconds = 0.0 if since is None else time.monotonic() - since
        self._notice(folder)
        if self.executor.task.is_done(folder):
            self.on_event(Event("done", id, seconds=seconds))
        elif self.stop.asked:
            (folder / FAILURE).unlink(missing_ok=True)  # it was told to stop, and continues next time
        elif status < 0 or status == STOPPED:
            # Whoever signals a whole tree of processes gets to this one in a moment: then it was no matter of
            # the job.
            self.doubtful[id] = (folder, status, reason, time.monotonic(), seconds)
        else:
            answer = self.executor.task.answer
            missing = "a record" if answer == RECORD else answer
            reason = f"ended with exit status {status} and without {missing}"
            if status == UNTOLD:
                reason = f"failed, and the reason could not be written to {folder}"
            self._failed(folder, seconds, reason, f"the end of {LOG} may say why")

    def _believe(self) -> None:
        for id, (folder, status, reason, when, seconds) in list(self.doubtful.items()):
            if not self.stop.asked and time.monotonic() - when < _GRACE_ENDED:
                continue
            del self.doubtful[id]
            if self.stop.asked:
                continue
            if status == STOPPED:
                self.on_event(Event("stopped", id, reason or "told to stop by another process", seconds))
                continue
            name = signal.Signals(-status).name
            if name == "SIGKILL" and (again := self._kills(folder)) < KILLS:
                self.on_event(
                    Event(
                        "killed",
                        id,
                        f"killed by {name}; started again from its checkpoint, if it has one ({again})",
                        seconds,
                    )
                )
                self.waiting.append(folder)
                continue
            why = f" {KILLS} times; the system may have run out of memory" if name == "SIGKILL" else ""
            self._failed(
                folder,
                seconds,
                f"killed by {name}{why}",
                f"signal {-status} after {seconds:.0f} s, not sent by the engine",
            )

    def _kills(self, folder: Path) -> int:
        """How often the job was killed since its last checkpoint was written, this time included."""
        path = folder / CHECKPOINT
        written = path.stat().st_mtime_ns if path.exists() else None
        n, before = self.kills.get(folder.name, (0, written))
        self.kills[folder.name] = (n + 1 if before == written else 1, written)
        return self.kills[folder.name][0]

    def _failed(self, folder: Path, seconds: float, reason: str, detail: str) -> None:
        """Tell the reason that the job has left behind, or else leave this one."""
        try:
            if not (folder / FAILURE).exists():
                write_failure(folder, reason, detail)
            reason = failure_reason(folder)
        except OSError as error:
            reason += f"; {FAILURE} cannot be written: {error.strerror}"
        self.on_event(Event("failed", folder.name, reason, seconds))

    def _stop(self) -> None:
        self.on_event(Event("stopping", text=f"{len(self.executor.running)}"))
        self.deadline = time.monotonic() + _GRACE_STOP
        self.executor.stop(*self.executor.running)
