"""The measuring side: many workers driven in rounds, so that a change of the machine's speed meets all alike,
and what comes of it.

Every model has a process of its own (`sapis_lab.bench.worker`), and a last process multiplies matrices: the
yardstick of the machine in the same minutes and under the same settings. A round visits every process once,
forwards and backwards in turn; a visit lasts about as long for a fast model as for a slow one. Inference is
measured before training, so that the peak memory of both can be told apart.
"""

from __future__ import annotations

import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from sapis_lab.bench.environments import MAIN, command
from sapis_lab.config import ConfigError
from sapis_lab.files import write_text
from sapis_lab.jobs.host import WORKER_ENVIRONMENT, current_commit
from sapis_lab.screen import new_table

FORMAT = 1
ACTIONS = ("infer", "train")
MOST_CALLS = 50
"""Calls of one visit, however short a call is."""
_YARDSTICK_CALLS = 3
_LAST_LINES = 3


@dataclass(frozen=True)
class Entry:
    """One model at one size on one input, and the process that measures it."""

    name: str
    """As the user wrote it."""
    size: float
    """The number of parameters asked for."""
    input: str
    target: str
    """Class of the job as `module:class`."""
    arguments: Mapping[str, Any]
    """Its arguments, ready for JSON."""
    environment: str = MAIN
    """Whose interpreter runs it (see `sapis_lab.bench.environments`)."""


@dataclass(frozen=True)
class Settings:
    """How a run is driven."""

    rounds: int = 7
    visit_seconds: float = 0.3
    """Length of a visit, s; at least one call."""
    reference: str = ""
    """Model whose time is 1 in the ratios, at the same size on the same input."""
    device: str = "cpu"
    root: Path | None = None
    """Folder of the peers' environments."""


class WorkerFailed(Exception):
    """A worker that told of a fault; the message is what it said."""


class WorkerDied(WorkerFailed):
    """A worker that ended on its own; the message holds its last words."""


class Worker:
    """A process that answers requests; ended by `close` or with the `with` block."""

    def __init__(self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
                env={**os.environ, **environment},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, within: float | None = None) -> dict[str, Any]:
        """The next answer; a process that does not give it within so many seconds is killed."""
        assert self.process.stdout is not None
        if within is not None and not select.select([self.process.stdout], [], [], within)[0]:
            self.process.kill()
            raise WorkerDied(f"no answer within {within:.0f} s: its process was killed{self._last_words()}")
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            status = self.process.wait()
            raise WorkerDied(f"its process ended with status {status}{self._last_words()}")
        message = json.loads(line)
        if not message.pop("ok"):
            raise WorkerFailed(message["error"])
        return message

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        self.send(**request)
        return self.read()

    def send(self, **request: Any) -> None:
        """A request whose answer is read later, while other processes work on theirs."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
        except OSError:
            status = self.process.wait()
            raise WorkerDied(f"its process ended with status {status}{self._last_words()}") from None

    def close(self) -> None:
        """End the process: at once if it does not follow the end of its input."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _last_words(self) -> str:
        lines = [
            line.strip()
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        return ": " + " | ".join(lines[-_LAST_LINES:]) if lines else " and said nothing"


# ----------------------------------------------------------------------------------------------------- rounds


@dataclass
class _Samples:
    """What one action gave."""

    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    page_faults: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    n: int = 1

    def add(self, message: Mapping[str, Any]) -> None:
        self.seconds += message["seconds"]
        self.wall += message["wall"]
        self.page_faults.append(message["page_faults"])
        self.peak_bytes = max(self.peak_bytes, message["peak_bytes"])


@dataclass
class _Runner:
    """An entry in its process."""

    entry: Entry
    worker: Worker
    facts: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, _Samples] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    error: str | None = None
    count_error: str | None = None

    def attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        """`function(*arguments)`, unless this runner has failed before; a failure is kept."""
        if self.error is None:
            try:
                function(*arguments)
            except WorkerFailed as failure:
                self.error = str(failure)

    def meet(self) -> None:
        self.facts = self.worker.read()["facts"]

    def warm(self, action: str, visit_seconds: float) -> None:
        self.worker.ask(do="time", action=action, n=1)
        wall = min(self.worker.ask(do="time", action=action, n=2)["wall"])
        self.samples[action] = _Samples(n=max(1, min(MOST_CALLS, round(visit_seconds / max(wall, 1e-9)))))

    def visit(self, action: str) -> None:
        samples = self.samples[action]
        samples.add(self.worker.ask(do="time", action=action, n=samples.n))

    def count(self) -> None:
        try:
            for what in ("operations", "flops"):
                self.counts[what] = self.worker.ask(do=what)[what]
        except WorkerDied:
            raise
        except WorkerFailed as failure:  # a code may be timed and yet refuse to be counted
            self.count_error = str(failure)


