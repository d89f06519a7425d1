"""A power cut at random moments costs a running study nothing: `sapis selftest power`.

The study runs in an ext4 file system of its own, on an image file. A copy of that file, taken without
unmounting or flushing anything, is what a power cut leaves: the blocks that have reached the disk, and
nothing of what the system still holds in memory. Each copy is mounted, which replays its journal, and
examined: no point that was said to be done is gone or changed, no file is empty or cut off, the data open.
Some copies are continued, and end in the table and weights of an undisturbed run, bit by bit.

Beside the study, in the same file system, a control renames files that it does not bring to the disk first.
Some of them must be empty in the copies, or the copies show nothing. (Mounted plainly, ext4 writes such files
out before it renames them; `noauto_da_alloc` says it need not, as other file systems do not.)
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.data import FrameStore, is_sealed
from sapis_lab.files import MIB, digest, is_temporary, read_json
from sapis_lab.jobs.event_log import read_events
from sapis_lab.potential import WEIGHTS, load_potential
from sapis_lab.records import FAILURE, RECORD, read_record
from sapis_lab.selftest._project import PATIENCE, Project, difference, small_study
from sapis_lab.selftest.ranks import write_molecules
from sapis_lab.sweep.manifest import MANIFEST, read_manifest
from sapis_lab.sweep.whole import ANSWERS, WHOLE, verify

NAME = "power"
OPTIONS = "loop,noauto_da_alloc,commit=1"
"""Of mounting: what is not flushed stays away from the disk, while the journal with its names goes there
every second."""
COLUMNS = ("offsets", "species", "positions", "energy", "forces")
SETTINGS = ("study.yaml", "provenance.json", MANIFEST, WHOLE)
MAY_BE_EMPTY = {".lock", "log.txt", "events.jsonl", "progress.json", "metrics.csv"}
"""Files that are appended to, or whose loss costs no number."""
SHOWN = 10
"""Faults of a copy that are told one by one."""
_QUIET = 30.0
"""How long to wait for a copy during which nothing was written, s."""


@dataclass(frozen=True)
class Plan:
    """What is run and cut off."""

    copies: int = 24
    """While the study runs; one more is taken when it has said that it is done."""
    continued: int = 3
    """Copies from which the study goes on to its end."""
    seeds: int = 2
    """Seeds of the lattice of two models, two sizes and two numbers of frames."""
    steps: int = 150
    workers: int = 2
    seed: int = 0
    """Of the moments."""
    n_bytes: int = 192 * MIB
    """Size of the disk."""


@dataclass(frozen=True)
class Copy:
    """The disk at one moment."""

    image: Path
    message: frozenset[str]
    """Points that were said to be done before."""
    is_last: bool
    """The study had ended."""


@dataclass
class Seen:
    """What a copy held."""

    done: set[str] = field(default_factory=set)
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Kind and detail."""
    control: int = 0
    """Files of the control, and how many of them were empty."""
    control_empty: int = 0


@dataclass
class Outcome:
    """What all copies came to."""

    n_points: int
    seen: list[Seen]
    ends: list[str]
    """Of the copies that were continued: `same`, or what is not."""
    torn: int
    """Copies that were thrown away because something was written meanwhile: no power cut leaves what they
    hold."""
    seconds: float

    @property
    def faults(self) -> Counter[str]:
        """How often each kind was found."""
        return Counter(kind for seen in self.seen for kind, _ in seen.faults)

    @property
    def control_empty(self) -> int:
        return sum(seen.control_empty for seen in self.seen)


def run_power(plan: Plan, *, say: Callable[[str], None] = print) -> int:
    """Run it and print what came out; the exit status: 1 if anything is lost or different, or the experiment
    could not have shown it.

    Raises:
        ConfigError: this user may not mount, or the programs for it are missing.
    """
    with tempfile.TemporaryDirectory(prefix="sapis-power-") as place:
        found = cut(Path(place), plan, say=say)
    for k, seen in enumerate(found.seen):
        for kind, detail in seen.faults[:SHOWN]:
            say(f"  copy {k + 1}: {kind}: {detail}")
        if len(seen.faults) > SHOWN:
            say(f"  copy {k + 1}: ... and {len(seen.faults) - SHOWN} more")
    torn = f"{found.torn} more thrown away because something was written meanwhile"
    say(f"{len(found.seen)} copies of the disk, {torn}; {found.seconds:.0f} s")
    n_done, n_control = sum(len(seen.done) for seen in found.seen), sum(seen.control for seen in found.seen)
    say(f"done points in all copies together: {n_done} (the lattice has {found.n_points})")
    say(f"lost or damaged: {', '.join(f'{n} {kind}' for kind, n in found.faults.items()) or 'nothing'}")
    say(f"control, files renamed without being flushed: {found.control_empty} of {n_control} are empty")
    say(f"continued from {len(found.ends)} copies: {'; '.join(found.ends) or 'none'}")
    if len(found.seen) < plan.copies + 1:
        say(f"the lattice ended before {plan.copies} copies; take more --seeds")
    if not found.control_empty:
        say("the control lost nothing: such copies cannot show a file that was not flushed")
    whole = not found.faults and found.ends == ["same"] * plan.continued
    return 0 if whole and found.control_empty and len(found.seen) == plan.copies + 1 else 1


