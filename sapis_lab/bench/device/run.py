"""Every part in its process and its time, the results written as soon as a part has ended (`sapis bench
device`).

A part that fails, hangs or is killed costs no other: its process is ended with all that it has started, its
rows so far are kept, and its reason stands in the table. A part may take its share of the time that is left;
what it leaves over goes to those behind it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sapis_lab.bench.device.part import SAY, Asked
from sapis_lab.bench.device.parts import PARTS, Part, Row
from sapis_lab.bench.device.station import environment
from sapis_lab.bench.environments import MAIN, command
from sapis_lab.config import ConfigError, home
from sapis_lab.files import write_text
from sapis_lab.jobs.host import WORKER_ENVIRONMENT, current_commit
from sapis_lab.packages import OF_A_POINT, versions

FORMAT = 1
RESULTS = Path("results") / "device"
ITSELF = 0.92
"""Share of its time after which a part shall have ended by itself."""
_MACHINE_SECONDS = 60.0
_LAST_LINES = 3
REHEARSAL = "REHEARSAL on a CPU: tiny sizes, every part once; these times mean nothing"


def run_device(
    *,
    name: str | None,
    seconds: float,
    out: Path | None,
    device: str,
    parts: Sequence[Part] = PARTS,
    console: Console,
) -> int:
    """Measure everything, print and write it; the exit status, 1 where anything failed.

    Args:
        name: of the results, by default that of the device.   seconds: that all may take.   out: folder of
            the results, by default results/device/NAME, and of a rehearsal a temporary one.
        device: 'auto', 'cpu', 'cuda' or 'cuda:K'; 'cpu', or no device, makes it a rehearsal.

    Raises:
        ConfigError: the device that was asked for is not there, or nothing can be learnt about it.
    """
    end = time.time() + seconds
    with tempfile.TemporaryDirectory(prefix="sapis-device-", ignore_cleanup_errors=True) as scratch:
        machine = ask_machine(device, Path(scratch))
        if machine["wrong"]:
            raise ConfigError(f"--device {device}: {machine['wrong']}; use --device auto")
        name = name or slug(machine["device_name"])
        rehearsal = not machine["cuda"]
        folder = out or (
            Path(tempfile.mkdtemp(prefix="sapis-device-")) if rehearsal else home() / RESULTS / name
        )
        results: dict[str, Any] = {**_about(name, machine, rehearsal, seconds), "parts": {}}
        for line in headline(results):
            console.print(Text(line))
        for k, part in enumerate(parts):
            console.print(Text(f"\n{part.title} ...", style="dim"))
            left = end - time.time() - 1.0
            budget = left * part.share / sum(p.share for p in parts[k:])
            place = Path(scratch) / part.name
            place.mkdir()
            found = run_part(part, place, device=machine["device"], rehearsal=rehearsal, seconds=budget)
            results["parts"][part.name] = found
            results["seconds"] = seconds - (end - time.time())
            write_results(folder, results, parts)
            _show(part, found, console)
    console.print(f"\nwritten to {folder}", soft_wrap=True)
    return int(any(failed(found) for found in results["parts"].values()))


def failed(found: Mapping[str, Any]) -> bool:
    """Whether a part, or a row of it, did not come to what it should; what is absent here is no failure."""
    return found["status"] in ("failed", "stopped") or any(row.get("error") for row in found["rows"])


# ------------------------------------------------------------------------------------------------ one process


def run_part(part: Part, folder: Path, *, device: str, rehearsal: bool, seconds: float) -> dict[str, Any]:
    """What a part has found, and how it ended: done, failed, stopped (its time was up) or skipped (there was
    none)."""
    begin = time.time()
    if seconds < 2.0:
        return {"status": "skipped", "reason": "no time was left", "seconds": 0.0, "rows": [], "facts": []}
    asked = Asked(device, rehearsal, begin + ITSELF * seconds, str(folder))
    file, log = folder / "rows.jsonl", folder / "log.txt"
    line = command(MAIN, "device.part", part.target, json.dumps(asdict(asked)), str(file))
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **WORKER_ENVIRONMENT},
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(process)
    rows, facts = _read(file)
    found = {"status": "done", "reason": None, "seconds": time.time() - begin, "rows": rows, "facts": facts}
    if status is None:
        found |= {"status": "stopped", "reason": f"not done within {seconds:.0f} s, and killed"}
    elif status:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        found |= {"status": "failed", "reason": f"its process ended with {how}{_last_words(log)}"}
    return found


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it has started. One that hangs in its driver cannot be killed, and is
    left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _read(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows and the facts that a part has written; its last line may be half a one."""
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                (facts if SAY in row else rows).append(row)
    return rows, facts


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    return ": " + " | ".join(said[-_LAST_LINES:]) if said else " and said nothing"