@dataclass(frozen=True)
class Measured:
    """The result of one input: a row for every entry, in order, and the yardstick."""

    rows: list[dict[str, Any]]
    gemm: dict[str, Any]


def measure(entries: Sequence[Entry], settings: Settings) -> Measured:
    """The entries, all of one input, in one interleaved run."""
    extra = {"SAPIS_BENCH_WIDTHS": str(settings.root / "widths.json")} if settings.root else {}
    environment = {**WORKER_ENVIRONMENT, **extra}
    yardstick = Entry(
        "matrix products", 0, entries[0].input, "sapis_lab.bench.worker:GemmJob", {"device": settings.device}
    )
    with tempfile.TemporaryDirectory(prefix="sapis-bench-") as folder:
        runners: list[_Runner] = []
        try:
            for k, entry in enumerate((*entries, yardstick)):
                arguments = command(
                    entry.environment,
                    "worker",
                    entry.target,
                    json.dumps(dict(entry.arguments)),
                    root=settings.root,
                )
                runners.append(
                    _Runner(entry, Worker(arguments, log=Path(folder) / f"{k}.log", environment=environment))
                )
            *models, gemm = runners
            for runner in runners:
                runner.attempt(runner.meet)
            _rounds(models, gemm, settings)
            for runner in models:
                runner.attempt(runner.count)
        finally:
            for runner in runners:
                runner.worker.close()
    if gemm.error is not None:
        raise ConfigError(f"the matrix products that everything is compared with failed: {gemm.error}")
    peak = _yardstick(gemm)
    rows = [_row(r, peak, settings) for r in models]
    _add_ratios(rows, settings.reference)
    return Measured(rows, peak)


def _rounds(models: Sequence[_Runner], gemm: _Runner, settings: Settings) -> None:
    for shape in ("large", "batched"):
        gemm.attempt(gemm.warm, shape, 0.0)
        gemm.samples.setdefault(shape, _Samples()).n = _YARDSTICK_CALLS
    for action in ACTIONS:
        for runner in models:
            runner.attempt(runner.warm, action, settings.visit_seconds)
        for k in range(settings.rounds):
            for shape in ("large", "batched"):
                gemm.attempt(gemm.visit, shape)
            for runner in models[:: 1 if k % 2 == 0 else -1]:
                runner.attempt(runner.visit, action)


# ------------------------------------------------------------------------------------------------------- rows


def _yardstick(gemm: _Runner) -> dict[str, Any]:
    """Speed of both matrix products: shape, median FLOP/s."""
    return {
        "device_name": gemm.facts["device_name"],
        "torch": gemm.facts["torch"],
        **{
            shape: {
                "shape": gemm.facts[shape],
                "flops_per_second": gemm.facts["flops"][shape] / statistics.median(samples.seconds),
            }
            for shape, samples in gemm.samples.items()
        },
    }


