"""Names of files with slices of their frames, as in `a.xyz[::2]`."""

from __future__ import annotations

import re


def split_slice(name: str) -> tuple[str, slice]:
    """'a.xyz[::2]' -> ('a.xyz', slice(None, None, 2))."""
    match = re.fullmatch(r"(.+?)(?:\[(-?\d*)(:)(-?\d*)(?::(\d*))?\])?", name)
    if match is None or match[1].endswith("]"):
        raise ValueError(f"{name!r}: wanted a file name with an optional slice such as [::2] or [:100]")
    if match[3] is None:
        return match[1], slice(None)
    if match[5] and int(match[5]) == 0:
        raise ValueError(f"{name!r}: a slice with step 0, wanted a step of at least 1 such as [::2]")
    return match[1], slice(*(int(part) if part else None for part in (match[2], match[4], match[5])))
