"""What runs jobs, seen from the engine: the one interface of the local pool and of Slurm.

A job is a folder in which all lies that is asked, a function that works there in a process of its own, and a
file, the answer, that the function writes as its last act. What else it leaves is the same for all:
`log.txt`, `.lock` while it runs, `failure.txt` instead of the answer. Points are jobs whose answer is
`record.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sapis_lab.jobs.events import OnEvent
from sapis_lab.records import FAILURE, RECORD


@dataclass(frozen=True)
class Task:
    """What is done in the folder of every job."""

    target: str
    """The function, `module:function`, called as `function(folder, device=..., **arguments)`, with `devices=`
    where a job has several."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Numbers and text: they travel as JSON."""
    preload: tuple[str, ...] = ()
    """Modules to import before the first job: a file that is edited meanwhile must not reach the jobs that
    start later."""
    answer: str = RECORD
    """Name of the file that says that a job is done."""

    def is_done(self, folder: Path) -> bool:
        """Whether the job in `folder` has its answer."""
        return (folder / self.answer).exists()

    def has_ended(self, folder: Path) -> bool:
        """Whether the job in `folder` is done or has failed."""
        return self.is_done(folder) or (folder / FAILURE).exists()


class Ended(NamedTuple):
    """A job that runs no more."""

    id: str
    status: int
    """Exit status, or minus the signal that ended it. 75: it was stopped, and the next run goes on with
    it."""
    reason: str = ""
    """What the executor knows about a job that was stopped."""


class Executor(Protocol):
    """Runs jobs in processes of their own; their folders hold all that is asked and all that is answered. The
    name of a job's folder is its id."""

    @property
    def task(self) -> Task:
        """What its jobs do."""

    @property
    def n_free(self) -> int:
        """How many jobs may be started now."""

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that run at this moment; some may still wait in a queue."""

    def open(self, on_event: OnEvent, give_up: Callable[[], bool]) -> None:
        """Make ready for the first job, unless it is; what takes its time tells `launching` and `launched`.

        Raises:
            KeyboardInterrupt: `give_up`, asked meanwhile, said yes.
        """

    def start(self, *folders: Path) -> None:
        """Start the jobs in `folders`."""

    def stop(self, *ids: str) -> None:
        """Ask running jobs to save and end."""

    def poll(self, timeout: float) -> list[Ended]:
        """The jobs that have ended since, waiting at most `timeout` seconds for one."""

    def close(self) -> None:
        """End what still runs and can be ended."""
