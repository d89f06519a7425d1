"""Versions of packages are listed in one place."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from sapis_lab import packages
from sapis_lab.packages import OF_A_POINT, OF_A_STUDY, versions


def test_what_is_not_installed_has_no_version():
    assert versions(["numpy", "no-such-package-here"]) == {"numpy": version("numpy")}


def test_what_a_point_rests_on_is_installed():
    assert tuple(versions(OF_A_POINT)) == OF_A_POINT == OF_A_STUDY[: len(OF_A_POINT)]


def test_versions_are_asked_for_in_one_place():
    """Peer codes are in environments of their own, whose versions the process there asks for."""
    package = Path(packages.__file__).parent
    askers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"importlib\.metadata(\.version| import .*\bversion\b)", path.read_text())
    }
    assert askers == {"packages.py", "bench/accuracy_run.py"}
