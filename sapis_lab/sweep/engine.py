"""The lattice engine: runs points, each in its own process, and returns their records.

A crash never takes the others along: a point that fails leaves `failure.txt` and the rest goes on. A point
that the system kills is started again from its checkpoint, behind those that wait, and fails when that
happens three times without a new checkpoint in between. Whatever ends this process, no trainer survives it,
and starting again continues every point from its checkpoint. Nothing is retried silently, and a record that
was made from other settings stops everything before it starts.
"""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapis_lab.config import ConfigError, differing_keys, dump_yaml, read_yaml
from sapis_lab.files import read_json, write_text
from sapis_lab.records import CHECKPOINT, FAILURE, RECORD, Record, read_raw, read_record
from sapis_lab.sweep.event_log import EventLog
from sapis_lab.sweep.events import Event, OnEvent
from sapis_lab.sweep.executor import Executor
from sapis_lab.sweep.folder import failure_reason, locked, point_folder
from sapis_lab.sweep.keep import keep, kept_folder
from sapis_lab.sweep.launcher import LOG, STOPPED, UNTOLD, write_failure
from sapis_lab.sweep.local import PRELOAD, TARGET, WORKER_ENVIRONMENT, LauncherDied, LocalPool
from sapis_lab.sweep.notices import Notices
from sapis_lab.sweep.signals import Stop, stop_signals

if TYPE_CHECKING:
    from sapis_lab.training import PointConfig

__all__ = [
    "PRELOAD",
    "TARGET",
    "WORKER_ENVIRONMENT",
    "LauncherDied",
    "Refused",
    "Stop",
    "Stopped",
    "prepare_points",
    "refuse_other_settings",
    "run",
    "stop_signals",
    "work_through",
]

SCIENCE = "science.json"
POINT_ARGUMENTS = {"step": "auto", "checkpoint_seconds": 20.0}
"""Keys of `run:` that `run_point` is told, with its defaults."""
_GRACE_STOP = 60.0
_GRACE_ENDED = 1.0
_LOOK = 3.0
"""Time between two looks at what the running points have to say, s."""
KILLS = 3
"""How often a point may be killed without a new checkpoint in between before it counts as failed."""


class Refused(ConfigError):
    """Records in the results folder were made from other settings."""


class Stopped(Exception):
    """The run was stopped by a signal; starting again continues it."""


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
    devices: int = 1,
    executor: Executor | None = None,
) -> list[Record]:
    """Run the points that have no record yet, in the order given, and return the records of all that are
    done, in that order.

    Args:
        folder: results folder of the study; point `p` lives in `folder/points/<p.id>`.   cache: folder of the
        frame stores. workers: points at a time.   device: 'cpu', 'cuda' or 'cuda:K'; with 'cuda' the workers
        take the GPUs in turn. retry_failed: run points again that failed in an earlier run; otherwise they
        are reported and left. target: the function that trains a point, `module:function`, called as
        `function(folder, cache=..., device=...)`. preload: modules that the launcher imports before the first
        point, with those of the points' kinds: a file that is edited while
            a study runs must not reach the points that start later.
        devices: of every point; with more than one its ranks train together.
        executor: where the points run; this machine by default. Then `workers` to `devices`, except `cache`,
            are the executor's own.

    Raises:
        Refused: a record or an unfinished point in `folder` was made from other settings.
        Locked: another engine works in `folder`.
        Stopped: SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 arrived; all children have ended. What another executor
        has queued stays there.
    """
    folder, cache = Path(folder).absolute(), Path(cache).absolute()
    on_event = _both(EventLog(folder), _both(_keeper(folder), on_event))
    with locked(folder):
        refuse_other_settings(points, folder)
        arguments = point_arguments(folder, device)
        waiting = list(prepare_points(points, folder, retry_failed, on_event))
        if waiting:
            with stop_signals() as stop:
                if executor is None:
                    on_event(Event("launching"))
                    modules = [*preload, *kind_modules(waiting)]
                    try:
                        executor = pool = LocalPool(
                            folder / LOG,
                            cache=cache,
                            workers=workers,
                            device=device,
                            devices=devices,
                            arguments=arguments,
                            target=target,
                            preload=modules,
                            give_up=lambda: stop.asked > 0,
                        )
                    except KeyboardInterrupt:
                        raise Stopped("stopped before the first point started") from None
                    on_event(Event("launched", seconds=pool.seconds_to_start))
                try:
                    work_through([point_folder(folder, p.id) for p in waiting], executor, stop, on_event)
                finally:
                    executor.close()
            if stop.asked:  # while the workers closed
                raise Stopped("stopped after the last point had ended")
        return [
            read_record(point_folder(folder, p.id))
            for p in points
            if (point_folder(folder, p.id) / RECORD).exists()
        ]


