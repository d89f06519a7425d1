"""Shared by all tests: one thread per process, and projects that live in a temporary folder."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch or numpy

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def not_under_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are told in the words of `sapis`, also where `make test` runs the tests."""
    monkeypatch.delenv("MAKELEVEL", raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the configs and studies of this one, as $SAPIS_HOME."""
    for folder in ("configs", "studies"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    monkeypatch.setenv("SAPIS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def sapis(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `sapis` with arguments in `project`; the completed process, with its output as text."""

    def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sapis_lab.cli", *arguments]
        return subprocess.run(
            command,
            cwd=project,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