def ask_machine(device: str, scratch: Path) -> dict[str, Any]:
    """What `machine` says, asked in a process of its own: a driver may hang.

    Raises:
        ConfigError: no such name of a device, or no answer.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"--device {device!r}: wanted auto, cpu, cuda or cuda:K")
    folder = scratch / "machine"
    folder.mkdir()
    part = Part("machine", "", "sapis_lab.bench.device.machine:measure", 1.0, (), ())
    found = run_part(part, folder, device=device, rehearsal=False, seconds=_MACHINE_SECONDS)
    if not found["rows"]:
        raise ConfigError(f"--device {device}: nothing can be learnt about it: {found['reason']}")
    machine: dict[str, Any] = found["rows"][0]
    return machine


# ---------------------------------------------------------------------------------------------------- telling


def slug(text: str) -> str:
    """A name for a folder: `NVIDIA H200` becomes `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "device"


def _about(name: str, machine: Mapping[str, Any], rehearsal: bool, seconds: float) -> dict[str, Any]:
    commit, dirty = current_commit()
    if commit is None:  # a copy of the project without its history
        commit = os.environ.get("SAPIS_COMMIT") or None
        dirty = {"0": False, "1": True}.get(os.environ.get("SAPIS_DIRTY", ""))
    return {
        "format": FORMAT,
        "what": "device",
        "rehearsal": rehearsal,
        "name": name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "host": platform.node(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "machine": dict(machine),
        "versions": versions(OF_A_POINT),
        "environment": environment(machine["device"]),
        "seconds_given": seconds,
    }


def headline(results: Mapping[str, Any]) -> list[str]:
    """What was measured, where, with what."""
    machine, commit = results["machine"], results["commit"]
    changes = {True: " with changes", False: "", None: ""}[results["dirty"]]
    lines = [REHEARSAL] if results["rehearsal"] else []
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine.get("memory_bytes") else ""
    lines.append(f"{machine['device_name']}{memory}, driver {machine['driver'] or 'none'}")
    cuda = f", CUDA {machine['torch_cuda']}" if machine["torch_cuda"] else ""
    lines.append(f"torch {machine['torch']}{cuda}, triton {machine['triton'] or 'none'}")
    lines.append(f"commit {commit[:12] if commit else 'unknown'}{changes}, {results['started']}")
    return lines


def write_results(folder: Path, results: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """device.json, and what of it can be shown as device.md."""
    write_text(folder / "device.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = [f"# {results['name']}", "\n".join(f"{line}  " for line in headline(results))]
    for part in parts:
        if part.name in results["parts"]:
            text += [f"## {part.title}", *_paragraphs(part, results["parts"][part.name])]
    write_text(folder / "device.md", "\n\n".join(text) + "\n")


def _paragraphs(part: Part, found: Mapping[str, Any]) -> list[str]:
    facts = [str(fact[SAY]) for fact in found["facts"]]
    table = [_shown(part.markdown, found["rows"])] if found["rows"] else []
    reason = [f"**{found['status']}**: {found['reason']}"] if found["reason"] else []
    return [*facts, *table, *(f"- {line}" for line in part.remarks(found["rows"])), *reason]


def _shown(show: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> Any:
    """The table, or that it cannot be shown: rows come from other processes, and no part shall end the
    measurement."""
    try:
        return show(rows)
    except (KeyError, TypeError, ValueError) as error:
        return f"no table ({type(error).__name__}: {error}); the rows are in device.json"


def _show(part: Part, found: Mapping[str, Any], console: Console) -> None:
    for fact in found["facts"]:
        console.print(Text(str(fact[SAY])))
    if found["rows"]:
        console.print(_shown(part.table, found["rows"]))
    for line in part.remarks(found["rows"]):
        console.print(Text(line, style="dim"))
    if found["reason"]:
        console.print(Text(f"{found['status']}: {found['reason']}", style="red"))


def chosen(names: Sequence[str], parts: Sequence[Part] = PARTS) -> tuple[Part, ...]:
    """The parts of these names, in their own order; all without a name.

    Raises:
        ConfigError: no such part.
    """
    known = [part.name for part in parts]
    for name in names:
        if name not in known:
            raise ConfigError(f"--parts: no part {name!r}; there are {', '.join(known)}")
    return tuple(part for part in parts if not names or part.name in names)
