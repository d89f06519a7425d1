"""How a trial ended, as its folder says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sapis_lab.jobs.folder import failure_reason
from sapis_lab.records import FAILURE, RECORD, read_raw

PRUNED = "pruned.json"
DIVERGED = "diverged"
"""How the reason of a point begins whose loss left all bounds."""

State = Literal["done", "pruned", "diverged", "failed"]


class Outcome(NamedTuple):
    """How a trial ended."""

    state: State
    values: tuple[float, ...] = ()
    """The objectives, where it is done."""
    reason: str = ""


def outcome(folder: Path, keys: Sequence[str]) -> Outcome | None:
    """How the trial in `folder` ended; None while it has not. A record counts before anything else.

    Args:
        keys: the objectives.
    """
    if (folder / RECORD).exists():
        raw = read_raw(folder / RECORD)
        values = {**raw, **raw.get("metrics", {})}
        missing = [k for k in keys if k not in values]
        if missing:
            return Outcome(
                "failed", reason=f"its record has no {missing[0]!r}; the data have no frames to measure it on"
            )
        return Outcome("done", tuple(float(values[k]) for k in keys))
    if (folder / PRUNED).exists():
        return Outcome("pruned")
    if (folder / FAILURE).exists():
        reason = failure_reason(folder)
        return Outcome("diverged" if reason.startswith(DIVERGED) else "failed", reason=reason)
    return None
