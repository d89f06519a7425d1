"""A storage on PostgreSQL that outlives a restart of its server: what the restart interrupts is asked again,
with growing pauses.

Every method of Optuna's storage is one transaction, which a lost connection undoes, so it may be asked again
as a whole. Where the server had committed and only the answer was lost, asking again finds that it is done: a
ticket that seems to be taken already runs without a heartbeat and is put back like any other, and a trial
that has ended already ended with the same result.
"""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, PendingRollbackError

from sapis_lab.sweep.files import without_password

SECONDS = 60.0
"""A database that does not answer for this long, s, is given up."""
_FIRST_PAUSE, _LONGEST_PAUSE, _STEP = 0.2, 5.0, 0.1

T = TypeVar("T")


class DatabaseGone(Exception):
    """The database has not answered for `SECONDS`, or a stop was asked for while it did not."""


@dataclass
class Patience:
    """Calls what needs the database, and again while it does not answer.

    Calls within a call are left alone: what belongs together is asked again together.
    """

    say: Callable[[str], None] = lambda text: None
    n_stops: Callable[[], int] = lambda: 0
    """How often it was asked to stop."""
    seconds: float = field(default_factory=lambda: SECONDS)
    gone: str = ""
    """Why the database was given up, once it was: then nothing is asked any more."""
    lost_at: float = -float("inf")
    """When a connection was last found lost, on the monotonic clock, s."""
    waiting: bool = False
    _inside: threading.local = field(default_factory=threading.local)

    def __call__(self, work: Callable[[], T]) -> T:
        """`work()`, repeated while the connection is lost.

        Raises:
            DatabaseGone: it stayed lost.
        """
        if getattr(self._inside, "is_so", False):
            return work()
        self._inside.is_so = True
        try:
            return self._repeated(work)
        finally:
            self._inside.is_so = False

    def check(self) -> None:
        """DatabaseGone if the database was given up: what others made of that says something else."""
        if self.gone:
            raise DatabaseGone(self.gone) from None

    def _repeated(self, work: Callable[[], T]) -> T:
        began, pause = 0.0, _FIRST_PAUSE
        while True:
            self.check()
            try:
                result = work()
            except Exception as error:
                if not is_lost(error):
                    raise
                self.lost_at = time.monotonic()
                began = began or self.lost_at
                self._wait(pause, reason(error), began)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if began and self.waiting:
                    self.waiting = False
                    self.say(f"the database answers again, after {time.monotonic() - began:.0f} s")
                return result

    def _wait(self, pause: float, why: str, began: float) -> None:
        if not self.waiting:
            self.waiting = True
            self.say(f"the database does not answer ({why}); asking again for up to {self.seconds:.0f} s")
        until = time.monotonic() + pause * random.uniform(0.7, 1.3)  # many workers lose it at the same moment
        while time.monotonic() < until:
            if self.n_stops():
                self.gone = "stopped while the database did not answer"
            self.check()
            time.sleep(_STEP)
        if time.monotonic() - began > self.seconds:
            self.gone = f"the database has not answered for {time.monotonic() - began:.0f} s ({why})"
            self.check()


def is_lost(error: BaseException) -> bool:
    """The connection, or the server behind it, is gone or not ready; no fault of what was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return True
    return isinstance(cause, OperationalError | InterfaceError | InternalError | PendingRollbackError)


def reason(error: BaseException) -> str:
    """The database's own words, the first line of them, without a password."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return without_password(lines[0]) if lines else type(cause).__name__


class PatientStorage(RDBStorage):
    """Optuna's storage, every method of which is called with `patience`."""

    def __init__(self, url: str, *, heartbeat: int, grace: int, patience: Patience) -> None:
        # others may be in a pause when it answers again
        self.patience, self._quiet = (
            patience,
            grace + 2 * _LONGEST_PAUSE,
        )
        super().__init__(
            url, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=heartbeat, grace_period=grace
        )
        event.listen(self.engine, "invalidate", self._note_lost)

    def _note_lost(self, *_: Any) -> None:
        self.patience.lost_at = time.monotonic()

    @property
    def is_settling(self) -> bool:
        """The connection was lost not long ago: heartbeats that are missing say nothing about their
        workers."""
        return time.monotonic() - self.patience.lost_at < self._quiet

    def record_heartbeat(self, trial_id: int) -> None:
        """Called by a thread of its own, whose end by an error nobody would see."""
        try:
            self.patience(lambda: super(PatientStorage, self).record_heartbeat(trial_id))
        except DatabaseGone:
            return

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return self.patience(
            lambda: [] if self.is_settling else super(PatientStorage, self)._get_stale_trial_ids(study_id)
        )


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self.patience(lambda: method(self, *arguments, **named))

    return call


for _name, _method in vars(RDBStorage).items():
    if (
        inspect.isfunction(_method)
        and not _name.startswith("__")
        and _name not in (*vars(PatientStorage), "remove_session")
    ):
        setattr(PatientStorage, _name, _patiently(_method))
