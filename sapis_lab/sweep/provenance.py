"""Where results come from: `provenance.json` with commit, versions, host, device, command and times."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sapis_lab.files import read_json, write_text
from sapis_lab.jobs.host import current_commit, n_cores
from sapis_lab.packages import OF_A_STUDY, versions
from sapis_lab.text import without_password

FILE = "provenance.json"


def write_provenance(
    folder: Path, *, command: Sequence[str], device: str, workers: int, data: dict[str, Any]
) -> None:
    """Write where the coming numbers come from. Earlier sessions in the same folder stay, one line each, by
    their time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    old = _read(folder)
    commit, dirty = current_commit()
    earlier = dict(old.get("earlier", {}))
    if old:
        changes = " (with uncommitted changes)" if old.get("dirty") else ""
        earlier[old["started"]] = without_password(
            f"commit {old.get('commit')}{changes}, {old.get('command')}"
        )
    value = {
        "command": without_password(" ".join(command)),
        "started": now,
        "finished": None,
        "commit": commit,
        "dirty": dirty,
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "n_cores": n_cores(),
        "device": device,
        "workers": workers,
        "python": sys.version.split()[0],
        "versions": versions(OF_A_STUDY),
        "data": data,
        "earlier": earlier,
    }
    write_text(folder / FILE, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def note_finished(folder: Path) -> None:
    """Add the time at which the last point ended."""
    value = _read(folder)
    value["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_text(folder / FILE, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    return read_json(path, then="remove it to have it written anew") if path.exists() else {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