def _both(first: OnEvent, second: OnEvent) -> OnEvent:
    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def _keeper(folder: Path) -> OnEvent:
    """Keeps the record of every point that finishes. A full disk costs the copy, not the study: the next
    start makes it up."""

    def note(event: Event) -> None:
        if event.kind in ("done", "kept"):
            with suppress(OSError, ConfigError):
                keep(folder, event.id)

    return note


def point_arguments(folder: Path, device: str) -> dict[str, Any]:
    """What `run:` of the study says to `run_point`, as the road has written it to study.yaml; defaults are
    left out.

    Raises:
        ConfigError: `run.step` wants another device.
    """
    path = folder / "study.yaml"
    run = read_yaml(path).get("run") or {} if path.exists() else {}
    if run.get("step") == "graph" and not device.startswith("cuda"):
        raise ConfigError(
            f"run.step: 'graph' replays CUDA graphs and wants CUDA, got device {device}; use auto, eager or "
            f"compiled"
        )
    return {key: run[key] for key, default in POINT_ARGUMENTS.items() if run.get(key, default) != default}


def kind_modules(points: Iterable[PointConfig]) -> list[str]:
    """The modules of the kinds of data and models that `points` need."""
    kinds = (getattr(p, field, None) for p in points for field in ("data", "model"))
    return sorted({type(kind).__module__ for kind in kinds if kind is not None})


# ------------------------------------------------------------------------------------------- before the start


def refuse_other_settings(points: Sequence[PointConfig], folder: Path) -> None:
    """Raise Refused, naming point and differing keys, if `folder` holds records or unfinished points made
    from other settings."""
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
            + "\ngive the changed study a name of its own (--as NAME), "
            + f"or remove points/ and records/ of results/{folder.name} to train everything again"
        )


def _recorded_science(folder: Path, point: PointConfig) -> dict[str, Any] | None:
    """The settings that the record, or the unfinished work, of a point was made from."""
    for place in (folder, kept_folder(folder.parent.parent, point.id)):
        if (place / RECORD).exists():
            raw = read_raw(place / RECORD)
            return None if raw.get("fingerprint") == point.fingerprint else dict(raw.get("science") or {})
    if (folder / SCIENCE).exists():
        return read_json(folder / SCIENCE, then="remove its folder to train the point anew")
    return None


def _value(settings: Any, dotted: str) -> str:
    for key in dotted.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return repr(settings)


def prepare_points(
    points: Sequence[PointConfig], folder: Path, retry_failed: bool, on_event: OnEvent
) -> Iterator[PointConfig]:
    """The points that have to run, each given out when its folder is ready."""
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


# ---------------------------------------------------------------------------------------------------- the run


def work_through(folders: Sequence[Path], executor: Executor, stop: Stop, on_event: OnEvent) -> None:
    """Run the points in `folders`, in that order, as the executor has room for them.

    Raises:
        Stopped: `stop` was asked for; every point that this process had started has ended.
    """
    _Run(deque(folders), executor, stop, on_event).to_the_end()


