"""What asks a command to stop: SIGINT, SIGTERM, SIGUSR1 and SIGUSR2, noted while points run and raised
everywhere else.

A signal is never lost between the two: whoever notes signals asks `Stop.asked` once more after the handlers
of before are back. No outside package is imported here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Stop:
    """What the user, or the system, has asked for."""

    asked: int = 0
    """1: stop after the step and save; 2: stop now."""
    numbers: list[int] = field(default_factory=list)
    """The signals that have arrived."""

    def count(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal."""
        # A second Ctrl-C or SIGTERM means now. Slurm's USR2 and the SIGTERM that follows it mean the same
        # thing once.
        again = number in (signal.SIGINT, signal.SIGTERM) and number in self.numbers
        self.asked = 2 if again else max(self.asked, 1)
        self.numbers.append(number)

    def interrupt(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal and raise KeyboardInterrupt."""
        self.count(number)
        raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if a stop was asked for: between two works, where a library may have swallowed
        the one that was raised."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """The signals are noted instead of raised (in the main thread; elsewhere Python allows no handlers).

    Ask what is given for `asked` again after the block: what arrived in its last moments was noted as well.
    """
    stop = Stop()
    with _handled_by(stop.count):
        yield stop


@contextmanager
def interrupting() -> Iterator[Stop]:
    """The signals do what Ctrl-C does: KeyboardInterrupt, wherever the main thread is; they are noted as
    well."""
    stop = Stop()
    with _handled_by(stop.interrupt):
        yield stop


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def end_with(status: int) -> None:
    """From now on a signal ends this process at once with `status`: the command is over, and only the
    interpreter still tidies up."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(status))
