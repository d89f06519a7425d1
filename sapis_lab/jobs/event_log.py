"""The event log of a study, `events.jsonl`: one JSON object a line for everything that happened to its
points, over all sessions.

    {"time": "2026-05-04T12:31:07.512+00:00", "host": "node7", "process": 4711, "event": "done", "id":
    "geat-l2-n1.0e5-d512-s0", ...}

Lines are appended whole, also when several processes write, and never rewritten; a line that a kill cut off
is dropped when it is read.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sapis_lab.errors import ConfigError
from sapis_lab.files import make_folder, parse_json, read_lossy
from sapis_lab.jobs.events import Event

EVENTS = "events.jsonl"
_LEFT_OUT = {"tick", "kept", "failed_before"}
"""Said again at every start, or twice a second: no news."""


class EventLog:
    """Called with the events of an engine, writes those that are news to `folder/events.jsonl`.

    A disk that is full or read-only does not stop a study for its log: the point itself will say so.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / EVENTS

    def __call__(self, event: Event) -> None:
        if event.kind in _LEFT_OUT:
            return
        about: dict[str, Any] = {"id": event.id, "text": event.text, "seconds": round(event.seconds, 3)}
        self.write(event.kind, **{key: value for key, value in about.items() if value})

    def write(self, event: str, **about: Any) -> None:
        """Append one line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"time": now, "host": platform.node(), "process": os.getpid(), "event": event, **about},
            ensure_ascii=False,
        )
        try:
            make_folder(self.path.parent)
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # what a kill has cut off must not swallow this line
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                os.write(fd, f"{chr(10) * torn}{line}\n".encode())
            finally:
                os.close(fd)
        except OSError:
            return


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of the log, in the order they were written."""
    path = Path(folder) / EVENTS
    found = []
    for line in read_lossy(path).split("\n") if path.exists() else []:
        with suppress(ConfigError):
            found.append(parse_json(line, source=str(path)))
    return found
