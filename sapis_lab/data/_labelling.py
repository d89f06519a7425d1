"""Labelling of structures as jobs of an executor (`sapis_lab.jobs`): parts of some frames each, so that a
kill at any moment loses seconds, and no label depends on who made it or when.

    FOLDER/plan.json          how the frames are cut into parts, and what labels them; written once
    FOLDER/start-000/         makes structures from one to begin with
        request.yaml, start.npz    -> structures.npz, the answer
    FOLDER/part-00000/        labels structures
        request.yaml, structures.npz -> labels.npz, the answer; partial.npz meanwhile

A part writes down what it has every two seconds, so that labels which take longer than that are kept one by
one. A label is a function of its structure alone (`sapis_lab.oracles`), so that the same frames come out
whatever was killed. A label that fails is recorded with its reason and is no number.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.config import Config, composed_kind, dump_yaml, load, read_yaml
from sapis_lab.data._base import Progress
from sapis_lab.data._oracle_record import oracle_record
from sapis_lab.errors import ConfigError, DiskError, disk_error
from sapis_lab.executors import ExecutorConfig
from sapis_lab.files import make_folder, read_bytes, read_json, replacing, write_text
from sapis_lab.generators import Configuration, GeneratorConfig, Start
from sapis_lab.jobs.events import Event
from sapis_lab.jobs.executor import Task
from sapis_lab.jobs.folder import LOG, PROGRESS, failure_reason, read_progress
from sapis_lab.jobs.run import Stopped, run_jobs
from sapis_lab.oracles import Failed, Labels, OracleConfig
from sapis_lab.records import FAILURE

REQUEST, STRUCTURES, START, LABELS, PARTIAL, PLAN = (
    "request.yaml",
    "structures.npz",
    "start.npz",
    "labels.npz",
    "partial.npz",
    "plan.json",
)
SAVE_SECONDS = 2.0
"""Time between two writings of what a part has."""
PART_SECONDS = 60.0
"""Expected time of a part; it holds at most `PART_FRAMES`."""
PART_FRAMES = 1000


class Frame(NamedTuple):
    """A structure to be labelled."""

    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3) Å."""
    cell: np.ndarray
    """(3, 3) Å; zeros without periodicity."""
    pbc: np.ndarray
    """(3,) bool."""


class Request(Config):
    """What a job does."""

    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """What labels, or is the surface that a generator looks at."""
    generator: composed_kind("generators", GeneratorConfig) | None = None  # type: ignore[valid-type]
    """What makes structures; none in a part that labels."""
    n_frames: int = 0
    """How many structures it makes."""
    seed: int = 0
    """Of its random numbers."""
    number: int = 0
    """Of the start; its random numbers come from both."""


# -------------------------------------------------------------------------------------------------- on disk


def write_frames(path: Path, frames: Sequence[Frame]) -> None:
    """Write structures in one step."""
    _write(
        path,
        n_atoms=np.array([len(f.species) for f in frames]),
        species=np.concatenate([f.species for f in frames]),
        positions=np.concatenate([f.positions for f in frames]),
        cell=np.array([f.cell for f in frames]),
        pbc=np.array([f.pbc for f in frames]),
    )


def read_frames(path: Path) -> list[Frame]:
    """The structures that `write_frames` wrote. ConfigError when the file is damaged."""
    a = _read(path, ("n_atoms", "species", "positions", "cell", "pbc"))
    ends = np.cumsum(a["n_atoms"])[:-1]
    return [
        Frame(*parts)
        for parts in zip(
            np.split(a["species"], ends), np.split(a["positions"], ends), a["cell"], a["pbc"], strict=True
        )
    ]