def _row(runner: _Runner, gemm: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    entry, facts = runner.entry, runner.facts
    row: dict[str, Any] = {
        "input": entry.input,
        "model": entry.name,
        "size": entry.size,
        "error": runner.error,
        "count_error": runner.count_error,
        **{
            key: facts.get(key)
            for key in ("n_params", "n_atoms", "n_frames", "n_pairs", "note", "torch", "start_bytes")
        },
    }
    for action in ACTIONS:
        row[action] = None if runner.error else _summary(runner, action, gemm)
    return row


def _summary(runner: _Runner, action: str, gemm: Mapping[str, Any]) -> dict[str, Any]:
    """Medians and quartiles of one action, per call; times in s."""
    samples = runner.samples[action]
    low, median, high = quartiles(samples.seconds)
    flops, operations = (runner.counts.get(what, {}).get(action) for what in ("flops", "operations"))

    def share(shape: str) -> float | None:
        return None if flops is None else flops / median / gemm[shape]["flops_per_second"]

    return {
        "n": len(samples.seconds),
        "seconds": median,
        "seconds_q25": low,
        "seconds_q75": high,
        "ratio": None,
        "wall_seconds": statistics.median(samples.wall),
        "atoms_per_second": runner.facts["n_atoms"] / median,
        "flops": flops,
        "gemm_share": share("large"),
        "batched_gemm_share": share("batched"),
        "operations": operations,
        "page_faults": statistics.median(samples.page_faults),
        "peak_bytes": samples.peak_bytes,
    }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """25 %, 50 % and 75 % points."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def _add_ratios(rows: Sequence[dict[str, Any]], reference: str) -> None:
    """Time over that of the reference at the same size."""
    for action in ACTIONS:
        known = {
            row["size"]: row[action]["seconds"] for row in rows if row["model"] == reference and row[action]
        }
        for row in rows:
            if row[action] and row["size"] in known:
                row[action]["ratio"] = row[action]["seconds"] / known[row["size"]]


# ---------------------------------------------------------------------------------------------------- telling


def run(
    entries: Sequence[Entry],
    settings: Settings,
    *,
    what: str,
    words: Mapping[str, str],
    json_file: Path | None,
    console: Console,
) -> int:
    """Measure the entries input by input, print a table for each and write the JSON file; 1 if any of them
    failed, else 0.

    Args:
        what: name of the measurement, for the file.   words: every input in words.
    """
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    results: dict[str, Measured] = {}
    for name in dict.fromkeys(entry.input for entry in entries):
        own = [entry for entry in entries if entry.input == name]
        console.print(
            Text(f"{name} ({words[name]}): {len(own)} models in {settings.rounds} rounds ...", style="dim"),
            soft_wrap=True,
        )
        results[name] = measure(own, settings)
        print_result(name, words[name], results[name], settings, console)
        if json_file is not None:  # after every input: what was measured is not lost with what comes later
            write_text(
                json_file,
                json.dumps(
                    report(results, settings, what=what, started=started), indent=1, ensure_ascii=False
                )
                + "\n",
            )
    if json_file is not None:
        console.print(f"written to {json_file}", soft_wrap=True)
    return int(any(row["error"] for result in results.values() for row in result.rows))


def report(results: Mapping[str, Measured], settings: Settings, *, what: str, started: str) -> dict[str, Any]:
    """The JSON file as plain data; times in s, memory in bytes."""
    commit, dirty = current_commit()
    first = next(iter(results.values())).gemm
    return {
        "format": FORMAT,
        "what": what,
        "started": started,
        "commit": commit,
        "dirty": dirty,
        "host": platform.node(),
        "device": settings.device,
        "device_name": first["device_name"],
        "python": sys.version.split()[0],
        "torch": first["torch"],
        "clock": _clock(settings),
        "threads": 1,
        "environment": dict(WORKER_ENVIRONMENT),
        "rounds": settings.rounds,
        "visit_seconds": settings.visit_seconds,
        "reference": settings.reference,
        "gemm": {
            name: {k: v for k, v in result.gemm.items() if k in ("large", "batched")}
            for name, result in results.items()
        },
        "rows": [row for result in results.values() for row in result.rows],
    }


def _clock(settings: Settings) -> str:
    return "wall" if settings.device.startswith("cuda") else "cpu"


def print_result(name: str, words: str, result: Measured, settings: Settings, console: Console) -> None:
    """The table of one input, and what failed."""
    gemm = result.gemm
    seconds = "wall time, device synchronised" if _clock(settings) == "wall" else "CPU time of one thread"
    console.print(
        f"{name}: {words}; {seconds} on {gemm['device_name']}; matrix products "
        + ", ".join(
            f"{gemm[s]['shape']} {gemm[s]['flops_per_second'] / 1e9:.0f} GFLOP/s"
            for s in ("large", "batched")
        ),
        soft_wrap=True,
    )
    headings = (
        "model",
        "N",
        "train ms",
        "quartiles",
        "ratio",
        "infer ms",
        "quartiles",
        "ratio",
        "atoms/s",
        "GFLOP",
        "of GEMM",
        "ops",
        "faults",
        "MB",
    )
    table = new_table(*headings, left=["model"])
    for row in result.rows:
        if row["error"] is None:
            table.add_row(*_cells(row))
        else:
            table.add_row(row["model"], f"~{row['size']:,.0f}", "failed")
    console.print(table)
    for row in result.rows:
        if row["error"]:
            console.print(
                Text(f"failed  {row['model']} at {row['size']:g}: {row['error']}", style="red"),
                soft_wrap=True,
            )
        elif row["count_error"]:
            console.print(
                Text(f"not counted  {row['model']} at {row['size']:g}: {row['count_error']}", style="yellow"),
                soft_wrap=True,
            )
    meaning = (
        f"ratio: time over that of {settings.reference} at the same size; of a training step: atoms/s, GFLOP "
        f"of its matrix products, their "
        f"share of the speed of {gemm['large']['shape']}, dispatched operations, page faults; MB: peak of "
        f"the process"
    )
    console.print(Text(meaning, style="dim"), soft_wrap=True)


def _cells(row: Mapping[str, Any]) -> list[str]:
    train = row["train"]
    times = [
        text
        for action in ("train", "infer")
        for text in (
            _ms(row[action]["seconds"]),
            f"{_ms(row[action]['seconds_q25'])}-{_ms(row[action]['seconds_q75'])}",
            "-" if row[action]["ratio"] is None else f"{row[action]['ratio']:.2f}",
        )
    ]
    return [
        row["model"],
        f"{row['n_params']:,}",
        *times,
        f"{train['atoms_per_second']:,.0f}",
        "-" if train["flops"] is None else f"{train['flops'] / 1e9:.3g}",
        "-" if train["gemm_share"] is None else f"{train['gemm_share']:.0%}",
        "-" if train["operations"] is None else f"{train['operations']:,}",
        f"{train['page_faults']:,.0f}",
        f"{train['peak_bytes'] / 1e6:,.0f}",
    ]


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
