"""Force error at equal CPU time: the same frames, loop, loss and schedule for every code, and each code's learning rate chosen alike.

    python -m sapis_lab.bench.accuracy painn tensornet geat --data acac --seconds 300 --seeds 0 1 2

Per code and data set: runs at a grid of rates at a short budget, which is doubled or halved outwards while its best is at an edge; the
rate with the least force error on the held-back frames is the code's; then runs at the long budgets, shorter ones first, each from the best
rate of the one before. The best rate falls with the number of steps, so at a long budget the first seed runs that rate and its halves while
they are better, and the others the best of these. Where a rate diverges, or another seed ends with more than twice the error of the first,
the next lower rate takes its place, at most twice: a code is measured at a rate that it can be used at. All runs are recorded.

Every finished run is one line of `results/accuracy-at-equal-time/runs.jsonl` and is not done again; a run that diverged is a line without
errors. Tables (text, markdown, JSON) are made from that file alone, one for each processor, since codes differ in how they use it. A run is
known by its settings and its processor, not by the version of the code that it measured, which its line names: `--again` measures anew, and
the last line of a run counts. `accuracy_run` is the loop, `accuracy_data` the frames.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from sapis_lab.bench.accuracy_data import SOURCES, fingerprint, prepare_data
from sapis_lab.bench.adapters import Code, find_code
from sapis_lab.bench.environments import command, default_root, python_of
from sapis_lab.config import home
from sapis_lab.sweep.provenance import current_commit

FOLDER = Path("results") / "accuracy-at-equal-time"
RUNS = "runs.jsonl"
RATES: dict[str, tuple[float, ...]] = {
    "nequip": (0.03, 0.06),
    "nequip-S": (0.03, 0.06),
    "mace": (0.03, 0.06),
    "mace-inv": (0.03, 0.06),
    "e3nn-nequip": (0.03, 0.06),
}
"""Where the search of a code's rate starts, by the name without options; two rates, so that either direction is open."""
SPOILED = 2.0
"""Error of another seed over that of the first above which a rate is given up."""
DEFAULT_RATES = (0.01, 0.02)
DEFAULT_DATA = ("acac", "ethanol")
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TOP_PAD_": "100000000"}
"""Freed memory stays with the process; some codes spend a sixth of a step on page faults otherwise. Read when a process starts."""
REFERENCE = "geat"

Record = dict[str, Any]


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

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """True where `record` is of this run."""
        settings = asdict(self)
        if self.processor is None:
            del settings["processor"]
        return all(record.get(name) == value for name, value in settings.items())


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
    batch_size: int = 5,
    workers: int = 1,
    folder: Path | None = None,
    root: Path | None = None,
    cache: Path | None = None,
    again: bool = False,
) -> list[Record]:
    """Tune and run `codes`, write the tables, and return the lines of the file.

    Args:
        codes: names as in tables (`painn`, `geat,lmax=1`), in the order of work.   data: `acac`, `ethanol`, or paths of batch files.
        seconds: long budgets of CPU time; none to tune only.   seeds: of parameters and order of the frames, at the long budgets.
        tune_seconds: the short budget, at which rates are compared with seed 0.
        rates: first rates by code; else `RATES`, `DEFAULT_RATES`.   extensions: how often a grid may grow when its best is at an edge.
        halvings: how often a budget longer than `tune_seconds` may halve the best rate while that lowers the first seed's validation error.
        n_params: target size.   workers: runs at a time, each on one thread.
        folder: of the results, `results/accuracy-at-equal-time` of the project.   root: folder of the environments.
        cache: folder of the batch files, `.sapis/bench` of the project.   again: runs that are in the file are made once more.

    Raises:
        ValueError: unknown names, a missing environment; or, after everything else is done, codes that failed or diverged at every rate.
    """
    folder, cache = folder or home() / FOLDER, cache or home() / ".sapis" / "bench"
    found = [find_code(name) for name in codes]
    for code in found:
        python_of(code.environment, root)
    log = RunLog(folder / RUNS)
    bench = Bench(log, root, cache, n_params=n_params, batch_size=batch_size, workers=workers, again=again)
    faults: list[str] = []
    for name in data:
        bench.add_data(name)
        chosen: dict[str, list[float]] = {}
        for code in found:
            first = tuple((rates or {}).get(code.name) or RATES.get(code.name.partition(",")[0]) or DEFAULT_RATES)
            try:
                chosen[code.name] = bench.tune(code, name, rates=first, seconds=tune_seconds, extensions=extensions)
            except NoResult as fault:  # the others still have theirs
                faults.append(str(fault))
        for budget in sorted(seconds):
            codes_left = [code for code in found if code.name in chosen]
            known = {code.name: bench.known_rates(code, name, seconds=budget, seed=seeds[0]) or chosen[code.name] for code in codes_left}
            bench.run_seeds(codes_left, name, known, seconds=budget, seeds=seeds, halvings=halvings if budget > tune_seconds else 0)
        write_tables(log.read(), folder)
    if faults:
        raise NoResult("; ".join(faults))
    return log.read()


