"""Jobs (folders, see `executor`) as Slurm job arrays, submitted through submitit. State lives in the folders
alone; an element of an array is only told their names.

    FOLDER/slurm/submissions.json   what was submitted: one array each, with the ids of every element
    FOLDER/slurm/JOB_0_log.out      what an element says, over all its restarts

FOLDER is results/NAME for the points of a study, which lie in its points/.

An element of an array runs a *bundle* of ids one after the other, each on one node or as a step over
several. Warned of its time limit, or preempted, it lets what runs save, and goes back into the queue; it
continues from the checkpoints. What becomes of a job is read from `squeue`, since a task that was killed
never tells submitit, and `sacct` wants a database that many clusters lack.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from sapis_lab.config import Config, ConfigError, load
from sapis_lab.errors import disk_error
from sapis_lab.executors.local import LocalPool
from sapis_lab.files import make_folder, read_json_list, write_text
from sapis_lab.jobs.events import Event, OnEvent
from sapis_lab.jobs.executor import Ended, Executor, Task
from sapis_lab.jobs.folder import read_progress
from sapis_lab.jobs.host import worker_environment
from sapis_lab.jobs.launcher import STOPPED
from sapis_lab.jobs.run import Stopped, work_through
from sapis_lab.jobs.signals import Stop, stop_signals
from sapis_lab.records import FAILURE, RECORD
from sapis_lab.text import never_fails

FOLDER, SUBMISSIONS = "slurm", "submissions.json"
_INTERVAL = 5.0
"""Seconds between two questions to Slurm."""
_WAIT_FOR_END = 900.0
"""Seconds that a job which has saved waits for Slurm to end it."""
_FRUITLESS_RESTARTS = 3
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
_OURS = {
    "array",
    "chdir",
    "error",
    "input",
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "time",
    "wrap",
}
"""Flags on which the way back from the queue depends."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000)]
"""One line without control characters: sbatch reads its flags line by line."""


class SlurmOptions(Config):
    """What is asked of Slurm for every job, which runs one point at a time; no part of a result's
    identity."""

    partition: Text | None = None
    """Partition, or several with commas; the cluster's default when not given."""
    time: int = Field(default=120, ge=1, le=525_600)
    """Time limit of a job, minutes. A job that comes near it saves, goes back into the queue and
    continues."""
    signal_seconds: int = Field(default=120, ge=10, le=65_535)
    """How long before the time limit a job is told to save, s."""
    nodes: int = Field(default=1, ge=1, le=10_000)
    """Nodes of a job, over which the devices of a point are spread evenly."""
    cpus: int | None = Field(default=None, ge=1, le=10_000)
    """Cores of a job on each node; one per device there when not given."""
    gpus: int | None = Field(default=None, ge=0, le=10_000)
    """GPUs of a job on each node; one per device there with run.device=cuda, and none otherwise, when not
    given."""
    memory: float | None = Field(default=None, ge=0.001, le=1e6)
    """Memory of a job on each node, GB; the cluster's default when not given."""
    account: Text | None = None
    """Account to charge."""
    qos: Text | None = None
    """Quality of service."""
    constraint: Text | None = None
    """Features of the nodes."""
    at_once: int = Field(default=256, ge=1, le=10**6)
    """Jobs of one array that may run at a time."""
    bundle_minutes: float = Field(default=10.0, ge=0, le=525_600)
    """Points are bundled into jobs until each has this much expected work, minutes; 0: a job for every
    point."""
    flags: dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], bool | int | Text] = {}
    """Further flags of sbatch by their long names, such as `{exclusive: true, mail-type: END}`; passed on as
    they are."""

    @field_validator("flags")
    @classmethod
    def _flags_are_free(cls, flags: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        for name, value in flags.items():
            if name in _OURS:
                raise ValueError(f"flags: --{name} is set by the program and cannot be given")
            if value is False:
                raise ValueError(f"flags: {name} is false; leave it out")
        return flags


# --------------------------------------------------------------------------------------------------- executor


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
        past = _read(self.folder)
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
        bundle = _Bundle(str(self.folder), at, self.task, self.device, self.devices, self.options.nodes)
        _write(self.folder, [*past, entry])
        executor = submitit.SlurmExecutor(folder=place)
        try:
            executor.update_parameters(job_name=entry["name"], **self._parameters())
            jobs = executor.map_array(partial(run_bundle, bundle), bundles)
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError, OSError) as error:
            with suppress(OSError):
                _write(self.folder, past)
            disk = disk_error(error, about=place) if isinstance(error, OSError) else None
            raise disk or ConfigError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from None
        entry["job"] = jobs[0].job_id.partition("_")[0]
        _write(self.folder, [*past, entry])
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
                        Ended(id, STOPPED, f"Slurm job {job.told}" if job else "no Slurm job has it")
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
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1])) if found else 1000


# ------------------------------------------------------------------------------------------------------ queue


class SlurmSilent(ConfigError):
    """Slurm cannot be asked from here, or does not answer."""


class Job(NamedTuple):
    """The job that last had an id."""

    number: str
    """As Slurm's commands take it: `12_3`, or `12` where the array has one element; empty if it never got
    one."""
    state: str
    """Slurm's word, or GONE when the queue knows it no more."""
    reason: str
    log: Path
    bundle: tuple[str, ...]
    at: Path
    """Where the folders of its ids lie."""
    answer: str
    """The file that says that one of them is done."""

    def has_ended(self, id: str) -> bool:
        """Whether one of its ids is done or has failed."""
        return (self.at / id / self.answer).exists() or (self.at / id / FAILURE).exists()

    @property
    def alive(self) -> bool:
        """It runs, or will."""
        return self.state not in _ENDED and self.state != "GONE"

    @property
    def told(self) -> str:
        """In a sentence: `12_3 is CANCELLED`."""
        why = f" ({self.reason})" if self.reason not in ("", "None") and self.state != "RUNNING" else ""
        return (
            f"{self.number or 'without a number'} "
            f"{'left the queue' if self.state == 'GONE' else 'is ' + self.state}{why}"
        )


