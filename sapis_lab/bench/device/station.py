"""The asking side of `worker`: a process that is started when it is needed, and anew after it has died."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Self

from sapis_lab.bench.device.part import Asked
from sapis_lab.bench.environments import MAIN, command
from sapis_lab.bench.measure import Worker, WorkerDied, WorkerFailed
from sapis_lab.jobs.host import WORKER_ENVIRONMENT

MOST_DEATHS = 3
"""Deaths in a row after which a process is not started again: each costs the import of torch once more."""
_START = 90.0


def environment(device: str) -> dict[str, str]:
    """What workers get on top of what this process has. Kernels that are taken on demand are what shall be
    measured; without Triton that demand would be an error."""
    if device == "cpu" or importlib.util.find_spec("triton") is None:
        return dict(WORKER_ENVIRONMENT)
    return {**WORKER_ENVIRONMENT, "SAPIS_KERNELS": os.environ.get("SAPIS_KERNELS", "require")}


class Station:
    """A worker that may die and is then replaced.

    Args:
        name: of its log.   asked: what its part was told.
    """

    def __init__(self, name: str, asked: Asked) -> None:
        self.log, self.asked = Path(asked.folder) / f"{name}.log", asked
        self.worker: Worker | None = None
        self.deaths, self.ready, self.last_death = 0, False, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.worker is not None:
            self.worker.close()

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        if self.worker is None:
            if self.deaths >= MOST_DEATHS:
                raise WorkerFailed(
                    f"not tried, after its process died {self.deaths} times: {self.last_death}"
                )
            line = command(MAIN, "device.worker")
            self.worker, self.ready = (
                Worker(line, log=self.log, environment=environment(self.asked.device)),
                False,
            )

    def send(self, **request: Any) -> None:
        """A request whose answer is read later."""
        self.start()
        assert self.worker is not None
        try:
            if not self.ready:
                self.worker.read(self._within(_START))
                self.ready = True
            self.worker.send(**request)
        except WorkerDied as death:
            self._bury(death)
            raise

    def read(self, within: float) -> dict[str, Any]:
        """The answer, which must come within so many seconds, and before the time of the part is up."""
        if self.worker is None:
            raise WorkerFailed("its process has died")
        try:
            found = self.worker.read(self._within(within))
        except WorkerDied as death:
            self._bury(death)
            raise
        self.deaths = 0
        return found

    def ask(self, *, within: float, **request: Any) -> dict[str, Any]:
        """The answer to a request; a WorkerFailed where there is none."""
        self.send(**request)
        return self.read(within)

    def _within(self, seconds: float) -> float:
        return max(1.0, min(seconds, self.asked.left()))

    def _bury(self, death: WorkerDied) -> None:
        assert self.worker is not None
        self.worker.close()
        self.worker, self.deaths, self.last_death = None, self.deaths + 1, str(death)