class NoResult(ValueError):
    """A code has no rate to go on with: it failed, or diverged at every one."""


class RunLog:
    """A file of one JSON object a line, appended to and never rewritten; a line that a kill cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def read(self) -> list[Record]:
        """All complete lines."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def find(self, job: Job, *, since: int = 0) -> Record | None:
        """The line of a run, the last where there are several, after the first `since`; a run whose process failed has none."""
        return next((r for r in reversed(self.read()[since:]) if job.is_in(r) and r["status"] != "failed"), None)

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


class Bench:
    """Runs jobs in their environments."""

    def __init__(
        self, log: RunLog, root: Path | None, cache: Path, *, n_params: float, batch_size: int, workers: int, again: bool,
        any_processor: bool = False,
    ) -> None:  # fmt: skip
        self.log, self.root, self.cache, self.workers = log, root or default_root(), cache, workers
        self.since = len(log.read()) if again else 0
        self.common: dict[str, Any] = {"n_params": n_params, "batch_size": batch_size}
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
            code.name, Path(data).stem, rate, float(seconds), seed, data_fingerprint=fingerprint, processor=self.processor, **self.common
        )  # fmt: skip

    def tune(self, code: Code, data: str, *, rates: Sequence[float], seconds: float, extensions: int) -> list[float]:
        """The rates tried, best first, by the force error on the held-back frames; those that diverged are left out."""
        grid = sorted(set(rates))
        for attempt in range(extensions + 1):
            records = self.run([(code, data, rate, seconds, 0) for rate in grid])
            errors = [_validation(record) for record in records]
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
            raise NoResult(f"{code.name} diverged on {data} at every rate tried: {', '.join(f'{r:g}' for r in grid)}; give lower ones")
        return [grid[k] for k in order]

    def known_rates(self, code: Code, data: str, *, seconds: float, seed: int) -> list[float]:
        """The rates that were run at the longest budget shorter than `seconds`, best first; those that diverged or spoiled another seed are
        left out. Errors of two processors are not compared, but those of another stand in for a budget not run on this one."""
        finished = [r for r in self.log.read() if r["status"] != "failed"]
        records = [r for r in finished if replace(self.job(code, data, r["rate"], r["seconds"], r["seed"]), processor=None).is_in(r)]
        longest = max((r["seconds"] for r in records if r["seconds"] < seconds), default=None)
        records = [r for r in records if r["seconds"] == longest]
        processors = [r["processor"] for r in records]
        chosen = self.processor if self.processor in processors else processors[-1] if processors else None
        latest = {(r["rate"], r["seed"]): _validation(r) for r in records if r["processor"] == chosen}
        first = {rate: error for (rate, s), error in latest.items() if s == seed and math.isfinite(error)}
        spoiled = {rate for (rate, _), error in latest.items() if rate in first and error > SPOILED * first[rate]}
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
        """Runs of all codes and seeds at their best rates; lower ones where the first seed's run diverges or another seed's is spoiled, and
        up to `halvings` times half the rate while that lowers the first seed's validation error."""
        rate = {code.name: chosen[code.name][0] for code in codes}

        def first(wanted: Sequence[Code], rates: Mapping[str, float]) -> list[float]:
            return [_validation(r) for r in self.run([(code, data, rates[code.name], seconds, seeds[0]) for code in wanted])]

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
            others = self.run([(code, data, rate[code.name], seconds, seed) for seed in seeds[1:] for code in todo])
            spoiled = {r["code"] for r in others if _is_spoiled(r, error[r["code"]])}
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
    """The environment variables of every measured process: one thread, memory kept, widths remembered, no paths of ours."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**environment, **threads, **ALLOCATOR, "SAPIS_BENCH_WIDTHS": str(Path(cache).resolve() / "widths.json")}


def describe(record: Record) -> str:
    """One line of a run."""
    head = f"{record['data']:8} {record['code']:14} rate {record['rate']:<7g} {record['seconds']:g} s seed {record['seed']}"
    if record["status"] == "failed":
        return f"{head}  failed: {record['reason']}"
    size = f"{record['params']} parameters, {record['ms_per_step']:.1f} ms/step, {record['steps']} steps"
    if record["status"] == "diverged":
        return f"{head}  diverged: {record['reason']}; {size}"
    errors = "  ".join(f"{name} {1e3 * record[name]['force_mae']:.1f}" for name in _scored(record))
    return f"{head}  F MAE (meV/Å) {errors}; {size}"


def _scored(record: Mapping[str, Any]) -> list[str]:
    return [name for name, value in record.items() if isinstance(value, dict) and "force_mae" in value]


def _validation(record: Mapping[str, Any]) -> float:
    if record["status"] == "failed":
        raise NoResult(f"{record['code']} failed on {record['data']}: {record['reason']}")
    return record["validation"]["force_mae"] if record["status"] == "done" else math.inf


def _is_spoiled(record: Mapping[str, Any], first: float) -> bool:
    """Another seed diverged, or ended far from the validation error of the first."""
    return _validation(record) > SPOILED * first


def _next_lower(rate: float, known: Sequence[float]) -> float:
    lower = [r for r in known if r < rate]
    return max(lower) if lower else rounded_rate(rate / 2)


def rounded_rate(rate: float) -> float:
    """To six digits, so that halves and doubles compare equal in the file."""
    return float(f"{rate:.6g}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# ------------------------------------------------------------------------------------------------------------- tables


def summarize(records: Iterable[Record], *, reference: str = REFERENCE) -> list[Record]:
    """One row per data set, budget, size, processor and code, errors averaged over seeds, best first.

    The rate is the one whose run with the lowest seed has the least validation force error at that budget, of those that spoil no other
    seed, if there are any. `ratio` is the reference's mean force error over the code's, below 1 where the reference is better, on the first
    test.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    latest = {tuple(r.get(n) for n in Job.__dataclass_fields__): r for r in records if r["status"] != "failed"}
    for record in latest.values():
        key = tuple(record.get(n) for n in ("data", "data_fingerprint", "batch_size", "n_params", "seconds", "code", "processor"))
        groups.setdefault(key, []).append(record)
    rows = [row for key, members in groups.items() if (row := _row(key, members)) is not None]
    for row in rows:
        same = ("data", "seconds", "n_params", "batch_size", "data_fingerprint", "processor")
        base = next((r for r in rows if r["code"] == reference and all(r[n] == row[n] for n in same)), None)
        row["ratio"] = None if base is None else base["errors"]["test"]["mean"] / row["errors"]["test"]["mean"]
    return sorted(rows, key=lambda r: (r["data"], r["seconds"], r["n_params"], r["processor"], r["errors"]["test"]["mean"]))


