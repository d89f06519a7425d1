"""Tuning on many hosts: every worker takes tickets from PostgreSQL and runs them in a folder that all hosts
share.

A worker runs one point at a time inside Optuna's `Study.optimize`, which keeps a heartbeat in the database. A
trial whose heartbeat has stopped is put back by whichever worker looks next, and goes on from its checkpoint.
Idle workers stay until the last trial has ended, since the one that runs it may die. While the database is
away a point trains on; the worker asks again for a while (`patient`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sapis_lab.jobs.executor import Ended
from sapis_lab.jobs.notices import Notices
from sapis_lab.records import FAILURE
from sapis_lab.sweep.tuner import tickets
from sapis_lab.sweep.tuner.one_host import Pool
from sapis_lab.sweep.tuner.options import TuneOptions
from sapis_lab.sweep.tuner.outcome import Outcome, outcome
from sapis_lab.sweep.tuner.space import Cell
from sapis_lab.sweep.tuner.trial import Running, begin, note_pruned, tidy

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import Trial
    from sqlalchemy import Engine

    from sapis_lab.sweep.tuner.patient import Patience, PatientStorage

GRACE = 3
"""A trial without a heartbeat for this many intervals is put back."""
_POLL = 0.2
_GRACE_STOP = 30.0
"""A running point has this long, s, to save when the database is given up."""


class PutBack(Exception):
    """The trial did not end: its worker was told to stop, or its process was killed."""


class NoTicket(Exception):
    """Another worker took the last ticket between our look and our question; Optuna then makes a trial that
    nobody asked for."""


class Failed(Exception):
    """The point failed; the reason is kept with the trial."""


def open_storage(url: str, *, heartbeat: int, patience: Patience | None = None) -> PatientStorage:
    """The storage of many hosts. ConfigError, without the password, when the database cannot be used.

    Args:
        heartbeat: interval, s.   patience: with a database that goes away later.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from sapis_lab.config import ConfigError
    from sapis_lab.sweep.tuner.patient import DatabaseGone, Patience, PatientStorage
    from sapis_lab.text import without_password

    tickets.quiet()
    engine = None
    try:
        engine = create_engine(url)
        # workers that all make the tables at the same moment end with an error of the database
        with one_writer(engine, "tables"):
            return PatientStorage(
                url, heartbeat=heartbeat, grace=GRACE * heartbeat, patience=patience or Patience()
            )
    except ImportError as error:
        raise ConfigError(
            f"run.storage: {error}; install the driver with: pip install 'sapis-lab[postgres]'"
        ) from None
    except DatabaseGone as gone:
        raise ConfigError(f"run.storage: {without_password(url)} cannot be used: {gone}") from None
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ConfigError(
            f"run.storage: {without_password(url)} cannot be used: {without_password(why)}"
        ) from None
    finally:
        if engine is not None:
            engine.dispose()


@contextmanager
def one_writer(engine: Engine, name: str) -> Iterator[None]:
    """Hold a lock in the database, which gives it back when this process or its connection ends.

    When the server restarts meanwhile the lock is lost, and so is every connection: a new one is refused
    then, with the error of the old.
    """
    from sqlalchemy import event, text

    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"sapis tune {name}"}
        )

        def refuse_if_lost(*_: object) -> None:
            connection.execute(text("SELECT 1"))

        event.listen(engine, "connect", refuse_if_lost)
        try:
            yield
        finally:
            event.remove(engine, "connect", refuse_if_lost)


