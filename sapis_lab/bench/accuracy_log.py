"""The file of runs at equal CPU time: one JSON object a line, by which a run is found again, and what its
errors say."""

from __future__ import annotations

import fcntl
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sapis_lab.config import dump, named_kind
from sapis_lab.files import parse_json, read_text
from sapis_lab.optimizers import OptimizerConfig

SPOILED = 2.0
"""Error of another seed over that of the first above which a rate is given up."""

ADAMW: Mapping[str, Any] = MappingProxyType({"kind": "adamw"})
TRAIN = "train"
"""Errors on some of the training frames, which lines have from the time on at which they were measured."""

Record = dict[str, Any]


class NoResult(ValueError):
    """A code has no rate to go on with: it failed, or diverged at every one."""


@dataclass(frozen=True)
class Job:
    """One run: what it is named in the file, and by which it is found there."""

    code: str
    data: str
    rate: float
    seconds: float
    seed: int
    n_params: float
    batch_size: int
    data_fingerprint: str
    processor: str | None
    """of the machine, since equal CPU time is something else on each; None where any will do"""
    amsgrad: bool = False
    """lines without it are of plain Adam"""
    optimizer: dict[str, Any] = field(default_factory=lambda: dict(ADAMW))
    """kind and all settings; lines without it are of AdamW"""

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """True where `record` is of this run."""
        settings = asdict(self)
        if self.processor is None:
            del settings["processor"]
        known = complete(record)
        return all(known.get(name) == value for name, value in settings.items())


class RunLog:
    """A file of one JSON object a line, appended to and never rewritten; a line that a kill cut off is
    dropped."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def read(self) -> list[Record]:
        """All complete lines."""
        if not self.path.is_file():
            return []
        lines = [line for line in read_text(self.path).splitlines(keepends=True) if line.endswith("\n")]
        return [parse_json(line, source=f"{self.path}, line {k}") for k, line in enumerate(lines, start=1)]

    def find(self, job: Job, *, since: int = 0) -> Record | None:
        """The line of a run, the last where there are several, after the first `since`; a run whose process
        failed has none."""
        return next(
            (r for r in reversed(self.read()[since:]) if job.is_in(r) and r["status"] != "failed"), None
        )

    def append(self, record: Record) -> None:
        """Add a line at the end."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at other codes
                file.seek(0)
                text = file.read()
                file.truncate(text.rfind(b"\n") + 1)
                file.write(json.dumps(record).encode() + b"\n")


def complete(record: Mapping[str, Any]) -> Record:
    """A line with the settings that lines did not name before there was a choice."""
    return {"amsgrad": False, "optimizer": dict(ADAMW), **record}


def scored(record: Mapping[str, Any]) -> list[str]:
    """The sets of held-back frames that a run has errors on."""
    return [
        name
        for name, value in record.items()
        if isinstance(value, dict) and "force_mae" in value and name != TRAIN
    ]


def optimizer_name(optimizer: Mapping[str, Any]) -> str:
    """The kind, with the settings that are not its defaults behind commas: `soap`, `soap,every=20`."""
    plain = _defaults(optimizer["kind"])
    changed = {k: v for k, v in optimizer.items() if k not in plain or v != plain[k]}
    return ",".join([optimizer["kind"], *(f"{k}={json.dumps(v)}" for k, v in changed.items())])


@cache
def _defaults(kind: str) -> Mapping[str, Any]:
    return dump(named_kind("optimizers", OptimizerConfig, kind))


def validation_error(record: Mapping[str, Any]) -> float:
    """Force error on the held-back frames, eV/Å; infinite where the run diverged."""
    if record["status"] == "failed":
        raise NoResult(f"{record['code']} failed on {record['data']}: {record['reason']}")
    return record["validation"]["force_mae"] if record["status"] == "done" else math.inf


def is_spoiled(record: Mapping[str, Any], first: float) -> bool:
    """Another seed diverged, or ended far from the validation error of the first."""
    return validation_error(record) > SPOILED * first