def jobs_of(folder: Path) -> dict[str, Job]:
    """The last job of everything that was ever submitted from `folder`, by id.

    Raises:
        SlurmSilent: there are submissions, and Slurm cannot be asked about them.
    """
    submissions = _read(folder)
    if not submissions:
        return {}
    text = _ask(
        "squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%F|%K|%T|%r|%j"
    )
    known: dict[tuple[str, int], tuple[str, str, str]] = {}
    for line in text.splitlines():
        number, element, word, reason, name = line.strip().split("|", 4)
        single = not element.isdigit()
        known[name, 0 if single else int(element)] = (
            number if single else f"{number}_{element}",
            word,
            reason,
        )
    jobs: dict[str, Job] = {}
    for entry in submissions:
        for k, bundle in enumerate(entry.bundles):
            alone = entry.job or ""
            gone = (f"{alone}_{k}" if alone and len(entry.bundles) > 1 else alone, "GONE", "")
            number, word, reason = known.get((entry.name, k), gone)
            log = folder / FOLDER / f"{number}_0_log.out"
            job = Job(number, word, reason, log, bundle, folder / entry.at, entry.answer)
            jobs |= dict.fromkeys(bundle, job)
    return jobs


def running(jobs: Mapping[str, Job]) -> Iterator[str]:
    """The ids that run at this moment: of every running job the first that has not ended."""
    for job in {j.number: j for j in jobs.values() if j.state in ("RUNNING", "COMPLETING")}.values():
        first = next((id for id in job.bundle if not job.has_ended(id)), None)
        if first is not None and jobs[first].number == job.number:
            yield first


def lost(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The ids that have not ended and whose job is no more."""
    return {id: job for id, job in jobs.items() if not job.alive and not job.has_ended(id)}


class Queue(NamedTuple):
    """What Slurm knows about a study, for people."""

    running: frozenset[str]
    """Ids of the points that run."""
    lines: tuple[str, ...]


def queue_of(folder: Path) -> Queue:
    """Slurm's side of the state of a study; nothing where it was never submitted."""
    try:
        jobs = jobs_of(folder)
    except SlurmSilent as error:
        return Queue(frozenset(), (f"Slurm cannot be asked: {error}",))
    if not jobs:
        return Queue(frozenset(), ())
    gone = lost(jobs)
    waiting = {id: job for id, job in jobs.items() if job.alive and not job.has_ended(id)}
    now = frozenset(running(jobs))
    n_jobs = len({job.number for job in waiting.values()})
    lines = [
        f"Slurm: {len(now)} points running, {len(waiting) - len(now)} queued, in {n_jobs} jobs; {len(gone)} "
        f"lost"
    ]
    told = sorted(
        {job.told for job in waiting.values() if job.state not in ("RUNNING", "COMPLETING", "PENDING")}
    )
    lines += [f"Slurm job {text}" for text in told[:5]]
    lines += [f"lost    {id}: Slurm job {job.told}   log {job.log}" for id, job in gone.items()]
    if gone:
        lines.append(f"submit lost points again: sapis study collect {folder.name} --resubmit")
    elif not waiting:
        lines.append(f"no jobs are left; gather them: sapis study collect {folder.name}")
    return Queue(now, tuple(lines))


def _ask(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        raise SlurmSilent(f"{command[0]} is not on this machine; ask on one of the cluster's") from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{command[0]} has not answered within 60 s; try again later") from None
    except subprocess.CalledProcessError as error:
        raise SlurmSilent(f"{command[0]} failed: {' '.join(error.stderr.split())}; try again later") from None


class _Submission(Config):
    """One array in submissions.json."""

    name: str
    job: str | None
    host: str
    submitted: str
    at: str = "points"
    """Folder of the folders with these ids, from the one that `slurm/` lies in."""
    answer: str = RECORD
    bundles: tuple[tuple[str, ...], ...]


def _read(folder: Path) -> list[_Submission]:
    path = folder / FOLDER / SUBMISSIONS
    if not path.exists():
        return []
    entries = read_json_list(path, then="remove it once none of these jobs is in the queue, and submit again")
    return [load(_Submission, entry, source=str(path)) for entry in entries]


def _write(folder: Path, submissions: Sequence[_Submission | dict[str, Any]]) -> None:
    plain = [s.model_dump(mode="json") if isinstance(s, _Submission) else s for s in submissions]
    write_text(folder / FOLDER / SUBMISSIONS, json.dumps(plain, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------- in the job


class _Bundle(NamedTuple):
    """What all elements of an array are told."""

    folder: str
    at: str
    task: Task
    device: str
    devices: int
    n_nodes: int


def run_bundle(bundle: _Bundle, ids: Sequence[str]) -> str:
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


def _workers(bundle: _Bundle, log: Path) -> Executor:
    """What runs the folders in this job: workers on this node, or steps over several nodes."""
    if bundle.n_nodes == 1:
        return LocalPool(log, bundle.task, device=bundle.device, devices=bundle.devices)
    return _Steps(log, bundle)


class _Steps:
    """Folders one at a time, each a step of this job with a task for every rank, on all its nodes."""

    def __init__(self, log: Path, bundle: _Bundle) -> None:
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
        self.program = [sys.executable, "-m", "sapis_lab.sweep.run_ranks"]
        self.options = [
            f"--devices={bundle.devices}",
            f"--device={bundle.device}",
            f"--target={bundle.task.target}",
            f"--arguments={json.dumps(dict(bundle.task.arguments))}",
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