@dataclass
class Worker:
    """One worker of a tuning: runs tickets of all cells, one at a time, until none is left anywhere."""

    name: str
    """Of the study."""
    cells: Sequence[Cell]
    studies: Sequence[OptunaStudy]
    """One of every cell, in their order, on one storage with heartbeats."""
    tune: TuneOptions
    keys: tuple[str, ...]
    """The objectives."""
    folder: Path
    """Of the trials' folders, shared by all hosts."""
    storage: PatientStorage
    heartbeat: int
    say: Callable[[str], None]
    n_stops: Callable[[], int] = lambda: 0
    """How often it was asked to stop."""
    silent_since: dict[tuple[int, int], float] = field(default_factory=dict)
    """When this worker first saw a running trial that has never had a heartbeat, by cell and number."""

    notices: Notices = field(default_factory=Notices)

    def queue(self, *, retry_failed: bool = False) -> None:
        """Queue what is not there yet, put back what dead workers had."""
        self.storage.patience(lambda: self._queue(retry_failed))

    def _queue(self, retry_failed: bool) -> None:
        with one_writer(self.storage.engine, self.name):
            for number, (study, cell) in enumerate(zip(self.studies, self.cells, strict=True)):
                if retry_failed:
                    for name in tickets.retry_failed(study):
                        (self.folder / name / FAILURE).unlink(missing_ok=True)
                self._fail_stale(number, study)
                for name in tickets.put_back(study, is_dead=lambda trial: False):
                    self.say(f"put back {name}: its worker is gone; it goes on from its checkpoint")
                tickets.top_up(study, cell, self.tune.trials)

    def run(self, pool: Pool) -> bool:
        """Run tickets until none waits or runs anywhere; False when it was stopped before."""
        while not self.n_stops():
            self.queue()
            waiting = [tickets.n_waiting(study) for study in self.studies]
            if any(waiting):
                self._one(pool, max(range(len(waiting)), key=lambda c: waiting[c]))
            elif any(tickets.n_unfinished(study) for study in self.studies):
                self._sleep(min(5.0, self.heartbeat))
            else:
                return True
        self.queue()  # what this worker had goes on elsewhere at once
        return False

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.n_stops():
            time.sleep(_POLL)

    # ---- one ticket

    def _one(self, pool: Pool, cell: int) -> None:
        study = self.studies[cell]
        # workers that drew the same numbers would try the same values
        study.sampler = tickets.sampler(self.tune, seed=None)
        begun: list[Trial] = []

        def objective(trial: Trial) -> tuple[float, ...]:
            begun.append(trial)
            return self._objective(trial, cell, pool)

        try:
            study.optimize(objective, n_trials=1, catch=(PutBack, NoTicket, Failed))
        except Exception:
            self.storage.patience.check()  # Optuna stumbles over it once more, and raises something else
            if not begun or not self._was_put_back(begun[0]):
                raise
            # The connection was gone for so long that others put the trial back: what its folder holds is
            # told by whoever takes it next.
            self.say("a trial of this worker was put back by another one meanwhile")

    def _was_put_back(self, trial: Trial) -> bool:
        """Whether another worker has ended this trial, which ran here; Optuna has several errors for that."""
        from optuna.trial import TrialState

        now = self.storage.get_trial(trial._trial_id)
        return now.state == TrialState.FAIL and tickets.REASON not in now.user_attrs

    def _objective(self, trial: Trial, cell: int, pool: Pool) -> tuple[float, ...]:
        from optuna import TrialPruned

        if (name := trial.user_attrs.get(tickets.FOLDER)) is None:
            raise NoTicket
        started = begin(trial, self.cells[cell], self.tune, folder=self.folder, keys=self.keys)
        ended = started if isinstance(started, Outcome) else self._run_point(started, pool)
        self._say_ended(name, ended)
        tidy(self.folder / name)
        if ended.reason:
            trial.set_user_attr(tickets.REASON, ended.reason)
        if ended.state == "done":
            return ended.values
        raise Failed(ended.reason) if ended.state == "failed" else TrialPruned(ended.reason)

    def _run_point(self, running: Running, pool: Pool) -> Outcome:
        """Run the point to its end, or to ours."""
        name, message = running.folder.name, 0
        ended: list[Ended] = []
        self.say(f"started  {name}")
        pool.start(running.folder)
        while not ended:
            ended = pool.poll(_POLL)
            if self.n_stops() > message:
                message = self.n_stops()
                self.say(f"stopping {name} (again: at once) ...")
                pool.stop(name, number=signal.SIGTERM if message == 1 else signal.SIGKILL)
            try:
                if not ended and not message and running.follow():
                    pool.stop(name, number=signal.SIGKILL)
            except Exception:
                self._save(name, pool)
                raise
        for text in self.notices.new(running.folder):
            self.say(f"warning  {name}: {text}")
        if running.pruned is not None:
            note_pruned(running)
        result = outcome(running.folder, self.keys)
        if result is not None and not (message and result.state == "failed"):
            return result
        (running.folder / FAILURE).unlink(missing_ok=True)
        if message:
            raise PutBack
        if (failed := tickets.died(running.trial, f"with status {ended[0].status}")) is not None:
            return failed
        raise PutBack

    def _save(self, name: str, pool: Pool) -> None:
        """Let the running point save and end; whoever takes its ticket goes on with it."""
        pool.stop(name)
        until = time.monotonic() + _GRACE_STOP
        while not pool.poll(_POLL) and time.monotonic() < until:
            pass

    def _say_ended(self, name: str, ended: Outcome) -> None:
        text = (
            ", ".join(tickets.shown_objective(k, v) for k, v in zip(self.keys, ended.values, strict=False))
            or ended.reason
        )
        self.say(f"{ended.state:<8} {name}   {text}")

    # ---- dead workers

    def _fail_stale(self, number: int, study: OptunaStudy) -> None:
        """Fail the running trials of a cell whose workers are gone. Optuna overlooks those that died before
        their first heartbeat."""
        from optuna.storages import fail_stale_trials

        if self.storage.is_settling:
            self.silent_since.clear()
            return
        fail_stale_trials(study)
        silent = self._silent(study)
        now = time.monotonic()
        for key in [k for k in self.silent_since if k[0] == number and k[1] not in silent]:
            del self.silent_since[key]
        for trial in study.get_trials(deepcopy=False):
            if (
                trial.number in silent
                and now - self.silent_since.setdefault((number, trial.number), now) > GRACE * self.heartbeat
            ):
                tickets.fail(study, trial)

    def _silent(self, study: OptunaStudy) -> set[int]:
        """Numbers of the running trials that never had a heartbeat."""
        from sqlalchemy import text

        query = text(
            "SELECT t.number FROM trials t JOIN studies s ON s.study_id = t.study_id "
            "LEFT JOIN trial_heartbeats h ON h.trial_id = t.trial_id "
            "WHERE s.study_name = :name AND t.state = 'RUNNING' AND h.trial_id IS NULL"
        )
        with self.storage.engine.begin() as connection:
            return {int(n) for (n,) in connection.execute(query, {"name": study.study_name})}