def _row(key: tuple[Any, ...], members: list[Record]) -> Record | None:
    data, data_fingerprint, batch_size, n_params, seconds, code, processor = key
    done = [r for r in members if r["status"] == "done"]
    if not done:
        return None
    first = min(r["seed"] for r in done)
    candidates = sorted((r for r in done if r["seed"] == first), key=_validation)
    steady = [c for c in candidates if not any(r["rate"] == c["rate"] and _is_spoiled(r, _validation(c)) for r in members)]
    rate = (steady or candidates)[0]["rate"]
    chosen = sorted((r for r in done if r["rate"] == rate), key=lambda r: r["seed"])
    return {
        "data": data,
        "seconds": seconds,
        "code": code,
        "rate": rate,
        "rates_tried": sorted({r["rate"] for r in members}),
        "rates_diverged": sorted({r["rate"] for r in members if r["status"] == "diverged"}),
        "seeds": [r["seed"] for r in chosen],
        "params": chosen[0]["params"],
        "version": chosen[-1]["version"],
        "ms_per_step": mean(r["ms_per_step"] for r in chosen),
        "yardstick_ms": mean(r["yardstick_ms"] for r in chosen),
        "steps": mean(r["steps"] for r in chosen),
        "errors": {name: _spread([r[name]["force_mae"] for r in chosen]) for name in _scored(chosen[0])},
        "energy_errors": {name: _spread([r[name]["energy_mae"] for r in chosen]) for name in _scored(chosen[0])},
        "n_params": n_params,
        "batch_size": batch_size,
        "data_fingerprint": data_fingerprint,
        "processor": processor or "an unknown processor",
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": mean(values),
        "median": float(np.median(values)),
        "sd": stdev(values) if len(values) > 1 else None,
        "values": values,
    }


