"""The tiny study of these tests, and what was found of its points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sapis_lab.selftest._project import Project

NAME = "tiny"


def scores(project: Project, id: str, label: str) -> dict[str, float]:
    """The scores in a point's `evaluation/LABEL.json`."""
    path = project.folder / "points" / id / "evaluation" / f"{label}.json"
    return json.loads(path.read_text())["scores"]


class Forked:
    """Runs `sapis WORDS`, each in a fork of a process that has imported everything."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        path = os.pathsep.join(filter(None, [str(here.parents[2]), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, str(here.parents[1] / "faults" / "forked_sapis.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._answer() == {"ready": True}

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self, *words: str, home: Path) -> tuple[int | None, str]:
        """Exit status and output."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"words": words, "home": str(home), "timeout": 300}) + "\n")
        self.process.stdin.flush()
        said = self._answer()
        return said["status"], said["output"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
