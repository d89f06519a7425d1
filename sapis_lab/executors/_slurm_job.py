"""What runs inside of a Slurm job: an element of an array, with its bundle of folders."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from sapis_lab.executors._slurm_queue import FOLDER
from sapis_lab.executors.local import LocalPool
from sapis_lab.jobs.events import Event, OnEvent
from sapis_lab.jobs.executor import Ended, Executor, Task
from sapis_lab.jobs.folder import read_progress
from sapis_lab.jobs.host import worker_environment
from sapis_lab.jobs.launcher import STOPPED
from sapis_lab.jobs.run import Stopped, work_through
from sapis_lab.jobs.signals import Stop, stop_signals
from sapis_lab.text import never_fails

_WAIT_FOR_END = 900.0
"""Seconds that a job which has saved waits for Slurm to end it."""
_FRUITLESS_RESTARTS = 3


class Bundle(NamedTuple):
    """What all elements of an array are told."""

    folder: str
    at: str
    task: Task
    device: str
    devices: int
    n_nodes: int


def run_bundle(bundle: Bundle, ids: Sequence[str]) -> str:
    """What an element of the array does: run those of its ids that have not ended, one after the other.

    Told to save (SIGUSR1, SIGUSR2), it puts itself back into the queue. Told to end (SIGTERM: preempted, or
    cancelled), it saves and waits: Slurm, which knows which of the two it was, puts it back or not, but takes
    a job that ends by itself for complete.
    """
    never_fails(sys.stdout, sys.stderr)
    job = _own_number()
    os.environ["SAPIS_JOB"] = f"Slurm job {job}"
    task, folder = bundle.task, Path(bundle.folder)
    places = [place for id in ids if not task.has_ended(place := folder / bundle.at / id)]
    print(f"Slurm job {job} on {platform.node()}: {len(places)} of {len(ids)} points to run", flush=True)
    if not places:
        return "nothing to do"
    before = _steps_done(places, task)
    with stop_signals() as stop:

        def tell(event: Event) -> None:
            if event.kind == "stopped":  # Slurm warns the processes of a step, and not always this one
                stop.count(signal.SIGUSR2)
            _tell(event)

        try:
            with closing(_workers(bundle, folder / FOLDER / f"{job}_workers.txt")) as executor:
                executor.open(lambda event: None, lambda: stop.asked > 0)
                work_through(places, executor, stop, tell)
            return "done"
        except (Stopped, KeyboardInterrupt):
            _leave(job, stop, fruitful=_steps_done(places, task) > before)
    raise SystemExit(STOPPED)


def _workers(bundle: Bundle, log: Path) -> Executor:
    """What runs the folders in this job: workers on this node, or steps over several nodes."""
    if bundle.n_nodes == 1:
        return LocalPool(log, bundle.task, device=bundle.device, devices=bundle.devices)
    return _Steps(log, bundle)


class _Steps:
    """Folders one at a time, each a step of this job with a task for every rank, on all its nodes."""

    def __init__(self, log: Path, bundle: Bundle) -> None:
        self.log, self.task, self.environment = log, bundle.task, {**os.environ, **worker_environment()}
        # Ranks that stop end one after the other, with status 75: srun must not end the rest. One that dies
        # is noticed by the others.
        self.step = [
            "srun",
            f"--nodes={bundle.n_nodes}",
            f"--ntasks={bundle.devices}",
            "--kill-on-bad-exit=0",
            "--unbuffered",
        ]
        self.program = [sys.executable, "-m", "sapis_lab.jobs.rank"]
        arguments = {**bundle.task.arguments, "devices": bundle.devices, "device": bundle.device}
        self.options = [
            f"--target={bundle.task.target}",
            f"--arguments={json.dumps(arguments)}",
            f"--n-ranks={bundle.devices}",
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.running: tuple[str, ...] = ()

    @property
    def n_free(self) -> int:
        return int(self.process is None)

    def open(self, on_event: OnEvent, give_up: Callable[[], bool]) -> None:
        """Every step starts by itself."""

    def start(self, *folders: Path) -> None:
        (folder,) = folders
        with self.log.open("ab") as file:
            # A session of its own: signals to this job's processes reach srun once, from us or from Slurm.
            self.process = subprocess.Popen(
                [*self.step, *self.program, str(folder), *self.options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.running = (folder.name,)

    def stop(self, *ids: str) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGUSR2)  # srun hands it to every task

    def poll(self, timeout: float) -> list[Ended]:
        if self.process is None:
            time.sleep(timeout)
            return []
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return []
        (id,), self.process, self.running = self.running, None, ()
        return [Ended(id, status)]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _leave(job: str, stop: Stop, *, fruitful: bool) -> None:
    """After the points have saved: back into the queue if that is for this process to say, and wait for the
    end."""
    if {signal.SIGUSR1, signal.SIGUSR2}.intersection(stop.numbers):
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if not fruitful and restarts >= _FRUITLESS_RESTARTS:
            print(
                f"no step was done in this start, the {restarts + 1}th: not queued again; raise "
                f"run.slurm.time",
                flush=True,
            )
            return
        print(f"saved; back into the queue (restart {restarts + 1})", flush=True)
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=120)
    else:
        print("saved; waiting for Slurm to end this job", flush=True)
    time.sleep(_WAIT_FOR_END)


def _own_number() -> str:
    """As `scontrol requeue` wants it: SLURM_JOB_ID of an element can be the number of the whole array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return (
        f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "unknown")
    )


def _steps_done(places: Collection[Path], task: Task) -> int:
    """A number that grows with every step of any of the points."""
    return sum(
        10**9 if task.has_ended(place) else (now.step if (now := read_progress(place)) else 0)
        for place in places
    )


def _tell(event: Event) -> None:
    if event.kind != "tick":
        words = [event.kind, event.id, event.text, f"{event.seconds:.1f} s" if event.seconds else ""]
        print(time.strftime("%Y-%m-%d %H:%M:%S"), *filter(None, words), flush=True)
