"""Tuning on one host: this process asks and tells, on an SQLite file of which it is the only writer; points
run in a pool of workers.

It may be killed at any moment, and so may its points. When it starts again, the trials that ran go on in
their folders before new ones begin: with one worker the values that are tried do not depend on how often it
was killed.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sapis_lab.jobs.executor import Ended
from sapis_lab.jobs.notices import Notices
from sapis_lab.records import FAILURE
from sapis_lab.sweep.tuner import tickets
from sapis_lab.sweep.tuner.options import TuneOptions
from sapis_lab.sweep.tuner.outcome import Outcome, outcome
from sapis_lab.sweep.tuner.space import Cell
from sapis_lab.sweep.tuner.trial import Running, begin, note_pruned, tidy

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import Trial

_GRACE_STOP = 30.0
"""Running points have this long, s, to save before they are killed."""
_LOOK = 0.3
"""Time between two looks at what the running points have validated, s."""
_GRACE_KILLED = 1.0
"""Whoever kills a whole tree of processes gets to this one in a moment: a point's death is believed after
this time, s."""


class Pool(Protocol):
    """What runs the points: `sapis_lab.executors.local.LocalPool`."""

    @property
    def n_free(self) -> int: ...
    def start(self, *folders: Path) -> None: ...
    def stop(self, *ids: str, number: int = ...) -> None: ...
    def poll(self, timeout: float) -> list[Ended]: ...


@dataclass
class OneHost:
    """All cells of a study, their trials run by one pool."""

    cells: Sequence[Cell]
    studies: Sequence[OptunaStudy]
    """One of every cell, in their order."""
    tune: TuneOptions
    keys: tuple[str, ...]
    """The objectives."""
    folder: Path
    """Of the trials' folders."""
    say: Callable[[str], None]
    n_stops: Callable[[], int] = lambda: 0
    """How often it was asked to stop: once: after saving, twice: at once."""
    running: dict[str, tuple[int, Running]] = field(default_factory=dict)
    """Cell and trial by the name of the folder."""
    waiting: list[int] = field(default_factory=list)
    """Tickets that wait, by cell."""
    again: deque[tuple[int, Trial]] = field(default_factory=deque)
    """Cell and trial of what was interrupted, to go on first."""
    next_look: float = 0.0
    notices: Notices = field(default_factory=Notices)

    def queue(self, *, retry_failed: bool = False) -> int:
        """Find what an earlier session left, and queue what is not there yet; how many trials there are to
        run."""
        for k, (study, cell) in enumerate(zip(self.studies, self.cells, strict=True)):
            if retry_failed:
                for name in tickets.retry_failed(study):
                    (self.folder / name / FAILURE).unlink(missing_ok=True)
            # The lock of the results folder says that no other process works here: what seems to run was
            # interrupted.
            self.again += [(k, trial) for trial in tickets.running(study)]
            tickets.top_up(study, cell, self.tune.trials)
        self.waiting = [tickets.n_waiting(study) for study in self.studies]
        return len(self.again) + sum(self.waiting)

    def run(self, pool: Pool) -> bool:
        """Run every ticket that waits; False when it was stopped before."""
        stopping = deadline = 0.0
        while self.running or (self._n_left() and not self.n_stops()):
            while pool.n_free and self._n_left() and not self.n_stops():
                self._start(pool, *(self.again.popleft() if self.again else self._next()))
            for ended in pool.poll(0.1):
                self._ended(ended.id, ended.status)
            if self.n_stops() and not stopping:
                stopping = time.monotonic()
                deadline = stopping + _GRACE_STOP
                self.say(f"stopping {len(self.running)} running trials (again: at once) ...")
                pool.stop(*self.running)
            if self.n_stops() > 1 or (stopping and time.monotonic() > deadline):
                pool.stop(*self.running, number=signal.SIGKILL)
                break
            if not stopping:
                self._follow(pool)
        return not self._n_left() and not self.running

    def _n_left(self) -> int:
        return len(self.again) + sum(self.waiting)

    # ---- starting

    def _next(self) -> tuple[int, Trial]:
        """Take a ticket: of the cell with the fewest running trials, then of the one with most to do."""
        busy = [sum(cell == at for at, _ in self.running.values()) for cell in range(len(self.cells))]
        cell = min(
            (c for c, n in enumerate(self.waiting) if n), key=lambda c: (busy[c], -self.waiting[c], -c)
        )
        trial = self.studies[cell].ask()
        self.waiting[cell] -= 1
        return cell, trial

    def _start(self, pool: Pool, cell: int, trial: Trial) -> None:
        name = trial.user_attrs[tickets.FOLDER]
        self.studies[cell].sampler = tickets.sampler(self.tune, seed=tickets.seed_of(self.tune, cell, name))
        went_on = (self.folder / name).exists()
        started = begin(trial, self.cells[cell], self.tune, folder=self.folder, keys=self.keys)
        if isinstance(started, Outcome):
            self._tell(cell, trial, name, started)
            return
        self.running[name] = (cell, started)
        said = ", ".join(
            f"{key.rsplit('.', 1)[-1]} {tickets.shown(value)}" for key, value in trial.params.items()
        )
        self.say(f"{'goes on' if went_on else 'started':<8} {name}   {said}")
        pool.start(started.folder)

    # ---- following

    def _follow(self, pool: Pool) -> None:
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + _LOOK
        for name, (_, running) in self.running.items():
            if running.follow():
                # Nothing of it is wanted, not even a checkpoint.
                pool.stop(name, number=signal.SIGKILL)

    def _ended(self, name: str, status: int) -> None:
        cell, running = self.running.pop(name)
        for text in self.notices.new(running.folder):
            self.say(f"warning  {name}: {text}")
        if running.pruned is not None:
            note_pruned(running)
        elif not self.n_stops():
            running.follow()  # what it validated last belongs to the storage too
            running.pruned = None
        ended = outcome(running.folder, self.keys)
        if self.n_stops() and ended is not None and ended.state == "failed":
            (running.folder / FAILURE).unlink(missing_ok=True)  # it was told to stop, and goes on next time
        elif ended is not None:
            self._tell(cell, running.trial, name, ended)
        elif not self.n_stops():
            time.sleep(_GRACE_KILLED if status < 0 else 0.0)
            self._died(cell, running, name, status)

    def _died(self, cell: int, running: Running, name: str, status: int) -> None:
        """Nothing says how it ended: it was killed, or told to stop by somebody else."""
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        if (ended := tickets.died(running.trial, f"by {how}")) is not None:
            self._tell(cell, running.trial, name, ended)
            return
        self.again.append((cell, running.trial))
        self.say(f"put back {name}: its process ended by {how}; it goes on from its checkpoint")

    def _tell(self, cell: int, trial: Trial, name: str, ended: Outcome) -> None:
        tickets.tell(self.studies[cell], trial, ended)
        tidy(self.folder / name)
        text = (
            ", ".join(tickets.shown_objective(k, v) for k, v in zip(self.keys, ended.values, strict=False))
            or ended.reason
        )
        n = sum(last[-1].state.is_finished() for last in tickets.attempts(self.studies[cell]).values())
        self.say(f"{ended.state:<8} {name}   {text}{'   ' if text else ''}{n} of {self.tune.trials}")
