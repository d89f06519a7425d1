"""One part of the measurement in a process of its own, whose rows are on the disk as soon as they are known.

A part is a generator function of `Asked`. What it yields are rows of its table, as plain data, and facts
about it: mappings with the key `say`, a sentence for people, whose other keys are the numbers in it.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapis_lab.jobs.processes import die_with

SAY = "say"
TIME_UP = "the time of this part was up"


@dataclass(frozen=True)
class Asked:
    """What a part is told."""

    device: str
    """'cpu', 'cuda' or 'cuda:K'."""
    rehearsal: bool
    """Everything is done once with tiny sizes, and the numbers mean nothing."""
    until: float
    """When it shall have ended by itself, seconds since 1970; a while later it is killed."""
    folder: str
    """For its files, which nobody keeps."""

    def left(self) -> float:
        """Seconds until then."""
        return self.until - time.time()


Measure = Callable[[Asked], Iterator[dict[str, Any]]]


def main(arguments: Sequence[str]) -> int:
    """Write what the part `module:function` yields to a file, one line of JSON each.

    Args:
        arguments: the function, `Asked` as JSON, and the file.
    """
    die_with(os.getppid())
    target, asked, file = arguments
    module, _, name = target.partition(":")
    measure: Measure = getattr(importlib.import_module(module), name)
    with Path(file).open("a", encoding="utf-8") as out:
        for row in measure(Asked(**json.loads(asked))):
            out.write(json.dumps(row) + "\n")
            out.flush()
    return 0