@dataclass
class _Run:
    waiting: deque[Path]
    executor: Executor
    stop: Stop
    on_event: OnEvent
    given: dict[str, Path] = field(default_factory=dict)
    """Folders of the points that the executor has."""
    since: dict[str, float] = field(default_factory=dict)
    """Start of every running point."""
    doubtful: dict[str, tuple[Path, int, str, float, float]] = field(default_factory=dict)
    """Folder, exit status, reason, time of the end and running time of points that a signal ended, until that
    is believed."""
    kills: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """How often a point was killed with the same checkpoint, and when that was written."""
    notices: Notices = field(default_factory=Notices)
    deadline: float = 0.0
    next_tick: float = 0.0
    next_look: float = 0.0

    def to_the_end(self) -> None:
        told = 0
        while self._busy():
            self._start()
            for id, status, reason in self.executor.poll(timeout=0.1):
                self._ended(id, status, reason)
            self._believe()
            if self.stop.asked > told:
                self._stop()
                told = self.stop.asked
            if self.stop.asked and time.monotonic() > self.deadline or self.stop.asked > 1:
                break
            if time.monotonic() > self.next_tick:
                self.next_tick = time.monotonic() + 0.5
                self._look()
                self.on_event(Event("tick"))
        if self.stop.asked:
            raise Stopped("stopped")

    def _look(self) -> None:
        if time.monotonic() > self.next_look:
            self.next_look = time.monotonic() + _LOOK
            for id in self.executor.running:
                self._notice(self.given[id])

    def _notice(self, folder: Path) -> None:
        for text in self.notices.new(folder):
            self.on_event(Event("notice", folder.name, text))

    def _busy(self) -> bool:
        return bool(self.executor.running if self.stop.asked else self.given or self.doubtful or self.waiting)

    def _start(self) -> None:
        n = 0 if self.stop.asked else min(self.executor.n_free, len(self.waiting))
        folders = [self.waiting.popleft() for _ in range(n)]
        if folders:
            self.given |= {f.name: f for f in folders}
            self.executor.start(*folders)
        for id in self.executor.running:
            if id not in self.since:
                self.since[id] = time.monotonic()
                self.on_event(Event("started", id, str(self.given[id] / LOG)))

    def _ended(self, id: str, status: int, reason: str) -> None:
        """Take note of a point that ended."""
        folder, since = self.given.pop(id), self.since.pop(id, None)
        seconds = 0.0 if since is None else time.monotonic() - since
        self._notice(folder)
        if (folder / RECORD).exists():
            self.on_event(Event("done", id, seconds=seconds))
        elif self.stop.asked:
            (folder / FAILURE).unlink(missing_ok=True)  # it was told to stop, and continues next time
        elif status < 0 or status == STOPPED:
            # Whoever signals a whole tree of processes gets to this one in a moment: then it was no matter of
            # the point.
            self.doubtful[id] = (folder, status, reason, time.monotonic(), seconds)
        else:
            reason = f"ended with exit status {status} and without a record"
            if status == UNTOLD:
                reason = f"failed, and the reason could not be written to {folder}"
            self._failed(folder, seconds, reason, f"the end of {LOG} may say why")

    def _believe(self) -> None:
        for id, (folder, status, reason, when, seconds) in list(self.doubtful.items()):
            if not self.stop.asked and time.monotonic() - when < _GRACE_ENDED:
                continue
            del self.doubtful[id]
            if self.stop.asked:
                continue
            if status == STOPPED:
                self.on_event(Event("stopped", id, reason or "told to stop by another process", seconds))
                continue
            name = signal.Signals(-status).name
            if name == "SIGKILL" and (again := self._kills(folder)) < KILLS:
                self.on_event(
                    Event(
                        "killed",
                        id,
                        f"killed by {name}; started again from its checkpoint, if it has one ({again})",
                        seconds,
                    )
                )
                self.waiting.append(folder)
                continue
            why = f" {KILLS} times; the system may have run out of memory" if name == "SIGKILL" else ""
            self._failed(
                folder,
                seconds,
                f"killed by {name}{why}",
                f"signal {-status} after {seconds:.0f} s, not sent by the engine",
            )

    def _kills(self, folder: Path) -> int:
        """How often the point was killed since its last checkpoint was written, this time included."""
        path = folder / CHECKPOINT
        written = path.stat().st_mtime_ns if path.exists() else None
        n, before = self.kills.get(folder.name, (0, written))
        self.kills[folder.name] = (n + 1 if before == written else 1, written)
        return self.kills[folder.name][0]

    def _failed(self, folder: Path, seconds: float, reason: str, detail: str) -> None:
        """Tell the reason that the point has left behind, or else leave this one."""
        try:
            if not (folder / FAILURE).exists():
                write_failure(folder, reason, detail)
            reason = failure_reason(folder)
        except OSError as error:
            reason += f"; {FAILURE} cannot be written: {error.strerror}"
        self.on_event(Event("failed", folder.name, reason, seconds))

    def _stop(self) -> None:
        self.on_event(Event("stopping", text=f"{len(self.executor.running)}"))
        self.deadline = time.monotonic() + _GRACE_STOP
        self.executor.stop(*self.executor.running)
