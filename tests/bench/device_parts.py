"""Parts of a measurement as they go wrong, for test_device.py: each runs in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sapis_lab.bench.device.part import SAY, Asked


def good(asked: Asked) -> Iterator[dict[str, Any]]:
    yield {SAY: "one number", "number": 1}
    yield {"what": "a", "value": 1.5}


def told(asked: Asked) -> Iterator[dict[str, Any]]:
    yield {"what": asked.device, "value": float(asked.rehearsal)}


def raises(asked: Asked) -> Iterator[dict[str, Any]]:
    yield {"what": "before", "value": 2.5}
    raise MemoryError("no room for 7 GB")


def dies(asked: Asked) -> Iterator[dict[str, Any]]:
    yield {"what": "before", "value": 3.5}
    os.kill(os.getpid(), signal.SIGSEGV)
    yield {"what": "after", "value": 0.0}


def hangs(asked: Asked) -> Iterator[dict[str, Any]]:
    """With a process that it has started, whose number is left in the row."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"what": "before", "value": child.pid}
    time.sleep(600)


def half(asked: Asked) -> Iterator[dict[str, Any]]:
    """Is killed while it writes a line."""
    yield {"what": "whole", "value": 4.5}
    (Path(asked.folder) / "rows.jsonl").open("a").write('{"what": "ha')
    os.kill(os.getpid(), signal.SIGKILL)


def row_fails(asked: Asked) -> Iterator[dict[str, Any]]:
    yield {"what": "x", "error": "OutOfMemoryError: 1 GB"}
    yield {"what": "y", "absent": "there is none"}
    yield {"what": "z", "value": 5.5}
