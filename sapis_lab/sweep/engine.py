"""The lattice engine: runs points, each in its own process, and returns their records.

A crash never takes the others along: a point that fails leaves `failure.txt` and the rest goes on. Whatever ends this process, no
trainer survives it, and starting again continues every point from its checkpoint. Nothing is retried silently, and a record that was made
from other settings stops everything before it starts.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from sapis_lab.config import ConfigError, differing_keys, dump_yaml, read_yaml, write_text
from sapis_lab.records import FAILURE, RECORD, Record, read_raw, read_record
from sapis_lab.sweep.folder import failure_reason, locked, point_folder
from sapis_lab.sweep.launcher import LOG, write_failure
from sapis_lab.sweep.provenance import current_commit

if TYPE_CHECKING:
    from sapis_lab.training import PointConfig

TARGET = "sapis_lab.training.run:run_point"
PRELOAD = ("torch", "lightning.pytorch", "sapis_lab.training.run")
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Memory is kept instead of being returned and faulted in again at every step: 52.9 -> 44.3 ms a step of GEAT on 16 molecules.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # reproducible sums on GPUs
}
SCIENCE = "science.json"
_GRACE_STOP = 10.0
_GRACE_KILLED = 1.0


class Refused(ConfigError):
    """Records in the results folder were made from other settings."""


class Stopped(Exception):
    """The run was stopped by a signal; starting again continues it."""


@dataclass(frozen=True)
class Event:
    """What `on_event` is told. `tick` comes twice a second while points run."""

    kind: Literal["kept", "failed_before", "launching", "started", "done", "failed", "stopping", "tick"]
    id: str = ""
    text: str = ""
    seconds: float = 0.0
    """Wall time of the point in this session, s."""


OnEvent = Callable[[Event], None]


def run(
    points: Sequence[PointConfig],
    *,
    folder: Path,
    cache: Path,
    workers: int = 1,
    device: str = "cpu",
    on_event: OnEvent = lambda event: None,
    retry_failed: bool = False,
    target: str = TARGET,
    preload: Sequence[str] = PRELOAD,
) -> list[Record]:
    """Run the points that have no record yet, in the order given, and return the records of all that are done, in that order.

    Args:
        folder: results folder of the study; point `p` lives in `folder/points/<p.id>`.   cache: folder of the frame stores.
        workers: points at a time.   device: 'cpu', 'cuda' or 'cuda:K'; with 'cuda' the workers take the GPUs in turn.
        retry_failed: run points again that failed in an earlier run; otherwise they are reported and left.
        target: the function that trains a point, `module:function`, called as `function(folder, cache=..., device=...)`.
        preload: modules that the launcher imports before the first point, with those of the points' kinds: a file that is edited while
            a study runs must not reach the points that start later.

    Raises:
        Refused: a record or an unfinished point in `folder` was made from other settings.
        Locked: another engine works in `folder`.
        Stopped: SIGINT or SIGTERM arrived; all children have ended.
    """
    folder, cache = Path(folder).absolute(), Path(cache).absolute()
    with locked(folder):
        refuse_other_settings(points, folder)
        arguments = {"cache": str(cache), **_step_argument(folder, device)}
        waiting = deque(_to_run(points, folder, retry_failed, on_event))
        if waiting:
            with _stop_signals() as stop, _Launcher(folder, [*preload, *_kind_modules(waiting)], stop, on_event) as launcher:
                _Run(waiting, launcher, stop, folder, arguments, workers, device, target, on_event).to_the_end()
        return [read_record(point_folder(folder, p.id)) for p in points if (point_folder(folder, p.id) / RECORD).exists()]


def _step_argument(folder: Path, device: str) -> dict[str, str]:
    """`run.step` as the road has written it to study.yaml; nothing where it is `auto`, the default of `run_point`.

    Raises:
        ConfigError: it wants another device.
    """
    path = folder / "study.yaml"
    step = str((read_yaml(path).get("run") or {}).get("step", "auto")) if path.exists() else "auto"
    if step == "graph" and not device.startswith("cuda"):
        raise ConfigError(f"run.step: 'graph' replays CUDA graphs and wants CUDA, got device {device}; use auto, eager or compiled")
    return {} if step == "auto" else {"step": step}


def _kind_modules(points: Iterable[PointConfig]) -> list[str]:
    """The modules of the kinds of data and models that `points` need."""
    kinds = (getattr(p, field, None) for p in points for field in ("data", "model"))
    return sorted({type(kind).__module__ for kind in kinds if kind is not None})


# ------------------------------------------------------------------------------------------------------ before the start


def refuse_other_settings(points: Sequence[PointConfig], folder: Path) -> None:
    """Raise Refused, naming point and differing keys, if `folder` holds records or unfinished points made from other settings."""
    problems = []
    for point in points:
        old = _recorded_science(point_folder(folder, point.id), point)
        new = json.loads(json.dumps(point.science()))
        if old is not None and old != new:
            changes = [f"{k} {_value(old, k)} -> {_value(new, k)}" for k in differing_keys(old, new)]
            problems.append(f"  {point.id}: {', '.join(changes[:8])}{' ...' if len(changes) > 8 else ''}")
    if problems:
        more = [f"  ... and {len(problems) - 5} more points"] if len(problems) > 5 else []
        raise Refused(
            f"results/{folder.name} holds points that were made from other settings (recorded -> wanted):\n"
            + "\n".join(problems[:5] + more)
            + f"\ngive the changed study a name of its own (--as NAME), or remove results/{folder.name}/points to train everything again"
        )


def _recorded_science(folder: Path, point: PointConfig) -> dict[str, Any] | None:
    """The settings that the record, or the unfinished work, in a point's folder was made from."""
    if (folder / RECORD).exists():
        raw = read_raw(folder / RECORD)
        if raw.get("fingerprint") == point.fingerprint:
            return None
        return dict(raw.get("science") or {})
    if (folder / SCIENCE).exists():
        return dict(json.loads((folder / SCIENCE).read_text(encoding="utf-8")))
    return None


