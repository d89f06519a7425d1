"""Whether the files of a public set are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sapis_lab.catalogue._base import OfficialFile, PublicSet


@dataclass(frozen=True)
class Presence:
    """Which files of a set are there."""

    there: tuple[OfficialFile, ...]
    missing: tuple[OfficialFile, ...]
    other: bool
    """Whether the set is there in another form that its reader takes."""

    @property
    def word(self) -> str:
        """'all', '3 of 7', 'some' (in another form) or 'no'."""
        n, total = len(self.there), len(self.there) + len(self.missing)
        if n == 0:
            return "some" if self.other else "no"
        return "all" if n == total else f"{n} of {total}"


def presence(public: PublicSet, root: Path) -> Presence:
    """Which files of a set lie under `root`, by their names alone."""
    folder = root / public.place
    there = tuple(f for f in public.files if all(_any(folder, pattern) for pattern in f.patterns))
    return Presence(
        there=there,
        missing=tuple(f for f in public.files if f not in there),
        other=any(_any(folder, pattern) for pattern in public.also),
    )


def _any(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))
