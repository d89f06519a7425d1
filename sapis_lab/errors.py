"""The errors that end a command with one line instead of a traceback, and the warning that people must see.

They are printed, logged and kept in files, and say what was given: whatever their message holds, it holds no
password. No outside package is imported here.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from sapis_lab.text import without_password


class ConfigError(ValueError):
    """A setting or a file that cannot be used; the message names file, field, what it got and what it
    wanted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(without_password(a) if isinstance(a, str) else a for a in args))


class MissingFile(ConfigError, FileNotFoundError):
    """A file that is not there."""


class DiskError(ConfigError):
    """A disk that does not take or give what it should: full, read-only, without permission, broken. The
    message says what to do."""


class Notice(RuntimeWarning):
    """A warning that is meant for people: it stands in the log of the point that gave it and, once, on the
    screen of who runs points."""


_ADVICE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota of that disk",
    errno.EFBIG: "allow larger files there",
    errno.EISDIR: "remove that folder, which is in the place of a file",
    errno.EROFS: "make that folder writable",
    errno.EACCES: "give this user the right to use it",
    errno.EPERM: "give this user the right to use it",
    errno.EIO: "see to that disk",
    errno.EMFILE: "allow this user more open files (ulimit -n)",
    errno.ENFILE: "allow this machine more open files",
}


def disk_advice(error: OSError) -> str | None:
    """What to do about an error of the disk ("make room on that disk"); None for any other OSError."""
    return _ADVICE.get(error.errno or 0)


def disk_error(
    error: OSError, *, about: Path | str = "", then: str = "and run the same command again to continue"
) -> DiskError | None:
    """The error of the disk in one line: path, what happened, what to do; None for any other OSError.

    Args:
        about: the path to name where the error names none.   then: what follows the advice.
    """
    advice = disk_advice(error)
    if advice is None:
        return None
    place = error.filename if isinstance(error.filename, str) else about
    return DiskError(f"{f'{place}: ' if place else ''}{error.strerror}; {advice} {then}".strip())