def _value(settings: Any, dotted: str) -> str:
    for key in dotted.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return repr(settings)


def _to_run(points: Sequence[PointConfig], folder: Path, retry_failed: bool, on_event: OnEvent) -> Iterator[PointConfig]:
    """The points that have to run; their folders are ready."""
    for point in points:
        place = point_folder(folder, point.id)
        if (place / RECORD).exists():
            on_event(Event("kept", point.id))
        elif (place / FAILURE).exists() and not retry_failed:
            on_event(Event("failed_before", point.id, failure_reason(place)))
        else:
            (place / FAILURE).unlink(missing_ok=True)
            write_text(place / "config.yaml", dump_yaml(point))
            write_text(place / SCIENCE, json.dumps(point.science(), indent=1) + "\n")
            yield point


# ------------------------------------------------------------------------------------------------------------- signals


@dataclass
class _Stop:
    """How often the user has asked to stop: once: soon, twice: now."""

    asked: int = 0


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """SIGINT and SIGTERM are counted instead of raised (in the main thread; elsewhere Python allows no handlers)."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def count(number: int, frame: FrameType | None) -> None:
        stop.asked += 1

    old = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------------ launcher


class LauncherDied(RuntimeError):
    """The launcher ended by itself."""


def _commit_variables() -> dict[str, str]:
    """The commit of the program, for points to note in their records: SAPIS_COMMIT and SAPIS_DIRTY (0 or 1), empty outside of git."""
    commit, dirty = current_commit()
    return {"SAPIS_COMMIT": commit or "", "SAPIS_DIRTY": "" if dirty is None else str(int(dirty))}


class _Launcher:
    """The process that forks the points (`sapis_lab.sweep.launcher`), seen from the engine."""

    def __init__(self, folder: Path, preload: Sequence[str], stop: _Stop, on_event: OnEvent) -> None:
        self.log = folder / "log.txt"
        on_event(Event("launching"))
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the engine alone, which then stops the points in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sapis_lab.sweep.launcher", *preload],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, bufsize=0,
                env={**os.environ, **WORKER_ENVIRONMENT, **_commit_variables()},
            )  # fmt: skip
        self.pending = b""
        self.selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        try:
            self._wait_until_ready(stop)
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, stop: _Stop) -> None:
        while not any("ready" in answer for answer in self.answers(timeout=0.2)):
            if stop.asked:
                raise Stopped("stopped before the first point started")

    def answers(self, timeout: float) -> list[dict[str, Any]]:
        """What the launcher has said since, waiting at most `timeout` seconds for it."""
        assert self.process.stdout is not None
        if not self.selector.select(timeout):
            return []
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            code = self.process.wait()
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            raise LauncherDied(f"the launcher of the points ended with status {code}, see {self.log}; start again to continue\n{tail}")
        *lines, self.pending = (self.pending + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask(self, **request: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise LauncherDied(f"the launcher of the points is gone, see {self.log}; start again to continue") from None

    def close(self) -> None:
        """End the launcher, and with it every child that still runs."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.selector.close()

    def __enter__(self) -> _Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ------------------------------------------------------------------------------------------------------------- the run