_COLUMNS = ("code", "parameters", "rate", "ms/step", "yardstick", "steps", "seeds")


def format_tables(rows: Sequence[Record], *, reference: str = REFERENCE, markdown: bool = False) -> str:
    """The rows as text or markdown, one table for each data set and budget; errors in meV/Å and meV per frame."""
    parts = []
    table = ("data", "seconds", "n_params", "processor")
    for data, seconds, n_params, processor in dict.fromkeys(tuple(r[n] for n in table) for r in rows):
        members = [r for r in rows if tuple(r[n] for n in table) == (data, seconds, n_params, processor)]
        tests = [name for name in members[0]["errors"] if name != "validation"]
        columns = [*_COLUMNS, "F validation", *(f"F {t}" for t in tests), f"{reference} ÷ code", *(f"E {t}" for t in tests)]
        cells = [columns, *([*_cells(r, tests)] for r in members)]
        title = (
            f"{data}, {seconds:g} CPU s of one thread of {processor}, about {n_params:g} parameters: MAE, forces in meV/Å, energies in meV "
            "per frame"
        )
        parts.append(f"### {title}\n\n{_markdown(cells)}\n" if markdown else f"{title}\n{_text(cells)}\n")
    return "\n".join(parts)


def _cells(row: Record, tests: Sequence[str]) -> list[str]:
    def error(value: Mapping[str, Any]) -> str:
        return f"{1e3 * value['mean']:.1f}" + ("" if value["sd"] is None else f" ± {1e3 * value['sd']:.1f}")

    return [
        row["code"],
        f"{row['params']:,}",
        f"{row['rate']:g}",
        f"{row['ms_per_step']:.1f}",
        f"{row['yardstick_ms']:.2f}",
        f"{row['steps']:,.0f}",
        str(len(row["seeds"])),
        error(row["errors"]["validation"]),
        *(error(row["errors"][t]) for t in tests),
        "–" if row["ratio"] is None else f"{row['ratio']:.2f}",
        *(error(row["energy_errors"][t]) for t in tests),
    ]


def _text(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    padded = [[c.rjust(w) for c, w in zip(line, widths, strict=True)] for line in cells]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *right[1:]]) for line, right in zip(cells, padded, strict=True))


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body])


def write_tables(records: Iterable[Record], folder: Path, *, reference: str = REFERENCE) -> str:
    """`table.json`, `table.md` and `table.txt` in `folder`; returns the text."""
    rows = summarize(records, reference=reference)
    text = format_tables(rows, reference=reference)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    (folder / "table.md").write_text(format_tables(rows, reference=reference, markdown=True))
    (folder / "table.txt").write_text(text)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this module; see its docstring."""
    parser = argparse.ArgumentParser(prog="python -m sapis_lab.bench.accuracy", description="Force error at equal CPU time.")
    parser.add_argument("codes", nargs="*", help="painn, tensornet, geat, geat,lmax=1 …; none to print the tables of what is there")
    parser.add_argument("--data", nargs="+", default=list(DEFAULT_DATA), help=f"of {', '.join(SOURCES)}, or batch files")
    parser.add_argument("--seconds", nargs="*", type=float, default=[300.0], help="long budgets, CPU seconds; none to tune only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--tune-seconds", type=float, default=60.0)
    parser.add_argument("--rates", nargs="+", type=float, help="first rates to try, for all codes")
    parser.add_argument("--extensions", type=int, default=2, help="how often a grid of rates may grow")
    parser.add_argument("--halvings", type=int, default=2, help="how often a long budget may halve the best rate")
    parser.add_argument("--n-params", type=float, default=1e5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="make runs once more that are in the file")
    parser.add_argument("--folder", type=Path, help=f"of the results, default {FOLDER}")
    parser.add_argument("--root", type=Path, help="folder of the environments, default $SAPIS_PEERS or .sapis/peers")
    given = parser.parse_args(arguments)
    folder = given.folder or home() / FOLDER
    if given.codes:
        run_accuracy(
            given.codes,
            data=given.data,
            seconds=given.seconds,
            seeds=given.seeds,
            tune_seconds=given.tune_seconds,
            rates=None if given.rates is None else dict.fromkeys(given.codes, given.rates),
            extensions=given.extensions,
            halvings=given.halvings,
            n_params=given.n_params,
            workers=given.workers,
            folder=folder,
            root=given.root,
            again=given.again,
        )
    print(write_tables(RunLog(folder / RUNS).read(), folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
