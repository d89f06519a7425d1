"""What runs points, seen from the engine: the one interface of the local pool and of Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol


class Ended(NamedTuple):
    """A point that runs no more."""

    id: str
    status: int
    """Exit status, or minus the signal that ended it. 75: it was stopped, and the next run goes on with
    it."""
    reason: str = ""
    """What the executor knows about a point that was stopped."""


class Executor(Protocol):
    """Runs points in processes of their own; their folders hold all that is asked and all that is
    answered."""

    @property
    def n_free(self) -> int:
        """How many points may be started now."""

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the points that run at this moment; some may still wait in a queue."""

    def start(self, *folders: Path) -> None:
        """Start the points in `folders`, whose names are their ids."""

    def stop(self, *ids: str) -> None:
        """Ask running points to save and end."""

    def poll(self, timeout: float) -> list[Ended]:
        """The points that have ended since, waiting at most `timeout` seconds for one."""

    def close(self) -> None:
        """End what still runs and can be ended."""
