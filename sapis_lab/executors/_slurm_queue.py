"""What was submitted to Slurm from a folder, and what became of it, as `squeue` has it: a task that was
killed never tells submitit, and `sacct` wants a database that many clusters lack.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sapis_lab.config import Config, ConfigError, load
from sapis_lab.files import read_json_list, write_text
from sapis_lab.records import FAILURE, RECORD

FOLDER, SUBMISSIONS = "slurm", "submissions.json"
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
    def message(self) -> str:
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
    submissions = read_submissions(folder)
    if not submissions:
        return {}
    text = ask_slurm(
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
    message = sorted(
        {job.message for job in waiting.values() if job.state not in ("RUNNING", "COMPLETING", "PENDING")}
    )
    lines += [f"Slurm job {text}" for text in message[:5]]
    lines += [f"lost    {id}: Slurm job {job.message}   log {job.log}" for id, job in gone.items()]
    if gone:
        lines.append(f"submit lost points again: sapis study collect {folder.name} --resubmit")
    elif not waiting:
        lines.append(f"no jobs are left; gather them: sapis study collect {folder.name}")
    return Queue(now, tuple(lines))


def ask_slurm(*command: str) -> str:
    """What a command of Slurm prints. Raises SlurmSilent."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        raise SlurmSilent(f"{command[0]} is not on this machine; ask on one of the cluster's") from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{command[0]} has not answered within 60 s; try again later") from None
    except subprocess.CalledProcessError as error:
        raise SlurmSilent(f"{command[0]} failed: {' '.join(error.stderr.split())}; try again later") from None


class Submission(Config):
    """One array in submissions.json."""

    name: str
    job: str | None
    host: str
    submitted: str
    at: str = "points"
    """Folder of the folders with these ids, from the one that `slurm/` lies in."""
    answer: str = RECORD
    bundles: tuple[tuple[str, ...], ...]


def read_submissions(folder: Path) -> list[Submission]:
    """All that was submitted from `folder`, in that order."""
    path = folder / FOLDER / SUBMISSIONS
    if not path.exists():
        return []
    entries = read_json_list(path, then="remove it once none of these jobs is in the queue, and submit again")
    return [load(Submission, entry, source=str(path)) for entry in entries]


def write_submissions(folder: Path, submissions: Sequence[Submission | dict[str, Any]]) -> None:
    """Replace the list of what was submitted."""
    plain = [s.model_dump(mode="json") if isinstance(s, Submission) else s for s in submissions]
    write_text(folder / FOLDER / SUBMISSIONS, json.dumps(plain, indent=1) + "\n")
