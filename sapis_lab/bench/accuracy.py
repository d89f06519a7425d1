"""Force error at equal CPU time: the same frames, loop, loss and schedule for every code, and each code's
learning rate chosen alike.

    sapis bench accuracy painn tensornet geat --data acac --seconds 300 --seeds 0,1,2

Per code and data set: runs at a grid of rates at a short budget, which is doubled or halved outwards while
its best is at an edge; the rate with the least force error on the held-back frames is the code's; then runs
at the long budgets, shorter ones first, each from the best rate of the one before. The best rate falls with
the number of steps, so at a long budget the first seed runs that rate and its halves while they are better,
and the others the best of these. Where a rate diverges, or another seed ends with more than twice the error
of the first, the next lower rate takes its place, at most twice: a code is measured at a rate that it can be
used at. All runs are recorded. With `--optimizer soap` all of this is done with SOAP in place of AdamW, at
rates of its own.

Every finished run is one line of `results/accuracy-at-equal-time/runs.jsonl` and is not done again; a run
that diverged is a line without errors. Tables (text, markdown, JSON) are made from that file alone, one for
each processor, since codes differ in how they use it. A run is known by its settings and its processor, not
by the version of the code that it measured, which its line names: `--again` measures anew, and the last line
of a run counts. `accuracy_run` is the loop, `accuracy_data` the frames, `accuracy_log` the file,
`accuracy_table` the tables.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.bench.accuracy_data import BATCH_SIZES, DEFAULT_BATCH, fingerprint, prepare_data
from sapis_lab.bench.accuracy_log import (
    ADAMW,
    SPOILED,
    TRAIN,
    Job,
    NoResult,
    Record,
    RunLog,
    complete,
    is_spoiled,
    optimizer_name,
    scored,
    validation_error,
)
from sapis_lab.bench.accuracy_run import OPTIMIZERS
from sapis_lab.bench.accuracy_table import write_tables
from sapis_lab.bench.adapters import Code, find_code
from sapis_lab.bench.environments import command, default_root, python_of
from sapis_lab.bench.peer import Spec
from sapis_lab.config import ConfigError, dump, home, kind_class, load, plainly
from sapis_lab.jobs.host import current_commit
from sapis_lab.optimizers import OptimizerConfig

FOLDER = Path("results") / "accuracy-at-equal-time"
RUNS = "runs.jsonl"
RATES: dict[str, tuple[float, ...]] = {
    "nequip": (0.03, 0.06),
    "nequip-S": (0.03, 0.06),
    "mace": (0.03, 0.06),
    "mace-inv": (0.03, 0.06),
    "e3nn-nequip": (0.03, 0.06),
}
"""Where the search of a code's rate starts, by the name without options; two rates, so that either direction
is open."""
DEFAULT_RATES = (0.01, 0.02)
DEFAULT_DATA = ("acac", "ethanol")
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
}
"""Freed memory stays with the process; some codes spend a sixth of a step on page faults otherwise. Read when
a process starts."""


def run_accuracy(
    codes: Sequence[str],
    *,
    data: Sequence[str] = DEFAULT_DATA,
    seconds: Sequence[float] = (300.0,),
    seeds: Sequence[int] = (0,),
    tune_seconds: float = 60.0,
    rates: Mapping[str, Sequence[float]] | None = None,
    extensions: int = 2,
    halvings: int = 2,
    n_params: float = 1e5,
    batch_size: int | None = None,
    workers: int = 1,
    folder: Path | None = None,
    root: Path | None = None,
    cache: Path | None = None,
    again: bool = False,
    amsgrad: bool = False,
    optimizer: str = "adamw",
) -> list[Record]:
    """Tune and run `codes`, write the tables, and return the lines of the file.

    Args:
        codes: names as in tables (`painn`, `geat,lmax=1`), in the order of work.   data: `acac`, `ethanol`,
        or paths of batch files. seconds: long budgets of CPU time; none to tune only.   seeds: of parameters
        and order of the frames, at the long budgets. tune_seconds: the short budget, at which rates are
        compared with seed 0.
        rates: first rates by code; else `RATES`, `DEFAULT_RATES`.   extensions: how often a grid may grow
        when its best is at an edge. halvings: how often a budget longer than `tune_seconds` may halve the
        best rate while that lowers the first seed's validation error. n_params: target size.
        batch_size: frames a step, by default those of the data set (`BATCH_SIZES`).   workers: runs at a
        time, each on one thread.
        folder: of the results, `results/accuracy-at-equal-time` of the project.   root: folder of the
        environments. cache: folder of the batch files, `.sapis/bench` of the project.   again: runs that are
        in the file are made once more. amsgrad: Adam with the largest second moment so far, which keeps long
        runs from spikes. optimizer: of all codes, `adamw` or `soap`, with settings behind commas
        (`soap,every=20`).

    Raises:
        ValueError: unknown names, a missing environment; or, after everything else is done, codes that failed
        or diverged at every rate.
    """
    folder, cache = folder or home() / FOLDER, cache or home() / ".sapis" / "bench"
    found = [find_code(name) for name in codes]
    for code in found:
        python_of(code.environment, root)
    log = RunLog(folder / RUNS)
    bench = Bench(
        log,
        root,
        cache,
        n_params=n_params,
        batch_size=batch_size,
        workers=workers,
        again=again,
        amsgrad=amsgrad,
        optimizer=optimizer_settings(optimizer, amsgrad=amsgrad),
    )
    faults: list[str] = []
    for name in data:
        bench.add_data(name)
        chosen: dict[str, list[float]] = {}
        for code in found:
            first = tuple(
                (rates or {}).get(code.name) or RATES.get(code.name.partition(",")[0]) or DEFAULT_RATES
            )
            try:
                chosen[code.name] = bench.tune(
                    code, name, rates=first, seconds=tune_seconds, extensions=extensions
                )
            except NoResult as fault:  # the others still have theirs
                faults.append(str(fault))
        for budget in sorted(seconds):
            codes_left = [code for code in found if code.name in chosen]
            known = {
                code.name: bench.known_rates(code, name, seconds=budget, seed=seeds[0]) or chosen[code.name]
                for code in codes_left
            }
            bench.run_seeds(
                codes_left,
                name,
                known,
                seconds=budget,
                seeds=seeds,
                halvings=halvings if budget > tune_seconds else 0,
            )
        write_tables(log.read(), folder)
    if faults:
        raise NoResult("; ".join(faults))
    return log.read()


def optimizer_settings(text: str, *, amsgrad: bool = False) -> dict[str, Any]:
    """The kind and all settings of an optimiser named as in tables, `soap` or `soap,every=20`.

    Raises:
        ConfigError: an unknown kind or setting, one that peers' environments lack, or `amsgrad` without Adam.
    """
    about = f"--optimizer {text}"
    spec = plainly(lambda: Spec.parse(text), about=about)
    if spec.name not in OPTIMIZERS:
        raise ConfigError(f"{about}: wanted {' or '.join(OPTIMIZERS)}, which every code can be trained with")
    if amsgrad and spec.name != "adamw":
        raise ConfigError(f"{about}: --amsgrad is a setting of adamw; leave one of them out")
    config = load(
        kind_class("optimizers", spec.name, OptimizerConfig),
        {"kind": spec.name, **spec.options},
        source=about,
    )
    return dump(config)


class Bench:
    """Runs jobs in their environments."""

    def __init__(
        self,
        log: RunLog,
        root: Path | None,
        cache: Path,
        *,
        n_params: float,
        batch_size: int | None,
        workers: int,
        again: bool,
        any_processor: bool = False,
        amsgrad: bool = False,
        optimizer: Mapping[str, Any] = ADAMW,
    ) -> None:
        self.log, self.root, self.cache, self.workers = log, root or default_root(), cache, workers
        self.since = len(log.read()) if again else 0
        self.batch_size = batch_size
        self.common: dict[str, Any] = {
            "n_params": n_params,
            "amsgrad": amsgrad,
            "optimizer": dict(optimizer),
        }
        self.processor = None if any_processor else _processor()
        self.paths: dict[str, Path] = {}
        self.fingerprints: dict[str, str] = {}

    def add_data(self, name: str) -> None:
        """Make a data set known."""
        path = Path(name).resolve() if name.endswith(".npz") else prepare_data(name, self.cache)
        self.paths[name] = path
        with np.load(path) as archive:
            self.fingerprints[name] = fingerprint(dict(archive))

    def job(self, code: Code, data: str, rate: float, seconds: float, seed: int) -> Job:
        """The job of these settings."""
        fingerprint = self.fingerprints[data]
        return Job(
            code.name,
            Path(data).stem,
            rate,
            float(seconds),
            seed,
            data_fingerprint=fingerprint,
            processor=self.processor,
            batch_size=self.batch_size or BATCH_SIZES.get(data, DEFAULT_BATCH),
            **self.common,
        )

    def tune(
        self, code: Code, data: str, *, rates: Sequence[float], seconds: float, extensions: int
    ) -> list[float]:
        """The rates tried, best first, by the force error on the held-back frames; those that diverged are
        left out."""
        grid = sorted(set(rates))
        for attempt in range(extensions + 1):
            records = self.run([(code, data, rate, seconds, 0) for rate in grid])
            errors = [validation_error(record) for record in records]
            best = int(np.argmin(errors))
            if attempt == extensions:
                break
            if not math.isfinite(errors[best]) or best == 0:
                grid = [rounded_rate(grid[0] / 2), *grid]
            elif best == len(grid) - 1:
                grid = [*grid, rounded_rate(grid[-1] * 2)]
            else:
                break
        order = [k for k in np.argsort(errors, kind="stable") if math.isfinite(errors[k])]
        if not order:
            raise NoResult(
                f"{code.name} diverged on {data} at every rate tried: {', '.join(f'{r:g}' for r in grid)}; "
                f"give lower ones"
            )
        return [grid[k] for k in order]

    def known_rates(self, code: Code, data: str, *, seconds: float, seed: int) -> list[float]:
        """The rates that were run at the longest budget shorter than `seconds`, best first; those that
        diverged or spoiled another seed are left out. Errors of two processors are not compared, but those of
        another stand in for a budget not run on this one."""
        finished = [r for r in self.log.read() if r["status"] != "failed"]
        records = [
            r
            for r in finished
            if replace(self.job(code, data, r["rate"], r["seconds"], r["seed"]), processor=None).is_in(r)
        ]
        longest = max((r["seconds"] for r in records if r["seconds"] < seconds), default=None)
        records = [r for r in records if r["seconds"] == longest]
        processors = [r["processor"] for r in records]
        chosen = self.processor if self.processor in processors else processors[-1] if processors else None
        latest = {(r["rate"], r["seed"]): validation_error(r) for r in records if r["processor"] == chosen}
        first = {rate: error for (rate, s), error in latest.items() if s == seed and math.isfinite(error)}
        spoiled = {
            rate for (rate, _), error in latest.items() if rate in first and error > SPOILED * first[rate]
        }
        return sorted(first.keys() - spoiled, key=lambda rate: first[rate])

    def run_seeds(
        self,
        codes: Sequence[Code],
        data: str,
        chosen: Mapping[str, Sequence[float]],
        *,
        seconds: float,
        seeds: Sequence[int],
        halvings: int = 0,
    ) -> None:
        """Runs of all codes and seeds at their best rates; lower ones where the first seed's run diverges or
        another seed's is spoiled, and up to `halvings` times half the rate while that lowers the first seed's
        validation error."""
        rate = {code.name: chosen[code.name][0] for code in codes}

        def first(wanted: Sequence[Code], rates: Mapping[str, float]) -> list[float]:
            return [
                validation_error(r)
                for r in self.run([(code, data, rates[code.name], seconds, seeds[0]) for code in wanted])
            ]

        error: dict[str, float] = {}
        todo = list(codes)
        while todo:
            error |= dict(zip([code.name for code in todo], first(todo, rate), strict=True))
            todo = [code for code in todo if math.isinf(error[code.name])]
            rate |= {code.name: _next_lower(rate[code.name], chosen[code.name]) for code in todo}
            todo = [code for code in todo if rate[code.name] > min(chosen[code.name]) / 10]
        todo = [code for code in codes if math.isfinite(error[code.name])]
        for _ in range(halvings):
            half = {code.name: rounded_rate(rate[code.name] / 2) for code in todo}
            found = dict(zip([code.name for code in todo], first(todo, half), strict=True))
            todo = [code for code in todo if found[code.name] < error[code.name]]
            rate |= {code.name: half[code.name] for code in todo}
            error |= {code.name: found[code.name] for code in todo}
        todo = list(codes)
        for last in (False, False, True):
            others = self.run(
                [(code, data, rate[code.name], seconds, seed) for seed in seeds[1:] for code in todo]
            )
            spoiled = {r["code"] for r in others if is_spoiled(r, error[r["code"]])}
            todo = [code for code in todo if code.name in spoiled and not last]
            rate |= {code.name: _next_lower(rate[code.name], chosen[code.name]) for code in todo}
            error |= dict(zip([code.name for code in todo], first(todo, rate), strict=True))

    def run(self, wanted: Sequence[tuple[Code, str, float, float, int]]) -> list[Record]:
        """The records of runs, those not in the file made now, `workers` at a time."""
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            return list(pool.map(lambda w: self._one(*w), wanted))

    def _one(self, code: Code, data: str, rate: float, seconds: float, seed: int) -> Record:
        job = self.job(code, data, rate, seconds, seed)
        known = self.log.find(job, since=self.since)
        if known is not None:
            return known
        record = {**asdict(job), **self._in_child(code, job, self.paths[data])}
        self.log.append(record)
        print(describe(record), flush=True)
        return record

    def _in_child(self, code: Code, job: Job, path: Path) -> Record:
        settings = {
            "adapter": code.adapter,
            "model": code.model,
            "data": str(path),
            "rate": job.rate,
            "seconds": job.seconds,
            "seed": job.seed,
            "rotate": code.rotate,
            "distribution": code.distribution,
            "batch_size": job.batch_size,
            **self.common,
        }
        commit, dirty = current_commit()
        about = {
            "rotate": code.rotate,
            "finished": "",
            "commit": commit,
            "dirty": dirty,
            "processor": _processor(),
        }
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "record.json"
            child = subprocess.run(
                command(code.environment, "accuracy_run", json.dumps(settings), str(out), root=self.root),
                env=child_environment(self.cache),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            about["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
            if child.returncode == 0 and out.is_file():
                return {**about, **json.loads(out.read_text())}
            last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
            print(child.stderr[-2000:], file=sys.stderr, flush=True)
            return {**about, "status": "failed", "reason": last[0]}


def child_environment(cache: Path) -> dict[str, str]:
    """The environment variables of every measured process: one thread, memory kept, widths remembered, no
    paths of ours."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {
        **environment,
        **threads,
        **ALLOCATOR,
        "SAPIS_BENCH_WIDTHS": str(Path(cache).resolve() / "widths.json"),
    }


def describe(record: Record) -> str:
    """One line of a run."""
    head = (
        f"{record['data']:8} {record['code']:14} rate {record['rate']:<7g} {record['seconds']:g} s seed "
        f"{record['seed']}"
    )
    optimizer = optimizer_name(complete(record)["optimizer"])
    if optimizer != "adamw":
        head += f" {optimizer}"
    if record["status"] == "failed":
        return f"{head}  failed: {record['reason']}"
    size = f"{record['params']} parameters, {record['ms_per_step']:.1f} ms/step, {record['steps']} steps"
    if record["status"] == "diverged":
        return f"{head}  diverged: {record['reason']}; {size}"
    names = [*([TRAIN] if TRAIN in record else []), *scored(record)]
    errors = "  ".join(f"{name} {1e3 * record[name]['force_mae']:.1f}" for name in names)
    return f"{head}  F MAE (meV/Å) {errors}; {size}"


def _next_lower(rate: float, known: Sequence[float]) -> float:
    lower = [r for r in known if r < rate]
    return max(lower) if lower else rounded_rate(rate / 2)


def rounded_rate(rate: float) -> float:
    """To six digits, so that halves and doubles compare equal in the file."""
    return float(f"{rate:.6g}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
