"""Where frames of a store came from, without a text for each of them."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np


class Places:
    """Files and numbers of frames, by their number in the store, as runs of equal steps."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._runs: list[tuple[Path, int, int, int]] = []  # file, first number, step, length
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, path: Path, numbers: np.ndarray) -> None:
        """The next frames of the store are the frames `numbers` (n,) of `path`."""
        numbers = np.asarray(numbers)
        if not len(numbers):
            return
        breaks = np.nonzero(np.diff(np.diff(numbers)))[0] + 2 if len(numbers) > 2 else np.empty(0, int)
        for part in np.split(numbers, breaks):
            self._add_run(path, int(part[0]), int(part[1] - part[0]) if len(part) > 1 else 0, len(part))

    def _add_run(self, path: Path, first: int, step: int, n: int) -> None:
        if self._runs:
            known, begin, old_step, length = self._runs[-1]
            step_there = first - (begin + old_step * (length - 1))
            goes_on = old_step in (0, step_there) if length == 1 else old_step == step_there
            if known == path and goes_on and (n == 1 or step == step_there):
                self._runs[-1] = (path, begin, step_there, length + n)
                self._n += n
                return
        self._starts.append(self._n)
        self._runs.append((path, first, step, n))
        self._n += n

    def files(self) -> np.ndarray:
        """(n_frames,) which file each frame came from, numbered as they appear."""
        known: dict[Path, int] = {}
        which = [known.setdefault(path, len(known)) for path, *_ in self._runs]
        return np.repeat(np.array(which, dtype=np.int64), [n for *_, n in self._runs])

    def plain(self) -> list[list[int | str]]:
        """As JSON."""
        return [[str(path), *rest] for path, *rest in self._runs]

    @classmethod
    def from_plain(cls, runs: list[list[int | str]]) -> Places:
        """The places that `plain` gave."""
        places = cls()
        for path, first, step, n in runs:
            places._add_run(Path(str(path)), int(first), int(step), int(n))
        return places

    def __call__(self, frame: int) -> str:
        """`FILE, frame NUMBER` of a frame of the store."""
        k = bisect_right(self._starts, frame) - 1
        path, first, step, _ = self._runs[k]
        return f"{path}, frame {first + step * (frame - self._starts[k])}"
