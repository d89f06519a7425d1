"""What the user asked of a study, and the words that ask for it again."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.folder import results_folder
from sapis_lab.sweep.manifest import inputs_hash
from sapis_lab.text import without_password

COMPLETE, SOME_FAILED, STOPPED = 0, 1, 75
"""Exit statuses; bad settings end with 2."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    name: str
    settings: tuple[str, ...] = ()
    """Overrides, `key=value`."""
    called: str | None = None
    """Another name for the results."""
    only: tuple[str, ...] = ()
    """Selection of points; all when empty."""
    retry_failed: bool = False
    workers: int | None = None
    executor: Literal["local", "slurm"] | None = None
    """Instead of the study's `run.executor`."""
    wait: bool = False
    """With Slurm: follow the jobs to their end and gather what they found."""

    @property
    def folder(self) -> Path:
        return results_folder(checked_name(self.called or self.name))

    @property
    def inputs(self) -> str:
        return inputs_hash(self.name, [*self.settings, self.called or self.name])

    @property
    def command(self) -> list[str]:
        """The command that repeats it, in words of a shell and without a password."""
        words = ["sapis", "study", "run", self.name]
        for flag, values in (
            ("--set", self.settings),
            ("--as", [self.called] if self.called else []),
            ("--only", self.only),
        ):
            words += [w for value in values for w in (flag, shlex.quote(without_password(value)))]
        words += ["--executor", self.executor] if self.executor else []
        return words + ["--wait"] * self.wait + ["--retry-failed"] * self.retry_failed

    @property
    def again(self) -> str:
        """The command that continues it, in the words the user started it with."""
        extra = self.command[4:]
        if "MAKELEVEL" not in os.environ:
            return " ".join(self.command)
        return f"make study NAME={self.name}" + (f" ARGS={for_make(' '.join(extra))}" if extra else "")

    def continued_by(self, *, retry: bool) -> str:
        """The command that continues it; with `retry`, also what failed."""
        return replace(self, retry_failed=True).again if retry else self.again


def for_make(words: str) -> str:
    """Words of a shell as the value of ARGS: make reads `$$` as a dollar, and a shell reads the whole before
    make does."""
    text = words.replace("$", "$$")
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
