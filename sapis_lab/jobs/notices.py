"""What a point wants people to know though it goes on, such as a kernel that could not be built: from its
process to the screen.

Every `Notice` (a warning) that the process of a point gives goes into its log, like all warnings, and as a
line into `notices.txt` beside it, wherever it runs. Who runs the points looks there, and says the same words
once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sapis_lab.errors import ConfigError, Notice
from sapis_lab.files import read_text, write_text

NOTICES = "notices.txt"


def keep_notices(folder: Path) -> None:
    """From now on the notices of this process are kept in the folder of its point; those of an earlier
    process are removed."""
    path, lines, usual = folder / NOTICES, list[str](), warnings.showwarning
    path.unlink(missing_ok=True)

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        usual(message, category, *rest, **named)
        if issubclass(category, Notice):
            lines.append(" ".join(str(message).split()))
            try:
                write_text(path, "".join(f"{line}\n" for line in lines), durable=False)
            except OSError:  # the log has it, and the disk will be told where it matters
                return

    warnings.showwarning = show


@dataclass
class Notices:
    """What points have to say that was not said before."""

    said: set[str] = field(default_factory=set)

    def new(self, folder: Path) -> list[str]:
        """The notices of the point in `folder` that no point has given yet."""
        try:
            lines = read_text(folder / NOTICES, limit=100_000).splitlines()
        except ConfigError:
            return []
        found = [line for line in dict.fromkeys(lines) if line not in self.said]
        self.said |= set(found)
        return found
