"""Small words for people: times, sizes, paths, errors with their unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from sapis_lab.config import home
from sapis_lab.quantities import quantity


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min'."""
    if not math.isfinite(seconds):
        return "?"
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min"


def size(n_bytes: float) -> str:
    """'61 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def shown(path: Path) -> str:
    """`path` as people write it: from the project folder where it lies there."""
    try:
        return Path(path).resolve().relative_to(home().resolve()).as_posix()
    except ValueError:
        return str(path)


def share_bar(share: float, width: int = 16) -> str:
    """A share of 1 as a bar of `width` characters."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "━" * full + "╌" * (width - full)


def error_text(key: str, values: Mapping[str, float], *, bare: bool = True) -> str:
    """'val_force_rmse 38.1 meV/Å' of the errors by key, the number alone unless `bare`; empty where it is
    missing."""
    if values.get(key) is None:
        return ""
    q = quantity(key)
    text = f"{values[key] * q.display_factor:.3g} {q.display_unit or q.unit}"
    return f"{key} {text}" if bare else text
