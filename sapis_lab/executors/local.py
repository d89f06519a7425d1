"""Jobs on this machine: a pool of workers that a launcher forks, one process (or `devices` ranks) per job.

The launcher (`sapis_lab.jobs.launcher`) has imported everything once, so a job starts in a tenth of a
second. Nothing outlives the pool: the launcher ends when the pool's process does, however it ends, and the
system kills every job when the launcher ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from sapis_lab.errors import ConfigError
from sapis_lab.executors._base import Capacity, DeviceChoice, ExecutorConfig
from sapis_lab.jobs.events import Event, OnEvent
from sapis_lab.jobs.executor import Ended, Task
from sapis_lab.jobs.folder import LOG
from sapis_lab.jobs.host import n_cores, worker_environment


class LocalConfig(ExecutorConfig):
    """This machine."""

    kind: Literal["local"] = "local"

    def check(self) -> None:
        """Every machine runs jobs."""

    def capacity(
        self, *, device: DeviceChoice, devices: int, n_jobs: int | Literal["auto"] = "auto"
    ) -> Capacity:
        """As many jobs as there are cores, or GPUs, for their devices."""
        found, n_gpus = _device(device)
        room = max(1, (n_cores() if found == "cpu" else n_gpus) // devices)
        return Capacity(found, room if n_jobs == "auto" else n_jobs)

    def build(
        self, folder: Path, task: Task, *, capacity: Capacity, devices: int, expected: Mapping[str, float]
    ) -> LocalPool:
        """A pool of workers, whose launcher writes to `folder/log.txt`."""
        return LocalPool(folder / LOG, task, workers=capacity.n_jobs, device=capacity.device, devices=devices)


def _device(wanted: DeviceChoice) -> tuple[Literal["cpu", "cuda"], int]:
    """'cpu' or 'cuda', and how many GPUs there are."""
    if wanted == "cpu":
        return "cpu", 0
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and n == 0:
        raise ConfigError("run.device: 'cuda' is wanted, but torch finds no GPU; use run.device=auto or cpu")
    return ("cuda", n) if n else ("cpu", 0)


class LauncherDied(RuntimeError):
    """The launcher ended by itself."""


class LocalPool:
    """Runs up to `workers` jobs at a time in processes of their own.

    Args:
        log: file for what the launcher itself says.   task: what the jobs do.
        workers: jobs at a time.   device: 'cpu', 'cuda' or 'cuda:K'; with 'cuda' the jobs take the GPUs in
            turn.
        devices: of every job; with more than one the launcher starts that many ranks, which work together.

    Raises:
        LauncherDied: the launcher ended by itself, in any call; points go on from their checkpoints when
            started again.
    """

    def __init__(
        self, log: Path, task: Task, *, workers: int = 1, device: str = "cpu", devices: int = 1
    ) -> None:
        self.log, self.task, self.device, self.devices = log, task, device, devices
        self._idle = list(range(workers))
        self._slots: dict[str, int] = {}
        self._started: _Launcher | None = None

    def open(
        self, on_event: OnEvent = lambda event: None, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Start the launcher, which imports everything, unless it runs.

        Raises:
            KeyboardInterrupt: `give_up`, asked meanwhile, said yes; the launcher has ended.
        """
        if self._started is None:
            on_event(Event("launching"))
            began = time.monotonic()
            self._started = _Launcher(self.log, self.task.preload, give_up)
            on_event(Event("launched", seconds=time.monotonic() - began))

    @property
    def _launcher(self) -> _Launcher:
        assert self._started is not None, "the pool is not open"
        return self._started

    @property
    def n_free(self) -> int:
        """Workers without a job."""
        return len(self._idle)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that run."""
        return tuple(self._slots)

    def start(self, *folders: Path) -> None:
        """Start the jobs in `folders`, at most `n_free`."""
        ranked = {"devices": self.devices} if self.devices > 1 else {}
        for folder in folders:
            assert self._idle, "no worker is free"
            slot = self._idle.pop(0)
            self._slots[folder.name] = slot
            self._launcher.ask(
                start=folder.name,
                folder=str(folder),
                target=self.task.target,
                arguments={**self.task.arguments, **ranked, "device": self._device(slot)},
                **({"ranks": self.devices} if ranked else {}),
            )

    def _device(self, slot: int) -> str:
        """With several devices a job, the first of them."""
        return self.device if self.device != "cuda" else f"cuda:{slot * self.devices % max(1, _n_gpus())}"

    def stop(self, *ids: str, number: int = signal.SIGTERM) -> None:
        """Send a signal to running jobs: SIGTERM lets them save and end with status 75, SIGKILL ends them
        at once."""
        for id in ids:
            self._launcher.ask(stop=id, signal=int(number))

    def poll(self, timeout: float) -> list[Ended]:
        """The jobs that have ended since, waiting at most `timeout` seconds for one."""
        ended = []
        for answer in self._launcher.answers(timeout):
            if "ended" in answer:
                slot = self._slots.pop(answer["ended"])
                self._idle = sorted([*self._idle, slot])
                ended.append(Ended(answer["ended"], int(answer["status"])))
        return ended

    def close(self) -> None:
        """End the launcher, and with it every job that still runs."""
        if self._started is not None:
            self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Launcher:
    """The process that forks the jobs, seen from this side."""

    def __init__(self, log: Path, preload: Sequence[str], give_up: Callable[[], bool]) -> None:
        self.log = log
        # What Slurm has set is left out: Lightning would take the job for one of its own.
        own = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_"))
        }
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops the points in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sapis_lab.jobs.launcher", *preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                bufsize=0,
                env={**own, **worker_environment()},
            )
        self.pending = b""
        self.selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        try:
            while not any("ready" in answer for answer in self.answers(timeout=0.2)):
                if give_up():
                    raise KeyboardInterrupt
        except BaseException:
            self.process.kill()  # it has no points yet, and would go on importing
            self.close()
            raise

    def answers(self, timeout: float) -> list[dict[str, Any]]:
        """What the launcher has said since, waiting at most `timeout` seconds for it."""
        assert self.process.stdout is not None
        if not self.selector.select(timeout):
            return []
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            code = self.process.wait()
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            raise LauncherDied(
                f"the launcher of the points ended with status {code}, see {self.log}; start again to "
                f"continue\n{tail}"
            )
        *lines, self.pending = (self.pending + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask(self, **request: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise LauncherDied(
                f"the launcher of the points is gone, see {self.log}; start again to continue"
            ) from None

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.selector.close()


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()
