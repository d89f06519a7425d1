"""What every dataset must pass before its store is sealed: checks that each give findings, passed, failed,
suspect or not checked, with the reason and the numbers that were measured.

One module for each kind of fault; `_run` holds their order. A failure names the file and the frame, what
was found and what is wanted. Every check works in chunks or on a sample: a store may be larger than memory.
"""

from sapis_lab.data._checks._finding import Finding, Subject, Where
from sapis_lab.data._checks._run import (
    VERSION,
    check_store,
    collecting,
    findings,
    is_collecting,
    refuse,
    worst,
)

__all__ = [
    "VERSION",
    "Finding",
    "Subject",
    "Where",
    "check_store",
    "collecting",
    "findings",
    "is_collecting",
    "refuse",
    "worst",
]