def write_labels(path: Path, labels: Sequence[Labels | Failed]) -> None:
    """Write the labels of the first frames of a part in one step."""
    good = [found for found in labels if isinstance(found, Labels)]
    optional: dict[str, np.ndarray] = {}
    for name, missing in (("stress", np.full((3, 3), np.nan)), ("dipole", np.full(3, np.nan))):
        values = [getattr(found, name) for found in good]
        if any(value is not None for value in values):
            optional[name] = np.array([missing if value is None else value for value in values])
    if any(found.charges is not None for found in good):
        charges = [np.full(len(f.forces), np.nan) if f.charges is None else f.charges for f in good]
        optional["charges"] = np.concatenate(charges)
    _write(
        path,
        failed=np.array([found.reason if isinstance(found, Failed) else "" for found in labels], dtype=str),
        is_failed=np.array([isinstance(found, Failed) for found in labels], dtype=bool),
        n_atoms=np.array([len(found.forces) for found in good], dtype=np.int64),
        energy=np.array([found.energy for found in good], dtype=np.float64),
        forces=np.concatenate([np.zeros((0, 3)), *(found.forces for found in good)]),
        **optional,
    )


def read_labels(path: Path) -> list[Labels | Failed]:
    """The labels that `write_labels` wrote. ConfigError when the file is damaged."""
    a = _read(path, ("failed", "is_failed", "n_atoms", "energy", "forces"))
    ends = np.cumsum(a["n_atoms"])[:-1]
    forces = np.split(a["forces"], ends)
    optional: dict[str, Any] = {name: a[name] for name in ("stress", "dipole") if name in a}
    if "charges" in a:
        optional["charges"] = np.split(a["charges"], ends)
    found: list[Labels | Failed] = []
    k = 0
    for is_failed, reason in zip(a["is_failed"], a["failed"], strict=True):
        if is_failed:
            found.append(Failed(str(reason)))
            continue
        more = {name: values[k] for name, values in optional.items() if not np.isnan(values[k]).all()}
        found.append(Labels(float(a["energy"][k]), forces[k], **more))
        k += 1
    return found


def _write(path: Path, **arrays: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]


