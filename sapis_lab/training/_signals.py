"""Signals that ask a point to stop: they set a flag, which is looked at between steps; what happens then is
an ordinary part of the run.

SIGTERM (engines, preemption), SIGINT (Ctrl-C), SIGUSR1 and SIGUSR2 (Slurm's warning before a time limit): the
point saves and exits with status 75. A second SIGINT ends the process at once; the files in its folder are
whole at every moment.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

STOPPED = 75
"""Exit status of what was stopped and can be continued."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """A point that stopped because it was asked to; ends the process with status 75 unless it is caught."""

    def __init__(self, message: str) -> None:
        super().__init__(STOPPED)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopSignals:
    """While the `with` block lasts, the signals are counted in `asked` instead of ending the process.

    Outside the main thread, where Python allows no handlers, nothing is changed and nothing arrives.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.hold()
        return self

    def hold(self) -> None:
        """Take the signals (back): a library may have set handlers of its own meanwhile."""
        for number in self._before:
            signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            os._exit(STOPPED)
