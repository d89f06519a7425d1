"""A process that serves one job after the other: importing torch and opening a device take longer than most
of what is measured there.

    {"do": "make", "target": "module:function", "arguments": {...}}   ->  the job's facts, or {"absent": why}
    {"do": "time", "action": "train", "n": 5}                         ->  as `bench.worker` answers
    {"do": "span", "action": "train", "seconds": 2.0}                 ->  {"n": ..., "seconds": ...}
    {"do": "method", "name": "agreement", "arguments": {...}}         ->  what that method of the job returns
    {"do": "call", "target": "module:function", "arguments": {...}}   ->  what that function returns

The first line says that it is ready. After an error that has cost the device its context the process ends: no
later answer could be trusted.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from sapis_lab.bench.worker import Job, timed
from sapis_lab.jobs.processes import die_with

_WAIT_EVERY = 10
"""Steps of a span."""


class Absent(NamedTuple):
    """Why there is nothing to measure."""

    reason: str


def main(arguments: Sequence[str]) -> int:
    """Serve until the input closes."""
    die_with(os.getppid())
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    desk = _Desk()
    out.write(json.dumps({"ok": True}) + "\n")
    for line in sys.stdin:
        try:
            message = {"ok": True, **desk.answer(json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            words = (str(error).strip() or "no message").splitlines()[0]
            message = {"ok": False, "error": f"{type(error).__name__}: {words}"}
            desk.clear()
            _refuse_dead_context()
        out.write(json.dumps(message) + "\n")
    return 0


class _Desk:
    """The job at hand."""

    def __init__(self) -> None:
        self.job: Job | None = None

    def clear(self) -> None:
        self.job = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "make":
                self.clear()
                made = _function(request["target"])(**request["arguments"])
                if isinstance(made, Absent):
                    return {"absent": made.reason}
                self.job = made
                return {"facts": made.facts}
            case "call":
                self.clear()
                found: dict[str, Any] = _function(request["target"])(**request["arguments"])
                return found
            case "method":
                answered: dict[str, Any] = getattr(self._there(), request["name"])(**request["arguments"])
                return answered
            case "time":
                return timed(self._there(), request["action"], request["n"])
            case "span":
                return _span(self._there(), request["action"], request["seconds"])
            case unknown:
                raise ValueError(f"no request {unknown!r}; there are make, call, method, time, span")

    def _there(self) -> Job:
        if self.job is None:
            raise ValueError("no job has been made")
        return self.job


def _function(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _span(job: Job, action: str, seconds: float) -> dict[str, Any]:
    """How often an action was done within about `seconds`, from idle to idle; the device is waited for now
    and then, so that it cannot fall behind."""
    job.enter(action)
    run, n = job.actions[action], 0
    synchronise(job.device)
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run()
        n += 1
        if n % _WAIT_EVERY == 0:
            synchronise(job.device)
    synchronise(job.device)
    took = time.perf_counter() - begin
    job.check()
    return {"n": n, "seconds": took}


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _refuse_dead_context() -> None:
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"{type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            os._exit(1)
