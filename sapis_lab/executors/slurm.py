"""Jobs (folders, see `executor`) as Slurm job arrays, submitted through submitit. State lives in the folders
alone; an element of an array is only told their names.

    FOLDER/slurm/submissions.json   what was submitted: one array each, with the ids of every element
    FOLDER/slurm/JOB_0_log.out      what an element says, over all its restarts

FOLDER is results/NAME for the points of a study, which lie in its points/.

An element of an array runs a *bundle* of ids one after the other, each on one node or as a step over
several. Warned of its time limit, or preempted, it lets what runs save, and goes back into the queue; it
continues from the checkpoints.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sapis_lab.config import ConfigError
from sapis_lab.errors import disk_error
from sapis_lab.executors._base import Capacity, DeviceChoice, ExecutorConfig
from sapis_lab.executors._slurm_job import Bundle, run_bundle
from sapis_lab.executors._slurm_options import SlurmOptions
from sapis_lab.executors._slurm_queue import (
    FOLDER,
    Job,
    Queue,
    SlurmSilent,
    ask_slurm,
    jobs_of,
    lost,
    queue_of,
    read_submissions,
    running,
    write_submissions,
)
from sapis_lab.files import make_folder
from sapis_lab.jobs.events import OnEvent
from sapis_lab.jobs.executor import Ended, Task
from sapis_lab.jobs.launcher import STOPPED

__all__ = [
    "Job",
    "Queue",
    "SlurmConfig",
    "SlurmOptions",
    "SlurmQueue",
    "SlurmSilent",
    "bundled",
    "jobs_of",
    "lost",
    "private_folder",
    "queue_of",
    "read_submissions",
    "refuse_without_slurm",
    "running",
]

_INTERVAL = 5.0
"""Seconds between two questions to Slurm."""


class SlurmConfig(ExecutorConfig):
    """Slurm, as job arrays."""

    kind: Literal["slurm"] = "slurm"
    options: SlurmOptions | None = None
    """What is asked of Slurm; `run.slurm` of the study when not given."""

    @property
    def asked(self) -> SlurmOptions:
        return self.options or SlurmOptions()

    def check(self) -> None:
        """ConfigError if this machine has no Slurm."""
        refuse_without_slurm()

    def capacity(
        self, *, device: DeviceChoice, devices: int, n_jobs: int | Literal["auto"] = "auto"
    ) -> Capacity:
        """As many jobs as an array may run at a time; on GPUs if they are wanted or asked for, which this
        machine need not have."""
        if device == "auto":
            device = "cuda" if self.asked.gpus else "cpu"
        return Capacity(device, self.asked.at_once)

    def build(
        self, folder: Path, task: Task, *, capacity: Capacity, devices: int, expected: Mapping[str, float]
    ) -> SlurmQueue:
        """The queue, which writes to `folder/slurm/`."""
        return SlurmQueue(
            folder, self.asked, task, device=capacity.device, devices=devices, expected=expected
        )


def refuse_without_slurm() -> None:
    """ConfigError if this machine has no Slurm."""
    missing = [
        program for program in ("sbatch", "squeue", "scontrol", "srun") if shutil.which(program) is None
    ]
    if missing:
        raise ConfigError(
            f"run.executor: 'slurm' wants {', '.join(missing)}, which this machine does not have; use local"
        )


class SlurmQueue:
    """Slurm's queue as an executor of the folders in one place; leaving it (`close`, `stop`) leaves the jobs
    where they are.

    Args:
        folder: where `slurm/` lies, of the results of a study say; the folders that are started lie in it, or
            in one folder of it.
        task, device, devices: as of `LocalPool`, on the nodes.   expected: time of every id, s; what bundles
            are made by.

    Raises:
        ConfigError: this machine has no Slurm.
    """

    def __init__(
        self,
        folder: Path,
        options: SlurmOptions,
        task: Task,
        *,
        device: str = "cpu",
        devices: int = 1,
        expected: Mapping[str, float] | None = None,
    ) -> None:
        refuse_without_slurm()
        self.folder, self.options, self.task, self.expected = folder, options, task, expected or {}
        self.device, self.devices = device, devices
        self.running: tuple[str, ...] = ()
        self.submitted: list[tuple[str, int, int]] = []
        """Id, number of elements and number of points of every array submitted here."""
        self._given: dict[str, Path] = {}
        self._missed: set[str] = set()
        self._next = 0.0

    @property
    def n_free(self) -> int:
        """The queue takes everything."""
        return sys.maxsize

    def open(self, on_event: OnEvent, give_up: Callable[[], bool]) -> None:
        """The queue is always ready."""

    def start(self, *folders: Path) -> None:
        """Submit the folders that have no living job yet.

        Raises:
            ConfigError: Slurm refused the jobs; the message has its words.
        """
        if not folders:
            return
        (at,) = {str(f.absolute().parent.relative_to(self.folder.absolute())) for f in folders}
        self._given |= {f.name: f for f in folders}
        alive = {id for id, job in jobs_of(self.folder).items() if job.alive}
        ids = [f.name for f in folders if f.name not in alive]
        bundles = bundled(ids, self.expected, least=60 * self.options.bundle_minutes)
        limit = _max_array_size() if bundles else 1
        for k in range(0, len(bundles), limit):
            self._submit(at, bundles[k : k + limit])

    def _submit(self, at: str, bundles: list[list[str]]) -> None:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        place = private_folder(self.folder / FOLDER)
        past = read_submissions(self.folder)
        # Known by name before it has a number: a submission that is killed in the middle is still found in
        # the queue.
        entry = {
            "name": f"sapis-{self.folder.name}-{len(past)}-{os.urandom(3).hex()}",
            "job": None,
            "host": platform.node(),
            "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
            "at": at,
            "answer": self.task.answer,
            "bundles": bundles,
        }
        bundle = Bundle(str(self.folder), at, self.task, self.device, self.devices, self.options.nodes)
        write_submissions(self.folder, [*past, entry])
        executor = submitit.SlurmExecutor(folder=place)
        try:
            executor.update_parameters(job_name=entry["name"], **self._parameters())
            jobs = executor.map_array(partial(run_bundle, bundle), bundles)
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError, OSError) as error:
            with suppress(OSError):
                write_submissions(self.folder, past)
            disk = disk_error(error, about=place) if isinstance(error, OSError) else None
            raise disk or ConfigError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from None
        entry["job"] = jobs[0].job_id.partition("_")[0]
        write_submissions(self.folder, [*past, entry])
        self.submitted.append((str(entry["job"]), len(bundles), sum(map(len, bundles))))

    def _parameters(self) -> dict[str, Any]:
        """For submitit, which writes each as a quoted line of a batch file."""
        options, here = self.options, self.devices // self.options.nodes
        cpus, n_tasks = options.cpus or here, 1
        gpus = options.gpus if options.gpus is not None else here if self.device == "cuda" else None
        if options.nodes > 1:  # the tasks are the ranks, started by a step for every point
            cpus, n_tasks = max(1, cpus // here), here
        wanted = {
            "partition": options.partition,
            "time": options.time,
            "nodes": options.nodes,
            "ntasks_per_node": n_tasks,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus or None,
            "use_srun": options.nodes == 1,
            "mem": f"{round(1024 * options.memory)}M" if options.memory else None,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "array_parallelism": options.at_once,
            "signal_delay_s": options.signal_seconds,
            "stderr_to_stdout": True,
            # since Slurm 22.05 a step does not inherit the cores of its job
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
            "additional_parameters": {**options.flags, "requeue": True},
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def poll(self, timeout: float) -> list[Ended]:
        """What has ended since; Slurm is asked every few seconds."""
        time.sleep(timeout)
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + _INTERVAL
        try:
            jobs = jobs_of(self.folder)
        except SlurmSilent:
            return []
        ended = []
        for id, folder in list(self._given.items()):
            job = jobs.get(id)
            if self.task.has_ended(folder):
                ended.append(Ended(id, 0))
            elif job is None or not job.alive:
                # Files of another host may be seen later than the end of its job.
                if id in self._missed:
                    ended.append(
                        Ended(id, STOPPED, f"Slurm job {job.message}" if job else "no Slurm job has it")
                    )
                self._missed.add(id)
        for one in ended:
            del self._given[one.id]
        self.running = tuple(id for id in running(jobs) if id in self._given)
        return ended

    def stop(self, *ids: str) -> None:
        """Nothing is stopped: jobs go on without this process."""
        self.running = ()

    def close(self) -> None:
        """Jobs go on without this process."""


def private_folder(path: Path) -> Path:
    """`path`, made for this user alone where it is missing: jobs run what submitit has pickled there, so who
    may write there may run programs as this user.

    Raises:
        ConfigError: others own it or may write to it, or anybody may put another folder in its place.
    """
    if not path.is_symlink() and not path.exists():
        make_folder(path.parent)
        path.mkdir(mode=0o700)
    facts = path.lstat()
    why = ""
    if not stat.S_ISDIR(facts.st_mode):
        why = "it is no folder"
    elif facts.st_uid != os.getuid():
        why = "another user owns it"
    elif facts.st_mode & 0o022:
        why = "others may write to it"
    elif path.resolve().parent.stat().st_mode & (0o002 | stat.S_ISVTX) == 0o002:
        why = f"everybody may write to {path.parent}"
    if why:
        advice = (
            f"look at what is in it, and then: chmod go-w {path.parent} {path}"
            if "write" in why
            else "remove it"
        )
        raise ConfigError(f"{path}: Slurm's jobs run what lies there, and {why}; {advice}")
    return path


def bundled(ids: Sequence[str], expected: Mapping[str, float], *, least: float) -> list[list[str]]:
    """`ids` in bundles of at least about `least` seconds of expected work each, those with most work first.

    A point that is long enough has a bundle of its own; the others go, longest first, to the bundle with the
    least work so far.
    """
    cost = {id: expected.get(id, 60.0) for id in ids}
    ids = sorted(ids, key=lambda id: -cost[id])
    short = [id for id in ids if cost[id] < least]
    packed: list[list[str]] = [
        []
        for _ in range(min(len(short), max(1, int(sum(cost[id] for id in short) // least))) if short else 0)
    ]
    work = [0.0] * len(packed)
    for id in short:
        k = work.index(min(work))
        packed[k].append(id)
        work[k] += cost[id]
    return sorted(
        [*([id] for id in ids if cost[id] >= least), *packed],
        key=lambda bundle: -sum(cost[id] for id in bundle),
    )


def _max_array_size() -> int:
    """The largest number of elements that an array may have on this cluster."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask_slurm("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1])) if found else 1000
