"""The lattice engine: runs points, each in its own process, and returns their records.

What becomes of a point whose process fails, is killed or told to stop is said in `jobs`. A record that was
made from other settings stops everything before it starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapis_lab.config import ConfigError, differing_keys, dump_yaml
from sapis_lab.executors.local import LauncherDied, LocalPool
from sapis_lab.files import read_json, write_text
from sapis_lab.jobs.event_log import EventLog
from sapis_lab.jobs.events import Event, OnEvent
from sapis_lab.jobs.executor import Executor, Task
from sapis_lab.jobs.folder import LOG, failure_reason
from sapis_lab.jobs.run import Stopped, run_jobs
from sapis_lab.records import FAILURE, RECORD, Record, read_raw, read_record
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.keep import keep, kept_folder
from sapis_lab.sweep.lock import locked

if TYPE_CHECKING:
    from sapis_lab.training import PointConfig

__all__ = [
    "PRELOAD",
    "TARGET",
    "LauncherDied",
    "Refused",
    "Stopped",
    "kind_modules",
    "prepare_points",
    "refuse_other_settings",
    "run",
    "run_jobs",
    "training_task",
]

SCIENCE = "science.json"
TARGET = "sapis_lab.training.run:run_point"
PRELOAD = (
    "torch",
    "lightning.pytorch",
    "torch.utils.tensorboard",
    "torch.utils.flop_counter",
    "sapis_lab.training.run",
)
"""What the training of a point is, and what it imports."""


class Refused(ConfigError):
    """Records in the results folder were made from other settings."""


def run(
    points: Sequence[PointConfig],
    *,
    folder: Path,
    cache: Path,
    workers: int = 1,
    device: str = "cpu",
    devices: int = 1,
    arguments: Mapping[str, Any] | None = None,
    on_event: OnEvent = lambda event: None,
    retry_failed: bool = False,
    target: str = TARGET,
    preload: Sequence[str] = PRELOAD,
    executor: Executor | None = None,
) -> list[Record]:
    """Run the points that have no record yet, in the order given, and return the records of all that are
    done, in that order.

    Args:
        folder: results folder of the study; point `p` lives in `folder/points/<p.id>`.   cache: folder of the
            frame stores.
        workers: points at a time.   device: 'cpu', 'cuda' or 'cuda:K'; with 'cuda' the workers take the GPUs
            in turn.   devices: of every point; with more than one its ranks train together.
        arguments: of the training of every point beside these (`resources.point_arguments`).
        retry_failed: run points again that failed in an earlier run; otherwise they are reported and left.
        target: the function that trains a point, `module:function`, called as `function(folder, cache=...,
            device=...)`.   preload: modules that are imported before the first point, with those of the
            points' kinds.
        executor: where the points run; this machine by default. Then `cache` to `arguments`, `target` and
            `preload` are the executor's own.

    Raises:
        Refused: a record or an unfinished point in `folder` was made from other settings.
        Locked: another engine works in `folder`.
        Stopped: SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 arrived; all children have ended. What another executor
        has queued stays there.
    """
    folder = Path(folder).absolute()
    on_event = _both(EventLog(folder), _both(_keeper(folder), on_event))
    with locked(folder):
        refuse_other_settings(points, folder)
        waiting = list(prepare_points(points, folder, retry_failed, on_event))
        if waiting:
            if executor is None:
                task = training_task(
                    waiting, cache=cache, arguments=arguments, target=target, preload=preload
                )
                executor = LocalPool(folder / LOG, task, workers=workers, device=device, devices=devices)
            run_jobs([point_folder(folder, p.id) for p in waiting], executor, on_event=on_event)
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


def training_task(
    points: Iterable[PointConfig],
    *,
    cache: Path,
    arguments: Mapping[str, Any] | None = None,
    target: str = TARGET,
    preload: Sequence[str] = PRELOAD,
) -> Task:
    """The training of `points`, as of `run`."""
    return Task(
        target,
        arguments={"cache": str(Path(cache).absolute()), **(arguments or {})},
        preload=(*preload, *kind_modules(points)),
    )


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
