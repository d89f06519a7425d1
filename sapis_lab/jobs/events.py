"""What happens to points while they run, as whoever follows them hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """What `on_event` is given. `tick` comes twice a second while points run."""

    kind: Literal[
        "kept",
        "failed_before",
        "launching",
        "launched",
        "started",
        "done",
        "failed",
        "killed",
        "stopped",
        "stopping",
        "notice",
        "tick",
    ]
    """`killed`: a point was, and will be started again. `stopped`: a point ended, saved, though nobody here
    asked it to; it is no failure, and the next run goes on with it. `notice`: what a point wants people to
    know though it goes on."""
    id: str = ""
    text: str = ""
    seconds: float = 0.0
    """Wall time of the point in this session, s; of `launched`, of starting the workers."""


OnEvent = Callable[[Event], None]