def _read(path: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    data = io.BytesIO(read_bytes(path, limit=None))
    try:
        with np.load(data, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
            if missing := [name for name in wanted if name not in found]:
                raise ValueError(f"it has no {missing[0]}")
            return found
    except (
        ValueError,
        LookupError,
        EOFError,
        OSError,
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); remove it, and what it held is made again"
        ) from None


# -------------------------------------------------------------------------------------------------- in jobs


def generate_part(folder: Path, *, device: str = "cpu") -> None:
    """Make the structures that `request.yaml` asks for, from `start.npz`."""
    request = load(Request, read_yaml(folder / REQUEST), source=str(folder / REQUEST), recorded=True)
    (begin,), masses = read_frames(folder / START), _read(folder / START, ("masses",))["masses"]
    periodic = bool(begin.pbc.any())
    pbc = (bool(begin.pbc[0]), bool(begin.pbc[1]), bool(begin.pbc[2]))
    start = Start(begin.species, begin.positions, masses, begin.cell if periodic else None, pbc)
    assert request.generator is not None

    def surface(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = _label(request.oracle.for_dynamics(), begin._replace(positions=x))
        if isinstance(found, Failed):
            raise RuntimeError(
                f"{request.oracle.kind} failed while structures were generated: {found.reason}; start from "
                f"another structure"
            )
        return found.energy, found.forces

    made = request.generator.generate(
        start, surface, n=request.n_frames, generator=np.random.default_rng([request.seed, request.number])
    )
    write_frames(folder / STRUCTURES, [_frame(begin, one) for one in made])


def _frame(begin: Frame, made: Configuration) -> Frame:
    return begin._replace(positions=made.positions, cell=begin.cell if made.cell is None else made.cell)


def label_part(folder: Path, *, device: str = "cpu") -> None:
    """Label the frames of `structures.npz` that `partial.npz` does not have yet."""
    request = load(Request, read_yaml(folder / REQUEST), source=str(folder / REQUEST), recorded=True)
    frames = read_frames(folder / STRUCTURES)
    done = read_labels(folder / PARTIAL) if (folder / PARTIAL).exists() else []
    written, n_written = time.monotonic(), len(done)

    def save() -> None:
        nonlocal written, n_written
        write_labels(folder / PARTIAL, done)
        write_text(folder / PROGRESS, f'{{"step": {len(done)}, "steps": {len(frames)}}}\n', durable=False)
        written, n_written = time.monotonic(), len(done)

    try:
        try:
            for frame in frames[len(done) :]:
                done.append(_label(request.oracle, frame))
                if time.monotonic() - written > SAVE_SECONDS:
                    save()
        finally:
            if len(done) > n_written:  # also where it is told to stop
                save()
        write_labels(folder / LABELS, done)
    except OSError as error:
        message = disk_error(error, about=folder)
        if message is None:
            raise
        raise DiskError(str(message)) from None
    (folder / PARTIAL).unlink(missing_ok=True)


def _label(oracle: OracleConfig, frame: Frame) -> Labels | Failed:
    if not frame.pbc.any():
        return oracle.label(frame.species, frame.positions)
    return oracle.label(frame.species, frame.positions, cell=frame.cell, pbc=frame.pbc)


# ----------------------------------------------------------------------------------------------- around jobs


class Labeller(NamedTuple):
    """What all jobs of one data set share."""

    folder: Path
    """Of the plan and the jobs."""
    oracle: OracleConfig
    executor: ExecutorConfig
    n_workers: int
    """On this machine, at a time."""
    progress: Progress

    def generated(
        self, begins: Sequence[Start], generator: GeneratorConfig, *, n_frames: int, seed: int
    ) -> list[list[Frame]]:
        """`n_frames` structures in all, from every start its share, made by one job each.

        Raises:
            as `labelled`.
        """
        n = len(begins)
        folders = []
        for k, begin in enumerate(begins):
            share = n_frames // n + (k < n_frames % n)
            if not share:
                continue
            folder = self.folder / f"start-{k:03d}"
            folders.append(folder)
            if (folder / STRUCTURES).exists():
                continue
            make_folder(folder)
            request = Request(oracle=self.oracle, generator=generator, n_frames=share, seed=seed, number=k)
            cell = np.zeros((3, 3)) if begin.cell is None else begin.cell
            write_text(folder / REQUEST, dump_yaml(request))
            _write(
                folder / START,
                n_atoms=np.array([len(begin.species)]),
                species=begin.species,
                positions=begin.positions,
                cell=cell[None],
                pbc=np.array([begin.pbc]),
                masses=begin.masses,
            )
        target = f"{__name__}:generate_part"
        preload = (__name__, type(self.oracle).__module__, type(generator).__module__)
        what = f"{generator.kind} structures, starts"
        task = Task(target, preload=preload, answer=STRUCTURES)
        self._run(folders, task, [1] * len(folders), expected=[PART_SECONDS] * len(folders), what=what)
        return [read_frames(folder / STRUCTURES) for folder in folders]

    def labelled(self, frames: Sequence[Frame]) -> list[Labels | Failed]:
        """The labels of all frames, in order.

        Raises:
            ConfigError: a part failed, as where the oracle cannot label such structures; or labels that are
                there were made by another version of the oracle's program.
            DiskError: the disk did not take them.   KeyboardInterrupt: it was told to stop.
        """
        parts = self._parts(frames)
        folders = []
        for k, part in enumerate(parts):
            folder = self.folder / f"part-{k:05d}"
            folders.append(folder)
            if (folder / LABELS).exists() or (folder / STRUCTURES).exists():
                continue
            make_folder(folder)
            write_text(folder / REQUEST, dump_yaml(Request(oracle=self.oracle)))
            write_frames(folder / STRUCTURES, frames[part.start : part.stop])
        target = f"{__name__}:label_part"
        task = Task(target, preload=(__name__, type(self.oracle).__module__), answer=LABELS)
        each = [self.oracle.seconds(len(frame.species)) for frame in frames]
        expected = [sum(each[part.start : part.stop]) for part in parts]
        sizes = [len(part) for part in parts]
        self._run(folders, task, sizes, expected=expected, what=f"{self.oracle.kind} labels")
        found: list[Labels | Failed] = []
        for folder, part in zip(folders, parts, strict=True):
            labels = read_labels(folder / LABELS)
            if len(labels) != len(part):
                raise ConfigError(
                    f"{folder / LABELS} has {len(labels)} labels, wanted {len(part)}; remove it and start "
                    f"again"
                )
            found += labels
        return found

    def _parts(self, frames: Sequence[Frame]) -> list[range]:
        """How frames are cut into parts: as the plan says, if there is one.

        Raises:
            ConfigError: the plan is of another version of the oracle's program, or of other structures.
        """
        path, record = self.folder / PLAN, oracle_record(self.oracle)
        if path.exists():
            plan = read_json(path)
            if plan.get("oracle") != record:
                raise ConfigError(
                    f"{self.folder}: labels in it were made with {_made_with(plan.get('oracle'))}, now it is "
                    f"{_made_with(record)}; remove that folder to label all frames anew"
                )
            size = int(plan["part_frames"])
            if plan.get("frames") != _digest(frames):
                raise ConfigError(
                    f"{self.folder}: labels in it are of other structures than there are now, so their files "
                    f"have changed; restore them, or remove that folder to begin anew"
                )
        else:
            each = max(self.oracle.seconds(len(f.species)) for f in frames)
            size = int(np.clip(PART_SECONDS / each, 1, PART_FRAMES))
            size = max(1, min(size, -(-len(frames) // max(1, self.n_workers))))
            make_folder(self.folder)
            plan = {"oracle": record, "part_frames": size, "frames": _digest(frames)}
            write_text(path, _json(plan))
        return [range(k, min(k + size, len(frames))) for k in range(0, len(frames), size)]

    def _run(
        self, folders: list[Path], task: Task, sizes: list[int], *, expected: list[float], what: str
    ) -> None:
        capacity = self.executor.capacity(device="cpu", devices=1, n_jobs=self.n_workers)
        times = {folder.name: seconds for folder, seconds in zip(folders, expected, strict=True)}
        executor = self.executor.build(self.folder, task, capacity=capacity, devices=1, expected=times)
        follow = _follower(self.progress, what, folders, sizes, task)
        follow(Event("tick"))
        try:
            run_jobs(folders, executor, on_event=follow, retry_failed=True)
        except Stopped:
            raise KeyboardInterrupt from None
        failed = [folder for folder in folders if not task.is_done(folder)]
        if failed:
            reason = failure_reason(failed[0]) if (failed[0] / FAILURE).exists() else "it was stopped"
            if reason.startswith("DiskError: "):
                raise DiskError(reason.removeprefix("DiskError: "))
            raise ConfigError(
                f"{len(failed)} of {len(folders)} parts failed, the first: "
                f"{reason.removeprefix('ValueError: ')} (log: {failed[0] / LOG}); finished labels are kept, "
                f"the same command continues"
            )


def _follower(
    progress: Progress, what: str, folders: list[Path], sizes: list[int], task: Task
) -> Callable[[Event], None]:
    """Tells how many frames are done, whenever something happens."""
    done: dict[Path, int] = {}
    last = -1

    def follow(event: Event) -> None:
        nonlocal last
        for folder, size in zip(folders, sizes, strict=True):
            if done.get(folder) == size:
                continue
            if task.is_done(folder):
                done[folder] = size
            elif found := read_progress(folder):
                done[folder] = min(found.step, size - 1)
        if (n := sum(done.values())) != last:
            last = n
            progress(what, n, sum(sizes))

    return follow


def _digest(frames: Sequence[Frame]) -> str:
    """sha256 of all structures, hex."""
    found = hashlib.sha256()
    for frame in frames:
        found.update(np.ascontiguousarray(frame.species, dtype="<i8").tobytes())
        found.update(np.ascontiguousarray(frame.positions, dtype="<f8").tobytes())
        found.update(np.ascontiguousarray(frame.cell, dtype="<f8").tobytes() + bytes(map(bool, frame.pbc)))
    return found.hexdigest()


def _json(plain: dict[str, Any]) -> str:
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _made_with(record: Any) -> str:
    """An oracle's record in words."""
    if not isinstance(record, dict):
        return "an oracle that is not recorded"
    packages = ", ".join(f"{k} {v}" for k, v in (record.get("packages") or {}).items())
    files = ", ".join(f"{k} {str(v)[:8]}" for k, v in (record.get("files") or {}).items())
    more = "; ".join(text for text in (packages, files) if text)
    return f"{record.get('level')} (version {record.get('version')}{'; ' + more if more else ''})"