def cut(place: Path, plan: Plan, *, say: Callable[[str], None]) -> Outcome:
    """Run the study undisturbed and on a disk of its own, copy the disk and examine the copies, below
    `place`.

    Raises:
        ConfigError: see `run_power`.   RuntimeError: a run failed, or took too long.
    """
    begin = time.monotonic()
    image, disk = place / "disk.img", place / "disk"
    make_disk(image, plan.n_bytes)
    with mounted(image, disk):
        pass  # whether it can be done, before minutes are spent
    write_molecules(place / "molecules.xyz")
    calm, cut_off = Project(place / "calm", NAME, place / "calm.log"), Project(disk, NAME, place / "disk.log")
    started = time.monotonic()
    _write(calm, place, plan)
    _to_the_end(calm)
    seconds = time.monotonic() - started
    say(
        f"undisturbed: {len(calm.table())} points in {seconds:.0f} s; now the same study on a disk that is "
        f"copied"
    )
    with mounted(image, disk) as device:
        _write(cut_off, place, plan)
        copies, torn = _copies(cut_off, image, device, plan, seconds, say)
    seen = []
    for k, copy in enumerate(copies):
        with mounted(copy.image, disk):
            now = examine(cut_off, calm, copy)
        seen.append(now)
        empty = f"{now.control_empty} empty control files"
        say(f"  copy {k + 1:>3}: {len(now.done)} points done, {len(now.faults)} faults, {empty}")
    ends = []
    for k in _to_continue(seen, plan.continued):
        with mounted(copies[k].image, disk):
            ends.append(_end_of(cut_off, calm))
        say(f"  continued from copy {k + 1}: {ends[-1]}")
    return Outcome(len(calm.table()), seen, ends, torn, time.monotonic() - begin)


def _write(project: Project, place: Path, plan: Plan) -> None:
    question, cache = "Does a power cut cost a number?", project.home / "cache"
    study = small_study(
        place, cache=cache, question=question, seeds=plan.seeds, steps=plan.steps, workers=plan.workers
    )
    project.write(study)


def _to_the_end(project: Project) -> None:
    if status := project.end(project.start_study()):
        raise RuntimeError(f"the study ended with exit status {status}:\n{project.log()}")


def _end_of(project: Project, calm: Project) -> str:
    """Continue the study to its end; how it differs from the undisturbed one."""
    if status := project.end(project.start_study()):
        return f"ended with exit status {status}: {project.log().splitlines()[-1]}"
    try:
        return str(difference(calm, project))
    except (OSError, ValueError) as error:
        return f"its table cannot be read: {error}"


def _to_continue(seen: list[Seen], n: int) -> list[int]:
    """Numbers of `n` copies over the length of the run, the first and the last moments included."""
    return sorted({round(k) for k in np.linspace(0, len(seen) - 1, n)}) if seen and n else []


# --------------------------------------------------------------------------------------------------- the disk


def make_disk(image: Path, n_bytes: int) -> None:
    """An empty ext4 file system in the file `image`.

    Raises:
        ConfigError: mkfs.ext4 is missing or fails.
    """
    with image.open("wb") as f:
        f.truncate(n_bytes)
    _command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[str]:
    """`image` mounted at `folder` while the block runs; gives the name of its block device ("loop0").

    Raises:
        ConfigError: it cannot be mounted.
    """
    folder.mkdir(exist_ok=True)
    _command("mount", "-t", "ext4", "-o", OPTIONS, str(image), str(folder))
    try:
        yield _device(folder)
    finally:
        _command("umount", str(folder), attempts=50)