@dataclass
class _Run:
    waiting: deque[PointConfig]
    launcher: _Launcher
    stop: _Stop
    folder: Path
    arguments: dict[str, Any]
    workers: int
    device: str
    target: str
    on_event: OnEvent
    running: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Slot and start of every running point."""
    killed: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    """Exit status, time of death and running time of points that a signal ended, until that is believed."""
    deadline: float = 0.0
    next_tick: float = 0.0

    def to_the_end(self) -> None:
        """Run everything that waits. Raises Stopped when asked to, with all children ended."""
        slots = deque(range(self.workers))
        told = 0
        while self.running or self.killed or (self.waiting and not self.stop.asked):
            while self.waiting and slots and not self.stop.asked:
                self._start(self.waiting.popleft(), slots.popleft())
            for answer in self.launcher.answers(timeout=0.1):
                if "ended" in answer:
                    slots.append(self._ended(answer["ended"], answer["status"]))
            self._believe_killed()
            if self.stop.asked > told:
                self._stop_children()
                told = self.stop.asked
            if self.stop.asked and time.monotonic() > self.deadline or self.stop.asked > 1:
                break
            if time.monotonic() > self.next_tick:
                self.next_tick = time.monotonic() + 0.5
                self.on_event(Event("tick"))
        if self.stop.asked:
            raise Stopped("stopped")

    def _start(self, point: PointConfig, slot: int) -> None:
        place = point_folder(self.folder, point.id)
        device = self.device if self.device != "cuda" else f"cuda:{slot % max(1, _n_gpus())}"
        self.launcher.ask(start=point.id, folder=str(place), target=self.target, arguments={**self.arguments, "device": device})
        self.running[point.id] = (slot, time.monotonic())
        self.on_event(Event("started", point.id, str(place / LOG)))

    def _ended(self, id: str, status: int) -> int:
        """Take note of a point that ended; returns its slot."""
        slot, since = self.running.pop(id)
        seconds = time.monotonic() - since
        place = point_folder(self.folder, id)
        if (place / RECORD).exists():
            self.on_event(Event("done", id, seconds=seconds))
        elif self.stop.asked:
            (place / FAILURE).unlink(missing_ok=True)  # it was told to stop, and continues next time
        elif status < 0:
            # Whoever kills a whole tree of processes gets to this one in a moment: then it was no failure of the point.
            self.killed[id] = (status, time.monotonic(), seconds)
        else:
            if not (place / FAILURE).exists():
                write_failure(place, f"ended with exit status {status} and without a record", f"the end of {LOG} may say why")
            self._failed(id, seconds)
        return slot

    def _believe_killed(self) -> None:
        for id, (status, when, seconds) in list(self.killed.items()):
            if self.stop.asked or time.monotonic() - when > _GRACE_KILLED:
                del self.killed[id]
                if self.stop.asked:
                    continue
                name = signal.Signals(-status).name
                why = "; the system may have run out of memory" if name == "SIGKILL" else ""
                write_failure(
                    point_folder(self.folder, id),
                    f"killed by {name}{why}",
                    f"signal {-status} after {seconds:.0f} s, not sent by the engine",
                )
                self._failed(id, seconds)

    def _failed(self, id: str, seconds: float) -> None:
        self.on_event(Event("failed", id, failure_reason(point_folder(self.folder, id)), seconds))

    def _stop_children(self) -> None:
        self.on_event(Event("stopping", text=f"{len(self.running)}"))
        self.deadline = time.monotonic() + _GRACE_STOP
        for id in self.running:
            self.launcher.ask(stop=id, signal=int(signal.SIGTERM))


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()