def _command(*words: str, attempts: int = 1) -> None:
    for attempt in range(attempts):
        try:
            done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        except FileNotFoundError:
            raise ConfigError(
                f"a power cut needs the program {words[0]}, which is not here (Linux, packages e2fsprogs, "
                f"mount)"
            ) from None
        if done.returncode == 0:
            return
        if attempt < attempts - 1:
            time.sleep(0.2)  # a process that has just been killed may still be dying there
    said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
    needs = "a power cut needs a file system on an image file, which only root may mount"
    raise ConfigError(f"{needs}; {' '.join(words)}: {said}")


def _device(folder: Path) -> str:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, where, *_ = line.split(" ")
        if where == str(folder).replace(" ", r"\040"):
            return Path(device).name
    raise ConfigError(f"{folder}: not among the mounted file systems")


# ------------------------------------------------------------------------------------------------- the copies


def _copies(
    project: Project, image: Path, device: str, plan: Plan, seconds: float, say: Callable[[str], None]
) -> tuple[list[Copy], int]:
    """Copies of the disk at random moments of a run, and one right after its end; how many others were thrown
    away.

    `seconds`: how long the run takes undisturbed, over which the moments are spread.
    """
    dice, control = random.Random(plan.seed), _Control(project.home / "control")
    taken: list[Copy] = []
    torn = 0
    process = project.start_study()
    begin = time.monotonic()
    moments = sorted(dice.uniform(0.05, 0.95) * seconds for _ in range(plan.copies))
    while process.poll() is None:
        control.write()
        if moments and time.monotonic() - begin > moments[0]:
            del moments[0]
            taken.append(_taken(project, image, len(taken), is_last=False))
            torn += copy_quiet(image, taken[-1].image, device)
        if time.monotonic() - begin > PATIENCE + seconds:
            process.kill()
        time.sleep(0.02)
    if status := project.end(process):
        raise RuntimeError(f"the study ended with exit status {status}:\n{project.log()}")
    taken.append(_taken(project, image, len(taken), is_last=True))
    torn += copy_quiet(image, taken[-1].image, device)
    say(f"the run on that disk took {time.monotonic() - begin:.0f} s; {len(taken)} copies")
    return taken, torn


def _taken(project: Project, image: Path, k: int, *, is_last: bool) -> Copy:
    message = frozenset(event["id"] for event in read_events(project.folder) if event["event"] == "done")
    return Copy(image.with_name(f"copy-{k + 1}.img"), message, is_last)


class _Control:
    """Writes files as one should not: to a temporary name, and renamed without being brought to the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0
        folder.mkdir()

    def write(self) -> None:
        """One more file."""
        self.n += 1
        temporary = self.folder / f".{self.n}.tmp"
        temporary.write_text(json.dumps({"n": self.n, "text": "x" * 200}), encoding="utf-8")
        temporary.replace(self.folder / f"{self.n}.json")


def copy_quiet(image: Path, target: Path, device: str) -> int:
    """Copy `image` while nothing is written to it, so that the copy is the disk at one moment; how many
    attempts were thrown away.

    Blocks that change while a copy is made would give it the later part of what was written without the
    earlier: no power cut does that.

    Raises:
        RuntimeError: the disk does not come to rest.
    """
    attempts, deadline = 0, time.monotonic() + _QUIET
    while time.monotonic() < deadline:
        before = _written(device)
        if before is not None:
            copy_sparse(image, target)
            if _written(device) == before:
                return attempts
            attempts += 1
        time.sleep(0.002)
    raise RuntimeError(
        f"{image}: something was written to it at all times for {_QUIET:.0f} s; it cannot be copied at one "
        f"moment"
    )


def _written(device: str) -> tuple[int, ...] | None:
    """Writes and discards that a block device has completed; None while one is under way."""
    numbers = [int(word) for word in Path(f"/sys/block/{device}/stat").read_text().split()]
    return None if numbers[8] else (numbers[4], numbers[6], *numbers[11:12])


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without its holes."""
    with source.open("rb") as a, target.open("wb") as b:
        size = a.seek(0, os.SEEK_END)
        b.truncate(size)
        for start, end in _parts(a.fileno(), size):
            a.seek(start)
            b.seek(start)
            while start < end and (data := a.read(min(MIB, end - start))):
                b.write(data)
                start += len(data)


def _parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of everything in a file that is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


# --------------------------------------------------------------------------------------------- what they hold


def examine(project: Project, calm: Project, copy: Copy) -> Seen:
    """What is there after the power cut, and what of it is not as it was said to be."""
    seen = Seen()
    control = [p.stat().st_size for p in (project.home / "control").glob("*.json")]
    seen.control, seen.control_empty = len(control), control.count(0)
    for path in sorted(project.folder.rglob("*")):
        if path.is_file() and not path.stat().st_size and not _may_be_empty(path.relative_to(project.folder)):
            seen.faults.append(("empty files", str(path.relative_to(project.folder))))
    ids = list(calm.table()["id"])
    for id in ids:
        _examine_point(project, calm, id, seen)
    seen.faults += [("points lost that were said to be done", id) for id in sorted(copy.message - seen.done)]
    _examine_answers(project.folder, seen, wanted=copy.is_last)
    _examine_data(project.home / "cache", calm.home / "cache", seen)
    if copy.is_last:
        seen.faults += [("points lost of a study that had ended", id) for id in ids if id not in seen.done]
        seen.faults += [
            ("faults that `study verify` finds", problem) for problem in verify(project.folder).problems
        ]
    return seen


def _may_be_empty(path: Path) -> bool:
    return path.name in MAY_BE_EMPTY or is_temporary(path) or "tensorboard" in path.parts


def _examine_point(project: Project, calm: Project, id: str, seen: Seen) -> None:
    folder = project.folder / "points" / id
    if (folder / FAILURE).exists():
        seen.faults.append(("points failed", id))
    for path in folder.glob("*.ckpt"):
        if not _is_whole_archive(path):
            seen.faults.append(("checkpoints damaged", f"{id}/{path.name}"))
    if not (folder / RECORD).exists():
        return
    try:
        record = read_record(folder)
        load_potential(folder)
        weights = digest(folder / WEIGHTS)
    except (ValueError, OSError, KeyError, TypeError) as error:
        seen.faults.append(("done points damaged", f"{id}: {error}"))
        return
    if record.weights != weights:
        seen.faults.append(("weights that are not those of the record", id))
    if weights != calm.weights(id) or record.metrics != read_record(calm.folder / "points" / id).metrics:
        seen.faults.append(("done points with other numbers", id))
    seen.done.add(id)


def _is_whole_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def _examine_answers(folder: Path, seen: Seen, *, wanted: bool) -> None:
    """`wanted`: they must all be there."""
    readers: dict[str, Callable[[Path], object]] = {
        "runs.parquet": pd.read_parquet,
        "runs.csv": pd.read_csv,
        "fit.json": read_json,
        "provenance.json": read_json,
        "study.yaml": read_yaml,
        MANIFEST: lambda path: read_manifest(path.parent),
        WHOLE: read_json,
    }
    for name in (*ANSWERS, *SETTINGS):
        path = folder / name
        if not path.exists():
            if wanted:
                seen.faults.append(("answers lost of a study that had ended", name))
            continue
        try:
            readers.get(name, Path.read_bytes)(path)
        except Exception as error:
            seen.faults.append(("answers damaged", f"{name}: {type(error).__name__}: {error}"))
    if wanted and not list((folder / "figures").glob("*.pdf")):
        seen.faults.append(("answers lost of a study that had ended", "figures"))


def _examine_data(cache: Path, calm: Path, seen: Seen) -> None:
    """Finished stores open, and hold what the undisturbed ones do."""
    for path in sorted(cache.glob("*/manifest.json")):
        try:
            if not is_sealed(path.parent):
                continue
            store, wanted = FrameStore.open(path.parent), FrameStore.open(calm / path.parent.name)
            same = [np.array_equal(getattr(store, name), getattr(wanted, name)) for name in COLUMNS]
            same += [np.array_equal(ids, wanted.splits[name]) for name, ids in store.splits.items()]
            for table in path.parent.glob("neighbors-*"):
                cutoff = float(table.name.partition("-")[2])
                a, b = store.neighbors(cutoff), wanted.neighbors(cutoff)
                same += [
                    np.array_equal(getattr(a, name), getattr(b, name))
                    for name in ("offsets", "center", "neighbor", "shift")
                ]
        except (ValueError, OSError, KeyError) as error:
            seen.faults.append(("stores that do not open", f"{path.parent.name}: {error}"))
            continue
        if not all(same):
            seen.faults.append(("stores with other numbers", path.parent.name))
